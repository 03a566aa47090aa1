"""The body of a push, taken in piece by piece and never larger than allowed, plain or gzip. Pure."""

from __future__ import annotations

import zlib

from ..exceptions import LiveChannelsError

_GZIP_ONLY = 16 + zlib.MAX_WBITS


class UnknownEncoding(LiveChannelsError, ValueError):
    """Content-Encoding is neither gzip nor identity."""


class BodyTooLarge(LiveChannelsError, ValueError):
    """The body is larger than the server accepts; send smaller batches."""


class BrokenBody(LiveChannelsError, ValueError):
    """The body is not one complete gzip member."""


class Body:
    """Collects a body from the pieces it arrives in; after an error it is of no further use.

    `sent_limit` bounds the compressed bytes, `limit` the plain ones; no more than `limit` bytes are ever
    inflated, whatever a body claims. Raises UnknownEncoding at once, BodyTooLarge and BrokenBody as
    soon as a piece shows it.
    """

    def __init__(self, encoding: str = "", *, limit: int, sent_limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise UnknownEncoding(f"Content-Encoding {encoding[:40]!r} is not supported; use gzip or identity.")
        self._inflater = zlib.decompressobj(_GZIP_ONLY) if encoding.endswith("gzip") else None
        self._limit = limit
        self._sent_limit = sent_limit if self._inflater else limit
        self._sent = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def expect(self, length: int) -> None:
        """Refuse a body that announces a length over the limit. Raises BodyTooLarge."""
        if length > self._sent_limit:
            raise BodyTooLarge(f"The body is larger than {self._sent_limit} bytes; send smaller batches.")

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        self._sent += len(piece)
        self.expect(self._sent)
        if self._inflater is not None:
            piece = self._inflate(self._inflater, piece)
        self._size += len(piece)
        if self._size > self._limit:
            raise BodyTooLarge(f"The body inflates to more than {self._limit} bytes; send smaller batches.")
        self._pieces.append(piece)

    def finish(self) -> bytes:
        """The whole body, once every piece was fed."""
        if self._inflater is not None and not self._inflater.eof and self._sent:
            raise BrokenBody("The gzip body ends too early.")
        return b"".join(self._pieces)

    def _inflate(self, inflater: zlib._Decompress, piece: bytes) -> bytes:
        try:
            inflated = inflater.decompress(piece, self._limit - self._size + 1)
        except zlib.error as error:
            raise BrokenBody(f"The body is not gzip: {error}.") from None
        if inflater.unused_data:
            raise BrokenBody("The gzip body goes on after its end; send one member.")
        return inflated
