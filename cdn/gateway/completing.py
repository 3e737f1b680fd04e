"""Completing what is stored in part (RFC 9111 §3.3, §3.4).

Strategy: to a fill, a part at hand and its rest from upstream are one response like any other. They
are joined only under one strong entity tag.
"""

from __future__ import annotations

from cdn.semantics.message import Response
from cdn.semantics.ranges import ByteRange, parse_content_range
from cdn.storage.store import SliceUnavailable, StoredContent, StoredObject
from cdn.upstream.errors import BodyCutShort
from cdn.upstream.exchange import UpstreamResponse


def is_rest(head: Response, etag: str | None, position: int, stop: int | None) -> bool:
    """Whether a response is bytes [position, stop) of what has this strong entity tag; `stop`
    None: to the end."""
    part = parse_content_range(head.fields.get("content-range"))
    return (
        etag is not None
        and head.status == 206
        and part is not None
        and part[0].start == position
        and part[0].stop == (part[1] if stop is None else stop)
        and head.fields.get("etag") == etag
    )


class Completed:
    """An `UpstreamResponse`: what is stored of `part` from its beginning, then `rest`."""

    def __init__(self, part: StoredObject, rest: UpstreamResponse) -> None:
        present = part.response.present
        assert isinstance(present, ByteRange)
        assert present.start == 0
        self._rest = rest
        self._part: StoredContent | None = part.open([ByteRange(0, present.stop)])
        self._present = present.stop
        # RFC 9111 §3.4: the new fields count, but for Content-Range.
        fields = rest.head.fields.without({"content-range"})
        self.head = Response(200, fields, "OK")

    @property
    def length(self) -> int | None:
        return None if self._rest.length is None else self._present + self._rest.length

    @property
    def source(self) -> str:
        return self._rest.source

    async def read(self) -> bytes:
        """See `UpstreamResponse.read`. Raises BodyCutShort, also for what the store has lost."""
        if self._part is not None:
            try:
                if piece := await self._part.read():
                    return bytes(piece)
            except SliceUnavailable as error:
                raise BodyCutShort("the store", str(error)) from error
            self._part = None
        return await self._rest.read()

    def abort(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.abort()
        self._rest.abort()
