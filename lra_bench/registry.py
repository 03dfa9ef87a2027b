"""The one place that reaches the task modules. No JAX."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from lra_bench.data.source import DataSource
from lra_bench.spec import Recipe, Task, unknown
from lra_bench.tasks import SCALING_MODULES, TASK_MODULES


class TaskModule(Protocol):
    """What every module of `tasks/` defines. RECIPES maps a model's name to its published recipe for this task."""

    TASK: Task
    CLASSES: tuple[str, ...]
    """What each label means, for people."""
    DATA: DataSource
    RECIPES: dict[str, Recipe]


def task_names() -> tuple[str, ...]:
    """The benchmark, in the order of the paper's table."""
    return TASK_MODULES


def every_task_name() -> tuple[str, ...]:
    """The benchmark, then the sizes of Pathfinder beyond it."""
    return TASK_MODULES + SCALING_MODULES


def task_module(name: str) -> TaskModule:
    """Raises UserError with the legal names for an unknown task."""
    if name not in every_task_name():
        raise unknown("task", name, every_task_name())
    return cast(TaskModule, importlib.import_module(f"lra_bench.tasks.{name}"))
