"""The command `lra-bench show`: everything known of one task, model, recipe, run or result; or examples of a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lra_bench.commands.options import PROTOCOL_HELP, Json
from lra_bench.errors import UserError
from lra_bench.plain_text import one_line

if TYPE_CHECKING:
    from lra_bench.spec import Recipe


def show(
    name: Annotated[
        str,
        typer.Argument(help="A task, a model, a recipe as MODEL/TASK, a run, or a result file, as in show s5/listops."),
    ],
    examples: Annotated[
        int | None, typer.Option("--examples", help="Show so many prepared examples of a task instead.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Draw examples of pixels into this PNG file.")] = None,
    protocol: Annotated[Literal["s4", "lra"] | None, typer.Option(help=PROTOCOL_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Show everything known of one task, model, recipe, run or result; or examples of a task."""
    if examples is not None:
        from lra_bench.data.examples import show_examples

        show_examples(name, examples, out, protocol, as_json)
        return
    for option, given in (("--out", out), ("--protocol", protocol)):
        if given is not None:
            raise UserError(f"{option} is for --examples, as in show image --examples 8 {option} {given}.")
    values = describe(name)
    if as_json:
        print(json.dumps(values, indent=1))
    else:
        print("\n".join(described_lines(values, "", descriptions_of(name, values))))


def describe(name: str) -> dict[str, Any]:
    """Collect everything known of a task, a model, a recipe `model/task`, a run or a result file.

    Raises UserError where there is no such thing.
    """
    from lra_bench.records.files import load_any
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.registry import every_task_name, model_names
    from lra_bench.runs.run import find_run, load_run

    if name in every_task_name():
        return describe_task(name)
    if Path(name).suffix == ".json" and Path(name).is_file():
        return load_any(Path(name)).model_dump(mode="json")
    if name.replace("-", "_") in model_names():
        return describe_model(name)
    recipe = find_recipe(name)
    if recipe is not None:
        return recipe.model_dump(mode="json")
    try:
        folder = find_run(name)
    except UserError as error:
        raise UserError(unknown_thing(name, str(error))) from None
    shown = load_finished(folder) if is_finished(folder) else load_run(folder)
    return {"folder": str(folder), **shown.model_dump(mode="json")}


def unknown_thing(name: str, why: str) -> str:
    """The message for a name of nothing: the nearest of all names, and what `show` takes. `why` is what runs say."""
    from lra_bench.registry import cli_name, every_task_name, model_names, recipes_of
    from lra_bench.runs.run import all_runs
    from lra_bench.spec import nearest_name

    runs = [name for folder in all_runs() for name in ("/".join(folder.parts[-3:]), folder.name)]
    recipes = [f"{cli_name(model)}/{task}" for task in every_task_name() for model in recipes_of(task)]
    near = nearest_name(name, [*every_task_name(), *map(cli_name, model_names()), *recipes, *runs])
    known = why if "means" in why else f"there is nothing called {name!r}."
    hint = f" Did you mean {near!r}?" if near else ""
    legal = f"a task ({', '.join(every_task_name())}), a model, MODEL/TASK, a run, or a result file"
    return f"{known}{hint} `show` takes {legal}."


def describe_task(name: str) -> dict[str, Any]:
    """Describe a task, with the models that have a recipe for it and its prepared sets."""
    from lra_bench.data.manifest import prepared_sets
    from lra_bench.registry import recipes_of, task_module

    sets = [{"folder": str(folder), **manifest.model_dump(mode="json")} for folder, manifest in prepared_sets(name)]
    for item in sets:
        del item["packed"], item["raw"]
    task = task_module(name).TASK.model_dump(mode="json")
    return {**task, "models with a recipe": list(recipes_of(name)), "prepared": sets}


def describe_model(name: str) -> dict[str, Any]:
    """Describe a model, with its paper and its published accuracy on each task."""
    from lra_bench.published_status import with_meaning
    from lra_bench.registry import canonical_model, model_title, published_mark, recipe_module, task_names

    model = canonical_model(name)
    module = recipe_module(model)
    found = {task: module.RECIPES.get(task) for task in task_names()}
    marks = {task: published_mark(model, task) for task in found}
    return {
        "model": name,
        "title": model_title(canonical_model(name)),
        "paper": module.PAPER,
        "published %": {task: recipe and recipe.published for task, recipe in found.items()},
        **(
            {"marks": {task: with_meaning(mark) for task, mark in marks.items() if mark}} if any(marks.values()) else {}
        ),
    }


