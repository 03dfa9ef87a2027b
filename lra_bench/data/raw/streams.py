"""The streams under a tar: xz in bounded memory, headers of bounded length, and no end that is none."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path
from typing import IO, Any

MEMORY = 256 << 20
"""The number of bytes that unpacking an xz file may take. The preset -9 takes 65 MiB; the format permits 4 GiB."""

HEADERS = 1 << 20
"""The number of bytes that all headers of one member of a tar may take together. tarfile holds them in memory."""

CHUNK = 1 << 16
"""The number of compressed bytes that are read at a time."""


class XzStream(io.RawIOBase):
    """The unpacked bytes of an xz file, of one or more streams.

    `lzma.LZMAFile` would give the file as much memory as it asks for. Raises lzma.LZMAError where it asks for more than
    `MEMORY`, and EOFError where it is cut short.
    """

    def __init__(self, path: Path) -> None:
        """Open the file `path`."""
        self._file = path.open("rb")
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the beginning of `buffer`; return the number of bytes, 0 at the end."""
        while True:
            packed = b""
            if self._decoder.eof:
                packed = self._following()
                if not packed:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)
            elif self._decoder.needs_input:
                packed = self._file.read(CHUNK)
                if not packed:
                    raise EOFError("the file ends before its end mark")
            data = self._decoder.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)

    def _following(self) -> bytes:
        """Return the beginning of the next stream, without the zeros before it; empty at the end of the file."""
        packed = self._decoder.unused_data.lstrip(b"\0")
        while not packed and (piece := self._file.read(CHUNK)):
            packed = piece.lstrip(b"\0")
        return packed

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class TarStream:
    """A stream that counts what it gives to tarfile, so that headers cannot fill the memory.

    `limit` is the position beyond which no byte is given; None while the content of a member is read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Read from `stream`. The first header may take `HEADERS` bytes."""
        self._stream, self._position = stream, 0
        self.limit: int | None = HEADERS

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises tarfile.ReadError beyond the limit."""
        if self.limit is not None and self._position > self.limit:
            raise tarfile.ReadError("its headers are too long")
        data = self._stream.read(size) or b""
        self._position += len(data)
        return data

    def drain(self, most: int) -> None:
        """Read to the end, which must come within `most` bytes. Raises tarfile.ReadError if it does not."""
        self.limit = self._position + most
        while self.read(1 << 20):
            pass


class StrictTarInfo(tarfile.TarInfo):
    """A header of a tar, of which every damage is an error.

    tarfile itself takes a damaged header, or a missing one, for the end of the archive, except at its beginning.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> StrictTarInfo:
        """Return the header in the 512 bytes `buf`. Raises tarfile.ReadError if it is damaged or missing."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}") from None
