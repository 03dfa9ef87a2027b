"""The command `lra-bench bench`: throughput, memory and compile time of models at fixed shapes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lra_bench.commands.options import (
    Json,
    PrecisionOption,
    Remat,
    ResultsDir,
    Settings,
    chosen_precision,
    chosen_results_dir,
)
from lra_bench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from lra_bench.bench.plan import BenchRequest
    from lra_bench.bench.run import BenchOutcome
    from lra_bench.records.schema import BenchRecord, Measurement

LEGEND = (
    "Shape: batch × length. *: the compiler's estimate. Roofline: share of the least time that this device can take, "
    "by the best rates measured beside."
)


def bench(
    model: Annotated[
        list[str] | None, typer.Option(help="The model, or `all`. May be repeated. By default s5.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="The task whose shape is measured, or `all`. May be repeated. By default all six."),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(help="Lengths to measure instead of the task's own, as in 1k,4k,16k,64k,256k,1M.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Examples in a batch. By default the recipe's, and on a CPU without --target fewer."),
    ] = None,
    settings: Settings = None,
    precision: PrecisionOption = None,
    data: Annotated[
        bool, typer.Option("--data", help="Measure prepared data as well, beside synthetic examples.")
    ] = False,
    remat: Remat = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="Print ratios to the speeds of this run, record, results folder, or file written by `bench --json`."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time and memory against length into this .svg or .png file.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure again what has a record already.")] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Measure a small network in short windows: seconds for each shape.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="Predict a training step on this GPU instead, which need not be here: h200 or a100. The program is "
            "compiled for it and its kernels are counted. Predictions are no measurements, so no record is written."
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Trace a few training steps instead, and show their time by kind of kernel and by module. The "
            "profiler slows the steps down, so no record is written.",
        ),
    ] = False,
    top: Annotated[
        int, typer.Option(min=0, help="With --target or --profile: show so many of the most expensive kernels too.")
    ] = 0,
    results_dir: ResultsDir = None,
    as_json: Json = False,
) -> None:
    """Measure throughput, memory and compile time on fixed shapes, and write result records."""
    from lra_bench.bench.apart import memory_left_free
    from lra_bench.overrides import parse_overrides

    measures_only = {"--against": against, "--plot": plot, "--data": data, "--again": again}
    refuse_mixed({"--target": target, "--profile": profile}, measures_only, top)
    if plot is not None:
        from lra_bench.report.drawing import refuse_if_not_drawable

        refuse_if_not_drawable(plot)
    several = target is None and not profile and may_be_several(model, task, lengths)
    with memory_left_free() if several else nullcontext():
        chosen = chosen_precision(precision, device_is_here=target is None)  # before anything else imports JAX
    from lra_bench.bench.plan import BenchRequest

    request = BenchRequest(
        models=model or ["s5"],
        tasks=task or ["all"],
        lengths=lengths,
        batch=batch,
        overrides=parse_overrides(settings or []),
        precision=chosen,
        data=data,
        remat=remat,
        smoke=smoke,
        again=again,
        target=target,
    )
    if target is not None:
        show_predictions(request, top, as_json)
    elif profile:
        show_profiles(request, top, as_json)
    else:
        measure(request, against, plot, chosen_results_dir(results_dir), as_json)


def may_be_several(model: list[str] | None, task: list[str] | None, lengths: str | None) -> bool:
    """Whether options ask for more than one shape."""
    names = [*(model or ["s5"]), *(task or ["all"])]
    return len(names) > 2 or "all" in names or "," in (lengths or "")


def measure(request: BenchRequest, against: str | None, plot: Path | None, results_dir: Path, as_json: bool) -> None:
    """Measure, draw and print."""
    from lra_bench.bench.run import run_bench

    outcome = run_bench(request, against, results_dir)
    if plot is not None:
        draw(plot, outcome.records)
    if as_json:
        print(json.dumps(as_values(outcome), indent=1))
    else:
        print_outcome(outcome)


def show_predictions(request: BenchRequest, top: int, as_json: bool) -> None:
    """Predict training steps on a GPU that is not here, and print them."""
    from lra_bench.bench.prediction import run_predictions
    from lra_bench.bench.tables import predictions_as_values, print_predictions

    predictions = run_predictions(request)
    if as_json:
        print(json.dumps({"predictions": predictions_as_values(predictions)}, indent=1))
    else:
        print_predictions(predictions, top)


def show_profiles(request: BenchRequest, top: int, as_json: bool) -> None:
    """Trace training steps on this device, and print where their time goes."""
    from lra_bench.bench.profile import run_profiles
    from lra_bench.bench.tables import print_profiles, profiles_as_values

    profiles = run_profiles(request)
    if as_json:
        print(json.dumps({"profiles": profiles_as_values(profiles)}, indent=1))
    else:
        print_profiles(profiles, top)


def refuse_mixed(instead: Mapping[str, object], measures_only: Mapping[str, object], top: int) -> None:
    """Check that options belong together. `instead` are those that do something else than to measure.

    Raises UserError where they do not.
    """
    chosen = [name for name, value in instead.items() if value]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} are two things to do; give one of them.")
    unfit = [name for name, value in measures_only.items() if value]
    if chosen and unfit:
        raise UserError(f"{chosen[0]} measures no speed; leave out {' and '.join(unfit)}.")
    if top and not chosen:
        raise UserError("--top goes with --target or --profile.")


def as_values(outcome: BenchOutcome) -> dict[str, Any]:
    """Convert the outcome to JSON values."""
    return {
        "records": [record.model_dump(mode="json") for record in outcome.records],
        "skipped": [skipped._asdict() for skipped in outcome.skipped],
        "ratios": [ratio._asdict() for ratio in outcome.ratios],
    }


def print_outcome(outcome: BenchOutcome) -> None:
    """Print the table of measurements, the ratios, and the skipped shapes."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from lra_bench.registry import model_title

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    numbers = ("Examples/s", "Tokens/s", "ms", "IQR", "Compile s", "GiB", "Roofline")
    precisions = ", ".join(sorted({record.system.precision for record in outcome.records}))
    table = Table(title=f"Speed per device, {precisions}", box=SIMPLE)
    for name in ("Model", "Shape", "Call"):
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for record in outcome.records:
        for measured in record.measurements:
            table.add_row(*table_row(record, measured))
    console.print(table)
    console.print(LEGEND, highlight=False)
    for record in outcome.records:
        print_data_difference(console, record)
    for ratio in outcome.ratios:
        console.print(ratio.sentence(), highlight=False)
    for skipped in outcome.skipped:
        console.print(
            f"Skipped: {model_title(skipped.model)} on {skipped.task}, L = {skipped.length:,}: {skipped.reason}.",
            highlight=False,
        )