def find_recipe(name: str) -> Recipe | None:
    """The recipe with the name MODEL/TASK; None where the name has no such form.

    Raises UserError where there is no such task, or the model has no recipe for it.
    """
    from lra_bench.registry import canonical_model, every_task_name, model_names, recipes_of
    from lra_bench.spec import unknown

    model, slash, task = name.partition("/")
    if not slash or model.replace("-", "_") not in model_names():
        return None
    if task not in every_task_name():
        raise unknown("task", task, every_task_name())
    recipes = recipes_of(task)
    if canonical_model(model) not in recipes:
        raise UserError(f"there is no published recipe for {model} on {task}.")
    return recipes[canonical_model(model)]


Descriptions = dict[str, Any]
"""What fields mean, by key: a text, or the descriptions of the fields below it."""


def descriptions_of(name: str, values: dict[str, Any]) -> Descriptions:
    """The descriptions of what `describe` returned for a name: of a task, a recipe, a run or a record."""
    from lra_bench.records.schema import BenchRecord, Record, RobustnessRecord, WindowRecord
    from lra_bench.runs.run import Run
    from lra_bench.spec import Frozen, Task

    kinds: dict[object, type[Frozen]] = {"train": Record, "bench": BenchRecord, "robustness": RobustnessRecord}
    kinds["window"] = WindowRecord
    if "reference" in values:
        model, _, task = name.partition("/")
        return recipe_descriptions(model, task)
    if "splits" in values:
        return field_descriptions(Task)
    if "model" not in values or ("data" not in values and "recipe" not in values):
        return {}
    found = field_descriptions(kinds[values["kind"]] if "kind" in values else Run)
    task = values["data"]["task"] if "data" in values else values["task"]
    return {**found, "recipe": recipe_descriptions(values["model"], task)}


def recipe_descriptions(model: str, task: str) -> Descriptions:
    """The descriptions of the fields of a recipe, with the mark of a published accuracy that was not read."""
    from lra_bench.published_status import with_meaning
    from lra_bench.registry import published_mark
    from lra_bench.spec import Recipe

    found = field_descriptions(Recipe) | layer_descriptions(model)
    mark = published_mark(model.replace("-", "_").lower(), task)
    return {**found, "published": f"{with_meaning(mark)}; {found['published']}"} if mark else found


def layer_descriptions(model: str) -> Descriptions:
    """The descriptions of the settings of a model's layer; none for a layer that is not lra-bench's own."""
    from lra_bench.registry import model_names, recipe_module

    name = model.replace("-", "_").lower()
    return {"layer": field_descriptions(recipe_module(name).Config)} if name in model_names() else {}


def field_descriptions(model: Any) -> Descriptions:
    """The descriptions of a model's fields. Where a field is a model itself, they are those of its fields."""
    found: Descriptions = {}
    for key, field in model.model_fields.items():
        inside = hasattr(field.annotation, "model_fields")
        found[key] = field_descriptions(field.annotation) if inside else field.description or ""
    return found


def described_lines(values: dict[str, Any], indent: str, means: Descriptions) -> list[str]:
    """Format the values as `key: value` lines, with what each means behind it. Those of a nested dictionary are
    indented below its key."""
    lines = []
    for key, value in ((one_line(key), value) for key, value in values.items()):
        meaning = means.get(key)
        below = meaning if isinstance(meaning, dict) else {}
        behind = f"  # {meaning}" if meaning and isinstance(meaning, str) else ""
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:{behind}", *described_lines(value, indent + "  ", below)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{indent}{key}:{behind}")
            for item in value:
                first, *rest = described_lines(item, indent + "    ", {})
                lines += [f"{indent}  - {first.strip()}", *rest]
        else:
            lines.append(f"{indent}{key}: {'–' if value is None else one_line(str(value))}{behind}")
    return lines
