"""The models, in the report's order. A model is one module here and its line below; `build` makes the network for a
recipe.

A model module has `Config` (settings of its layer, a frozen spec.Frozen) and either `CONVENTIONS` and
`block(recipe, config, rngs=...)`, which builds one residual block, or `network(recipe, config, shape, rngs=...)`, which
builds all of a network that is no stack of such blocks. This table itself imports no JAX.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from lra_bench.spec import Recipe, unknown, validated

if TYPE_CHECKING:
    from flax import nnx

    from lra_bench.layers import Classifier, DataShape

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


def canonical(name: str) -> str:
    """The module name of a model as typed. Raises UserError with the legal names."""
    found = name.replace("-", "_").lower()
    if found not in MODELS:
        raise unknown("model", name, [key.replace("_", "-") for key in MODELS])
    return found


def model_module(name: str) -> ModuleType:
    """The module that implements a model; this imports JAX."""
    return importlib.import_module(f"lra_bench.models.{canonical(name)}")


def build(model: str, recipe: Recipe, shape: DataShape, *, rngs: nnx.Rngs) -> Classifier:
    """The network of `model` with the recipe's sizes for data of the given shape."""
    from lra_bench.layers import Classifier

    module = model_module(model)
    config = validated(module.Config, recipe.layer)
    if hasattr(module, "network"):
        return module.network(recipe, config, shape, rngs=rngs)
    blocks = [module.block(recipe, config, rngs=rngs) for _ in range(recipe.n_layers)]
    return Classifier(recipe, shape, blocks, module.CONVENTIONS, rngs=rngs)
