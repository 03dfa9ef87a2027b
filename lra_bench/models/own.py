"""A layer of your own: any `nnx.Module` that maps (b, L, H) to (b, L, H), put into S5's block.

The class is built as `MyLayer(features, rngs=rngs)`, or, when it has a class attribute `Config` (a pydantic model), as
`MyLayer(features, config, rngs=rngs)`; `--set` then reaches the fields of `Config`. A parameter made as
`nnx.Param(value, role="eigenvalues")` (or another `spec.Role`) goes to the optimiser group that the recipe has for the
role; the others are regular. `nnx.BatchStat`s are carried from step to step and random streams (`nnx.Dropout`) drawn
anew at each; a variable of another type keeps its first value.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from flax import nnx
from jax import Array
from pydantic import BaseModel

from lra_bench import UserError
from lra_bench.layers import FLAX, Block, Conventions, Gate
from lra_bench.spec import Frozen, Recipe, Role, unknown


class NoSettings(Frozen):
    """Of a layer without a `Config`."""


class OwnLayer(nnx.Module):
    """The user's layer in the network's time-major activations."""

    def __init__(self, layer: nnx.Module, path: str):
        self.layer = layer
        self.path = path

    def __call__(self, u: Array) -> Array:
        x = u.swapaxes(0, 1)
        y = self.layer(x)
        if getattr(y, "shape", None) != x.shape or y.dtype != x.dtype:
            given = f"{y.dtype} {y.shape}" if isinstance(y, Array) else type(y).__name__
            raise UserError(f"{self.path} must return what it is given, {x.dtype} {x.shape} as (b, L, H); got {given}.")
        return y.swapaxes(0, 1)


@dataclass(frozen=True)
class OwnModel:
    """A user's class in the form of a model module: `Config`, `CONVENTIONS` and `block`."""

    path: str
    layer: type[Any]
    CONVENTIONS: Conventions = FLAX

    @property
    def Config(self) -> Any:
        return getattr(self.layer, "Config", NoSettings)

    @property
    def code(self) -> str:
        """First digits of the SHA-256 of the file that defines the class."""
        return hashlib.sha256(Path(inspect.getfile(self.layer)).read_bytes()).hexdigest()[:12]

    def block(self, recipe: Recipe, config: BaseModel, *, rngs: nnx.Rngs) -> Block:
        settings = [] if self.Config is NoSettings else [config]
        layer = self.layer(recipe.d_model, *settings, rngs=rngs)
        check_roles(layer, self.path)
        gate = Gate("half_glu1", recipe.d_model, FLAX, rngs=rngs)
        return Block(recipe, OwnLayer(layer, self.path), gate, FLAX, rngs=rngs)


def check_roles(layer: nnx.Module, path: str) -> None:
    for place, parameter in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        role = parameter.get_metadata().get("role")
        if role is not None and role not in get_args(Role):
            raise unknown(f"role of {path}'s parameter {'.'.join(map(str, place))}", str(role), get_args(Role))


def load(path: str) -> OwnModel:
    """The class at `package.module:Class`, from the current folder or installed.

    Raises UserError when there is no such module or class, or when it cannot be built as this module says.
    """
    module_name, _, class_name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"there is no module {error.name!r}, neither in {os.getcwd()} nor installed.") from None
        raise UserError(f"{module_name} cannot be imported: {error}.") from error
    except Exception as error:
        raise UserError(f"{module_name} cannot be imported: {type(error).__name__}: {error}.") from error
    layers = [name for name, value in vars(module).items() if _is_layer(value)]
    if class_name not in layers:
        raise unknown(f"layer of {module_name}", class_name, layers or ["none: a layer is a subclass of nnx.Module"])
    model = OwnModel(path, getattr(module, class_name))
    check_class(model)
    return model


def check_class(model: OwnModel) -> None:
    """Raises UserError for a class that cannot be built, or whose settings cannot be told from the recipe's."""
    Config: Any = model.Config
    if not (inspect.isclass(Config) and issubclass(Config, BaseModel)):
        raise UserError(f"{model.path}: Config must be a pydantic model, got {Config!r}.")
    taken = sorted(Recipe.model_fields.keys() & Config.model_fields.keys())
    if taken:
        raise UserError(f"{model.path}: these are settings of the recipe, name yours differently: {', '.join(taken)}.")
    settings = [] if Config is NoSettings else ["config"]
    try:
        inspect.signature(model.layer.__init__).bind("self", "features", *settings, rngs="rngs")
    except TypeError as error:
        form = ", ".join(["features", *settings, "rngs=rngs"])
        raise UserError(f"{model.path} must be built as {model.layer.__name__}({form}): {error}.") from None


def _is_layer(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, nnx.Module)
