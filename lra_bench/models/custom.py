"""A layer of your own: any `nnx.Module` that maps (b, L, H) to (b, L, H), put into S5's block.

A parameter made as `nnx.Param(value, role="eigenvalues")`, or with another `spec.Role`, belongs to the optimizer group
that the recipe has for the role. All other parameters are regular. An `nnx.BatchStat` is kept from step to step, a
random stream (`nnx.Dropout`) is new at each step, and a variable of another type keeps its first value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from flax import nnx
from jax import Array
from pydantic import BaseModel

from lra_bench.custom_layer import CustomModel, NoSettings
from lra_bench.errors import UserError
from lra_bench.models.classifier import Classifier
from lra_bench.models.layers import FLAX, Block, DataShape, Gate, wide
from lra_bench.spec import Recipe, Role, unknown
from lra_bench.ssm.shapes import Features


class CustomLayer(nnx.Module):
    """The user's layer, made to take and return (L, b, H)."""

    def __init__(self, layer: nnx.Module, path: str):
        self.layer = layer
        self.path = path

    def __call__(self, u: Features) -> Features:
        """Apply the layer, in float32, to (L, b, H). Raises UserError where it changes the shape or the dtype."""
        x = wide(u.swapaxes(0, 1))
        y = self.layer(x)
        if getattr(y, "shape", None) != x.shape or y.dtype != x.dtype:
            given = f"{y.dtype} {y.shape}" if isinstance(y, Array) else type(y).__name__
            raise UserError(f"{self.path} must return what it is given, {x.dtype} {x.shape} as (b, L, H); got {given}.")
        return y.swapaxes(0, 1).astype(u.dtype)


@dataclass(frozen=True)
class CustomModule:
    """A user's class with the functions of a model module."""

    custom: CustomModel

    def block(self, recipe: Recipe, config: BaseModel, *, rngs: nnx.Rngs) -> Block:
        """Make one residual block of S5 with the user's layer. Raises UserError for a role that does not exist."""
        settings = [] if self.custom.Config is NoSettings else [config]
        layer = self.custom.layer(recipe.d_model, *settings, rngs=rngs)
        check_roles(layer, self.custom.path)
        gate = Gate("half_glu1", recipe.d_model, FLAX, rngs=rngs)
        return Block(recipe, CustomLayer(layer, self.custom.path), gate, FLAX, rngs=rngs)

    def network(self, recipe: Recipe, config: BaseModel, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
        """Make the network of such blocks. Raises UserError as `block` does."""
        blocks = [self.block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
        return Classifier(recipe, shape, blocks, FLAX, rngs=rngs)


def check_roles(layer: nnx.Module, path: str) -> None:
    """Check the roles of a layer's parameters. Raises UserError where one does not exist."""
    for place, parameter in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        role = parameter.get_metadata().get("role")
        if role is not None and role not in get_args(Role):
            raise unknown(f"role of {path}'s parameter {'.'.join(map(str, place))}", str(role), get_args(Role))
