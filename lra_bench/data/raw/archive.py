"""Reading of files from a folder, a tar (plain or compressed, whatever its name) or a zip.

Everything is read in one pass, and nothing is unpacked to the disk. An archive takes no more memory than its reader
allows.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from lra_bench.data.raw.streams import HEADERS, StrictTarInfo, TarStream, XzStream
from lra_bench.errors import UserError

Wanted = Callable[[str], bool]
"""A predicate on the path of a file inside the archive or folder (`a/b/c.txt`): whether the file is to be read."""

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": XzStream,
}
"""The opener of each compressed tar by its first bytes."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
"""The first bytes of a zip: of one with members, of an empty one, and of one in several parts."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compression methods of a zip that are read. zipfile unpacks the others without a bound on the memory."""

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    struct.error,
    ValueError,  # a number in a header that is none, an unknown encoding, a negative position
    LookupError,
    OverflowError,
    RuntimeError,  # a chain of headers that is too long, a member that zipfile cannot read
    MemoryError,
    OSError,  # bz2 and zipfile report damage so, without the number of an error of the disk
)
"""The errors by which the standard library reports a damaged archive."""

TAR_BUFFER = 20 * 512
"""The size of tarfile's buffer in bytes.

tarfile copies the rest of its buffer at every read of a header, so a large buffer costs more than it saves.
"""

TAIL = 64 << 20
"""The number of bytes that may follow the end of a tar. Packers fill up their last record with zeros."""

GLOBALS = 100
"""The number of entries that the global headers of a tar may have. tarfile keeps them all."""

_TAR_MAGIC = slice(257, 262)
"""The bytes of a tar header that hold `ustar`."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""The byte order marks of UTF-8, and of UTF-16 and UTF-32."""


def files(source: Path, wanted: Wanted, skip: Wanted = lambda _: False) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the open content of each wanted file of `source`, an archive or a folder.

    A content is valid until the next one is yielded. It may be of any length: read it with `whole` or `lines`. The
    files of an archive come in its own order, those of a folder sorted by path. The kind of an archive is recognized by
    its first bytes, not by its name. `skip` excludes folders of a folder; an archive has to be read to its end anyway.
    An archive is never unpacked, so none of its members can write a file. An archive with an absolute path, with `..`,
    or with a link instead of a wanted file is refused nevertheless. Raises UserError for a refused or encrypted archive
    and for a source that is missing, damaged, cut short or of another kind.
    """
    if source.is_dir():
        yield from _folder(source, wanted, skip)
        return
    need_regular(source)
    with source.open("rb") as start:
        head = start.read(512)
    members = _zip(source, wanted) if head.startswith(_ZIP) else _tar(source, head, wanted)
    try:
        for name, content in members:
            yield name, io.BufferedReader(_Content(content, source), TAR_BUFFER)
    except _DAMAGE as error:
        raise _damaged(source, error) from None


def need_regular(path: Path) -> None:
    """Raise UserError unless `path` is a regular file. A named pipe, for one, would be waited for without an end."""
    if not path.exists():
        raise UserError(f"{path} does not exist. Give an archive or the folder it was extracted to.")
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder. Give an archive or the folder it was extracted to.")


def whole(content: IO[bytes], limit: int, where: str) -> bytes:
    """Return all bytes of a file. Raises UserError beginning with `where` if it has more than `limit`."""
    data = content.read(limit + 1)
    if len(data) > limit:
        raise UserError(f"{where} has more than {limit:,} bytes: it is not the file that its name says.")
    return data


def lines(content: IO[bytes], limit: int, where: str) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, the first one without a byte order mark of UTF-8.

    Raises UserError beginning with `where` for a line of more than `limit` bytes and for a file in UTF-16.
    """
    number = 0
    while line := content.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise UserError(f"{where}, line {number:,}, has more than {limit:,} bytes: it is another kind of file.")
        yield without_mark(line, where) if number == 1 else line


def without_mark(text: bytes, where: str) -> bytes:
    """Return the beginning of a text without a byte order mark of UTF-8.

    Raises UserError beginning with `where` if the mark is that of UTF-16 or UTF-32.
    """
    if text.startswith(_UTF16):
        raise UserError(f"{where} is UTF-16 text, as its byte order mark says. Save it as UTF-8.")
    return text.removeprefix(_BOM)


