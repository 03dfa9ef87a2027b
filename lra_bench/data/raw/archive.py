"""Read files out of a folder, a tar (plain or compressed, whatever its name) or a zip, in one pass, unpacking none."""

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
"""Is this file, by its path inside the archive or folder (`a/b/c.txt`), to be read?"""

_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError)
TAR_BUFFER = 20 * 512
"""tarfile copies what is left of its buffer at every read of a header, so a large one costs more than it saves."""

_TAR_MAGIC = slice(257, 262)


def files(source: Path, wanted: Wanted, skip: Wanted = lambda folder: False) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and open content of each wanted file of `source`, an archive or a folder; a content ends at the next step.

    The order is the archive's own, sorted by path for a folder; archives are told by their first bytes, not by their
    name. `skip` prunes folders of a folder (an archive has to be read through anyway). An archive is never unpacked, so
    nothing in it can write outside; still, one with an absolute path, with `..`, or with a link in the place of a
    wanted file is refused. Raises UserError then, and for what is missing, damaged, cut short or no archive.
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
    """A member's bytes; damage that shows only when they are read is told like the rest."""

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
        if real in seen:  # a link back up, or twice to the same place
            folders.clear()
            continue
        seen.add(real)
        inside = PurePosixPath(Path(folder).relative_to(root))
        folders[:] = sorted(name for name in folders if not skip(str(inside / name)))
        for name in sorted(names):
            if wanted(str(inside / name)):
                with open(os.path.join(folder, name), "rb") as content:
                    yield str(inside / name), content


def _tar(path: Path, head: bytes, wanted: Wanted) -> Iterator[tuple[str, IO[bytes]]]:
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None and head[_TAR_MAGIC] != b"ustar":
        raise UserError(f"{path} is neither a tar (plain, gzip, bzip2, xz) nor a zip archive nor a folder.")
    with ExitStack() as stack:
        # Not tarfile's own "r|gz": it takes the end of a cut gzip stream for the end of the archive.
        stream = stack.enter_context(opener(path) if opener else path.open("rb"))
        tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", bufsize=TAR_BUFFER))
        while (member := tar.next()) is not None:
            # tarfile remembers every header, which is gigabytes for the millions of files in LRA's archive.
            tar.members.clear()  # type: ignore[attr-defined]
            name = _checked(path, member.name)
            if not wanted(name):
                continue
            if member.issym() or member.islnk():
                raise _refused(path, member.name, "is a link")
            content = tar.extractfile(member)
            if content is not None:
                yield name, content
        while stream.read(1 << 20):  # to the end, where gzip keeps its checksum
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
    """The member's name without `./`, if it stays inside the archive."""
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or name[1:2] == ":":
        raise _refused(path, name, "is an absolute path")
    if ".." in pure.parts:
        raise _refused(path, name, "leads out of the archive")
    return str(pure)


def _refused(path: Path, name: str, reason: str) -> UserError:
    return UserError(f"{path} is refused: its member {name!r} {reason}. Use an archive you trust.")
