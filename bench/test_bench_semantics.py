"""Micro-benchmarks of the rules that every request passes: ranges to slices, and the decision."""

from cdn.semantics.message import Fields, Request, Response
from cdn.semantics.policy import CachePolicy
from cdn.semantics.ranges import parse_range, slices_for
from cdn.semantics.reuse import Forward, Hit, decide
from cdn.semantics.stored_response import StoredResponse, make_stored_response
from cdn.semantics.storing import storable_fields

NOW = 1_767_225_600.0
POLICY = CachePolicy()


def request(*fields: tuple[str, str]) -> Request:
    lines = (("Host", "films.example"), ("User-Agent", "bench"), *fields)
    return Request("GET", "http", "films.example", "/film.mp4", Fields(lines))


def stored() -> StoredResponse:
    fields = Fields(
        (
            ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
            ("Cache-Control", "public, max-age=3600, stale-while-revalidate=60"),
            ("ETag", '"abc"'),
            ("Content-Type", "video/mp4"),
        )
    )
    return make_stored_response(
        primary_key=b"http://films.example/film.mp4",
        variant=(),
        response=Response(200, fields),
        fields=storable_fields(fields),
        request_time=NOW,
        response_time=NOW,
        length=1 << 30,
    )


def test_one_range_to_slices(benchmark):
    def slices() -> range:
        (part,) = parse_range("bytes=734003200-735051775", 1 << 30)
        return slices_for(part)

    assert list(benchmark(slices)) == [700]


def test_four_ranges_to_slices(benchmark):
    value = "bytes=0-99, 1048576-2097151, 5000000-5000099, -1"

    def slices() -> list[range]:
        return [slices_for(part) for part in parse_range(value, 1 << 30)]

    assert len(benchmark(slices)) == 4


def test_decide_hit(benchmark):
    response, asked = stored(), request()
    assert isinstance(benchmark(decide, asked, response, POLICY, NOW + 60), Hit)


def test_decide_hit_with_request_directives(benchmark):
    response, asked = stored(), request(("Cache-Control", "max-age=600"))
    assert isinstance(benchmark(decide, asked, response, POLICY, NOW + 60), Hit)


def test_decide_miss(benchmark):
    asked = request()
    assert isinstance(benchmark(decide, asked, None, POLICY, NOW), Forward)
