"""Requests, responses and stored responses in one line each, at a moment that stands still."""

from cdn.semantics.http_date import format_http_date
from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.semantics.storing import storable_fields
from cdn.semantics.vary import nominated_fields, variant_key
from tests.kit.clock import START as NOW


def at(seconds: float) -> str:
    """The HTTP-date that many seconds from NOW."""
    return format_http_date(NOW + seconds)


def asking(*lines: tuple[str, str], method: str = "GET", target: str = "/a") -> Request:
    return Request(method, "http", "example.com", target, Fields(lines))


def response(*lines: tuple[str, str], status: int = 200) -> Response:
    """With a Date of NOW, unless it brings its own."""
    fields = Fields(lines)
    dated = fields if "date" in fields else fields.adding(("Date", at(0)))
    return Response(status, dated)


def stored(
    *lines: tuple[str, str],
    status: int = 200,
    request: Request | None = None,
    length: int | None = 10,
    delay: float = 0.0,
    arrived: float = NOW,
) -> StoredResponse:
    """What is kept of `response(*lines)`, whose head came at `arrived`, `delay` after asking."""
    head = response(*lines, status=status)
    asked = request or asking()
    return make_stored_response(
        primary_key=b"http://example.com/a",
        variant=variant_key(nominated_fields(head.fields) or (), asked.fields),
        response=head,
        fields=storable_fields(head.fields),
        request_time=arrived - delay,
        response_time=arrived,
        length=length,
    )
