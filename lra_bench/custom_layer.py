"""Finding and checking a layer of your own: a class at `package.module:Class`. JAX is imported only to load one.

The class is built as `MyLayer(features, rngs=rngs)`, or, when it has a class attribute `Config` (a pydantic model), as
`MyLayer(features, config, rngs=rngs)`; `--set` then reaches the fields of `Config`. `models/custom.py` puts it into a
network.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lra_bench.errors import UserError
from lra_bench.spec import Frozen, Recipe, unknown


class NoSettings(Frozen):
    """The empty settings of a layer without a `Config`."""


@dataclass(frozen=True)
class CustomModel:
    """A user's class, and the `package.module:Class` where it was found."""

    path: str
    layer: type[Any]

    @property
    def Config(self) -> Any:
        """The class of the layer's settings."""
        return getattr(self.layer, "Config", NoSettings)

    @property
    def code(self) -> str:
        """The first digits of the SHA-256 of the file that defines the class."""
        return hashlib.sha256(Path(inspect.getfile(self.layer)).read_bytes()).hexdigest()[:12]


def load(path: str) -> CustomModel:
    """Load the class at `package.module:Class`, from the current folder or installed.

    Raises UserError when there is no such module or class, or when it cannot be built as this module says.
    """
    module_name, _, class_name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"there is no module {error.name!r}, neither in {here} nor installed.") from None
        raise UserError(f"{module_name} cannot be imported: {error}.") from error
    except Exception as error:
        raise UserError(f"{module_name} cannot be imported: {type(error).__name__}: {error}.") from error
    layers = [name for name, value in vars(module).items() if _is_layer(value)]
    if class_name not in layers:
        raise unknown(f"layer of {module_name}", class_name, layers or ["none: a layer is a subclass of nnx.Module"])
    model = CustomModel(path, getattr(module, class_name))
    check_class(model)
    return model


def check_class(model: CustomModel) -> None:
    """Check a user's class.

    Raises UserError where it cannot be built, or where its settings have the names of the recipe's.
    """
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
    from flax import nnx  # here, so that a run of lra-bench's own models is planned without JAX

    return inspect.isclass(value) and issubclass(value, nnx.Module)
