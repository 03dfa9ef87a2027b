"""The function `prepare`, which turns a task's name into a folder of packed arrays, a TFDS dataset and a manifest.

Everything is built in `.<name>.partial` and renamed at the end, so an unfinished folder is never taken for a finished
one. After any interruption the same call continues and ends in the same arrays. A second call returns at once. A second
process waits for the first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import current_process
from pathlib import Path
from typing import Any, cast

from lra_bench import __version__
from lra_bench.data import build
from lra_bench.data.manifest import (
    FILE,
    MANIFEST_VERSION,
    Manifest,
    RawFile,
    fingerprint_of,
    load_manifest,
    manifest_text,
    prepared_sets,
    typed_options,
)
from lra_bench.data.meaning import problems_of_files
from lra_bench.data.packed import PackedSplit, PackedWriter, describe, majority_share, open_arrays
from lra_bench.data.sources import SourceAttempt, attempts_for, copies_of, obtain, partial_of, plan_for, request_for
from lra_bench.data.tfds_builder import SCRATCH, write_dataset
from lra_bench.data.verify import verify as verify_folder
from lra_bench.datasource import Generator, Reader, Request, bytes_per_example
from lra_bench.errors import UserError, WorkError, disk_error
from lra_bench.paths import data_folder, locked, write_atomically
from lra_bench.progress import print_line
from lra_bench.registry import task_module
from lra_bench.spec import SPLITS, SplitName, Task

SPARE = 16 << 20
"""The number of bytes that must be free besides what the set itself takes."""


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
    tfds: bool = True,
    dry_run: bool = False,
    verify: bool = False,
) -> Path:
    """Prepare one task and return its folder. Progress is printed to stderr.

    `source_path` is the user's own copy. Without it, official server, mirrors and generator are tried in this order;
    `source` names the only source kind to try. `jobs` is the number of processes (default: all cores) and never changes
    the examples. Without `tfds` the TFDS dataset, which training does not read, is left out. `dry_run` only prints the
    plan. `verify` reads everything again, also if the task was prepared before; without `source_path` and `source` it
    finds what was prepared from the user's own copies, too. Raises UserError for bad arguments, wrong files, failed
    verification, and where `verify` finds other sets of the task only, and WorkError for failed downloads and full
    disks.
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
            print_line(line)
        return plan.folder
    request = request_for(protocol, size, seed, val_fraction)
    attempts = attempts_for(task, request, source_path, source)
    with _disk_errors_in_words(data_folder() / task):
        folder = _already(task, attempts, tfds)
        copies = copies_of(task, request) if verify and source is None and source_path is None else []
        if folder is None and verify and not copies and source_path is None:
            _refuse_beside_others(task, request)
        if folder is None:
            folder = copies[0] if copies else _first_that_works(task, request, attempts, jobs, tfds)
    if verify:
        for one in dict.fromkeys([folder, *copies]):
            for line in verify_folder(one):
                print_line(line)
    return folder


def prepare_each(tasks: Sequence[str], **options: Any) -> None:
    """Prepare one task after another and print each folder. A task that fails does not stop the others.

    A single task raises the errors of `prepare`. Several tasks raise WorkError at the end, naming those that failed.
    """
    for task in tasks:
        task_module(task)  # an unknown name is an error before hours of work on the other tasks
    failed = []
    for task in tasks:
        try:
            print(prepare(task, **options), flush=True)
        except (UserError, WorkError) as error:
            if len(tasks) == 1:
                raise
            print_line(f"{task}: {error}")
            failed.append(task)
    if failed:
        raise WorkError(f"{len(failed)} of {len(tasks)} tasks could not be prepared: {', '.join(failed)}; see above.")


def _refuse_to_start_again() -> None:
    """Check that this is no worker, which executes a user's script again up to its own call of `prepare`.

    Raises UserError with what the script lacks.
    """
    if getattr(current_process(), "_inheriting", False):
        raise UserError(
            'worker processes execute the script that calls prepare: put its call below `if __name__ == "__main__":`.'
        )


def _jobs(jobs: int | None) -> int:
    if jobs is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs < 1:
        raise UserError(f"--jobs takes a number of processes from 1; got {jobs}.")
    return jobs


def _already(task: str, attempts: list[SourceAttempt], tfds: bool) -> Path | None:
    """Return the folder of the first source that was prepared before; None if there is none.

    Raises UserError if it holds another version of the task.
    """
    for attempt in attempts:
        folder = data_folder() / task / attempt.name
        if (folder / FILE).exists():
            manifest = load_manifest(folder)
            if manifest.version != task_module(task).TASK.version:
                raise UserError(
                    f"{folder} holds version {manifest.version} of {task}; this lra-bench makes version "
                    f"{task_module(task).TASK.version}. Remove the folder and type the same again."
                )
            print_line(f"{task}: already prepared ({manifest.source}: {manifest.origin})")
            if tfds and not manifest.tfds:
                print_line(f"{task}: without its TFDS dataset. To have it, remove {folder} and type the same again.")
            return folder
    return None


def _refuse_beside_others(task: str, request: Request) -> None:
    """Check that no other set of the task is prepared, which somebody who asks to verify one means.

    Raises UserError with what to type where there is one.
    """
    sets = [manifest for _, manifest in prepared_sets(task)]
    if sets:
        commands = [f"lra-bench prepare {task}{typed_options(each.model_dump(mode='json'))} --verify" for each in sets]
        raise UserError(
            f"{task} is not prepared with size {request.size} and these options. What is can be verified: "
            f"{'; '.join(commands)}. To prepare it, leave --verify out."
        )


