"""A training run: its identity, its folder, and making it from the settings of a command line."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lra_bench.custom_layer import load
from lra_bench.errors import UserError, WorkError
from lra_bench.json_files import read_json
from lra_bench.overrides import apply_overrides, set_options
from lra_bench.paths import runs_folder, write_atomically
from lra_bench.plain_text import shortened
from lra_bench.recipes import Perturbed
from lra_bench.registry import canonical_model, cli_name, custom_path, recipe_module, recipes_of, task_module
from lra_bench.runs.checksums import (
    SETTINGS,
    checksum_of,
    damage_of,
    promised,
    without_promise,
    write_checksums,
)
from lra_bench.runs.locking import ASIDE, Busy, leave, original_of, run_locked
from lra_bench.runs.pretraining import SETTINGS as PRETRAINING_SETTINGS
from lra_bench.runs.pretraining import SMOKE as PRETRAINING_SMOKE
from lra_bench.runs.pretraining import Objective, Pretraining, pretraining_with, split_settings
from lra_bench.spec import (
    PUBLISHED_PRECISIONS,
    SEEDS,
    DataInfo,
    Frozen,
    HealthMark,
    Name,
    Precision,
    Recipe,
    Seed,
    digest_of,
    explain,
    nearest_name,
    validated,
)

SHOWN = 10
"""The most runs that a message names."""

SMOKE = {"n_layers": 2, "d_model": 32, "batch_size": 20, "epochs": 2.0, "warmup_epochs": 1.0, "decay_epochs": 2.0}
"""The settings that `--smoke` overrides. On the tiny data every stage of a run then takes seconds."""


class Run(Frozen):
    """Everything that decides the numbers of one run."""

    model: Name
    seed: Seed
    data: DataInfo
    recipe: Recipe
    overrides: dict[str, Any]
    precision: Precision
    code: str | None = Field(
        default=None, description="the first digits of the SHA-256 of the file that defines a user's own layer"
    )
    pretraining: Pretraining | None = Field(
        default=None, description="the self-pretraining before the run; None where it starts from random weights"
    )

    data_name: str | None = Field(
        default=None, description="the name of the prepared folder, where the user chose it by name"
    )

    @property
    def digest(self) -> str:
        """The digest of everything that changes the numbers, except the seed."""
        parts = {"model", "data", "precision", "code", "pretraining"}
        fields = self.model_dump(mode="json", include=parts, exclude_none=True)
        return digest_of({**fields, "recipe": self.recipe.identity()})

    @property
    def name(self) -> str:
        """The name of the run, which is also its folder below the runs folder."""
        return f"{self.data.task}/{self.model}/{self.digest}-s{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of the run's settings, checkpoints and metrics."""
        return runs_folder() / self.name

    @property
    def steps_per_epoch(self) -> int:
        """The steps in one pass over the training examples. A last, smaller batch is dropped."""
        return self.data.counts["train"] // self.recipe.batch_size

    def steps_of(self, epochs: float) -> int:
        """The steps of so many epochs, rounded, and at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def refuse_large_batch(self) -> None:
        """Check that the training examples fill one batch. Raises UserError where they do not."""
        have, batch = self.data.counts["train"], self.recipe.batch_size
        if batch > have:
            raise UserError(
                f"batch_size must not exceed the {have} training examples of {self.data.task}, got {batch}. "
                f"Type --set batch_size={have} or less."
            )

    @property
    def health(self) -> tuple[HealthMark, ...]:
        """The health marks of the task; none for a recipe whose published accuracy is not above all of them."""
        marks, published = task_module(self.data.task).TASK.health, self.recipe.published
        return marks if published is None or all(mark.accuracy < published for mark in marks) else ()

    @property
    def is_published_recipe(self) -> bool:
        """Whether this is the recipe as published, on the full data with its published splits.

        Only then can the result be compared with the paper's.
        """
        whole = self.data.size == "full" and self.data.counts == task_module(self.data.task).TASK.splits
        unchanged = self.precision in PUBLISHED_PRECISIONS and not self.overrides and self.pretraining is None
        return whole and unchanged and self.recipe.published is not None

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        parts = ["lra-bench train", f"--model {cli_name(self.model)}", f"--task {self.data.task}"]
        chosen = [f"--protocol {self.data.protocol}", f"--size {self.data.size}"]
        parts += chosen if self.data_name is None else [f"--data {self.data_name}"]
        parts.append(f"--seed {self.seed}")
        parts += [] if self.pretraining is None else [f"--pretrain {self.pretraining.objective}"]
        # The default precision is the device's, and the command repeats the run on any.
        parts += [*set_options(self.overrides), f"--precision {self.precision}"]
        return " ".join(parts)


def recipe_for(task: str, model: str) -> Recipe:
    """The published recipe of a model on a task, or the default one of a user's own layer.

    Raises UserError, with the models that have one for this task, where there is none.
    """
    recipes = recipes_of(task)
    name = canonical_model(model)
    if custom_path(name) is not None:
        return default_recipe(task, recipes)
    if name not in recipes:
        have = ", ".join(map(cli_name, recipes))
        raise UserError(f"there is no published recipe for {model} on {task}. Models with one: {have}.")
    return recipes[name]


def default_recipe(task: str, recipes: Mapping[str, Recipe]) -> Recipe:
    """The recipe of a user's own layer: S5's sizes and training on the task, with a plain schedule and plain groups.

    Raises UserError where S5 has no recipe for the task.
    """
    if "s5" not in recipes:
        raise UserError(f"{task} has no recipe of S5, which a layer of your own takes its sizes from.")
    s5 = recipes["s5"]
    changes: dict[str, Any] = {
        "reference": "lra-bench's default for a layer of your own: depth, width and training of S5 on this task "
        f"({s5.reference}), but a linear warm-up and half a cosine, gate half_glu1; eigenvalues, input, dt at ssm_lr",
        "published": None,
        "notes": "",
        "schedule": "cosine",
        "groups": {"eigenvalues": "ssm", "input": "ssm", "dt": "ssm"},
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
    pretrain: Objective | None = None,
) -> Run:
    """Make the run of a model on a task, with the overrides put into its recipe and its pretraining and checked.

    `data_name` is the name of the prepared folder where the user chose it by name. It is only used to print the command
    that repeats the run. Raises UserError for an unknown model, a setting that is not legal, a seed out of range, or an
    objective that the network cannot have.
    """
    if not 0 <= seed < SEEDS:
        raise UserError(f"--seed takes a number from 0 to {SEEDS - 1}; got {seed}.")
    model = canonical_model(model)
    recipe = recipe_for(data.task, model)
    path = custom_path(model)
    custom = None if path is None else load(path)
    config = recipe_module(model).Config if custom is None else custom.Config
    smoked = {**SMOKE, **(PRETRAINING_SMOKE if pretrain else {})} if smoke else {}
    chosen, stage = split_settings({**smoked, **overrides})
    chosen |= perturbation_solved_here(recipe, chosen, config)
    resolved = apply_overrides(recipe, chosen, config, PRETRAINING_SETTINGS if pretrain else ())
    pretraining, changed = pretraining_with(data.task, model, resolved, pretrain, stage)
    return Run(
        model=model,
        seed=seed,
        data=data,
        recipe=resolved,
        overrides={**changes(recipe, resolved, chosen, config), **changed},
        precision=precision,
        code=None if custom is None else custom.code,
        pretraining=pretraining,
        data_name=data_name,
    )


def changes(recipe: Recipe, resolved: Recipe, chosen: Mapping[str, Any], config: type[Frozen]) -> dict[str, Any]:
    """The settings of `chosen` that differ from the recipe's, with their values as in `resolved`, the checked recipe.

    So `--set epochs=40` changes nothing where the recipe has 40.0, and 4 and 4.0 layers are one setting.
    """
    before, after = (
        {**each.model_dump(mode="json"), **validated(config, each.layer).model_dump(mode="json")}
        for each in (recipe, resolved)
    )
    return {key: after[key] for key in chosen if after[key] != before[key]}


def perturbation_solved_here(recipe: Recipe, chosen: Mapping[str, Any], config: type[Frozen]) -> dict[str, Any]:
    """The setting `perturbation` of a layer whose E is not shipped, unless it is chosen; else nothing.

    Raises UserError for settings that are not legal.
    """
    if not issubclass(config, Perturbed) or "perturbation" in chosen:
        return {}
    settings = validated(config, apply_overrides(recipe, chosen, config).layer)
    from lra_bench.ssm.ptd import solved_here  # here, because it loads SciPy

    found = solved_here(*settings.problem)
    return {} if found is None else {"perturbation": found}


def find_run(name: str) -> Path:
    """Find a run's folder by its path, by `task/model/digest-sN`, or by an unambiguous start of `digest-sN`.

    Raises UserError where there is none or more than one.
    """
    for candidate in (Path(name), runs_folder() / name):
        if (candidate / SETTINGS).is_file():
            return candidate
    runs = all_runs()
    found = [run for run in runs if f"/{run.as_posix()}".endswith(f"/{name}")]
    found = found or [run for run in runs if name and run.name.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = [folder.relative_to(runs_folder()).as_posix() for folder in (found or runs)]
    if found:
        raise UserError(f"{name!r} means {len(found)} runs: {', '.join(names)}. Type more of it.")
    if not runs:
        raise UserError(
            f"there is no run {name!r}, nor any other yet. Make one: lra-bench train --model s5-ptd --smoke."
        )
    # The end of a name is what people type, so a typo is compared with it as well.
    nearest = nearest_name(name, [*names, *(folder.name for folder in runs)])
    shown = [*names[:SHOWN], *(["… (`lra-bench ls runs` lists them)"] if len(names) > SHOWN else [])]
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    raise UserError(f"unknown run {name!r}.{hint} Legal: {', '.join(shown)}.")


def all_runs() -> list[Path]:
    """Whatever lies where runs made on this machine do, also what `load_run` refuses.

    A run that a killed import had moved aside is put back first.
    """
    for aside in runs_folder().glob(f"*/*/.*{ASIDE}"):
        with contextlib.suppress(Busy), run_locked(original_of(aside), leave):
            pass
    found = runs_folder().glob("*/*/*")
    return sorted(folder for folder in found if not any(part.startswith(".") for part in folder.parts[-3:]))


def settings_text(run: Run) -> str:
    """The content of the file of a run's settings."""
    return json.dumps(promised(run.model_dump(mode="json")), indent=1) + "\n"


