"""The plan of `prepare`: the sources of a task in the order they are tried, the folder of the result, and the cost."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rich.filesize import decimal

from lra_bench.data.download import fetch, newest_of, sha256_of, size_of
from lra_bench.data.manifest import FILE, RawFile
from lra_bench.data.raw.archive import need_regular
from lra_bench.datasource import DataSource, Generator, Origin, Request, bytes_per_example, parse_size
from lra_bench.errors import UserError
from lra_bench.paths import data_folder, expanded, home
from lra_bench.registry import TaskModule, task_module
from lra_bench.spec import Protocol, Source, unknown

Choice = Literal["official", "mirror", "generated"]
"""The source kinds that `--source` accepts. Only sources of this kind are then tried."""

WRITE_SECONDS_PER_EXAMPLE = 1.2e-4
WRITE_SECONDS_PER_BYTE = 1.5e-8
"""The seconds for packing, hashing and writing the TFDS dataset on one core: per example, plus per byte.

Both were measured on ListOps and Path-X.
"""


IDENTITY = 8
"""The number of hex digits that distinguish a user's copies in the names of their folders."""


@dataclass(frozen=True)
class SourceAttempt:
    """One source to try: the user's `path`, an `origin` to download from, or a `generator`.

    Exactly one of the three is set.
    """

    source: Source
    """The source kind."""
    name: str
    """The name of the prepared folder."""
    text: str
    """The file, server or generator in words, for messages and the manifest."""
    path: Path | None = None
    origin: Origin | None = None
    generator: Generator | None = None


@dataclass(frozen=True)
class SourcePlan:
    """One source of a `PreparePlan`, with its cost."""

    text: str
    download_bytes: int | None
    """The bytes to download; None if their number is not known, 0 if there is no download."""
    seconds: float
    """The seconds of work besides the download."""

    def line(self) -> str:
        """Return the source and its cost as one line of text."""
        after = "" if self.download_bytes == 0 else " after the download"
        size = f", {decimal(self.download_bytes)}" if self.download_bytes else ""
        return f"{self.text}{size}: about {_duration(self.seconds)}{after}"


@dataclass(frozen=True)
class PreparePlan:
    """A plan for `--dry-run`. Nothing of it was fetched or made."""

    task: str
    folder: Path
    done: bool
    """Whether the set is already prepared."""
    sources: list[SourcePlan]
    """The sources in the order in which they would be tried."""
    disk_bytes: int
    """The largest possible size of packed arrays and TFDS dataset together. Downloads are not counted."""

    def lines(self) -> list[str]:
        """Return the plan as lines of text."""
        if self.done:
            return [f"{self.task}: already prepared in {self.folder}"]
        return [
            f"{self.task}: up to {decimal(self.disk_bytes)} in {self.folder.parent}",
            *(f"  {'else' if number else 'from'} {source.line()}" for number, source in enumerate(self.sources)),
        ]


