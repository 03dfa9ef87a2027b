"""Checks of a results folder that need no training: consistency, plausible accuracies, and privacy.

An accuracy far above the published one is reported like one far below it. This module imports no JAX.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from lra_bench.errors import UserError
from lra_bench.json_files import read_json
from lra_bench.published_status import with_meaning
from lra_bench.records.files import path_of, record_files, unproved
from lra_bench.records.finished import changed_records
from lra_bench.records.proof import contradictions, copies, run_of
from lra_bench.records.schema import AnyRecord, BenchRecord, Record, RobustnessRecord, WindowRecord
from lra_bench.registry import published_mark, task_module, task_names
from lra_bench.spec import TEXT_FIELDS

Severity = Literal["error", "warning"]
"""`error`: the record cannot be trusted or shared as it is. `warning`: somebody should look at it."""

POINTS = 1.0
"""The accepted difference between a full run of a published recipe and the published accuracy, in percentage points.

`SIGMAS` times the sampling error is accepted in addition.
"""

SIGMAS = 3.0
"""The number of standard errors of sampling that a difference must exceed to be reported."""

SLACK = 0.02
"""The accepted difference between test and validation accuracy, as a share in [0, 1].

`SIGMAS` times the sampling error is accepted in addition.
"""

CLOCKS = timedelta(days=2)
"""How far the clocks of two machines may be apart."""

_PRIVATE = re.compile(r"/home/|/Users/|/root/|[A-Za-z]:\\Users\\")
"""The beginnings of paths that name a user's folder."""


@dataclass(frozen=True)
class Problem:
    """One problem of one record. `file` is the record's path relative to the results folder."""

    file: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        """Return the problem as one line of text."""
        return f"{self.severity}: {self.file}: {self.message}"


def validate(results_dir: Path) -> list[Problem]:
    """Return every problem of the records below `results_dir`, errors first.

    A file that is no record is a problem. Raises UserError where there is no such folder.
    """
    if not results_dir.is_dir():
        raise UserError(f"There is no results folder {results_dir}. Name it as in `lra-bench validate results`.")
    problems: list[Problem] = []
    found: dict[str, AnyRecord] = {}
    for path in record_files(results_dir):
        name = path.relative_to(results_dir).as_posix()
        try:
            found[name] = unproved(read_json(path), str(path))
        except UserError as error:
            problems.append(Problem(name, "error", str(error).replace(str(path), "the file")))
            continue
        problems += _place(results_dir, path, name, found[name])
    for name, record in found.items():
        problems += [Problem(name, severity, message) for severity, message in check_record(record)]
    problems += _between(found)
    for path in changed_records(results_dir):
        message = "not what its run on this machine wrote: it was edited, or the same was trained elsewhere, too"
        problems.append(Problem(path.relative_to(results_dir).as_posix(), "warning", message))
    return sorted(problems, key=lambda problem: (problem.severity != "error", problem.file, problem.message))


def check_record(record: AnyRecord) -> Iterator[tuple[Severity, str]]:
    """Yield severity and message of each problem that shows in the record alone."""
    for message in contradictions(record):
        yield "error", message
    yield from _provenance(record)
    if isinstance(record, Record):
        for message in doubts_of(record):
            yield "warning", message
    elif isinstance(record, BenchRecord):
        yield from _too_fast(record)


def doubts_of(record: Record) -> Iterator[str]:
    """Yield what is not plausible about a training record, although nothing in it contradicts anything."""
    yield from _plausible(record)
    yield from _claims(record)


def _place(results_dir: Path, path: Path, name: str, record: AnyRecord) -> Iterator[Problem]:
    """Check that the record lies in the file that its content belongs into."""
    try:
        right = path_of(results_dir, record)
    except UserError as error:
        yield Problem(name, "error", str(error))
        return
    if path != right:
        yield Problem(name, "error", f"its content belongs into {right.relative_to(results_dir).as_posix()}")


def _provenance(record: AnyRecord) -> Iterator[tuple[Severity, str]]:
    """Check the time, the commit, and that no text names a user's folder."""
    origin = record.provenance
    with contextlib.suppress(ValueError):
        finished = datetime.fromisoformat(origin.finished)
        if finished.replace(tzinfo=finished.tzinfo or UTC) > datetime.now(UTC) + CLOCKS:
            yield "warning", f"finished in the future: {origin.finished}"
    if origin.git_dirty:
        yield "warning", "made from sources with uncommitted changes"
    if _PRIVATE.search(f"{origin.command} {record.note} {record.system.cpu} {record.system.os}"):
        yield "error", "it names a folder of somebody's machine"


def _claims(record: Record) -> Iterator[str]:
    """Name what nobody can compute again: a claim to official files whose fingerprint is not known."""
    data = record.data
    unknown = data.task in task_names() and data.protocol not in task_module(data.task).TASK.official
    if data.size == "full" and data.source in ("official", "mirror") and unknown:
        yield f"called {data.source}, which no known fingerprint of official {data.task} can prove"
    said, remade = record.provenance.command, run_of(record).command
    if _without_data(said) != _without_data(remade):
        yield "its command is not the one that repeats the run"


def _without_data(command: str) -> str:
    """Return a command without the options that name the prepared set, in either of their two forms."""
    return re.sub(r" --data \S+| --protocol \S+ --size \S+", "", command)


