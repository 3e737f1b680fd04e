"""Upstream content handed straight down: for answers that are one client's alone."""

from __future__ import annotations

from collections.abc import Callable

from cdn.gateway.exchange import ContentCutShort
from cdn.upstream.errors import UpstreamError
from cdn.upstream.exchange import UpstreamResponse


class Relayed:
    """A `Content` over one upstream response: at most `limit` bytes of it, after `skip`.
    `cut_short` hears why it ended before its time."""

    __slots__ = ("_cut_short", "_limit", "_response", "_skip")

    def __init__(
        self,
        response: UpstreamResponse,
        cut_short: Callable[[UpstreamError], None],
        skip: int = 0,
        limit: int | None = None,
    ) -> None:
        self._cut_short = cut_short
        self._response = response
        self._skip = skip
        self._limit = limit

    async def read(self) -> bytes:
        """See `Content.read`. Raises ContentCutShort."""
        piece = await self._next()
        while self._skip and piece:
            dropped = min(self._skip, len(piece))
            self._skip -= dropped
            piece = piece[dropped:] or await self._next()
        if self._limit is not None:
            piece = piece[: self._limit]
            self._limit -= len(piece)
            if not self._limit:
                self.abort()
        return piece

    async def _next(self) -> bytes:
        if self._limit == 0:
            return b""
        try:
            return await self._response.read()
        except UpstreamError as error:
            self._cut_short(error)
            raise ContentCutShort(str(error)) from error

    def abort(self) -> None:
        """See `Content.abort`."""
        self._response.abort()
