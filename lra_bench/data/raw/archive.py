"""Reading of files from a folder, a tar (plain or compressed, whatever its name) or a zip.

Everything is read in one pass and nothing is unpacked to the disk.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lra_bench.errors import UserError

Wanted = Callable[[str], bool]
"""A predicate on the path of a file inside the archive or folder (`a/b/c.txt`): whether the file is to be read."""

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""The opener of each compressed tar by its first bytes."""

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
"""The errors by which the standard library reports a damaged archive."""

TAR_BUFFER = 20 * 512
"""The size of tarfile's buffer in bytes.

tarfile copies the rest of its buffer at every read of a header, so a large buffer costs more than it saves.
"""

_TAR_MAGIC = slice(257, 262)
"""The bytes of a tar header that hold `ustar`."""


def files(source: Path, wanted: Wanted, skip: Wanted = lambda _: False) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the open content of each wanted file of `source`, an archive or a folder.

    A content is valid until the next one is yielded. The files of an archive come in its own order, those of a folder
    sorted by path. The kind of an archive is recognized by its first bytes, not by its name. `skip` excludes folders of
    a folder; an archive has to be read to its end anyway. An archive is never unpacked, so none of its members can
    write a file. An archive with an absolute path, with `..`, or with a link instead of a wanted file is refused
    nevertheless. Raises UserError for a refused archive and for a source that is missing, damaged, cut short or of
    another kind.
    """
    if source.is_dir():
        yield from _folder(source, wanted, skip)
        return
    if not source.is_file():
        raise UserError(f"{source} does not exist. Give an archive or the folder it was extracted to.")
    with source.open("rb") as start:
        head = start.read(512)
    members = _zip(source, wanted) if head.startswith(b"PK\x03\x04") else _tar(source, head, wanted)
    try:
        for name, content in members:
            yield name, io.BufferedReader(_Content(content, source), TAR_BUFFER)
    except _DAMAGE as error:
        raise _damaged(source, error) from None


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


def _damaged(source: Path, error: BaseException) -> UserError:
    return UserError(f"{source} is damaged or cut short ({error}). Fetch it again.")


def _folder(root: Path, wanted: Wanted, skip: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a parent folder, or a second link to the same folder
            folders.clear()
            continue
        seen.add(real)
        inside = PurePosixPath(Path(folder).relative_to(root))
        # Assigned in place, because `os.walk` then visits these folders alone.
        folders[:] = sorted(name for name in folders if not skip(str(inside / name)))
        for name in sorted(names):
            if wanted(str(inside / name)):
                with Path(folder, name).open("rb") as content:
                    yield str(inside / name), content


def _tar(path: Path, head: bytes, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None and head[_TAR_MAGIC] != b"ustar":
        raise UserError(f"{path} is neither a tar (plain, gzip, bzip2, xz) nor a zip archive nor a folder.")
    with ExitStack() as stack:
        # The mode is not tarfile's own "r|gz", which takes the end of a cut gzip stream for the end of the archive.
        stream = stack.enter_context(opener(path) if opener else path.open("rb"))
        tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", bufsize=TAR_BUFFER))
        while (member := tar.next()) is not None:
            # tarfile keeps every header, which is gigabytes for the millions of files in LRA's archive.
            tar.members.clear()  # type: ignore[attr-defined]
            name = _checked(path, member.name)
            if not wanted(name):
                continue
            if member.issym() or member.islnk():
                raise _refused(path, member.name, "is a link")
            content = tar.extractfile(member)
            if content is not None:
                yield name, content
        while stream.read(1 << 20):  # read to the end, where gzip has its checksum
            pass


def _zip(path: Path, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _checked(path, info.filename)
            if info.is_dir() or not wanted(name):
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _refused(path, info.filename, "is a link")
            with archive.open(info) as content:
                yield name, content


def _checked(path: Path, name: str) -> str:
    """Return the member's name without `./`. Raises UserError if it leads out of the archive."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or name[1:2] == ":":
        raise _refused(path, name, "is an absolute path")
    if ".." in pure.parts:
        raise _refused(path, name, "leads out of the archive")
    return str(pure)


def _refused(path: Path, name: str, reason: str) -> UserError:
    return UserError(f"{path} is refused: its member {name!r} {reason}. Use an archive you trust.")