def _plausible(record: Record) -> Iterator[str]:
    """Check the test accuracy against the majority class, the validation accuracy and the published accuracy.

    Only a full run of a published recipe is compared with the published accuracy, which bounds it from both sides.
    """
    test, n = record.accuracy.test, record.data.counts["test"]
    if test is None or not n or record.status != "completed":
        return
    majority, val = record.accuracy.majority, record.accuracy.best_val
    if test < majority - SIGMAS * _sampling(majority, n):
        yield f"too bad: {test:.2%} is below the majority class, {majority:.2%}"
    n_val = record.data.counts["val"]
    if val is not None and n_val and not record.data.validation_is_test:
        error = math.hypot(_sampling(test, n), _sampling(val, n_val))
        if abs(test - val) > SIGMAS * error + SLACK:
            yield f"test {test:.2%} and validation {val:.2%} are further apart than their samples explain"
        last, last_val = record.accuracy.last_test, record.accuracy.last_val
        gain = 0.0 if last is None or last_val is None else (test - last) - (val - last_val)
        if abs(gain) > 2 * SIGMAS * error + SLACK:
            yield f"test {test:.2%} is further from last_test than best_val is from last_val"
    published = record.recipe.published
    if published is None or not record.published_recipe:
        return
    allowed = POINTS / 100 + SIGMAS * _sampling(published / 100, n)
    difference = test - published / 100
    if abs(difference) > allowed:
        word = "too good" if difference > 0 else "too bad"
        mark = published_mark(record.model, record.data.task)
        number = f"{published:.2f} %" + (f" ({with_meaning(mark)})" if mark else "")
        yield f"{word}: {test:.2%}, published {number}; expected within {100 * allowed:.1f} points"
    early = [point for point in record.curve if point.epoch <= 0.05 * record.recipe.epochs]
    if any(point.val_accuracy >= published / 100 for point in early):
        yield "too fast: at the published accuracy within the first twentieth of the training"


def _sampling(share: float, n: int) -> float:
    """Return the standard error of the accuracy `share` on n examples, at least 1 / n."""
    return max(math.sqrt(max(share * (1 - share), 0.0) / n), 1 / n)


def _too_fast(record: BenchRecord) -> Iterator[tuple[Severity, str]]:
    """Check that no call is faster than the device's best measured rates."""
    for measured in record.measurements:
        if measured.roofline_fraction is not None and measured.roofline_fraction > 1.05:
            yield "warning", f"{measured.call}: too good, faster than the device's best measured rates"


def _between(found: dict[str, AnyRecord]) -> Iterator[Problem]:
    """Find duplicate seeds, digests with two contents, and fingerprints that contradict each other."""
    # Each dictionary maps what should be unique to the different contents found for it, with the first file of each.
    seeds: dict[tuple[str, str, str, int], list[str]] = defaultdict(list)
    contents: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    examples: dict[str, dict[str, str]] = defaultdict(dict)
    official: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for name, record in found.items():
        if isinstance(record, Record):
            data = record.data
            seeds[data.task, record.model, record.digest, record.seed].append(name)
            content = record.model_dump_json(
                include={"data": True, "recipe": True, "parameters": True, "system": {"precision"}},
                exclude={"recipe": TEXT_FIELDS},
            )
            contents[data.task, record.model, record.digest].setdefault(content, name)
            shape = data.model_dump_json(include={"task", "counts", "length", "classes"})
            examples[data.fingerprint].setdefault(f"{shape} {data.source == 'generated'}", name)
            if data.size == "full" and data.source in ("official", "mirror"):
                official[data.task, data.version, data.protocol].setdefault(data.fingerprint, name)
    yield from _further_tests(found)
    for name, original in copies(found).items():
        yield Problem(name, "error", f"its curve is that of {original}: one run, copied as another")
    for (_, _, digest, seed), names in seeds.items():
        for name in names[1:]:
            yield Problem(name, "error", f"seed {seed} of {digest} is there twice: see {names[0]}")
    for (_, _, digest), by_content in contents.items():
        for name in list(by_content.values())[1:]:
            yield Problem(
                name,
                "error",
                f"digest {digest} has another recipe, data or precision in {next(iter(by_content.values()))}",
            )
    for fingerprint, by_shape in examples.items():
        for name in list(by_shape.values())[1:]:
            first = next(iter(by_shape.values()))
            yield Problem(name, "error", f"fingerprint {fingerprint} is of other examples in {first}")
    for (task, *_), by_fingerprint in official.items():
        for fingerprint, name in list(by_fingerprint.items())[1:]:
            yield Problem(
                name, "warning", f"official {task} with fingerprint {fingerprint}, which is another one elsewhere"
            )


def _further_tests(found: dict[str, AnyRecord]) -> Iterator[Problem]:
    """Find tests under noise or within a window that contradict the training record of the same run."""
    trained = {
        (record.data.task, record.model, record.digest, record.seed): (name, record)
        for name, record in found.items()
        if isinstance(record, Record)
    }
    for name, record in found.items():
        if not isinstance(record, RobustnessRecord | WindowRecord):
            continue
        key = (record.data.task, record.model, record.digest, record.seed)
        if key not in trained:
            continue
        first, run = trained[key]
        whole = record.clean if isinstance(record, RobustnessRecord) else record.whole
        test = run.accuracy.test
        if test is not None and round(abs(whole - test) * record.examples) > 1:
            same = (record.system.device_kind, record.system.devices) == (run.system.device_kind, run.system.devices)
            message = f"{whole:.4f} without a change is not the test accuracy {test:.4f} of {first}"
            yield Problem(name, "error" if same else "warning", message)
        claims = (record.published_recipe, record.system.precision, record.data.fingerprint)
        if claims != (run.published_recipe, run.system.precision, run.data.fingerprint):
            yield Problem(name, "error", f"its recipe, precision or data is not that of {first}")
