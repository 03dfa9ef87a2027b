"""From a model's name and a recipe to the network: the one place that reaches the model modules."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from flax import nnx
from jax import Array

from lra_bench.custom_layer import load
from lra_bench.models.custom import CustomModule
from lra_bench.models.layers import DataShape
from lra_bench.registry import canonical_model, custom_path, recipe_module
from lra_bench.spec import Recipe, validated


class Network(Protocol):
    """A whole network: inputs (b, L) or (b, 2, L) uint8 and lengths (b,) or (b, 2) to logits (b, classes).

    It is an `nnx.Module` as well.
    """

    remat: bool
    """Whether training computes what is inside the blocks again in the backward pass, instead of keeping it."""

    @property
    def batched_products(self) -> bool:
        """Whether its time goes into products of many small matrices, as in attention."""

    @property
    def ignores_padding(self) -> bool:
        """Whether, in evaluation, tokens beyond an example's length change nothing."""

    def __call__(self, inputs: Array, lengths: Array, *, train: bool, key: Array | None) -> Array: ...


class ModelModule(Protocol):
    """What every module of `models/` that is named as one of `recipes/` defines."""

    def network(self, recipe: Recipe, config: Any, shape: DataShape, *, rngs: nnx.Rngs) -> Network:
        """The network of this recipe and layer settings for data of this shape, with its initial parameters."""


def model_module(name: str) -> ModelModule:
    """The module that implements a model, or what stands for it where the layer is the user's."""
    model = canonical_model(name)
    path = custom_path(model)
    if path is not None:
        return CustomModule(load(path))
    return cast(ModelModule, importlib.import_module(f"lra_bench.models.{model}"))


def model_config(name: str) -> Any:
    """The class of the settings of a model's layer."""
    path = custom_path(canonical_model(name))
    return recipe_module(canonical_model(name)).Config if path is None else load(path).Config


def build(model: str, recipe: Recipe, shape: DataShape, *, rngs: nnx.Rngs) -> Network:
    """The network of `model` with the recipe's sizes for data of the given shape."""
    config = validated(model_config(model), recipe.layer)
    return model_module(model).network(recipe, config, shape, rngs=rngs)