def table_row(record: BenchRecord, measured: Measurement) -> list[str]:
    """The cells of one measurement, as text."""
    from lra_bench.registry import model_title
    from lra_bench.report.speed import CALLS, GIB, number

    seconds, peak = measured.seconds, measured.peak_memory_bytes
    examples, fraction = measured.examples_per_second_per_device, measured.roofline_fraction
    return [
        model_title(record.model),
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
    """Print how much longer a training step takes on prepared data than on synthetic examples."""
    from lra_bench.registry import model_title

    medians = {measured.input: measured.seconds.median for measured in record.measurements if measured.call == "train"}
    if "data" in medians:
        change = medians["data"] / medians["synthetic"] - 1
        console.print(f"{model_title(record.model)} on {record.task}: a step on real data takes {change:+.1%}.")


def draw(plot: Path, records: list[BenchRecord]) -> None:
    """Draw time and memory of the training step against length into a file."""
    from lra_bench.report.drawing import render, write_picture
    from lra_bench.report.select import Loaded
    from lra_bench.report.speed_figures import lines_of, scaling_drawings

    # The report draws published networks only. Here the user asked for the changed ones, so they pass as published.
    asked_for = {"overrides": {}, "remat": False}
    loaded = [Loaded(record.digest, record.model_copy(update=asked_for)) for record in records]
    drawings = scaling_drawings(loaded, list(lines_of(loaded)), fewest=2)
    if not drawings:
        print("No picture: it needs one recipe at two lengths or more.", file=sys.stderr)
        return
    write_picture(render(drawings[0]), plot)
