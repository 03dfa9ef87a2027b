"""What a record must be able to prove: whatever follows from the package is computed again and compared.

A record says which recipe it used, on which data and at which precision. From these follow its digest, whether it is
the published recipe, the published number, the steps of its curve and its rates. A record that contradicts the package
or itself is refused wherever records are read. `records/agreement.py` compares the numbers with each other. This module
imports no JAX.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from lra_bench.datasource import Request
from lra_bench.errors import UserError
from lra_bench.overrides import apply_overrides
from lra_bench.plain_text import shortened
from lra_bench.records.agreement import disagreements
from lra_bench.records.schema import AnyRecord, BenchRecord, Record, RobustnessRecord, System, WindowRecord
from lra_bench.registry import every_task_name, model_names, recipe_module, recipes_of, task_module
from lra_bench.runs.pretraining import pretraining_with, split_settings
from lra_bench.runs.run import Run, default_recipe
from lra_bench.spec import PUBLISHED_PRECISIONS, TEXT_FIELDS, DataInfo, Recipe, digest_of, validated

OTHER_VERSION = "another version of lra-bench may have made it"
"""The innocent cause of a difference from the package."""

SAME_POINTS = 0.5
"""The share of a curve's points that two runs of different seeds may have in common. Honest ones share none."""


def contradictions(record: AnyRecord) -> list[str]:
    """Return what in the record alone is contradicted by the package or by another part of the record."""
    return [*_identity(record), *disagreements(record)]


def _identity(record: AnyRecord) -> Iterator[str]:
    """Compute the digest, the recipe and what is called published again."""
    if isinstance(record, BenchRecord):
        yield from _recipe(record.task, record.model, record.recipe, record.overrides)
        remade = bench_digest(record.model, record.task, record.length, record.recipe, record.system, record.remat)
        yield from _digest(record.digest, remade)
        return
    yield from _data(record.data)
    if isinstance(record, RobustnessRecord | WindowRecord):
        yield from _robustness(record)
        return
    overrides, stage = split_settings(record.overrides)
    yield from _recipe(record.data.task, record.model, record.recipe, overrides)
    yield from _pretraining(record, stage)
    if record.model in model_names() and record.code is not None:
        yield f"{record.model} is a model of lra-bench, but the record names the code of a user's layer"
    if record.model not in model_names() and record.code is None:
        yield f"{record.model} is no model of this lra-bench, and the record does not name the code of a user's layer"
    run = run_of(record)
    yield from _digest(record.digest, run.digest)
    published = record.data.task in every_task_name() and run.is_published_recipe
    if published != record.published_recipe:
        said = "a published recipe" if record.published_recipe else "no published recipe"
        yield f"called {said}, which by its data, settings and precision it is{'' if published else ' not'}"


def run_of(record: Record) -> Run:
    """Return the run that the record says it is of."""
    return Run(
        model=record.model,
        seed=record.seed,
        data=record.data,
        recipe=record.recipe,
        overrides=record.overrides,
        precision=record.system.precision,
        code=record.code,
        pretraining=record.pretraining,
    )


def bench_digest(model: str, task: str, length: int, recipe: Recipe, system: System, remat: bool) -> str:
    """Return the digest of a benchmark, over recipe, shape, precision and devices."""
    identity = {
        "model": model,
        "task": task,
        "length": length,
        "recipe": recipe.identity(),
        "precision": system.precision,
        "device_kind": system.device_kind,
        "devices": system.devices,
        **({"remat": True} if remat else {}),
    }
    return digest_of(identity)


def _digest(said: str, remade: str) -> Iterator[str]:
    if said != remade:
        yield f"its digest is {said}, but its model, data, recipe and precision give {remade}"


def _recipe(task: str, model: str, recipe: Recipe, overrides: Mapping[str, Any]) -> Iterator[str]:
    """Compare a recipe with that of the package under the same overrides. That of an unknown task is taken as it is."""
    if task not in every_task_name():
        if recipe.published is not None:
            yield f"there is no published number on {task}, a task that this lra-bench does not know"
        return
    try:
        expected = expected_recipe(task, model, json.dumps(overrides, sort_keys=True))
        found = _comparable(recipe, model)
    except UserError as error:
        yield f"its settings are not legal: {error}"
        return
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if different:
        key = different[0]
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        yield (
            f"its recipe has {key} = {shortened(repr(found.get(key)))}{more}, but the recipe of {model} on {task} "
            f"with its overrides has {shortened(repr(expected.get(key)))}; {OTHER_VERSION}"
        )


