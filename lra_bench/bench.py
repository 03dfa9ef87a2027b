"""`lra-bench bench`: speed and memory of models at fixed shapes, one record per cell, ratios to earlier ones."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lra_bench import UserError, WorkError
from lra_bench.allocator import run_on_calling_thread
from lra_bench.bench_cell import GIB, Cell, DoesNotFit, measure_cell
from lra_bench.bench_ratios import Earlier, Ratio, earlier_speeds, ratios
from lra_bench.data.manifest import choose
from lra_bench.data.packed import PackedSplit, open_split
from lra_bench.data.progress import Progress
from lra_bench.layers import DataShape
from lra_bench.measure import SMOKE_EFFORT, Effort, Floor, measure_floor
from lra_bench.models import MODELS, canonical, title
from lra_bench.registry import task_module, task_names
from lra_bench.report.speed import number
from lra_bench.results import BenchRecord, Measurement, load_any, path_of, write_atomically, write_record
from lra_bench.run import TEXT_FIELDS, Precision, Run
from lra_bench.spec import digest_of
from lra_bench.steps import PRECISIONS
from lra_bench.synthetic import synthetic_run
from lra_bench.system import describe_provenance, describe_system

CPU_TOKENS = 16_384
"""In the default batch on a CPU, so that one cell ends in about a minute."""
SMOKE_SIZES: dict[str, Any] = {"n_layers": 2, "d_model": 32}
CALLS = {"train": "training step", "forward": "forward", "recurrent": "recurrent step"}
KINDS_OF_CALL = len(CALLS)
LEGEND = "Shape: batch × steps. *: the compiler's estimate. Floor: share of the least time that this device can take."
_LENGTH = re.compile(r"(\d+)([kM]?)")


@dataclass(frozen=True)
class Asked:
    """What the command line asked for. No `models` or `tasks` means all; no `lengths`, the tasks' own."""

    models: Sequence[str] = ()
    tasks: Sequence[str] = ()
    lengths: str | None = None
    batch: int | None = None
    overrides: Mapping[str, Any] | None = None
    precision: Precision = "float32"
    data: bool = False
    remat: bool = False
    smoke: bool = False
    again: bool = False


class Skipped(NamedTuple):
    model: str
    task: str
    length: int
    reason: str


class Outcome(NamedTuple):
    records: list[BenchRecord]
    skipped: list[Skipped]
    ratios: list[Ratio]


def run_bench(asked: Asked, *, against: str | None, plot: Path | None, as_json: bool, results_dir: Path) -> None:
    """Measure every cell asked for, write its record, print the table (or JSON), and a picture over length.

    Raises UserError for an unknown name, a bad length, or an `against` that holds nothing comparable.
    """
    run_on_calling_thread()
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are measured, not read from disk
    planned = plan(asked)
    earlier = earlier_speeds(against, [(run.model, run.data.task, run.data.length) for run, *_ in planned])
    if plot is not None:
        refuse_if_not_drawable(plot)
    outcome = measure_all(asked, planned, earlier, results_dir)
    if not outcome.records:
        raise WorkError(
            f"nothing was measured: {'; '.join(skipped.reason for skipped in outcome.skipped)}. Try --batch 1."
        )
    if plot is not None:
        draw(plot, outcome.records)
    if as_json:
        print(json.dumps(as_values(outcome), indent=1))
    else:
        print_outcome(outcome)


Planned = tuple[Run, DataShape, PackedSplit | None]


def plan(asked: Asked) -> list[Planned]:
    """The runs to measure: every combination that has a recipe; a combination named outright must have one."""
    tasks = named(asked.tasks, task_names())
    models = [canonical(model) for model in named(asked.models, MODELS)]
    lengths = parse_lengths(asked.lengths)
    if asked.data and lengths != [None]:
        raise UserError("--data measures prepared examples at their own length; leave out --lengths.")
    overrides = {**(SMOKE_SIZES if asked.smoke else {}), **(asked.overrides or {})}
    if asked.batch is not None and "batch_size" in overrides:
        raise UserError("give the batch once: --batch N or --set batch_size=N.")
    named_outright = bool(asked.models) and bool(asked.tasks) and "all" not in (*asked.models, *asked.tasks)
    planned = []
    for model in models:
        for task in tasks:
            if named_outright or model in task_module(task).RECIPES:
                planned += list(plan_cell(asked, model, task, lengths, overrides))
    if not planned:
        raise UserError(
            f"no recipe for {', '.join(models)} on {', '.join(tasks)}. `lra-bench ls recipes` lists what there is."
        )
    return planned


