"""One training run: what identifies it, where it lives, and how a command line becomes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lra_bench import UserError
from lra_bench.home import runs_folder
from lra_bench.models import as_typed, canonical, model_module, own_path
from lra_bench.registry import task_module
from lra_bench.results import DataInfo
from lra_bench.spec import Frozen, Recipe, apply_overrides, as_override, digest_of, explain, unknown

Precision = Literal["float32", "tf32"]
"""float32: exact products everywhere. tf32: matrix products in the accelerator's fast float32 mode; changes numbers."""

Placement = Literal["auto", "device", "host"]
"""Where the examples are while training: on the device, on the host's disk (read block by block), or wherever they fit.
Changes no number, so it is no part of a run."""

TEXT_FIELDS = {"source", "published", "notes"}
"""Of a recipe: they describe it and change no number."""

SEEDS = 2**32
"""JAX keeps the last 32 bits of a seed only: 2³² would repeat run 0 under another name."""

SMOKE = {"n_layers": 2, "d_model": 32, "batch_size": 20, "epochs": 2.0, "warmup_epochs": 1.0, "decay_epochs": 2.0}
"""What `--smoke` overrides: every stage of a run in seconds, on the tiny data."""


class Run(Frozen):
    """Everything that decides the numbers of one run."""

    model: str
    seed: int
    data: DataInfo
    recipe: Recipe
    overrides: dict[str, Any]
    precision: Precision
    code: str | None = Field(
        default=None, description="of a user's own layer: first digits of the SHA-256 of the file it is defined in"
    )

    data_name: str | None = Field(default=None, description="of the prepared folder, where it was asked for by name")

    @property
    def digest(self) -> str:
        """Over all that changes the numbers but the seed."""
        fields = self.model_dump(mode="json", include={"model", "data", "precision", "code"}, exclude_none=True)
        return digest_of({**fields, "recipe": self.recipe.model_dump(mode="json", exclude=TEXT_FIELDS)})

    @property
    def name(self) -> str:
        return f"{self.data.task}/{self.model}/{self.digest}-s{self.seed}"

    @property
    def folder(self) -> Path:
        return runs_folder() / self.name

    @property
    def is_published_recipe(self) -> bool:
        """The recipe as published on the full data in its published split: what a comparison with the paper needs."""
        whole = self.data.size == "full" and self.data.counts == task_module(self.data.task).TASK.splits
        exact = self.precision == "float32" and not self.overrides
        return whole and exact and self.recipe.published is not None

    @property
    def command(self) -> str:
        """What repeats this run."""
        parts = ["lra-bench train", f"--model {as_typed(self.model)}", f"--task {self.data.task}"]
        chosen = [f"--protocol {self.data.protocol}", f"--size {self.data.size}"]
        parts += chosen if self.data_name is None else [f"--data {self.data_name}"]
        parts.append(f"--seed {self.seed}")
        parts += [f"--set {shlex.quote(as_override(key, value))}" for key, value in self.overrides.items()]
        if self.precision != "float32":
            parts.append(f"--precision {self.precision}")
        return " ".join(parts)


def recipe_for(task: str, model: str) -> Recipe:
    """The published recipe of a cell, or the default one of a user's own layer.

    Raises UserError naming the models that have one for this task.
    """
    recipes = task_module(task).RECIPES
    name = canonical(model)
    if own_path(name) is not None:
        return default_recipe(recipes["s5"])
    if name not in recipes:
        have = ", ".join(map(as_typed, recipes))
        raise UserError(f"there is no published recipe for {model} on {task}. Models with one: {have}.")
    return recipes[name]


def default_recipe(s5: Recipe) -> Recipe:
    """For a user's own layer: the sizes and the training of S5 on the task, with a plain schedule and plain groups."""
    changes: dict[str, Any] = {
        "source": "lra-bench's default for a layer of your own: depth, width and training of S5 on this task "
        f"({s5.source}), but a linear warm-up and half a cosine, gate half_glu1; eigenvalues, input and step at ssm_lr",
        "published": None,
        "notes": "",
        "schedule": "cosine",
        "groups": {"eigenvalues": "ssm", "input": "ssm", "step": "ssm"},
        "layer": {},
    }
    return s5.model_copy(update=changes)


def make_run(
    data: DataInfo,
    model: str,
    seed: int,
    overrides: Mapping[str, Any],
    precision: Precision,
    smoke: bool = False,
    data_name: str | None = None,
) -> Run:
    """The run for a cell of the table, its overrides applied and checked against the model's own settings.

    `data_name` is the prepared folder's, where the user chose it by name; it only serves to repeat the command.
    """
    if not 0 <= seed < SEEDS:
        raise UserError(f"--seed takes a number from 0 to {SEEDS - 1}; got {seed}.")
    model = canonical(model)
    recipe = recipe_for(data.task, model)
    module = model_module(model)
    chosen = {**(SMOKE if smoke else {}), **overrides}
    resolved = apply_overrides(recipe, chosen, module.Config)
    code = None if own_path(model) is None else module.code
    return Run(
        model=model,
        seed=seed,
        data=data,
        recipe=resolved,
        overrides=chosen,
        precision=precision,
        code=code,
        data_name=data_name,
    )


def find_run(name: str) -> Path:
    """The run folder meant by a path, a `task/model/digest-sN`, or an unambiguous start of `digest-sN`."""
    for candidate in (Path(name), runs_folder() / name):
        if (candidate / "run.json").is_file():
            return candidate
    runs = all_runs()
    found = [folder for folder in runs if folder.name.startswith(name) or folder.as_posix().endswith(f"/{name}")]
    if len(found) == 1:
        return found[0]
    names = [folder.relative_to(runs_folder()).as_posix() for folder in (found or runs)]
    if found:
        raise UserError(f"{name!r} means {len(found)} runs: {', '.join(names)}. Type more of it.")
    if not runs:
        raise UserError(
            f"there is no run {name!r}, nor any other yet. Make one: lra-bench train --model s5-ptd --smoke."
        )
    raise unknown("run", name, names)


def all_runs() -> list[Path]:
    """Folders of the runs made on this machine."""
    return sorted(path.parent for path in runs_folder().glob("*/*/*/run.json"))


def load_run(folder: Path) -> Run:
    """Raises UserError where run.json is damaged or of a lra-bench with other settings."""
    path = folder / "run.json"
    try:
        return Run.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        why = explain(error) if isinstance(error, ValidationError) else "it is not UTF-8 text."
        raise UserError(f"{path} describes no run of this lra-bench ({why}) Remove {folder}.") from None
