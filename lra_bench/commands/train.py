"""The command `lra-bench train`: train models by their recipes. It prints the plan first, then each run's result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lra_bench.commands.options import (
    PROTOCOL_HELP,
    PrecisionOption,
    Remat,
    ResultsDir,
    Settings,
    StopUnhealthy,
    chosen_precision,
    chosen_results_dir,
)
from lra_bench.commands.train_plan import estimates, print_plan
from lra_bench.errors import OutOfTime, UserError, WorkError

if TYPE_CHECKING:
    from lra_bench.records.schema import Record
    from lra_bench.runs.plan import PlannedRun
    from lra_bench.spec import HealthMark, Placement
    from lra_bench.training.tracking import TrackerName


def train(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="The model, as in --model s5-ptd, `all`, or a layer of your own as package.module:Class. May be "
            "repeated: each is trained. `lra-bench ls models` lists the models."
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="The task. May be repeated. Without it, or with `all`, every prepared task."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="The seed of the run. May be repeated. [default: 0]")
    ] = None,
    settings: Settings = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with model, task, seed, set, protocol, size, data, precision and pretrain, as for "
            "`sweep`. What is typed replaces what it says."
        ),
    ] = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(help="Train on the prepared set of this size: full, tiny, or a number of examples.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Train on the prepared set whose folder has this name. `ls tasks` shows them.")
    ] = None,
    precision: PrecisionOption = None,
    pretrain: Annotated[
        Literal["masked", "causal"] | None,
        typer.Option(
            help="Before the run, pretrain its network on the inputs of the same training examples: to predict inputs "
            "hidden from it (masked), or the next input (causal, for --set bidirectional=false). The report keeps such "
            "runs apart."
        ),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Train a small network on tiny data: every stage in a minute.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan with its time and memory, for which a few steps are taken; write nothing."
        ),
    ] = False,
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
    stop_unhealthy: StopUnhealthy = False,
    stop_below: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="EPOCH PERCENT",
            help="Stop a run whose best validation accuracy is below so many percent after an epoch, as in "
            "--stop-below 5 55. It is recorded as failed.",
        ),
    ] = None,
    microbatch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Compute the gradient of a batch from so many examples at a time, for less memory. The result is the "
            "same; a model with BatchNorm is refused.",
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write the learning curve for TensorBoard too, into `tensorboard` in the run's folder.",
        ),
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Send the learning curve and the settings to Weights & Biases too.")
    ] = False,
    processes: Annotated[
        Literal["auto", "one"],
        typer.Option(
            help="Train with all processes that srun, mpirun or Kubernetes started, or that JAX_COORDINATOR_ADDRESS "
            "joins, or in this one alone. docs/many_hosts.md has examples."
        ),
    ] = "auto",
    results_dir: ResultsDir = None,
) -> None:
    """Train a model to its published recipe and write a result record. When interrupted, type the same to continue."""
    deadline = None if time_limit is None else time.monotonic() + 60 * time_limit  # starting JAX counts, too
    if processes == "auto":
        join_others(dry_run)
    from lra_bench.machine.processes import quiet_unless_first
    from lra_bench.overrides import parse_overrides
    from lra_bench.paths import temporary_cache
    from lra_bench.runs.plan import plan_runs
    from lra_bench.sweeps.config import sweep_of
    from lra_bench.training.tracking import refuse_if_missing

    results = chosen_results_dir(results_dir)
    wanted: dict[TrackerName, bool] = {"tensorboard": tensorboard, "wandb": wandb}
    trackers = [name for name, chosen in wanted.items() if chosen]
    refuse_if_missing(trackers)
    marks = [own_mark(stop_below)] if stop_below else []
    typed: dict[str, Any] = {"model": model, "task": task, "seed": seed, "set": parse_overrides(settings or [])}
    typed["set"] = {key: [value] for key, value in typed["set"].items()}
    typed |= {"protocol": protocol, "size": size, "data": data, "precision": precision, "pretrain": pretrain}
    asked = sweep_of(config, typed)
    with temporary_cache() if dry_run else nullcontext(), quiet_unless_first():
        planned = plan_runs(
            asked.model,
            tasks=asked.task,
            seeds=asked.seed,
            overrides=asked.one_combination(config),
            protocol=asked.protocol,
            size=asked.size,
            data=asked.data,
            precision=chosen_precision(asked.precision),
            smoke=smoke,
            dry_run=dry_run,
            pretrain=asked.pretrain,
        )
        refuse_several_runs(planned)
        print_plan(planned, results, estimates(planned, dry_run, data_on, remat, microbatch))
        if not (asked.size or asked.data or smoke):
            note_reduced_data(planned)
        if not dry_run:
            train_all(planned, results, deadline, data_on, remat, microbatch, trackers, marks, stop_unhealthy)


def join_others(dry_run: bool) -> None:
    """Join the processes that a launcher started together with this one, if it did.

    The process that the launcher started watches over another one, which joins them, and ends with its exit code.
    Raises UserError for a dry run, which is one of a single process.
    """
    from lra_bench.machine.launch import WATCHED, launch_of, watch_over

    launch = launch_of(os.environ)
    if launch is None:
        return
    if dry_run:
        raise UserError("--dry-run takes one process. Type it without srun or mpirun, or with --processes one.")
    if WATCHED not in os.environ:
        raise SystemExit(watch_over(sys.argv[1:]))
    from lra_bench.machine.processes import connect

    connect(launch)


def refuse_several_runs(planned: Sequence[PlannedRun]) -> None:
    """Check that several processes train one run together. Raises UserError where there are more."""
    from lra_bench.machine.processes import alone

    if len(planned) > 1 and not alone():
        raise UserError(
            f"several processes train one run together, and these are {len(planned)}. Name one --model, --task and "
            "--seed, or let each process train by itself with --processes one."
        )


def own_mark(stop_below: tuple[float, float]) -> HealthMark:
    """The mark of `--stop-below`. Raises UserError where its numbers are not legal."""
    from lra_bench.spec import HealthMark, validated

    try:
        return validated(HealthMark, dict(zip(("epoch", "accuracy"), stop_below, strict=True)))
    except UserError as error:
        raise UserError(f"--stop-below takes an epoch and a percentage, as in --stop-below 5 55: {error}") from None


def note_reduced_data(planned: Sequence[PlannedRun]) -> None:
    """Say where the best prepared set, which was taken unasked, is not the full one."""
    from lra_bench.progress import print_line

    for name, size in dict.fromkeys((item.run.data.task, item.run.data.size) for item in planned):
        if size != "full":
            few = "only the tiny set" if size == "tiny" else f"no more than {size} examples"
            print_line(
                f"{name}: {few} of it is prepared here, so this is no result of the benchmark. "
                f"For the full set: lra-bench prepare {name}"
            )


def train_all(
    planned: Sequence[PlannedRun],
    results_dir: Path,
    deadline: float | None = None,
    placement: Placement = "auto",
    remat: bool = False,
    microbatch: int | None = None,
    trackers: Sequence[TrackerName] = (),
    marks: Sequence[HealthMark] = (),
    stop_unhealthy: bool = False,
) -> None:
    """Train each run and print its result, with the record's file as the last line.

    At the `deadline`, on the clock of `time.monotonic`, it saves and stops. The others are trained even if a run fails.
    A single run raises its own error; of several, the failed ones are named in a WorkError at the end. Raises OutOfTime
    where the time limit is reached.
    """
    from lra_bench.training.train import train as train_run

    check_writable(results_dir)
    failed = []
    for number, item in enumerate(planned):
        if number and deadline is not None and time.monotonic() >= deadline:
            raise OutOfTime(f"the time limit is reached after {number} of {len(planned)} runs. The same continues.")
        assert item.data_folder is not None, "only a dry run has no data"
        try:
            health = [*marks, *(item.run.health if stop_unhealthy else ())]
            record = train_run(
                item.run, item.data_folder, results_dir, deadline, placement, remat, microbatch, trackers, health
            )
            print_result(record, results_dir)
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
