"""What `train` is about to do: the cells it was asked for, printed first, then trained one after another."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from lra_bench import OutOfTime, UserError, WorkError
from lra_bench.data.manifest import Manifest, choose, prepared
from lra_bench.data.prepare import prepare
from lra_bench.models import canonical, own_path, title
from lra_bench.registry import task_module, task_names
from lra_bench.results import Record, record_path
from lra_bench.run import Placement, Precision, Run, make_run
from lra_bench.spec import Protocol


class Planned(NamedTuple):
    run: Run
    data_folder: Path

    @property
    def state(self) -> str:
        """`finished`, `started` or `new`."""
        if (self.run.folder / "result.json").exists():
            return "finished"
        return "started" if (self.run.folder / "checkpoints").exists() else "new"


def plan_runs(
    model: str,
    *,
    tasks: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Any],
    protocol: Protocol | None,
    size: str | None,
    data: str | None,
    precision: Precision,
    smoke: bool,
) -> list[Planned]:
    """One run per task and seed. Without tasks, or with `all`: every prepared task that the model has a recipe for;
    with `smoke`, all six.

    Raises UserError for an unknown name, a repeated seed, a task that is not prepared, or a setting that is not legal.
    """
    model = canonical(model)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"each seed once, please; got {', '.join(map(str, seeds))}.")
    if smoke:
        protocol, size = protocol or "s4", size or "tiny"
    names = [] if list(tasks) == ["all"] else list(tasks)
    names = names or _tasks_without_being_asked(model, smoke)
    planned = []
    for name in names:
        task_module(name)
        if smoke and size == "tiny":
            prepare(name, size="tiny", protocol=protocol or "s4")
        folder, manifest = choose(name, protocol, size, data)
        for seed in seeds:
            run = make_run(manifest.data_info, model, seed, overrides, precision, smoke, data)
            _check_vocabulary(run, manifest)
            planned.append(Planned(run, folder))
    return planned


def _check_vocabulary(run: Run, manifest: Manifest) -> None:
    """Raises UserError for tokens without a row in the table: looked up, they would silently share the last one."""
    rows, tokens = run.recipe.embedding, len(manifest.vocabulary or ())
    if rows is not None and rows < tokens:
        raise UserError(
            f"the {run.data.protocol} data of {run.data.task} has {tokens} tokens, but embedding = {rows} rows. "
            f"Type --set embedding={tokens}."
        )


def _tasks_without_being_asked(model: str, smoke: bool) -> list[str]:
    have_recipe = [name for name in task_names() if own_path(model) or model in task_module(name).RECIPES]
    names = have_recipe if smoke else [name for name in have_recipe if prepared(name)]
    if not names:
        raise UserError("no task is prepared. Type `lra-bench prepare listops`, or add --smoke to try on tiny data.")
    return names


def print_plan(planned: Sequence[Planned]) -> None:
    """One line per run: what is trained on what, for how long, and what is there already."""
    table = Table("Task", "Data", "Model", "Seed", "Epochs", "Batch", "Recipe", "State", title="Plan")
    for item in planned:
        run = item.run
        data = f"{run.data.source}, {run.data.protocol}, {run.data.size}"
        table.add_row(
            run.data.task,
            data,
            title(run.model),
            str(run.seed),
            f"{run.recipe.epochs:g}",
            str(run.recipe.batch_size),
            "changed" if run.overrides else "published" if run.code is None else "default",
            item.state,
        )
    console = Console(stderr=True)
    console.print(table)
    if planned and planned[0].run.overrides:
        changed = ", ".join(f"{key}={value}" for key, value in planned[0].run.overrides.items())
        console.print(f"Changed from the recipe: {changed}.", highlight=False)


def run_all(
    planned: Sequence[Planned],
    results_dir: Path,
    minutes: float | None = None,
    placement: Placement = "auto",
    remat: bool = False,
) -> None:
    """Train each run and print its result; the last line of each is the record's file. After `minutes`, stop and save.

    A run that fails does not keep the others from being trained. Raises what a single run raises; with several,
    WorkError at the end naming those that failed.
    """
    from lra_bench.train import train

    _check_writable(results_dir)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    failed = []
    for number, item in enumerate(planned):
        if number and deadline is not None and time.monotonic() >= deadline:
            raise OutOfTime(f"the time limit is reached after {number} of {len(planned)} runs. The same continues.")
        try:
            _print_result(train(item.run, item.data_folder, results_dir, deadline, placement, remat), results_dir)
        except WorkError as error:
            if len(planned) == 1:
                raise
            print(f"{item.run.name}: {error}", file=sys.stderr, flush=True)
            failed.append(item.run.name)
    if failed:
        raise WorkError(f"{len(failed)} of {len(planned)} runs failed: {', '.join(failed)}; see above.")


def _check_writable(results_dir: Path) -> None:
    """Raises UserError now rather than after hours of training."""
    try:
        results_dir.mkdir(parents=True, exist_ok=True)
        why = None if os.access(results_dir, os.W_OK) else "permission denied"
    except OSError as error:
        why = error.strerror
    if why:
        raise UserError(f"no record can be written to {results_dir}: {why}. Name another folder with --results-dir.")


def _print_result(record: Record, results_dir: Path) -> None:
    accuracy = record.accuracy
    print(
        f"{record.data.task} {title(record.model)} seed {record.seed}: test accuracy {accuracy.test:.2%} "
        f"(n = {record.data.counts['test']:,}; majority class {accuracy.majority:.2%}; best {accuracy.selection} "
        f"accuracy {accuracy.best_val:.2%} at epoch {accuracy.best_epoch:g})\n"
        f"{record_path(results_dir, record.data.task, record.model, record.digest, record.seed)}",
        flush=True,
    )