def _first_that_works(task: str, request: Request, attempts: list[SourceAttempt], jobs: int, tfds: bool) -> Path:
    """Prepare from the first source that works. Only a failed download leads to the next source.

    Raises WorkError if all downloads fail.
    """
    _refuse_to_start_again()
    data = task_module(task).DATA
    failures = []
    for number, attempt in enumerate(attempts):
        print_line(f"{task}: from {attempt.text}")
        try:
            path, raw = (None, []) if attempt.generator else obtain(attempt, data)
        except WorkError as failure:
            failures.append(str(failure))
            following = attempts[number + 1].text if number + 1 < len(attempts) else None
            if following:
                print_line(f"{task}: {failure} Next: {following}")
            continue
        return _prepare_from(task, request, attempt, path, raw, jobs, tfds)
    reasons = " ".join(failures)
    raise WorkError(f"{task} could not be fetched. {reasons} Give your own copy: lra-bench prepare {task} --from PATH")


@dataclass(frozen=True)
class _Work:
    """The description of one set to build: the request, and the generator or reader that its examples come from."""

    task: Task
    request: Request
    attempt: SourceAttempt
    raw: list[RawFile]
    content: Generator | Reader
    tfds: bool
    """Whether to write the TFDS dataset, too."""

    @property
    def identity(self) -> dict[str, object]:
        """The plan of the journal. Unfinished arrays are continued only if it is equal."""
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
        """Write all examples into the packed arrays."""
        if self.attempt.generator is not None:
            build.fill_from_generator(self.task.name, self.attempt.generator, self.request.seed, jobs, writer, journal)
        else:
            build.fill_from_reader(self.task.name, cast(Reader, self.content), writer, journal)


def _prepare_from(
    task: str, request: Request, attempt: SourceAttempt, path: Path | None, raw: list[RawFile], jobs: int, tfds: bool
) -> Path:
    """Build the folder of this source under a lock. Another process that needs the same folder waits for this one."""
    module = task_module(task)
    folder = data_folder() / task / attempt.name

    def wait() -> None:
        print_line(f"{task}: another process is preparing this; waiting for it")

    with locked(folder.with_name(f".{folder.name}.lock"), wait):
        if (folder / FILE).exists():
            return folder
        if folder.is_symlink():
            raise UserError(
                f"{folder} is a link to a folder without prepared data. Remove the link. To have the data on another "
                f"disk, make {folder.parent} a link, or set LRA_BENCH_HOME."
            )
        if folder.exists():
            shutil.rmtree(folder)  # without a manifest the folder is not a finished one
        content = attempt.generator or module.DATA.read(cast(Path, path), request)
        try:
            _build(_Work(module.TASK, request, attempt, raw, content, tfds), jobs, partial_of(folder))
        except UserError:  # wrong files: what was read of them is of no use
            shutil.rmtree(partial_of(folder), ignore_errors=True)
            raise
        partial_of(folder).replace(folder)
    print_line(f"{task}: prepared {content.layout.total:,} examples")
    return folder


def _build(work: _Work, jobs: int, partial: Path) -> None:
    """Write all files of the prepared folder, the manifest last.

    The function continues the work that an earlier call with the same plan left unfinished.
    """
    if (partial / FILE).exists():
        return  # an earlier call was killed between writing the manifest and renaming the folder
    layout = work.content.layout
    _need_space(work, partial)
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
        if work.attempt.generator is None and (wrong := list(problems_of_files(manifest, work.task, splits))):
            raise UserError(f"{work.task.name}: {work.attempt.text} is not what it should be: {'; '.join(wrong)}.")
        shutil.rmtree(partial / SCRATCH, ignore_errors=True)  # of an earlier call that had to write the dataset
        if work.tfds:
            write_dataset(partial, work.task, manifest, splits)
    finally:
        journal.close()
    build.sync_files(partial)
    (partial / build.JOURNAL).unlink()
    write_atomically(partial / FILE, manifest_text(manifest))


def _manifest(work: _Work, partial: Path) -> Manifest:
    """Return the manifest without the majority rates, because `open_arrays` needs a manifest to read the labels."""
    layout, request, generator = work.content.layout, work.request, work.attempt.generator
    packed = describe(partial)
    fingerprint = fingerprint_of(work.task.name, work.task.version, request.protocol, layout, packed)
    return Manifest(
        manifest_version=MANIFEST_VERSION,
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
        channels=layout.channels,
        length=layout.length,
        classes=layout.classes,
        counts={split: layout.counts[split] for split in SPLITS},
        validation_is_test=layout.validation_is_test,
        distinct=generator.distinct if generator else False,
        majority={},
        raw=work.raw,
        packed=packed,
        fingerprint=fingerprint,
        official_contents=work.task.official.get(request.protocol) == fingerprint,
        tfds=work.tfds,
        lra_bench_version=__version__,
    )


def _need_space(work: _Work, partial: Path) -> None:
    """Raise WorkError if arrays and dataset do not fit on the disk, before hours of work are spent."""
    layout, copies = work.content.layout, 2 if work.tfds else 1  # arrays and dataset take about the same
    have = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file()) if partial.exists() else 0
    need = copies * layout.total * bytes_per_example(layout) + SPARE - have
    free = shutil.disk_usage(partial.parent).free
    if free < need:
        raise WorkError(
            f"{work.task.name} needs {need / 1e9:.2f} GB more in {partial.parent}, which has {free / 1e9:.2f} GB free. "
            "Free some space, or set LRA_BENCH_HOME to a folder on a larger disk, and type the same again."
        )


@contextmanager
def _disk_errors_in_words(folder: Path) -> Iterator[None]:
    """Turn an error of the disk during the context into a WorkError of one sentence."""
    try:
        yield
    except OSError as error:
        raise WorkError(disk_error(error, str(folder))) from None