def _duration(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def request_for(protocol: str, size: str | int, seed: int, val_fraction: float | None) -> Request:
    """Check the options that were typed and return them as a request. Raises UserError for a bad one."""
    if protocol not in get_args(Protocol):
        raise unknown("protocol", protocol, get_args(Protocol))
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed takes a number from 0 to 2^63 - 1; got {seed}.")
    if val_fraction is not None and not 0 < val_fraction <= 0.5:
        raise UserError(f"--val-fraction takes a share above 0 and up to 0.5; got {val_fraction}.")
    return Request(protocol, parse_size(size), seed, val_fraction)  # type: ignore[arg-type]  # checked above


def folder_name(request: Request, source: Source, identity: str = "") -> str:
    """Return the name of a prepared folder, such as `s4-generated-full-0`.

    It holds protocol, source kind and size, and where they apply the validation fraction, the seed and `identity`,
    which distinguishes a user's copies.
    """
    parts = [request.protocol, source, str(request.size)]
    if request.val_fraction is not None:
        parts.append(f"val{request.val_fraction}")
    if source == "generated":
        parts.append(str(request.seed))
    return "-".join([*parts, identity]) if identity else "-".join(parts)


def attempts_for(
    task: str, request: Request, source_path: str | os.PathLike[str] | None, only: str | None
) -> list[SourceAttempt]:
    """Return the sources to try, in order: the user's copy alone, or official, mirrors, generator.

    A smaller size is made by the generator if there is one, so that 100 examples do not cost a download of 8 GB. `only`
    is the value of `--source`. Raises UserError if no source is left to try.
    """
    module = task_module(task)
    data = module.DATA
    if only is not None and only not in get_args(Choice):
        raise unknown("source", only, get_args(Choice))
    if source_path is not None:
        if only is not None:
            raise UserError("--from names a copy of yours; leave --source out.")
        return [_user_attempt(data, request, Path(source_path))]
    generator = None if only in ("official", "mirror") else data.generator(request)
    origins = [] if generator is not None and request.size != "full" else data.origins
    attempts = [
        SourceAttempt(origin.kind, folder_name(request, origin.kind), f"{origin.name} ({origin.note})", origin=origin)
        for origin in origins
        if only in (None, origin.kind)
    ]
    if generator is not None:
        differs = (
            f" ({module.TASK.generated_differs})" if module.TASK.generated_differs and request.size != "tiny" else ""
        )
        text = f"lra-bench's own generator, seed {request.seed}{differs}"
        attempts.append(SourceAttempt("generated", folder_name(request, "generated"), text, generator=generator))
    if not attempts:
        asked = f" from --source {only}" if only else ""
        raise UserError(
            f"{task} cannot be had{asked} with protocol {request.protocol} and size {request.size}. "
            f"Give your own copy: lra-bench prepare {task} --from PATH"
        )
    return attempts


def _user_attempt(data: DataSource, request: Request, path: Path) -> SourceAttempt:
    """Return the attempt for the user's copy.

    A copy that is byte for byte a published file has that file's source kind, where all of it is one file. Any other
    copy has the source kind `user`.
    """
    path = expanded(path)
    if not path.name.isprintable():
        raise UserError(f"--from: the name {path.name!r} holds characters that cannot be printed. Rename it.")
    if not path.exists():
        raise UserError(f"--from: {path} does not exist. Give an archive, or the folder it was extracted to.")
    located = data.locate(path)
    for file in located:
        if not file.is_dir():
            need_regular(file)
    pinned = {file.sha256: origin for origin in data.origins for file in origin.files if len(origin.files) == 1}
    sizes = {file.size for origin in data.origins for file in origin.files if file.sha256}
    if len(located) == 1 and located[0].stat().st_size in sizes:
        origin = pinned.get(sha256_of(located[0]))
        if origin is not None:
            return SourceAttempt(origin.kind, folder_name(request, origin.kind), f"{origin.name}, your copy", path=path)
    # Path, size and time identify a copy without reading it, so that a changed copy becomes another prepared set.
    marks = [(str(file), size_of(file), newest_of(file)) for file in located]
    identity = hashlib.sha256(repr(marks).encode()).hexdigest()[:IDENTITY]
    return SourceAttempt("user", folder_name(request, "user", identity), f"your copy, {path.name}", path=path)


def copies_of(task: str, request: Request) -> list[Path]:
    """Return the prepared folders of the user's own copies that a request fits, sorted by name."""
    pattern = folder_name(request, "user", "?" * IDENTITY)
    return sorted(path.parent for path in (data_folder() / task).glob(f"{pattern}/{FILE}"))


def obtain(attempt: SourceAttempt, data: DataSource) -> tuple[Path, list[RawFile]]:
    """Get the raw files onto this machine.

    Returns the path for `DataSource.read` and the manifest's entries. Raises WorkError if a download fails.
    """
    if attempt.path is not None:
        located = data.locate(attempt.path)
        return attempt.path, [
            RawFile(name=file.name, bytes=size_of(file), sha256=sha256_of(file), url=None) for file in located
        ]
    assert attempt.origin is not None
    folder = home() / "downloads" / hashlib.sha256(attempt.origin.files[0].url.encode()).hexdigest()[:8]
    fetched = [fetch(file, folder) for file in attempt.origin.files]
    raw = [RawFile(name=have.path.name, bytes=have.size, sha256=have.sha256, url=have.url) for have in fetched]
    return fetched[0].path if len(fetched) == 1 else folder, raw


def plan_for(
    task: str,
    *,
    source_path: str | os.PathLike[str] | None = None,
    protocol: str = "s4",
    size: str | int = "full",
    seed: int = 0,
    jobs: int = 1,
    val_fraction: float | None = None,
    source: str | None = None,
) -> PreparePlan:
    """Return the plan of `prepare` with the same arguments. Nothing is fetched or made."""
    module = task_module(task)
    request = request_for(protocol, size, seed, val_fraction)
    attempts = attempts_for(task, request, source_path, source)
    folders = [data_folder() / task / attempt.name for attempt in attempts]
    done = next((folder for folder in folders if (folder / FILE).exists()), None)
    total, row = _volume(module, request, attempts[0])
    writing = total * (WRITE_SECONDS_PER_EXAMPLE + row * WRITE_SECONDS_PER_BYTE)
    sources = [
        SourcePlan(attempt.text, _download_bytes(attempt), writing + _making(attempt, total, jobs))
        for attempt in attempts
    ]
    return PreparePlan(task, done or folders[0], done is not None, sources, disk_bytes=2 * total * row)


def _making(attempt: SourceAttempt, total: int, jobs: int) -> float:
    """Return the seconds that the generator takes, 0 without one."""
    return total * attempt.generator.seconds_per_example / jobs if attempt.generator else 0.0


def _download_bytes(attempt: SourceAttempt) -> int | None:
    if attempt.origin is None:
        return 0
    sizes = [file.size for file in attempt.origin.files]
    return None if None in sizes else sum(size for size in sizes if size)


def _volume(module: TaskModule, request: Request, attempt: SourceAttempt) -> tuple[int, int]:
    """Return the number of examples and the bytes of one packed example.

    The published values are used where the true ones are known only after reading the files.
    """
    if attempt.generator is not None:
        return attempt.generator.layout.total, bytes_per_example(attempt.generator.layout)
    task = module.TASK
    total = request.size if isinstance(request.size, int) else sum(task.splits.values())
    return total, task.documents * (task.channels * task.length + 4) + 4


def partial_of(folder: Path) -> Path:
    """Return the folder in which a prepared folder is built before it gets its name."""
    return folder.with_name(f".{folder.name}.partial")
