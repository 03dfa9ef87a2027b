"""The command `lra-bench ls`: the tasks, models and recipes there are, and the runs of this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lra_bench.commands.options import Json, wide_console

if TYPE_CHECKING:
    from lra_bench.data.manifest import Manifest
    from lra_bench.runs.run import Run

What = Literal["tasks", "models", "recipes", "runs"]
Row = dict[str, Any]


def ls(
    what: Annotated[What, typer.Argument(help="What to list.")],
    as_json: Json = False,
) -> None:
    """List tasks, models, recipes, or the runs of this machine."""
    rows = LISTINGS[what]()
    if as_json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"No {what} yet.")
    else:
        print_table(rows)
    damaged = sum(row.get("status") == "unreadable" for row in rows)
    if damaged and not as_json:
        typer.echo(f"{damaged} of the runs cannot be read: lra-bench doctor says why, and what to type.", err=True)


def print_table(rows: list[Row]) -> None:
    """Print the rows under the names of their columns."""
    from rich.table import Table
    from rich.text import Text

    from lra_bench.plain_text import one_line

    table = Table()
    for name in rows[0]:
        table.add_column(name, overflow="fold")  # a name that does not fit goes on in the next line
    for row in rows:
        # Text, in which rich reads no markup: a name may come from a file.
        table.add_row(*(Text("–" if value is None else one_line(str(value))) for value in row.values()))
    wide_console().print(table)


def tasks() -> list[Row]:
    """List every task with its length, classes, examples per split, and what is prepared here."""
    from lra_bench.data.manifest import prepared_sets
    from lra_bench.registry import every_task_name, task_module

    rows = []
    for name in every_task_name():
        task = task_module(name).TASK
        have = ", ".join(f"{folder.name}: {described(manifest)}" for folder, manifest in prepared_sets(name)) or "no"
        counts = " / ".join(f"{n:,}" for n in task.splits.values())
        length = f"{task.documents} × {task.length:,}" if task.documents == 2 else f"{task.length:,}"
        rows.append({"task": name, "length": length, "classes": task.classes, "examples": counts, "prepared": have})
    return rows


def described(manifest: Manifest) -> str:
    """Name a prepared set by protocol, source and size, and say what is known of its contents."""
    from lra_bench.registry import task_module

    note = ""
    if manifest.official_contents and manifest.source != "official":
        note = " (official contents)"
    elif (
        manifest.source == "generated" and manifest.size != "tiny" and task_module(manifest.task).TASK.generated_differs
    ):
        note = " (differs from the released images)"
    return f"{manifest.protocol} {manifest.source} {manifest.size}{note}"


def models() -> list[Row]:
    """List every model of lra-bench with the tasks it has recipes for, then the layers of installed packages."""
    from lra_bench.registry import cli_name, installed_layers, model_names, model_title, recipes_of, tasks_with_recipes

    ours = [
        {
            "model": cli_name(name),
            "title": model_title(name),
            "recipes": ", ".join(task for task in tasks_with_recipes() if name in recipes_of(task)) or "none",
        }
        for name in model_names()
    ]
    installed = installed_layers().items()
    return ours + [{"model": cli_name(name), "title": path, "recipes": "default"} for name, path in installed]


def recipes() -> list[Row]:
    """List every recipe with its sizes and its published accuracy, whose mark `show RECIPE` explains."""
    from lra_bench.registry import cli_name, published_mark, recipes_of, tasks_with_recipes

    return [
        {
            "recipe": f"{cli_name(model)}/{task}",
            "layers": recipe.n_layers,
            "features": recipe.d_model,
            "batch": recipe.batch_size,
            "epochs": round(recipe.epochs, 2),
            "published %": recipe.published,
            "mark": published_mark(model, task) or None,
        }
        for task in tasks_with_recipes()
        for model, recipe in recipes_of(task).items()
    ]


def runs() -> list[Row]:
    """List every run of this machine with its data, settings, status, progress in epochs and test accuracy in %.

    A run that cannot be read has only its folder and a status; `doctor` says why.
    """
    from lra_bench.errors import UserError
    from lra_bench.paths import runs_folder
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.report.select import joined, settings_of
    from lra_bench.runs.run import all_runs, load_run

    rows: list[Row] = []
    for folder in all_runs():
        try:
            run = load_run(folder)
            record = load_finished(folder) if is_finished(folder) else None
        except UserError:
            name = folder.relative_to(runs_folder()).as_posix()
            rows.append({**dict.fromkeys(RUN_COLUMNS), "run": name, "status": "unreadable"})
            continue
        test = None if record is None else record.accuracy.test
        rows.append(
            {
                "run": run.name,
                "data": f"{run.data.protocol} {run.data.source} {run.data.size}",
                "settings": joined(settings_of(run.overrides, run.pretraining), run.precision),
                "status": record.status if record else "unfinished",
                "epochs": progress_of(run, folder, record is not None),
                "test": None if test is None else round(100 * test, 2),
            }
        )
    return rows


RUN_COLUMNS = ("run", "data", "settings", "status", "epochs", "test")
"""The columns of the listing of runs."""


def progress_of(run: Run, folder: Path, ended: bool) -> str:
    """The epochs that a run has come to, or those of its pretraining while it has come to none of its own."""
    from lra_bench.runs.standing import read_position

    position = None if ended or run.pretraining is None else read_position(folder)
    if run.pretraining is None or position is None or position.stage == "training":
        return f"{epochs_done(folder):g} of {run.recipe.epochs:g}"
    done = position.step / (run.data.counts["train"] // run.recipe.batch_size)
    return f"pretraining {done:.3g} of {run.pretraining.pretrain_epochs:g}"


def epochs_done(folder: Path) -> float:
    """The epochs after which the run of this folder was last scored, by the last line of its metrics that is good; 0
    where there is none."""
    from lra_bench.errors import UserError
    from lra_bench.json_files import parse_json
    from lra_bench.records.curves import FILE

    try:
        lines = (folder / FILE).read_bytes().splitlines()
    except OSError:
        return 0.0
    for line in reversed(lines):
        with contextlib.suppress(UserError, ValueError, KeyError, TypeError):
            return float(parse_json(line, FILE)["epoch"])
    return 0.0


LISTINGS: dict[What, Callable[[], list[Row]]] = {"tasks": tasks, "models": models, "recipes": recipes, "runs": runs}
