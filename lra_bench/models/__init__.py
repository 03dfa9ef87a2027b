"""The models, in the report's order. A model is one module here and its line below; `build` makes the network for a
recipe.

A model module has `Config` (settings of its layer, a frozen spec.Frozen) and either `CONVENTIONS` and
`block(recipe, config, rngs=...)`, which builds one residual block, or `network(recipe, config, shape, rngs=...)`, which
builds all of a network that is no stack of such blocks. This table itself imports no JAX.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from lra_bench import UserError
from lra_bench.spec import Recipe, unknown, validated

if TYPE_CHECKING:
    from flax import nnx

    from lra_bench.classifier import Classifier
    from lra_bench.layers import DataShape
    from lra_bench.models.transformer import Transformer

MODELS: dict[str, str] = {
    "s4": "S4",
    "s4d": "S4D",
    "s4_ptd": "S4-PTD",
    "s5": "S5",
    "s5_ptd": "S5-PTD",
    "lru": "LRU",
    "transformer": "Transformer",
}
"""Module name → title in tables. On the command line `s5-ptd` and `s5_ptd` are the same."""


ENTRY_POINTS = "lra_bench.models"
"""Group under which an installed package names its layers: `my-layer = "my_package.my_module:MyLayer"`."""


def canonical(name: str) -> str:
    """The name of a model as records have it: a module's name here, an entry point's, or `package.module:Class`.

    Raises UserError with the legal names.
    """
    if ":" in name:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*", name, re.ASCII):
            raise UserError(f"a layer of your own is named package.module:Class, as in my_layer:MyLayer; got {name!r}.")
        return name
    found = name.replace("-", "_").lower()
    if found not in MODELS and found not in installed_layers():
        legal = [as_typed(key) for key in (*MODELS, *installed_layers())]
        raise unknown("model", name, [*legal, "or your own package.module:Class"])
    return found


def installed_layers() -> dict[str, str]:
    """Layers of installed packages: entry point's name, with underscores → `package.module:Class`."""
    return {point.name.replace("-", "_").lower(): point.value for point in entry_points(group=ENTRY_POINTS)}


def own_path(model: str) -> str | None:
    """`package.module:Class` of a model that is not one of ours, by its canonical name; None for ours."""
    return None if model in MODELS else model if ":" in model else installed_layers()[model]


def as_typed(model: str) -> str:
    """A canonical name as the command line shows it."""
    return model if ":" in model else model.replace("_", "-")


def title(model: str) -> str:
    return MODELS.get(model, as_typed(model))


def model_module(name: str) -> Any:
    """The module that implements a model, or what stands for it when the layer is the user's; this imports JAX."""
    model = canonical(name)
    path = own_path(model)
    if path is None:
        return importlib.import_module(f"lra_bench.models.{model}")
    return importlib.import_module("lra_bench.models.own").load(path)


def build(model: str, recipe: Recipe, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier | Transformer:
    """The network of `model` with the recipe's sizes for data of the given shape."""
    from lra_bench.classifier import Classifier

    module = model_module(model)
    config = validated(module.Config, recipe.layer)
    if hasattr(module, "network"):
        return module.network(recipe, config, shape, rngs=rngs)
    blocks = [module.block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, module.CONVENTIONS, rngs=rngs)
