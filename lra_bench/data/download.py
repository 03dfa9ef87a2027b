"""Download of one file with resumption, retries and verification.

A file gets its final name last, so a file with that name is always whole and checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3

from lra_bench.data.certificates import check_certificates
from lra_bench.data.raw.archive import walk
from lra_bench.datasource import RemoteFile
from lra_bench.errors import UserError, WorkError, disk_error
from lra_bench.json_files import read_json
from lra_bench.paths import locked, write_atomically
from lra_bench.progress import Progress, print_line

CHUNK = 1 << 20
"""The number of bytes that are read at a time."""

TIMEOUT = (15.0, 60.0)
"""The seconds to wait for a connection, and for the next piece of an answer."""

ATTEMPTS = 6
"""The number of tries in a row without a new byte after which the download is given up."""

BACKOFF = 1.0
"""The seconds before the second try. They are doubled for each further one, up to `LONGEST_WAIT`."""

LONGEST_WAIT = 60.0
"""The largest number of seconds between two tries."""

ATTEMPTS_TO_REACH = 3
"""The number of tries in a row without any answer after which the download is given up.

More tries rarely help, and there may be another source.
"""

# The HTTP statuses after which another try may succeed.
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_NO_CONTENT = re.compile(rb"\s*(<!doctype html|<html|<\?xml)", re.IGNORECASE)
_PAGES = ("text/html", "application/xhtml+xml")
_TRANSFER_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class Fetched:
    """A downloaded file that is whole and checked; `size` is in bytes and `sha256` in hex."""

    path: Path
    url: str
    size: int
    sha256: str


class _TryAgain(Exception):
    """A failure of one try that another try may not have.

    `wait` is the least number of seconds before the next try. `answered` is False if the server did not answer at all.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, answered: bool = True) -> None:
        super().__init__(reason)
        self.wait, self.answered = wait, answered


@dataclass(frozen=True)
class _Partial:
    """The description of the file that `NAME.part` is the beginning of.

    `validator` is the server's own name for that version of the file (RFC 9110 §13.1.5). `total` is its size in bytes.
    """

    url: str
    validator: str
    total: int | None


