"""Tasks and models by name. A task is a file in tasks/, and a model is a file in recipes/ and one in models/.

They are found by the names of their files; no list has to be kept. All other modules reach the modules of tasks and
recipes through this one. JAX is not imported here.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol, cast

from lra_bench.datasource import DataSource
from lra_bench.errors import UserError
from lra_bench.published_status import STATUS_MARKS, PublishedStatus
from lra_bench.spec import Frozen, Recipe, Task, unknown

ENTRY_POINTS = "lra_bench.models"
"""The entry point group in which an installed package names its layers: `my-layer = "my_package.my_module:MyLayer"`."""


class TaskModule(Protocol):
    """The names that every module of `tasks/` defines."""

    TASK: Task
    CLASSES: tuple[str, ...]
    """The meaning of each label."""
    DATA: DataSource


class RecipeModule(Protocol):
    """The names that every module of `recipes/` defines. RECIPES maps the name of a task to its published recipe."""

    TITLE: str
    PAPER: str
    Config: type[Frozen]
    RECIPES: dict[str, Recipe]
    PUBLISHED_STATUS: dict[str, PublishedStatus]
    """The status of each task's published accuracy that was not read in a named paper. Most modules leave it out."""


def _modules_of(package: str) -> list[str]:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    return sorted(module.name for module in found if not module.name.startswith("_"))


# Tasks


@cache
def task_names() -> tuple[str, ...]:
    """The tasks of the benchmark, in the order of the paper's table."""
    return tuple(name for name in every_task_name() if task_module(name).TASK.column is not None)


@cache
def every_task_name() -> tuple[str, ...]:
    """The tasks of the benchmark in the order of the paper's table, then all other tasks by name."""
    columns = {name: _task(name).TASK.column for name in _modules_of("lra_bench.tasks")}
    return tuple(sorted(columns, key=lambda name: (columns[name] is None, columns[name] or 0, name)))


def tasks_with_recipes() -> tuple[str, ...]:
    """The tasks that have recipes of their own, not those of another task, in the order of `every_task_name`."""
    return tuple(name for name in every_task_name() if task_module(name).TASK.like is None)


def _task(name: str) -> TaskModule:
    return cast(TaskModule, importlib.import_module(f"lra_bench.tasks.{name}"))


def task_module(name: str) -> TaskModule:
    """The module of a task. Raises UserError with the legal names for an unknown task."""
    if name not in every_task_name():
        raise unknown("task", name, every_task_name())
    return _task(name)


def has_official_contents(task: str, protocol: str, fingerprint: str) -> bool:
    """Whether a fingerprint is that of the official files' full set, whoever's copy it was read from."""
    return task in every_task_name() and (protocol, fingerprint) in task_module(task).TASK.official.items()


def task_title(name: str) -> str:
    """The heading of a task's column; the name itself for a task that this lra-bench does not know."""
    return task_module(name).TASK.title if name in every_task_name() else name


# Models


@cache
def model_names() -> tuple[str, ...]:
    """The names of lra-bench's own models, as in records."""
    return tuple(_modules_of("lra_bench.recipes"))


def recipe_module(model: str) -> RecipeModule:
    """The recipe module of one of lra-bench's own models."""
    return cast(RecipeModule, importlib.import_module(f"lra_bench.recipes.{model}"))


def recipes_of(task: str) -> dict[str, Recipe]:
    """The recipes of a task by model. A task with `like` has the other task's recipes, without published accuracy.

    Raises UserError for an unknown task.
    """
    described = task_module(task).TASK
    source = described.like or task
    found = {model: recipe_module(model).RECIPES.get(source) for model in model_names()}
    recipes = {model: recipe for model, recipe in found.items() if recipe is not None}
    if described.like is None:
        return recipes
    changes = {"published": None, "notes": f"{task_title(source)}'s recipe on another task"}
    changes |= {} if described.pooling is None else {"pooling": described.pooling}
    return {model: recipe.model_copy(update=changes) for model, recipe in recipes.items()}


def published_mark(model: str, task: str) -> str:
    """The footnote letter of the published accuracy of a model's recipe for a task, a key of `STATUS_MEANINGS`.

    It is "" where the number was read in a table of a named paper, and for a model that is not lra-bench's own.
    """
    if model not in model_names():
        return ""
    statuses: dict[str, PublishedStatus] = getattr(recipe_module(model), "PUBLISHED_STATUS", {})
    return STATUS_MARKS[statuses[task]] if task in statuses else ""


def installed_layers() -> dict[str, str]:
    """The layers of installed packages: from the entry point's name, with underscores, to `package.module:Class`."""
    return {point.name.replace("-", "_").lower(): point.value for point in entry_points(group=ENTRY_POINTS)}


def canonical_model(name: str) -> str:
    """The name of a model as in records: that of a file here, that of an entry point, or `package.module:Class`.

    Raises UserError with the legal names for an unknown model.
    """
    if ":" in name:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*", name, re.ASCII):
            raise UserError(f"a layer of your own is named package.module:Class, as in my_layer:MyLayer; got {name!r}.")
        return name
    found = name.replace("-", "_").lower()
    if found not in model_names() and found not in installed_layers():
        legal = [cli_name(key) for key in (*model_names(), *installed_layers())]
        raise unknown("model", name, [*legal, "or your own package.module:Class"])
    return found


def custom_path(model: str) -> str | None:
    """The `package.module:Class` of a model by its canonical name; None for one of lra-bench's own."""
    return None if model in model_names() else model if ":" in model else installed_layers()[model]


def cli_name(model: str) -> str:
    """The name of a model as typed on the command line: `s5-ptd` for `s5_ptd`, and `package.module:Class` as it is."""
    return model if ":" in model or "." in model else model.replace("_", "-")


def model_title(model: str) -> str:
    """The name of a model as papers write it, such as S5-PTD. A model that is not ours has its name as typed."""
    return recipe_module(model).TITLE if model in model_names() else cli_name(model)
