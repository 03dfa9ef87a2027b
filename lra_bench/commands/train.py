"""The command `lra-bench train`: train models by their recipes. It prints the plan first, then each run's result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lra_bench.commands.options import PROTOCOL_HELP, PrecisionOption, Remat, ResultsDir, Settings, chosen_precision
from lra_bench.errors import OutOfTime, UserError, WorkError

if TYPE_CHECKING:
    from lra_bench.records.schema import Record
    from lra_bench.runs.plan import PlannedRun
    from lra_bench.runs.run import Run
    from lra_bench.spec import Placement


def train(
    model: Annotated[
        str,
        typer.Option(
            help="The model, as in --model s5-ptd, or a layer of your own as package.module:Class. "
            "`lra-bench ls models` lists the models."
        ),
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(help="The task. May be repeated. Without it, or with `all`, every prepared task."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="The seed of the run. May be repeated. [default: 0]")
    ] = None,
    settings: Settings = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(help="Train on the prepared set of this size: full, tiny, or a number of examples.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Train on the prepared set whose folder has this name. `ls tasks` shows them.")
    ] = None,
    precision: PrecisionOption = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Train a small network on tiny data: every stage in a minute.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0.01, metavar="MINUTES", help="Save and stop after so many minutes. The same command continues."
        ),
    ] = None,
    data_on: Annotated[
        Literal["auto", "device", "host"],
        typer.Option(help="Keep the examples on the device, or on the host and send them in buffers."),
    ] = "auto",
    remat: Remat = False,
    results_dir: ResultsDir = Path("results"),
) -> None:
    """Train a model to its published recipe and write a result record. When interrupted, type the same to continue."""
    from lra_bench.runs.plan import plan_runs
    from lra_bench.spec import parse_overrides

    planned = plan_runs(
        model,
        tasks=task or [],
        seeds=seed or [0],
        overrides=parse_overrides(settings or []),
        protocol=protocol,
        size=size,
        data=data,
        precision=chosen_precision(precision),
        smoke=smoke,
    )
    print_plan(planned)
    if not dry_run:
        train_all(planned, results_dir, time_limit, data_on, remat)


def print_plan(planned: Sequence[PlannedRun]) -> None:
    """Print a line for each run: its model, data, settings, and whether it is new, started or finished."""
    from rich.console import Console
    from rich.table import Table

    from lra_bench.registry import model_title

    title = ", ".join(["Plan", *sorted({item.run.precision for item in planned})])
    table = Table("Task", "Data", "Model", "Seed", "Epochs", "Batch", "Recipe", "State", title=title)
    for item in planned:
        run = item.run
        table.add_row(
            run.data.task,
            f"{run.data.source}, {run.data.protocol}, {run.data.size}",
            model_title(run.model),
            str(run.seed),
            f"{run.recipe.epochs:g}",
            str(run.recipe.batch_size),
            recipe_state(run),
            item.state,
        )
    console = Console(stderr=True)
    console.print(table)
    if planned and planned[0].run.overrides:
        changed = ", ".join(f"{key}={value}" for key, value in planned[0].run.overrides.items())
        console.print(f"Changed from the recipe: {changed}.", highlight=False)


def recipe_state(run: Run) -> str:
    """Say whether the run's settings are `published`, `changed`, or the `default` ones of a layer of the user's own."""
    from lra_bench.spec import PUBLISHED_PRECISIONS

    if run.overrides or run.precision not in PUBLISHED_PRECISIONS:
        return "changed"
    return "published" if run.code is None else "default"


def train_all(
    planned: Sequence[PlannedRun],
    results_dir: Path,
    minutes: float | None = None,
    placement: Placement = "auto",
    remat: bool = False,
) -> None:
    """Train each run and print its result, with the record's file as the last line. After `minutes`, save and stop.

    The others are trained even if a run fails. A single run raises its own error; of several, the failed ones are named
    in a WorkError at the end. Raises OutOfTime where the time limit is reached.
    """
    from lra_bench.training.train import train as train_run

    check_writable(results_dir)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    failed = []
    for number, item in enumerate(planned):
        if number and deadline is not None and time.monotonic() >= deadline:
            raise OutOfTime(f"the time limit is reached after {number} of {len(planned)} runs. The same continues.")
        try:
            print_result(train_run(item.run, item.data_folder, results_dir, deadline, placement, remat), results_dir)
        except (UserError, WorkError) as error:
            if len(planned) == 1:
                raise
            print(f"{item.run.name}: {error}", file=sys.stderr, flush=True)
            failed.append(item.run.name)
    if failed:
        raise WorkError(f"{len(failed)} of {len(planned)} runs failed: {', '.join(failed)}; see above.")


def check_writable(results_dir: Path) -> None:
    """Check, before hours of training, that records can be written. Raises UserError where they cannot."""
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        why = None if os.access(results_dir, os.W_OK) else "permission denied"
    except OSError as error:
        why = error.strerror
    if why:
        raise UserError(f"no record can be written to {results_dir}: {why}. Name another folder with --results-dir.")


def print_result(record: Record, results_dir: Path) -> None:
    """Print the test accuracy of a run that has ended, and the file of its record."""
    from lra_bench.records.files import path_of
    from lra_bench.registry import model_title

    accuracy = record.accuracy
    print(
        f"{record.data.task} {model_title(record.model)} seed {record.seed}: test accuracy {accuracy.test:.2%} "
        f"(n = {record.data.counts['test']:,}; majority class {accuracy.majority:.2%}; best {accuracy.selection} "
        f"accuracy {accuracy.best_val:.2%} at epoch {accuracy.best_epoch:g})\n"
        f"{path_of(results_dir, record)}",
        flush=True,
    )