def plan_cell(
    asked: Asked, model: str, task: str, lengths: Sequence[int | None], overrides: dict[str, Any]
) -> Iterator[Planned]:
    data, length, classes = None, None, None
    if asked.data:
        folder, manifest = choose(task)
        data, length, classes = open_split(folder, "train"), manifest.data_info.length, manifest.data_info.classes
    longest = max(length or task_module(task).TASK.length for length in lengths)
    for steps in lengths:
        run, shape = synthetic_run(model, task, steps or length, overrides, asked.precision)
        if "batch_size" not in overrides:
            batch = asked.batch or default_batch(run.recipe.batch_size, longest)
            run, shape = synthetic_run(
                model, task, steps or length, {**overrides, "batch_size": batch}, asked.precision
            )
        assert classes in (None, shape.classes), "a task's number of classes is fixed"
        yield run, shape, data


def named(names: Sequence[str], everything: Sequence[str] | Mapping[str, str]) -> list[str]:
    return list(everything) if not names or "all" in names else list(dict.fromkeys(names))


def parse_lengths(text: str | None) -> list[int | None]:
    """`1k,4k,1M` → [1024, 4096, 1048576]; None, the task's own, → [None]. Raises UserError saying what is legal."""
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
    """The recipe's batch; on a CPU as much of it as makes CPU_TOKENS, the same for all lengths; shared evenly by the
    devices."""
    devices = jax.device_count()
    batch = min(published, max(1, CPU_TOKENS // longest)) if jax.default_backend() == "cpu" else published
    return max(devices, batch // devices * devices)


def measure_all(asked: Asked, planned: list[Planned], earlier: Earlier, results_dir: Path) -> Outcome:
    effort = SMOKE_EFFORT if asked.smoke else Effort()
    records: list[BenchRecord] = []
    skipped: list[Skipped] = []
    floor: Floor | None = None
    with Progress("bench", total=KINDS_OF_CALL * len(planned), unit="measurements") as progress:
        for i, (run, shape, data) in enumerate(planned):
            name = f"{title(run.model)} on {run.data.task}, {run.data.length:,} steps, batch {run.recipe.batch_size}"
            progress.note = name
            record = make_record(run, asked.remat, 0, [], "")
            path = path_of(results_dir, record)
            if path.exists() and not asked.again:
                before = load_any(path)
                assert isinstance(before, BenchRecord)
                records.append(before)
                progress.say(f"{name}: measured before, {path}; --again measures anew")
            else:
                floor = measure_floor(asked.precision, effort).or_better(floor)
                try:
                    cell = Cell(run, shape, data, asked.remat, effort, floor)
                    measured = measure_cell(cell, lambda: progress.advance(1))
                    record = make_record(run, asked.remat, cell.parameters, measured, describe_floor(floor))
                    keep(results_dir, record)
                    records.append(record)
                except DoesNotFit as error:
                    skipped.append(Skipped(run.model, run.data.task, run.data.length, str(error)))
                    progress.say(f"{name}: skipped, {error}; try --batch with less")
            progress.at(KINDS_OF_CALL * (i + 1), KINDS_OF_CALL * len(planned))
    return Outcome(records, skipped, ratios(records, earlier))


def make_record(run: Run, remat: bool, parameters: int, measured: list[Measurement], note: str) -> BenchRecord:
    system = describe_system(run.precision, PRECISIONS[run.precision])
    identity = {
        "model": run.model,
        "task": run.data.task,
        "length": run.data.length,
        "recipe": run.recipe.model_dump(mode="json", exclude=TEXT_FIELDS),
        "precision": run.precision,
        "device_kind": system.device_kind,
        "devices": system.devices,
        **({"remat": True} if remat else {}),
    }
    return BenchRecord(
        schema_version=1,
        kind="bench",
        model=run.model,
        digest=digest_of(identity),
        task=run.data.task,
        length=run.data.length,
        batch_size=run.recipe.batch_size,
        parameters=parameters,
        recipe=run.recipe,
        overrides=run.overrides,
        remat=remat,
        measurements=measured,
        system=system,
        provenance=describe_provenance(command_of(run, remat)),
        note=note,
    )


def command_of(run: Run, remat: bool) -> str:
    parts = [f"lra-bench bench --model {run.model.replace('_', '-')} --task {run.data.task}"]
    parts += [f"--lengths {run.data.length}", *(f"--set {key}={value}" for key, value in run.overrides.items())]
    parts += [] if run.precision == "float32" else [f"--precision {run.precision}"]
    return " ".join([*parts, *(["--remat"] if remat else [])])


def keep(results_dir: Path, record: BenchRecord) -> None:
    """Write the record; one of the same cell, measured before, is replaced whole."""
    path = path_of(results_dir, record)
    if path.exists():
        write_atomically(path, json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    else:
        write_record(results_dir, record)


def describe_floor(floor: Floor) -> str:
    return (
        f"Device floor in this process: products {floor.flops_per_second / 1e9:,.0f} GFLOP/s, "
        f"copies {floor.bytes_per_second / 1e9:,.0f} GB/s."
    )


def as_values(outcome: Outcome) -> dict[str, Any]:
    return {
        "records": [record.model_dump(mode="json") for record in outcome.records],
        "skipped": [skipped._asdict() for skipped in outcome.skipped],
        "ratios": [ratio._asdict() for ratio in outcome.ratios],
    }


def print_outcome(outcome: Outcome) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    numbers = ("Examples/s", "Tokens/s", "ms", "IQR", "Compile s", "GiB", "Floor")
    table = Table(title="Speed per device", box=SIMPLE)
    for name in ("Model", "Shape", "Call"):
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for record in outcome.records:
        for measured in record.measurements:
            table.add_row(*row(record, measured))
    console.print(table)
    console.print(LEGEND, highlight=False)
    for record in outcome.records:
        print_data_difference(console, record)
    for ratio in outcome.ratios:
        console.print(ratio.sentence(), highlight=False)
    for skipped in outcome.skipped:
        console.print(
            f"Skipped: {title(skipped.model)} on {skipped.task}, {skipped.length:,} steps: {skipped.reason}.",
            highlight=False,
        )


def row(record: BenchRecord, measured: Measurement) -> list[str]:
    seconds, peak = measured.seconds, measured.peak_memory_bytes
    examples, fraction = measured.examples_per_second_per_device, measured.floor_fraction
    return [
        title(record.model),
        f"{record.task} {record.batch_size} × {record.length:,}",
        CALLS[measured.call] + (", real data" if measured.input == "data" else ""),
        "–" if examples is None else number(examples),
        number(measured.tokens_per_second_per_device),
        number(1e3 * seconds.median),
        number(1e3 * (seconds.q3 - seconds.q1), 2),
        f"{measured.compile_seconds:.1f}",
        "–" if peak is None else number(peak / GIB) + ("" if measured.peak_memory_source == "device" else "*"),
        "–" if fraction is None else f"{fraction:.0%}",
    ]


def print_data_difference(console: Console, record: BenchRecord) -> None:
    medians = {measured.input: measured.seconds.median for measured in record.measurements if measured.call == "train"}
    if "data" in medians:
        change = medians["data"] / medians["synthetic"] - 1
        console.print(f"{title(record.model)} on {record.task}: a step on real data takes {change:+.1%}.")


def refuse_if_not_drawable(plot: Path) -> None:
    from lra_bench.report.drawing import have_matplotlib

    if plot.suffix not in (".svg", ".png"):
        raise UserError(f"--plot writes .svg or .png, got {plot.name!r}.")
    if not have_matplotlib():
        raise UserError("--plot needs matplotlib. Type: pip install 'lra-bench[plots]'.")


def draw(plot: Path, records: list[BenchRecord]) -> None:
    """Time and memory of the training step against length."""
    from lra_bench.report.choose import Loaded
    from lra_bench.report.speed_figures import scaling_pictures

    # The report draws networks as published only; here the changed ones are what was asked for.
    asked_for = {"overrides": {}, "remat": False}
    loaded = [Loaded(record.digest, record.model_copy(update=asked_for)) for record in records]
    pictures = scaling_pictures(loaded, [title(record.model) for record in records])
    if not pictures:
        print("No picture: it needs one model at two lengths or more.", file=sys.stderr)
        return
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_bytes(pictures[0].png if plot.suffix == ".png" else pictures[0].svg.encode())
