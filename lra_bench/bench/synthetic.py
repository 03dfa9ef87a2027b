"""Random examples in the shape of a task, so that speed can be measured where no data is prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lra_bench.data.packed import PackedSplit
from lra_bench.models.layers import DataShape
from lra_bench.registry import task_module
from lra_bench.runs.run import Run, make_run
from lra_bench.spec import SPLITS, DataInfo, Precision, Recipe


def synthetic_run(
    model: str, task: str, length: int | None, overrides: Mapping[str, Any], precision: Precision
) -> tuple[Run, DataShape]:
    """Make the run of `model` on examples of `task`'s shape with this length (None: the task's own), and that shape.

    Raises UserError for an unknown name or setting, or where the task has no recipe for the model.
    """
    spec = task_module(task).TASK
    data = DataInfo(
        task=task,
        version=spec.version,
        protocol="s4",
        source="generated",
        size="synthetic",
        fingerprint="synthetic",
        length=length or spec.length,
        classes=spec.classes,
        counts=dict.fromkeys(SPLITS, 0),
        validation_is_test=False,
    )
    shape = DataShape(data.length, data.classes, spec.documents, spec.variable_length, spec.channels)
    return make_run(data, model, 0, overrides, precision), shape


def synthetic_split(recipe: Recipe, shape: DataShape, n: int) -> PackedSplit:
    """Draw `n` examples of full length, with tokens uniform over the recipe's vocabulary or pixels over 0 … 255."""
    rng = np.random.default_rng(0)
    documents = () if shape.documents == 1 else (shape.documents,)
    channels = () if shape.channels == 1 else (shape.channels,)
    inputs = rng.integers(0, min(recipe.embedding or 256, 256), (n, *documents, shape.length, *channels), np.uint8)
    lengths = np.full((n, *documents), shape.length, np.int32)
    return PackedSplit(inputs, lengths, rng.integers(0, shape.classes, n, np.int32))