class _Content(io.RawIOBase):
    """The bytes of one member. Damage that is found only when they are read also becomes a UserError."""

    def __init__(self, content: IO[bytes], source: Path) -> None:
        self._content, self._source = content, source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._content.read(len(buffer))
        except _DAMAGE as error:
            raise _damaged(self._source, error) from None
        buffer[: len(piece)] = piece
        return len(piece)


def _damaged(source: Path, error: Exception) -> UserError:
    """Return the error for a damaged source. Raises an error of the disk again."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        raise error
    reason = " ".join(f"{error}".split())[:200] or type(error).__name__
    return UserError(f"{source} is damaged or cut short ({reason}). Fetch it again.")


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each folder below `root` as `os.walk` does, with linked folders, and each real folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a parent folder, or a second link to the same folder
            folders.clear()
            continue
        seen.add(real)
        folders.sort()  # of two names of one folder, the first is the one on every disk
        yield folder, folders, names


def _folder(root: Path, wanted: Wanted, skip: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    for folder, folders, names in walk(root):
        inside = PurePosixPath(Path(folder).relative_to(root))
        # Assigned in place, because `os.walk` then visits these folders alone.
        folders[:] = sorted(name for name in folders if not skip(str(inside / name)))
        for name in sorted(names):
            if wanted(str(inside / name)):
                _need_printable(root, str(inside / name))
                need_regular(Path(folder, name))
                with Path(folder, name).open("rb") as content:
                    yield str(inside / name), content


def _tar(path: Path, head: bytes, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None and head[_TAR_MAGIC] != b"ustar":
        raise UserError(f"{path} is neither a tar (plain, gzip, bzip2, xz) nor a zip archive nor a folder.")
    with ExitStack() as stack:
        # The mode is not tarfile's own "r|gz", which takes the end of a cut gzip stream for the end of the archive.
        stream = TarStream(stack.enter_context(opener(path) if opener else path.open("rb")))
        tar = stack.enter_context(
            tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=TAR_BUFFER, tarinfo=StrictTarInfo)
        )
        while (member := _next_member(tar, stream)) is not None:
            name = _checked(path, member.name)
            if member.isdir() or not wanted(name):
                continue
            _need_plain(path, member)
            content = tar.extractfile(member)
            if content is not None:
                yield name, content
        stream.drain(TAIL)  # read to the end, where gzip has its checksum


def _next_member(tar: tarfile.TarFile, stream: TarStream) -> tarfile.TarInfo | None:
    """Return the next member, None at the end. Its headers may not be longer than `HEADERS`."""
    stream.limit = tar.offset + HEADERS
    member = tar.next()
    stream.limit = None
    # tarfile keeps every header, which is gigabytes for the millions of files in LRA's archive.
    tar.members.clear()  # type: ignore[attr-defined]
    if len(tar.pax_headers) > GLOBALS:
        raise tarfile.ReadError("its global headers are too long")
    return member


def _need_plain(path: Path, member: tarfile.TarInfo) -> None:
    """Raise UserError if a wanted member of a tar is no plain file."""
    if member.issym() or member.islnk():
        raise _refused(path, member.name, "is a link")
    if not member.isreg() or member.issparse():
        raise _refused(path, member.name, "is no plain file")


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _checked(path, info.filename)
            if info.is_dir() or not wanted(name):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                raise _refused(path, info.filename, "is a link")
            if kind not in (0, stat.S_IFREG):
                raise _refused(path, info.filename, "is no plain file")
            if info.flag_bits & 1:
                raise UserError(f"{path} is encrypted. Unpack it with its password and give the folder.")
            if info.compress_type not in _METHODS:
                raise UserError(
                    f"{path} is compressed by method {info.compress_type} of zip, which is not read; stored (0) and "
                    "deflate (8) are. Unpack it and give the folder."
                )
            with archive.open(info) as content:
                yield name, content


def _checked(path: Path, name: str) -> str:
    """Return the member's name without `./`. Raises UserError if it leads out of the archive."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or name[1:2] == ":":
        raise _refused(path, name, "is an absolute path")
    if ".." in pure.parts:
        raise _refused(path, name, "leads out of the archive")
    _need_printable(path, name)
    return str(pure)


def _need_printable(path: Path, name: str) -> None:
    """Raise UserError for a name with control characters or bytes that are no text, which messages could not show."""
    if not name.isprintable():
        raise _refused(path, name, "has a name that cannot be printed")


def _refused(path: Path, name: str, reason: str) -> UserError:
    shown = name if len(name) <= 100 else f"{name[:100]}…"
    return UserError(f"{path} is refused: its member {shown!r} {reason}. Use an archive you trust.")
