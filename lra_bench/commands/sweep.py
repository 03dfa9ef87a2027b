"""The command `lra-bench sweep`: train many runs with an engine, print their commands, or watch them."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lra_bench.commands.options import (
    PROTOCOL_HELP,
    PrecisionOption,
    Remat,
    ResultsDir,
    StopUnhealthy,
    chosen_results_dir,
)
from lra_bench.errors import UserError

if TYPE_CHECKING:
    from lra_bench.runs.plan import PlannedRun

Engine = Literal["local", "slurm", "print"]

JOB_MINUTES = 240
"""The time limit of a SLURM job where none is asked for."""


def sweep(
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with models, tasks, seeds, settings and ranges for random search (docs/sweeps.md)."
        ),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model, as for `train`. May be repeated; `all` is every one.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task. May be repeated. Without it, or with `all`, every prepared task.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="A seed. May be repeated. [default: 0]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting, as for `train`. May be repeated: each value of the same KEY is trained, with each of the "
            "other settings.",
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="Draw so many combinations of the settings instead of taking all.")
    ] = None,
    random_seed: Annotated[
        int | None, typer.Option(min=0, help="The seed that combinations are drawn with. [default: 0]")
    ] = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(help="Train on the prepared sets of this size: full, tiny, or a number of examples.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Train on the prepared set whose folder has this name. `ls tasks` shows them.")
    ] = None,
    precision: PrecisionOption = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Train here, one process per device (local); as an array of SLURM jobs (slurm); or print a command "
            "per run, for any other scheduler (print)."
        ),
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="The most runs at once. By default one per GPU, or one on a CPU; with slurm, all."),
    ] = None,
    job_minutes: Annotated[
        int, typer.Option(min=5, help="The time limit of a SLURM job. The run is saved and queued again before it.")
    ] = JOB_MINUTES,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of `sbatch`, as in --sbatch gpus=1. May be repeated."),
    ] = None,
    remat: Remat = False,
    stop_unhealthy: StopUnhealthy = False,
    results_dir: ResultsDir = None,
    status: Annotated[
        bool, typer.Option("--status", help="Train nothing; show how far each run is, and why those that failed did.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Like --status, in one view that is drawn again until every run has ended."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print --status as JSON, for programs.")] = False,
) -> None:
    """Train models × tasks × seeds × settings. When interrupted, type the same to go on; what is done is skipped."""
    from lra_bench.sweeps.cells import cells_of
    from lra_bench.sweeps.config import choices, sweep_of
    from lra_bench.sweeps.local import devices_here

    if as_json and not status:
        raise UserError("--json is for --status. Add it.")
    results = chosen_results_dir(results_dir)
    search = {key: value for key, value in (("draws", random), ("seed", random_seed)) if value is not None}
    typed: dict[str, Any] = {"model": model, "task": task, "seed": seed, "set": choices(settings or []), "size": size}
    typed |= {"random": search, "protocol": protocol, "data": data, "precision": precision}
    described = sweep_of(config, typed)
    looks = status or watch
    if engine == "slurm" and not looks:
        from lra_bench.sweeps.slurm import refuse_if_not_usable

        refuse_if_not_usable()
    if described.precision is None and engine == "slurm":
        raise UserError("--engine slurm takes --precision, tf32 on accelerators: the devices of the jobs are not here.")
    cells = cells_of(described, described.precision or devices_here().precision)
    options = [*(["--remat"] if remat else []), *(["--stop-unhealthy"] if stop_unhealthy else [])]
    if looks:
        show(cells, watch, as_json)
    elif engine == "print":
        print_commands(cells, results if results_dir else None, options)
    elif engine == "slurm":
        submit_cells(cells, results, options, job_minutes, sbatch or [], jobs)
    else:
        train_here(cells, results, options, jobs)


def show(cells: Sequence[PlannedRun], watch: bool, as_json: bool) -> None:
    """Print how far each cell is, or draw it again and again where this is a terminal."""
    from lra_bench.commands.ls import print_table
    from lra_bench.commands.options import wide_console
    from lra_bench.sweeps.cells import standing_of
    from lra_bench.sweeps.view import LiveView, counts, rows_of

    console = wide_console()
    if watch and console.is_terminal:
        with LiveView(cells, console) as view:
            while not view.ended:
                view.show()
                time.sleep(0.2)
        return
    standings = [standing_of(cell) for cell in cells]
    if as_json:
        print(json.dumps(rows_of(standings), indent=1))
    else:
        print_table(rows_of(standings))
        print(counts(standings))


def print_commands(cells: Sequence[PlannedRun], results_dir: Path | None, options: Sequence[str]) -> None:
    """Print a command per cell, quoted for a shell."""
    from lra_bench.sweeps.cells import command_words

    for cell in cells:
        print(shlex.join(["lra-bench", *command_words(cell, results_dir, options)]))


def submit_cells(
    cells: Sequence[PlannedRun],
    results_dir: Path,
    options: Sequence[str],
    minutes: int,
    sbatch: Sequence[str],
    at_once: int | None,
) -> None:
    """Submit the cells that are neither done nor training as an array of SLURM jobs."""
    from lra_bench.commands.train import check_writable
    from lra_bench.paths import home
    from lra_bench.sweeps.cells import command_words, deliver, standing_of
    from lra_bench.sweeps.slurm import submit

    check_writable(results_dir)
    wrong = [pair for pair in sbatch if "=" not in pair[1:]]
    if wrong:
        raise UserError(f"--sbatch takes KEY=VALUE, as in --sbatch gpus=1; got {wrong[0]!r}.")
    standings = [standing_of(cell) for cell in cells]
    for each in standings:
        if each.ended:
            deliver(each.cell, results_dir)
    left = [each.cell for each in standings if not each.ended and each.state != "running"]
    if not left:
        print("Every run is done or training.")
        return
    folder = home() / "slurm"
    given = dict(pair.split("=", maxsplit=1) for pair in sbatch)
    commands = [command_words(cell, results_dir, options) for cell in left]
    found = submit(commands, folder, minutes, given, at_once)
    print(f"Submitted: {', '.join(job.job_id for job in found)}. What these jobs print is in {folder}")


def train_here(cells: Sequence[PlannedRun], results_dir: Path, options: Sequence[str], jobs: int | None) -> None:
    """Train the cells on this machine, with the one view where this is a terminal."""
    from rich.console import Console

    from lra_bench.commands.train import check_writable, note_reduced_data
    from lra_bench.sweeps.local import devices_here, slots_of, train_locally
    from lra_bench.sweeps.view import LiveView

    check_writable(results_dir)
    note_reduced_data(cells)
    with LiveView(cells, Console(stderr=True)) as view:
        train_locally(cells, results_dir, slots_of(devices_here(), jobs), options, view.show)
