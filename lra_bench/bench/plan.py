"""Planning `bench`: from a request to the models, tasks, lengths and batches that are measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from lra_bench.bench.synthetic import synthetic_run
from lra_bench.data.manifest import find_prepared
from lra_bench.data.packed import PackedSplit, open_split
from lra_bench.errors import UserError
from lra_bench.models.layers import DataShape
from lra_bench.registry import canonical_model, model_names, recipes_of, task_module, task_names
from lra_bench.runs.run import Run
from lra_bench.spec import Precision

CPU_TOKENS = 16_384
"""The tokens in the default batch on a CPU, so that one shape is measured in about a minute."""

SMOKE_SIZES: dict[str, Any] = {"n_layers": 2, "d_model": 32}
"""The settings that `--smoke` overrides."""

_LENGTH = re.compile(r"(\d+)([kM]?)")


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """The request of a command line. No `models` or `tasks` means all; no `lengths` means the tasks' own."""

    precision: Precision
    models: Sequence[str] = ()
    tasks: Sequence[str] = ()
    lengths: str | None = None
    batch: int | None = None
    overrides: Mapping[str, Any] | None = None
    data: bool = False
    remat: bool = False
    smoke: bool = False
    again: bool = False
    target: str | None = None
    """The GPU that programs are compiled for instead of this machine's device, and not run."""


PlannedCase = tuple[Run, DataShape, PackedSplit | None]
"""A run, the shape of its examples, and the prepared examples if they are measured too."""


def plan(request: BenchRequest) -> list[PlannedCase]:
    """Plan the runs to measure: every combination that has a recipe.

    Raises UserError for an unknown name or a bad length, and where a combination that is named outright has no recipe.
    """
    tasks = named(request.tasks, task_names())
    models = [canonical_model(model) for model in named(request.models, model_names())]
    lengths = parse_lengths(request.lengths)
    if request.data and lengths != [None]:
        raise UserError("--data measures prepared examples at their own length; leave out --lengths.")
    overrides = {**(SMOKE_SIZES if request.smoke else {}), **(request.overrides or {})}
    if request.batch is not None and "batch_size" in overrides:
        raise UserError("give the batch once: --batch N or --set batch_size=N.")
    named_outright = bool(request.models) and bool(request.tasks) and "all" not in (*request.models, *request.tasks)
    planned = []
    for model in models:
        for task in tasks:
            if named_outright or model in recipes_of(task):
                planned += list(plan_case(request, model, task, lengths, overrides))
    if not planned:
        raise UserError(
            f"no recipe for {', '.join(models)} on {', '.join(tasks)}. `lra-bench ls recipes` lists what there is."
        )
    return planned


def plan_case(
    request: BenchRequest, model: str, task: str, lengths: Sequence[int | None], overrides: dict[str, Any]
) -> Iterator[PlannedCase]:
    """Plan one model on one task: a run for each length. Raises UserError where there is no recipe or no data."""
    data, length, classes = None, None, None
    if request.data:
        folder, manifest = find_prepared(task)
        data, length, classes = open_split(folder, "train"), manifest.data_info.length, manifest.data_info.classes
    longest = max(length or task_module(task).TASK.length for length in lengths)
    for asked in lengths:
        run, shape = synthetic_run(model, task, asked or length, overrides, request.precision)
        if "batch_size" not in overrides:
            published = run.recipe.batch_size
            default = published if request.target else default_batch(published, longest)
            batch = request.batch or default
            run, shape = synthetic_run(
                model, task, asked or length, {**overrides, "batch_size": batch}, request.precision
            )
        assert classes in (None, shape.classes), "a task's number of classes is fixed"
        yield run, shape, data


def named(names: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The names without repetition; everything where there are none or one is `all`."""
    return list(everything) if not names or "all" in names else list(dict.fromkeys(names))


def parse_lengths(text: str | None) -> list[int | None]:
    """Parse lengths: `1k,4k,1M` → [1024, 4096, 1048576], and None, the task's own, → [None].

    Raises UserError, with what is legal, for anything else.
    """
    if text is None:
        return [None]
    found: list[int | None] = []
    for part in text.split(","):
        match = _LENGTH.fullmatch(part.strip())
        length = int(match[1]) * {"": 1, "k": 2**10, "M": 2**20}[match[2]] if match else 0
        if not 1 <= length <= 2**24:
            raise UserError(
                f"--lengths takes steps from 1 to 16M, as in 1k,4k,1M (k is 1,024, M is 1,048,576); got {part!r}."
            )
        found.append(length)
    return list(dict.fromkeys(found))


def default_batch(published: int, longest: int) -> int:
    """The default batch size: the recipe's, and on a CPU no more than makes CPU_TOKENS at the longest length.

    It is the same for all lengths and for any number of devices.
    """
    return min(published, max(1, CPU_TOKENS // longest)) if jax.default_backend() == "cpu" else published
