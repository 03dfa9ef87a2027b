"""Building a network from a model's name and a recipe. No other module imports the model modules by name."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast, runtime_checkable

from flax import nnx
from jax import Array

from lra_bench.custom_layer import load
from lra_bench.models.classifier import InputMask
from lra_bench.models.custom import CustomModule
from lra_bench.models.layers import DataShape
from lra_bench.models.shapes import DocumentLengths, DocumentTokens, Lengths, Logits, StepFeatures, Tokens
from lra_bench.registry import canonical_model, custom_path, recipe_module
from lra_bench.spec import Recipe, validated


@runtime_checkable
class Network(Protocol):
    """A whole network: inputs (b, L), (b, 2, L) or (b, L, 3) uint8 and lengths (b,) or (b, 2) → logits (b, classes).

    It is an `nnx.Module` as well.
    """

    remat: bool
    """Whether training keeps only the inputs of blocks and computes the rest again in the backward pass."""

    @property
    def batched_products(self) -> bool:
        """Whether most of the time goes into products of many small matrices, as in attention."""

    @property
    def ignores_padding(self) -> bool:
        """Whether, in evaluation, tokens beyond an example's length change nothing."""

    def __call__(self, inputs: Tokens, lengths: Lengths, *, train: bool, key: Array | None) -> Logits:
        """Compute the logits of a batch. `key` draws the dropout; None means none."""


@runtime_checkable
class PretrainableNetwork(Network, Protocol):
    """A network whose features at each position can be had, so that it can learn to predict its inputs."""

    def sequence_features(
        self,
        inputs: DocumentTokens,
        lengths: DocumentLengths,
        *,
        train: bool,
        key: Array | None,
        mask: InputMask | None = None,
    ) -> StepFeatures:
        """Compute the features (L, b, H) of each position, before pooling, in float32, behind that of a class token.

        `mask` hides positions.
        """


@runtime_checkable
class ModelModule(Protocol):
    """A module of `models/` that implements a model. A module of `recipes/` has the same name."""

    def network(self, recipe: Recipe, config: Any, shape: DataShape, *, rngs: nnx.Rngs) -> Network:
        """Make the network of this recipe and layer settings for data of this shape, with its initial parameters."""


def model_module(name: str) -> ModelModule:
    """The module that implements a model; for a user's own layer, a `CustomModule`."""
    model = canonical_model(name)
    path = custom_path(model)
    if path is not None:
        return CustomModule(load(path))
    return cast(ModelModule, importlib.import_module(f"lra_bench.models.{model}"))


def model_config(name: str) -> Any:
    """The class that holds the settings of a model's layer."""
    path = custom_path(canonical_model(name))
    return recipe_module(canonical_model(name)).Config if path is None else load(path).Config


def build(model: str, recipe: Recipe, shape: DataShape, *, rngs: nnx.Rngs) -> Network:
    """Make the network of `model` with the recipe's sizes for data of the given shape.

    Raises UserError for an unknown model, or where the recipe's settings of the layer are not legal.
    """
    config = validated(model_config(model), recipe.layer)
    return model_module(model).network(recipe, config, shape, rngs=rngs)
