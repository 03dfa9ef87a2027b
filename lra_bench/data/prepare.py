"""`prepare`: from a task's name to a folder of packed arrays, a TFDS dataset and a manifest.

Everything is built in `.<name>.partial` and renamed at the end, so nothing half-made is ever trusted. Whatever stops
it, the same call goes on and ends in the same bytes; a second call returns at once; a second process waits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from lra_bench import __version__
from lra_bench.data import build
from lra_bench.data.manifest import FILE, Manifest, RawFile, fingerprint_of, load_manifest
from lra_bench.data.packed import PackedSplit, PackedWriter, describe, majority_share, open_arrays
from lra_bench.data.sources import Attempt, attempts_for, obtain, partial_of, plan_for, request_for, say
from lra_bench.data.tfds_builder import write_dataset
from lra_bench.data.verify import verify as verify_folder
from lra_bench.datasource import Generator, Layout, Reading, Request, bytes_per_example
from lra_bench.errors import UserError, WorkError, disk_error
from lra_bench.paths import data_folder, locked, write_atomically
from lra_bench.registry import task_module
from lra_bench.spec import SPLITS, SplitName, Task

SPARE = 16 << 20
"""Bytes wanted free besides what the set itself takes."""


def prepare(
    task: str,
    *,
    source_path: str | os.PathLike[str] | None = None,
    protocol: str = "s4",
    size: str | int = "full",
    seed: int = 0,
    jobs: int | None = None,
    val_fraction: float | None = None,
    source: str | None = None,
    dry_run: bool = False,
    verify: bool = False,
) -> Path:
    """Get or make one task and return its folder; what happens is told on stderr.

    `source_path` is the user's own copy; else official server, mirrors and generator are tried in this order, `source`
    naming the only kind to try. `jobs` is the number of processes (default: all cores); it never changes the bytes.
    `dry_run` only prints the plan. `verify` reads everything again, also where it was prepared before.
    Raises UserError for bad arguments, wrong files and failed verification, WorkError for downloads and full disks.
    """
    jobs = _jobs(jobs)
    if dry_run:
        plan = plan_for(
            task,
            source_path=source_path,
            protocol=protocol,
            size=size,
            seed=seed,
            jobs=jobs,
            val_fraction=val_fraction,
            source=source,
        )
        for line in plan.lines():
            say(line)
        return plan.folder
    request = request_for(protocol, size, seed, val_fraction)
    attempts = attempts_for(task, request, source_path, source)
    with _disk_errors_in_words(data_folder() / task):
        folder = _already(task, attempts) or _first_that_works(task, request, attempts, jobs)
    if verify:
        for line in verify_folder(folder):
            say(line)
    return folder


def prepare_each(tasks: Sequence[str], **options: Any) -> None:
    """`prepare` one task after another, printing each folder. One that fails does not keep the others from being made.

    Raises what a single task raises; with several, WorkError at the end naming those that failed.
    """
    for task in tasks:
        task_module(task)  # a name that does not exist is said before hours of work on those that do
    failed = []
    for task in tasks:
        try:
            print(prepare(task, **options), flush=True)
        except (UserError, WorkError) as error:
            if len(tasks) == 1:
                raise
            say(f"{task}: {error}")
            failed.append(task)
    if failed:
        raise WorkError(f"{len(failed)} of {len(tasks)} tasks could not be prepared: {', '.join(failed)}; see above.")


def _jobs(jobs: int | None) -> int:
    if jobs is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs < 1:
        raise UserError(f"--jobs takes a number of processes from 1; got {jobs}.")
    return jobs


def _already(task: str, attempts: list[Attempt]) -> Path | None:
    """The folder of the first source that was prepared before, if the task has not changed since."""
    for attempt in attempts:
        folder = data_folder() / task / attempt.name
        if (folder / FILE).exists():
            manifest = load_manifest(folder)
            if manifest.version != task_module(task).TASK.version:
                raise UserError(
                    f"{folder} holds version {manifest.version} of {task}; this lra-bench makes version "
                    f"{task_module(task).TASK.version}. Remove the folder and type the same again."
                )
            say(f"{task}: already prepared ({manifest.source}: {manifest.origin})")
            return folder
    return None


def _first_that_works(task: str, request: Request, attempts: list[Attempt], jobs: int) -> Path:
    """Try the sources in order. Only a failed download leads to the next one."""
    data = task_module(task).DATA
    failures = []
    for number, attempt in enumerate(attempts):
        say(f"{task}: from {attempt.text}")
        try:
            path, raw = (None, []) if attempt.generator else obtain(attempt, data)
        except WorkError as failure:
            failures.append(str(failure))
            following = attempts[number + 1].text if number + 1 < len(attempts) else None
            if following:
                say(f"{task}: {failure} Next: {following}")
            continue
        return _prepare_from(task, request, attempt, path, raw, jobs)
    reasons = " ".join(failures)
    raise WorkError(f"{task} could not be fetched. {reasons} Give your own copy: lra-bench prepare {task} --from PATH")


@dataclass(frozen=True)
class _Work:
    """One set about to be built: what was asked for, and the generator or the opened files it comes from."""

    task: Task
    request: Request
    attempt: Attempt
    raw: list[RawFile]
    content: Generator | Reading

    @property
    def identity(self) -> dict[str, object]:
        """What must be equal for half-made arrays to be continued."""
        return {
            "task": [self.task.name, self.task.version, __version__],
            "request": asdict(self.request),
            "source": self.attempt.source,
            "layout": asdict(self.content.layout),
            "parameters": dict(self.content.parameters),
            "chunk": self.attempt.generator.chunk if self.attempt.generator else None,
            "raw": [file.sha256 for file in self.raw],
        }

    def fill(self, jobs: int, writer: PackedWriter, journal: build.Journal) -> None:
        if self.attempt.generator is not None:
            build.fill_from_generator(self.task.name, self.attempt.generator, self.request.seed, jobs, writer, journal)
        else:
            build.fill_from_reading(self.task.name, cast(Reading, self.content), writer, journal)


def _prepare_from(
    task: str, request: Request, attempt: Attempt, path: Path | None, raw: list[RawFile], jobs: int
) -> Path:
    """Build the folder of this source, alone: another process that wants the same waits here and finds it done."""
    module = task_module(task)
    folder = data_folder() / task / attempt.name

    def wait() -> None:
        say(f"{task}: another process is preparing this; waiting for it")

    with locked(folder.with_name(f".{folder.name}.lock"), wait):
        if (folder / FILE).exists():
            return folder
        if folder.exists():
            shutil.rmtree(folder)  # a finished folder has a manifest
        content = attempt.generator or module.DATA.read(cast(Path, path), request)
        _build(_Work(module.TASK, request, attempt, raw, content), jobs, partial_of(folder))
        os.replace(partial_of(folder), folder)
    say(f"{task}: prepared {content.layout.total:,} examples")
    return folder


def _build(work: _Work, jobs: int, partial: Path) -> None:
    """All files of the prepared folder, the manifest last; continues what an earlier call left of the same plan."""
    if (partial / FILE).exists():
        return  # killed between the manifest and the rename
    layout = work.content.layout
    _need_space(work.task.name, partial, layout)
    journal = build.Journal(partial, work.identity)
    try:
        if not journal.all("packed"):
            with closing(PackedWriter(partial, layout)) as writer:
                work.fill(jobs, writer, journal)
            if layout.validation_is_test:
                build.copy_test_to_validation(partial)
            journal.add({"packed": True})
        manifest = _manifest(work, partial)
        splits: dict[SplitName, PackedSplit] = {split: open_arrays(partial, manifest, split) for split in SPLITS}
        manifest = manifest.model_copy(update={"majority": {s: majority_share(splits[s].labels) for s in SPLITS}})
        write_dataset(partial, work.task, manifest, splits)
    finally:
        journal.close()
    build.sync_files(partial)
    (partial / build.JOURNAL).unlink()
    write_atomically(partial / FILE, manifest.model_dump_json(indent=1) + "\n")


def _manifest(work: _Work, partial: Path) -> Manifest:
    """All but the majority rates, which need the arrays opened against this manifest."""
    layout, request, generator = work.content.layout, work.request, work.attempt.generator
    packed = describe(partial)
    return Manifest(
        manifest_version=1,
        task=work.task.name,
        version=work.task.version,
        protocol=request.protocol,
        source=work.attempt.source,
        origin=work.attempt.text,
        size=str(request.size),
        seed=request.seed if generator else None,
        val_fraction=request.val_fraction,
        parameters=dict(work.content.parameters),
        vocabulary=None if layout.vocabulary is None else list(layout.vocabulary),
        documents=layout.documents,
        length=layout.length,
        classes=layout.classes,
        counts={split: layout.counts[split] for split in SPLITS},
        validation_is_test=layout.validation_is_test,
        distinct=generator.distinct if generator else False,
        majority={},
        raw=work.raw,
        packed=packed,
        fingerprint=fingerprint_of(work.task.name, work.task.version, request.protocol, layout, packed),
        lra_bench_version=__version__,
    )


def _need_space(task: str, partial: Path, layout: Layout) -> None:
    """Raises WorkError where arrays and dataset cannot fit, before hours of work show it."""
    have = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file()) if partial.exists() else 0
    need = 2 * layout.total * bytes_per_example(layout) + SPARE - have
    free = shutil.disk_usage(partial.parent).free
    if free < need:
        raise WorkError(
            f"{task} needs {need / 1e9:.2f} GB more in {partial.parent}, which has {free / 1e9:.2f} GB free. "
            "Free some space, or set LRA_BENCH_HOME to a folder on a larger disk, and type the same again."
        )


@contextmanager
def _disk_errors_in_words(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a WorkError of one sentence."""
    try:
        yield
    except OSError as error:
        raise WorkError(disk_error(error, str(folder))) from None