def write_settings(run: Run) -> None:
    """Write the settings of a run into its folder, with their checksum."""
    text = settings_text(run)
    write_checksums(run.folder, {SETTINGS: checksum_of(text)})
    write_atomically(run.folder / SETTINGS, text)


def remove_run(folder: Path) -> None:
    """Remove the folder of a run: at once for who looks for runs, whenever the process is killed.

    Raises UserError for a folder that is not in the runs folder, and WorkError while a process trains the run.
    """
    folder = folder.resolve()
    if folder.parent.parent.parent != runs_folder().resolve():
        raise UserError(f"{folder} is not among the runs of this machine, in {runs_folder()}. Remove it by hand.")

    def refuse() -> None:
        raise WorkError(f"{folder} is in use by another process. Stop it, and type the same again.")

    with run_locked(folder, refuse):
        removed = folder.with_name(f".removed-{folder.name}")
        shutil.rmtree(removed, ignore_errors=True)  # of a call that was killed
        folder.rename(removed)
    if removed.is_dir():
        shutil.rmtree(removed)
    else:
        removed.unlink()


def load_run(folder: Path) -> Run:
    """Read the run of a folder.

    Raises UserError where run.json is missing, damaged, of a version with other settings, or of another run than the
    folder is named after.
    """
    path = folder / SETTINGS
    again = (
        "Type the `lra-bench train` of this run again, which writes its settings anew, or remove it: "
        f"lra-bench rm {folder.name}"
    )
    refuse_a_file(folder)
    if not path.exists():
        raise UserError(f"{folder} is damaged: it has no {SETTINGS}. {again}")
    damage = damage_of(folder, [SETTINGS])
    if damage is not None:
        raise UserError(f"{folder} is damaged: {damage}. {again}")
    try:
        run = Run.model_validate(without_promise(read_json(path)), strict=True)
    except (UserError, ValidationError) as error:
        why = explain(error) if isinstance(error, ValidationError) else str(error).removeprefix(f"{path} ")
        raise UserError(
            f"{path} describes no run of this lra-bench ({why}) Another version may have written it: use that one, "
            f"or remove it: lra-bench rm {folder.name}"
        ) from None
    # A folder elsewhere may be called as its owner likes. What is hidden is being imported.
    place, runs = folder.resolve(), runs_folder().resolve()
    hidden = any(part.startswith(".") for part in place.relative_to(runs).parts) if runs in place.parents else True
    if not hidden and place != run.folder.resolve():
        raise UserError(
            f"{path} holds the settings of another run, {shortened(run.name)}: it was changed, or another version of "
            f"lra-bench wrote it. {again}"
        )
    return run


def refuse_a_file(folder: Path) -> None:
    """Check that no file lies where the folder of a run belongs. Raises UserError where one does."""
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file, where the folder of a run belongs. To remove it: lra-bench rm {folder.name}"
        )
