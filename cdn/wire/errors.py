"""The rim's own answers: what the client did wrong, and the mend.

Strategy: whatever refuses a request raises one exception that carries status, reason and sentence;
one function makes an answer of it. The sentences are constants of ours, never the client's bytes,
so nothing that a client sends comes back in a field.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from cdn.gateway.exchange import Answer, Outcome
from cdn.semantics.message import FieldLine, Fields, Response


class RequestError(Exception):
    """The client's request is refused and its connection closed.

    `reason` names the kind for counters ("framing", "host", …); `detail` is one ASCII line for the
    client: what is wrong and the mend. `fields` go onto the answer (405 needs Allow).
    """

    def __init__(
        self, status: int, reason: str, detail: str, fields: tuple[FieldLine, ...] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.fields = fields


@dataclass(frozen=True, slots=True)
class ErrorAnswers:
    """Makes the rim's answers. `name` is the node's (a token); `date` gives an IMF-fixdate."""

    name: str
    date: Callable[[], str]

    def refusal(self, fault: RequestError) -> Answer:
        """The answer to a request that was refused here: the client's fault."""
        return self._answer(fault.status, "http_request_error", fault.detail, fault.fields)

    def internal(self) -> Answer:
        """The answer where the handler itself broke: our fault, told without its inside."""
        detail = "the node failed on this request; try again, and tell its operator if it stays"
        return self._answer(500, "proxy_internal_error", detail, ())

    def _answer(
        self, status: int, error: str, detail: str, fields: tuple[FieldLine, ...]
    ) -> Answer:
        content = f"{status} {HTTPStatus(status).phrase}: {detail}\n".encode("ascii")
        # RFC 9651 §4.1.6: an sf-string escapes these two and is ASCII otherwise.
        quoted = detail.replace("\\", "\\\\").replace('"', '\\"')
        head = Response(
            status,
            Fields(
                (
                    ("Date", self.date()),
                    ("Content-Type", "text/plain; charset=utf-8"),
                    ("Cache-Control", "no-store"),
                    # RFC 9209 §2.3: an intermediary says which error it made and why.
                    ("Proxy-Status", f'{self.name}; error={error}; details="{quoted}"'),
                    *fields,
                )
            ),
        )
        return Answer(head, (content,), len(content), Outcome(error=error), close=True)
