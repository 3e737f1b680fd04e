"""A request that is on its way before anybody waits for it.

Strategy: on a kept connection a plain request can be written in the call that brought it, and what
comes be dealt with in the call that brings that: no future, no Task. Whoever finds that it takes
more than that takes the exchange over as it is (`taken`, then `result`), as if it had been awaited
from the beginning.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cdn.semantics.message import Response
from cdn.upstream.exchange import UpstreamResponse

if TYPE_CHECKING:
    from cdn.upstream.connection import Connection


class Begun:
    """One exchange. `name` is what the router calls the node that was asked; `response` or `error`
    is what became of it. To its connection it looks like a future."""

    __slots__ = ("_waiter", "connection", "error", "name", "response", "taken")

    def __init__(self) -> None:
        self.name = ""
        self.connection: Connection | None = None
        self.response: UpstreamResponse | None = None
        self.error: BaseException | None = None
        self.taken = False
        self._waiter: asyncio.Future[None] | None = None

    def answered(self) -> None:
        """`response` or `error` has come; not called once it is taken."""
        raise NotImplementedError

    def interim(self, head: Response) -> None:
        """A 1xx head has come."""
        raise NotImplementedError

    # --- the face of a future -------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the head, or an error, has come."""
        return self.response is not None or self.error is not None

    def cancelled(self) -> bool:
        """Giving up closes the connection at once."""
        return False

    def set_result(self, response: UpstreamResponse) -> None:
        """The head has come, with all of its content that came along."""
        self.response = response
        self._tell()

    def set_exception(self, error: BaseException) -> None:
        """No head will come."""
        self.error = error
        self._tell()

    def _tell(self) -> None:
        if not self.taken:
            self.answered()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- taking over ----------------------------------------------------------------------------

    async def result(self) -> UpstreamResponse:
        """Waits for the head of what was taken over. Raises UpstreamError."""
        connection, self.connection = self.connection, None
        try:
            if not self.done():
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        except asyncio.CancelledError:
            self.connection = connection
            self.give_up()
            raise
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response

    def give_up(self) -> None:
        """Nobody wants it any more. No-op once `result` has begun to wait."""
        connection, self.connection = self.connection, None
        self.taken = True  # what its connection still has to tell is for nobody
        if self.response is not None:
            self.response.abort()
        elif connection is not None and self.error is None:
            connection.close()