def _pretraining(record: Record, changed: Mapping[str, Any]) -> Iterator[str]:
    """Compare the self-pretraining with that of the package under the same changes."""
    if record.data.task not in every_task_name():
        return
    objective = None if record.pretraining is None else record.pretraining.objective
    try:
        expected, _ = pretraining_with(record.data.task, record.model, record.recipe, objective, changed)
    except UserError as error:
        yield f"its pretraining is not legal: {error}"
        return
    if record.pretraining != expected:
        yield f"its pretraining is not that of {record.model} on {record.data.task} with its overrides; {OTHER_VERSION}"
    if record.pretrained is None and (record.pretraining is not None and record.curve):
        yield "it was trained after a pretraining, of which it says nothing"
    if record.pretrained is not None and record.pretraining is None:
        yield "it says how its pretraining went, but not which one it was"


@cache
def expected_recipe(task: str, model: str, overrides: str) -> dict[str, Any]:
    """Return the settings that a model has on a task with these overrides (JSON), as `_comparable` gives them.

    The settings of a user's own layer are not checked, because its code would have to be run. Raises UserError where
    there is no such recipe, or an override is not legal.
    """
    changes, recipes = json.loads(overrides), recipes_of(task)
    if model in model_names():
        if model not in recipes:
            raise UserError(f"there is no published recipe for {model} on {task}.")
        return _comparable(apply_overrides(recipes[model], changes, recipe_module(model).Config), model)
    own = {key: value for key, value in changes.items() if key in Recipe.model_fields}
    fields = default_recipe(task, recipes).model_dump()
    return _comparable(validated(Recipe, {**fields, **own}), model)


def _comparable(recipe: Recipe, model: str) -> dict[str, Any]:
    """Return the settings of a recipe and its published number by name, those of the layer with all their defaults."""
    values = recipe.model_dump(mode="json", exclude=TEXT_FIELDS - {"published"})
    layer = values.pop("layer")
    if model in model_names():
        layer = validated(recipe_module(model).Config, layer).model_dump(mode="json")
        return {**values, **{f"layer.{key}": value for key, value in layer.items()}}
    return values


def _data(data: DataInfo) -> Iterator[str]:
    """Compare the description of a full set with its task, and a claim to official files with their fingerprint."""
    if data.task not in every_task_name() or data.size != "full":
        return
    task = task_module(data.task).TASK
    if data.counts["test"] != task.splits["test"]:
        yield f"called full, with {data.counts['test']} test examples; {data.task} has {task.splits['test']}"
    shape = (data.classes, data.length if data.protocol == "s4" else task.length)
    if data.version == task.version and shape != (task.classes, task.length):
        yield f"called full, with {data.classes} classes and length {data.length}; {data.task} has others"
    if data.source == "generated" and not can_be_generated(data.task, data.protocol):
        yield f"called generated in full, but {data.task} cannot be generated"
    known = task.official.get(data.protocol)
    official = data.source in ("official", "mirror") and data.version == task.version and data.counts == task.splits
    if official and known not in (None, data.fingerprint):
        yield f"called {data.source}, with fingerprint {data.fingerprint}; that of the official files is {known}"


@cache
def can_be_generated(task: str, protocol: str) -> bool:
    """Whether the full set of a task can be made by its generator."""
    request = Request("lra" if protocol == "lra" else "s4", "full", 0, None)
    return task_module(task).DATA.generator(request) is not None


def _robustness(record: RobustnessRecord | WindowRecord) -> Iterator[str]:
    """Check a claim to the published recipe as far as it follows from the data and the precision."""
    task, data = record.data.task, record.data
    recipe = recipes_of(task).get(record.model) if task in every_task_name() else None
    possible = (
        recipe is not None
        and recipe.published is not None
        and data.size == "full"
        and data.counts == task_module(task).TASK.splits
        and record.system.precision in PUBLISHED_PRECISIONS
    )
    if record.published_recipe and not possible:
        yield "called a published recipe, which by its model, data and precision it is not"


def copies(found: Mapping[str, AnyRecord]) -> dict[str, str]:
    """Return the names of training records that are copies of another one's run, each with the name of the other.

    A record is a copy if it has another seed, model or data, and most points of its curve, losses included, are those
    of the other. The earlier name counts as the original.
    """
    seen: dict[tuple[float, ...], str] = {}
    copied: dict[str, str] = {}
    for name in sorted(found):
        record = found[name]
        if not isinstance(record, Record):
            continue
        points = [(p.step, p.train_loss, p.train_accuracy, p.val_loss, p.val_accuracy) for p in record.curve]
        others = [seen[point] for point in points if point in seen]
        for other in dict.fromkeys(others):
            twin = found[other]
            assert isinstance(twin, Record)
            if _whose(twin) != _whose(record) and others.count(other) > SAME_POINTS * len(points):
                copied[name] = other
        seen.update((point, name) for point in points if point not in seen)
    return copied


def _whose(record: Record) -> tuple[int, str, str, bool]:
    """Return what two records with one curve must share. An official file and its mirror hold the same examples."""
    data = record.data
    return record.seed, record.model, data.fingerprint, data.source == "generated"