def fetch(file: RemoteFile, folder: Path, *, backoff: float = BACKOFF) -> Fetched:
    """Download `file` into `folder` unless it is there with the bytes that were downloaded.

    A second process that needs the same file waits for the first. Bytes are written to `NAME.part`. A later call
    continues that part if the server can prove that it still has the same file (Range with If-Range). Size and SHA-256
    are checked before the part gets its final name, and `NAME.json` beside it records both. `backoff` is in seconds.
    Raises WorkError with one sentence if the server refuses, sends another file or a web page, or fails repeatedly, or
    if the disk is full. There is no file with the final name then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    with locked(folder / f".{file.name}.lock", on_busy=lambda: None):
        have = _already_here(target, file)
        while have is None:
            from_scratch = not _size(_part_path(target))
            _download(file, target, backoff)
            have = _check_and_name(file, target, last_try=from_scratch)
        return have


def _already_here(target: Path, file: RemoteFile) -> Fetched | None:
    """Return the file of an earlier call if its record agrees with the file on disk and with `file`; else None.

    The file is read to its end, because a disk can change bytes without changing the size.
    """
    try:
        record = read_json(_record_path(target))
        have = Fetched(target, str(record["url"]), int(record["size"]), str(record["sha256"]))
        size = target.stat().st_size
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return None
    if have.url != file.url or file.size not in (None, have.size) or file.sha256 not in (None, have.sha256):
        return None
    if size != have.size or not target.is_file() or sha256_of(target) != have.sha256:
        print_line(f"{target} is not what was downloaded; it is fetched again.")
        return None
    return have


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _part_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _partial_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _download(file: RemoteFile, target: Path, backoff: float) -> None:
    """Fill `NAME.part` completely, over as many connections as are needed.

    Only tries that bring no new byte count as failures. Raises WorkError after too many of them.
    """
    check_certificates(file.url)
    furthest = failures = 0
    with requests.Session() as session, Progress(file.name, total=file.size, unit="B") as progress:
        while True:
            try:
                return _one_connection(session, file, target, progress)
            except _TryAgain as failure:
                reached = _size(_part_path(target))
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                if failures >= (ATTEMPTS if failure.answered else ATTEMPTS_TO_REACH):
                    raise WorkError(f"{file.url}: {failure}, {failures} times in a row; gave up for now.") from None
                wait = min(max(backoff * 2 ** (failures - 1), failure.wait), LONGEST_WAIT)
                progress.log(f"{failure}; next try in {wait:.0f} s")
                time.sleep(wait)


def _one_connection(session: requests.Session, file: RemoteFile, target: Path, progress: Progress) -> None:
    """Make one request, which continues `NAME.part` if that is safe.

    Returns when the part is complete. Otherwise raises `_TryAgain` or WorkError.
    """
    part, partial = _part_path(target), _load_partial(target, file)
    offset = _size(part) if partial else 0
    if partial and offset and offset == partial.total:
        return  # killed before it had its name
    headers = {"Accept-Encoding": "identity"}  # the archive's own bytes, not compressed for the transfer
    if partial and offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": partial.validator}
    try:
        response = session.get(file.url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise _TryAgain(_plain(error), answered=False) from None
    with response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _start_over(target)
            raise _TryAgain("the server has less than what is already here")
        _refuse_errors(response, file)
        resumed = offset > 0 and response.status_code == HTTPStatus.PARTIAL_CONTENT
        total = _total(response, file, offset if resumed else 0)
        if resumed and partial and partial.total not in (None, total):
            _start_over(target)
            raise _TryAgain("the server's file changed")
        if not resumed:
            offset = 0
            _start_over(target)
            _save_partial(target, file, response, total)
        _need_space(target, total, offset)
        progress.at(offset, total)
        _append(response, part, total, progress)


def _append(response: requests.Response, part: Path, total: int | None, progress: Progress) -> None:
    """Append the answer's body to `part`."""
    try:
        with part.open("ab") as out:
            for piece in _pieces(response):
                if out.tell() == 0 and _NO_CONTENT.match(piece):
                    raise WorkError(f"{response.url} answered with a web page instead of the file.")
                out.write(piece)
                progress.advance(len(piece))
            out.flush()
            os.fsync(out.fileno())
    except WorkError:
        part.unlink(missing_ok=True)
        raise
    except OSError as error:
        raise WorkError(disk_error(error, str(part))) from None
    if total is not None and _size(part) < total:
        raise _TryAgain(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it was sent.

    Errors of the network become `_TryAgain`, so that an OSError in the caller is an error of the disk.
    """
    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except _TRANSFER_ERRORS as error:
        raise _TryAgain(_plain(error)) from None


def _refuse_errors(response: requests.Response, file: RemoteFile) -> None:
    status = response.status_code
    name = f"{status} {response.reason or ''}".strip()
    if status in _RETRIED:
        after = response.headers.get("Retry-After", "")
        raise _TryAgain(f"the server answered {name}", wait=float(after) if after.isdigit() else 0.0)
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise WorkError(f"{file.url} answered {name}.")
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() in _PAGES:
        raise WorkError(f"{file.url} answered with a web page instead of the file.")


def _total(response: requests.Response, file: RemoteFile, offset: int) -> int | None:
    """Return the size of the whole file in bytes, from the answer or from `file`; None if neither has it.

    Raises WorkError if the two disagree, or if the end of the answer could not be distinguished from a cut.
    """
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        answered = response.headers.get("Content-Range", "nothing")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answered)
        if match is None or int(match[1]) != offset:
            raise WorkError(f"{file.url} was asked for the bytes from {offset:,} on and answered with {answered}.")
        said: int | None = int(match[2])
    else:
        length = response.headers.get("Content-Length", "")
        said = int(length) if length.isdigit() else None
    if None not in (said, file.size) and said != file.size:
        raise WorkError(f"{file.url} is {said:,} bytes where {file.size:,} are expected: not the same file.")
    if said is None and file.size is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise WorkError(f"{file.url} does not say how long it is, so a cut could not be told from its end.")
    return said if said is not None else file.size


def _load_partial(target: Path, file: RemoteFile) -> _Partial | None:
    try:
        partial = _Partial(**read_json(_partial_path(target)))
    except (UserError, TypeError):
        return None
    return partial if partial.url == file.url and partial.validator else None


def _save_partial(target: Path, file: RemoteFile, response: requests.Response, total: int | None) -> None:
    etag = response.headers.get("ETag", "")
    strong = etag.startswith('"')  # a weak ETag (W/"…") is not allowed in If-Range
    validator = etag if strong else response.headers.get("Last-Modified", "")
    partial = _Partial(file.url, validator, total)
    write_atomically(_partial_path(target), json.dumps(asdict(partial)))


def _start_over(target: Path) -> None:
    """Remove the part and its description, in this order, so that a crash leaves no bytes with a wrong description."""
    _part_path(target).unlink(missing_ok=True)
    _partial_path(target).unlink(missing_ok=True)


def _check_and_name(file: RemoteFile, target: Path, *, last_try: bool) -> Fetched | None:
    """Give the complete part its final name if it is the expected file, else remove it.

    Returns None if another try from the first byte may help. Raises WorkError if this was the last try.
    """
    part = _part_path(target)
    size, digest = _size(part), sha256_of(part)
    wrong = ""
    if file.size not in (None, size):
        wrong = f"{size:,} bytes where {file.size:,} are expected"
    elif file.sha256 not in (None, digest):
        wrong = f"SHA-256 {digest[:12]}… where {str(file.sha256)[:12]}… is expected"
    if wrong:
        _start_over(target)
        if not last_try:  # the bad bytes may be those of an earlier call
            return None
        raise WorkError(f"{file.url} is not the expected file ({wrong}); removed.")
    target.unlink(missing_ok=True)
    write_atomically(_record_path(target), json.dumps({"url": file.url, "size": size, "sha256": digest}, indent=1))
    part.replace(target)
    _partial_path(target).unlink(missing_ok=True)
    return Fetched(target, file.url, size, digest)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 in hex of a file's bytes, or of a folder's listing.

    The listing has the form of `sha256sum` and is sorted by path.
    """
    with Progress(f"SHA-256 of {path.name}", total=size_of(path), unit="B") as progress:
        if path.is_file():
            return _digest(path, progress)
        listing = "".join(
            f"{_digest(file, progress)}  {file.relative_to(path).as_posix()}\n" for file in _files_below(path)
        )
        return hashlib.sha256(os.fsencode(listing)).hexdigest()


def size_of(path: Path) -> int:
    """Return the number of bytes of a file, or of all files below a folder."""
    return sum(_size(file) for file in _files_below(path))


def newest_of(path: Path) -> int:
    """Return the time of the last change of a file, or of any file below a folder, in nanoseconds."""
    return max((file.stat().st_mtime_ns for file in _files_below(path)), default=0)


def _files_below(path: Path) -> list[Path]:
    """Return all files below a folder, sorted by path, also those in linked folders. A file gives itself."""
    if not path.is_dir():
        return [path]
    found = [Path(folder, name) for folder, _, names in walk(path) for name in names]
    return sorted(file for file in found if file.is_file())


def _digest(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as data:
        while piece := data.read(CHUNK):
            digest.update(piece)
            progress.advance(len(piece))
    return digest.hexdigest()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _need_space(target: Path, total: int | None, offset: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if total is not None and free < total - offset:
        need = (total - offset) / 1e9
        raise WorkError(f"{target.name} needs {need:.2f} GB more and {target.parent} has {free / 1e9:.2f} GB free.")


def _plain(error: BaseException) -> str:
    """Return the cause of a failed connection in words instead of a chain of class names."""
    text = f"{type(error).__name__} {error}".lower()
    known = {
        "proxy": "the proxy refused or did not answer",
        "failed to resolve": "the server's name was not found",
        "timed out": "the server did not answer in time",
        "timeout": "the server did not answer in time",
        "refused": "the connection was refused",
        "certificate": "the server's certificate is not valid",
        "incomplete": "the connection was cut",
        "reset": "the connection was cut",
        "aborted": "the connection was cut",
    }
    other = f"the connection failed ({type(error).__name__})"
    return next((words for key, words in known.items() if key in text), other)
