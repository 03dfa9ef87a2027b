"""`ls` and `show`: what there is. No JAX."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from lra_bench import UserError
from lra_bench.data.manifest import prepared
from lra_bench.models import MODELS, as_typed, canonical, installed_layers
from lra_bench.registry import every_task_name, task_module, task_names
from lra_bench.results import load_record
from lra_bench.run import all_runs, find_run, load_run
from lra_bench.spec import Recipe

What = Literal["tasks", "models", "recipes", "runs"]
Row = dict[str, Any]


def _tasks() -> list[Row]:
    rows = []
    for name in every_task_name():
        task = task_module(name).TASK
        have = ", ".join(f"{m.protocol} {m.source} {m.size}" for _, m in prepared(name)) or "no"
        counts = " / ".join(f"{n:,}" for n in task.splits.values())
        steps = f"{task.documents} × {task.length:,}" if task.documents == 2 else f"{task.length:,}"
        rows.append({"task": name, "steps": steps, "classes": task.classes, "examples": counts, "prepared": have})
    return rows


def _models() -> list[Row]:
    ours = [
        {
            "model": as_typed(name),
            "title": title,
            "recipes": ", ".join(task for task in task_names() if name in task_module(task).RECIPES) or "none",
        }
        for name, title in MODELS.items()
    ]
    installed = installed_layers().items()
    return ours + [{"model": as_typed(name), "title": path, "recipes": "default"} for name, path in installed]


def _recipes() -> list[Row]:
    return [
        {
            "recipe": f"{as_typed(model)}/{task}",
            "layers": recipe.n_layers,
            "features": recipe.d_model,
            "batch": recipe.batch_size,
            "epochs": round(recipe.epochs, 2),
            "published %": recipe.published,
        }
        for task in task_names()
        for model, recipe in task_module(task).RECIPES.items()
    ]


def _runs() -> list[Row]:
    rows = []
    for folder in all_runs():
        run = load_run(folder)
        result = folder / "result.json"
        record = load_record(result) if result.exists() else None
        rows.append(
            {
                "run": run.name,
                "data": f"{run.data.source} {run.data.size}",
                "status": record.status if record else "unfinished",
                "test": None
                if record is None or record.accuracy.test is None
                else round(100 * record.accuracy.test, 2),
            }
        )
    return rows


LISTINGS: dict[What, Callable[[], list[Row]]] = {"tasks": _tasks, "models": _models, "recipes": _recipes, "runs": _runs}


def listing(what: What) -> list[Row]:
    return LISTINGS[what]()


def print_listing(what: What, rows: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print(f"No {what} yet.")
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row.values()))
    Console().print(table)


def describe(name: str) -> dict[str, Any]:
    """What is known of a task, a model, a cell `model/task`, a run or a result file. Raises UserError for no such
    thing."""
    if name in every_task_name():
        task = task_module(name).TASK.model_dump(mode="json")
        sets = [{"folder": str(folder), **manifest.model_dump(mode="json")} for folder, manifest in prepared(name)]
        for item in sets:
            del item["packed"], item["raw"]
        return {**task, "models with a recipe": list(task_module(name).RECIPES), "prepared": sets}
    if Path(name).suffix == ".json" and Path(name).is_file():
        return load_record(Path(name)).model_dump(mode="json")
    if name.replace("-", "_") in MODELS:
        model = canonical(name)
        recipes = {task: task_module(task).RECIPES.get(model) for task in task_names()}
        return {
            "model": name,
            "title": MODELS[model],
            "published %": {t: r and r.published for t, r in recipes.items()},
        }
    cell = _cell(name)
    if cell is not None:
        return cell.model_dump(mode="json")
    try:
        folder = find_run(name)
    except UserError as error:
        legal = f"a task ({', '.join(every_task_name())}), a model, MODEL/TASK, a run, or a result file"
        raise UserError(f"{error} `show` takes {legal}.") from None
    result = folder / "result.json"
    shown = load_record(result) if result.exists() else load_run(folder)
    return {"folder": str(folder), **shown.model_dump(mode="json")}


def _cell(name: str) -> Recipe | None:
    model, _, task = name.partition("/")
    if task not in every_task_name() or model.replace("-", "_") not in MODELS:
        return None
    recipes = task_module(task).RECIPES
    if canonical(model) not in recipes:
        raise UserError(f"there is no published recipe for {model} on {task}.")
    return recipes[canonical(model)]


def print_description(values: dict[str, Any], as_json: bool) -> None:
    """As JSON, or as `key: value` lines, indented below a key that holds more of them."""
    if as_json:
        print(json.dumps(values, indent=1))
        return
    for line in _lines(values, ""):
        print(line)


def _lines(values: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}:")
            for item in value:
                first, *rest = _lines(item, indent + "    ")
                lines += [f"{indent}  - {first.strip()}", *rest]
        else:
            lines.append(f"{indent}{key}: {'–' if value is None else value}")
    return lines
