"""Measuring every shape of a request: one record per shape, and ratios to earlier records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from lra_bench.bench.apart import in_own_process
from lra_bench.bench.case import BenchCase, DoesNotFit, measure_case, too_large_in_words
from lra_bench.bench.plan import BenchRequest, PlannedCase, plan
from lra_bench.bench.ratios import Earlier, Ratio, earlier_speeds, ratios
from lra_bench.bench.timing import SMOKE_TIMING, Roofline, TimingSettings, measure_roofline
from lra_bench.errors import UserError, WorkError
from lra_bench.machine.environment import NoDevice, start_jax
from lra_bench.machine.system import describe_provenance, describe_system
from lra_bench.overrides import set_options
from lra_bench.paths import write_atomically
from lra_bench.progress import Progress
from lra_bench.records.files import load_any, path_of, record_text
from lra_bench.records.proof import bench_digest
from lra_bench.records.schema import BenchRecord, Measurement
from lra_bench.registry import cli_name, model_title
from lra_bench.runs.run import Run

KINDS_OF_CALL = 3
"""The number of kinds of call: training step, forward pass and recurrent step."""


class Skipped(NamedTuple):
    """A shape that was not measured, and why."""

    model: str
    task: str
    length: int
    reason: str


class BenchOutcome(NamedTuple):
    """The records of all shapes, measured now or before, the skipped shapes, and the ratios to earlier records."""

    records: list[BenchRecord]
    skipped: list[Skipped]
    ratios: list[Ratio]


def run_bench(request: BenchRequest, against: str | None, results_dir: Path) -> BenchOutcome:
    """Measure every shape of a request and write its record.

    Raises UserError for an unknown name, a bad length, or an `against` that holds nothing comparable, and WorkError
    where nothing could be measured.
    """
    start_jax()
    jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are measured, not read from disk
    planned = plan(request)
    earlier = earlier_speeds(against, [(run.model, run.data.task, run.data.length) for run, *_ in planned])
    outcome = measure_all(request, planned, earlier, results_dir)
    if not outcome.records:
        raise WorkError(
            f"nothing was measured: {'; '.join(skipped.reason for skipped in outcome.skipped)}. Try --batch 1."
        )
    return outcome


def measure_all(request: BenchRequest, planned: list[PlannedCase], earlier: Earlier, results_dir: Path) -> BenchOutcome:
    """Measure the planned shapes one after another. A shape with a record is measured again only with `again`.

    Several shapes on a GPU are measured in a process each (`bench/apart.py`).
    """
    apart = len(planned) > 1 and jax.default_backend() == "gpu"
    records: list[BenchRecord] = []
    skipped: list[Skipped] = []
    roofline: Roofline | None = None
    with Progress("bench", total=KINDS_OF_CALL * len(planned), unit="measurements") as progress:
        for i, (run, shape, data) in enumerate(planned):
            name = (
                f"{model_title(run.model)} on {run.data.task}, L = {run.data.length:,}, batch {run.recipe.batch_size}"
            )
            progress.note = name
            path = path_of(results_dir, make_record(request, run, 0, [], ""))
            before = measured_before(path) if path.exists() and not request.again else None
            if before is not None and (not request.data or any(each.input == "data" for each in before.measurements)):
                records.append(before)
                progress.log(f"{name}: measured before, {path}; --again measures anew")
            else:
                try:
                    found = in_own_process(measure_planned, request, i, roofline) if apart else None
                    if found is None:
                        found = measure_one(request, (run, shape, data), roofline, lambda: progress.advance(1))
                    record, roofline = found
                    write_atomically(path, record_text(record))  # a measurement may be replaced by a newer one
                    records.append(record)
                except DoesNotFit as error:
                    skipped.append(Skipped(run.model, run.data.task, run.data.length, str(error)))
                    progress.log(f"{name}: skipped, {error}; try --batch with less")
            progress.at(KINDS_OF_CALL * (i + 1), KINDS_OF_CALL * len(planned))
    return BenchOutcome(records, skipped, ratios(records, earlier))


def measure_one(
    request: BenchRequest, planned: PlannedCase, best: Roofline | None, on_measured: Callable[[], None]
) -> tuple[BenchRecord, Roofline]:
    """Measure one shape: its record, and the device's limits, which are those of `best` where that was better.

    The limits are measured last, because the device counts their memory as well. Raises DoesNotFit.
    """
    settings = SMOKE_TIMING if request.smoke else TimingSettings()
    run, shape, data = planned
    case = BenchCase(run, shape, data, request.remat, settings)
    with too_large_in_words(case):
        measured = measure_case(case, on_measured)
    roofline = measure_roofline(request.precision, settings).or_better(best)
    beside = [item.beside(roofline) for item in measured]
    return make_record(request, run, case.parameters, beside, describe_roofline(roofline)), roofline


def measure_planned(request: BenchRequest, number: int, best: Roofline | None) -> tuple[BenchRecord, Roofline] | None:
    """Measure the shape of this number in a new process, which plans the request again; None where it gets no GPU.

    A GPU may be set to serve one process only. Raises DoesNotFit.
    """
    try:
        start_jax()
    except NoDevice:
        return None
    if jax.default_backend() != "gpu":
        return None
    jax.config.update("jax_enable_compilation_cache", False)
    return measure_one(request, plan(request)[number], best, lambda: None)


def measured_before(path: Path) -> BenchRecord:
    """Read the record of an earlier measurement. Raises UserError where it cannot be used."""
    record = load_any(path)
    if not isinstance(record, BenchRecord):
        raise UserError(f"{path} is a {record.kind} record. Remove it, or type --again to measure anew.")
    return record


def make_record(
    request: BenchRequest, run: Run, parameters: int, measured: list[Measurement], note: str
) -> BenchRecord:
    """Make the record of one shape. Its digest is over recipe, shape, precision and devices."""
    system = describe_system(run.precision)
    return BenchRecord(
        schema_version=1,
        kind="bench",
        model=run.model,
        digest=bench_digest(run.model, run.data.task, run.data.length, run.recipe, system, request.remat),
        task=run.data.task,
        length=run.data.length,
        batch_size=run.recipe.batch_size,
        parameters=parameters,
        recipe=run.recipe,
        overrides=run.overrides,
        remat=request.remat,
        measurements=measured,
        system=system,
        provenance=describe_provenance(command_of(request, run)),
        note=note,
    )


def command_of(request: BenchRequest, run: Run) -> str:
    """The command that repeats this measurement."""
    parts = [f"lra-bench bench --model {cli_name(run.model)} --task {run.data.task}"]
    parts += ["--data" if request.data else f"--lengths {run.data.length}"]
    parts += [*set_options(run.overrides), f"--precision {run.precision}"]
    return " ".join([*parts, *(["--remat"] if request.remat else []), *(["--smoke"] if request.smoke else [])])


def describe_roofline(roofline: Roofline) -> str:
    """The device's limits, as a record's note."""
    return (
        f"Best rates of the device measured beside: products {roofline.flops_per_second / 1e9:,.0f} GFLOP/s, "
        f"copies {roofline.bytes_per_second / 1e9:,.0f} GB/s."
    )
