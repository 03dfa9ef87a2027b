"""Changes of a recipe that a user types as `--set KEY=VALUE`: reading, writing and applying them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from lra_bench.errors import UserError
from lra_bench.spec import TEXT_FIELDS, Frozen, Recipe, unknown, validated


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse the items of `--set`: `["n_layers=4", "norm=layer"]` → `{"n_layers": 4, "norm": "layer"}`.

    Values are read as JSON, and as text where they are not JSON.
    Raises UserError when an item has no `=`, a key is given twice, or a number is not finite.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set takes KEY=VALUE, as in `--set n_layers=4`; got {pair!r}.")
        if key in overrides:
            raise UserError(f"--set {key} is given twice.")
        try:
            overrides[key] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, thousands of digits, or thousands of brackets
            overrides[key] = text
        if isinstance(overrides[key], float) and not math.isfinite(overrides[key]):
            raise UserError(f"--set {key} takes finite numbers; got {text}.")
    return overrides


def as_override(key: str, value: Any) -> str:
    """The KEY=VALUE that `parse_overrides` reads back as this value. It is JSON, except text that needs no quotes."""
    pair = f"{key}={value}"
    if isinstance(value, str) and parse_overrides([pair]) == {key: value}:
        return pair
    return f"{key}={json.dumps(value, sort_keys=True)}"


def set_options(overrides: Mapping[str, Any]) -> list[str]:
    """The overrides as options `--set KEY=VALUE` of a command line, quoted for a shell."""
    # In alphabetical order, as records hold them, so that the same settings are always the same command.
    return [f"--set {shlex.quote(as_override(key, value))}" for key, value in sorted(overrides.items())]


_FIXED = TEXT_FIELDS | {"layer"}


def apply_overrides(
    recipe: Recipe, overrides: Mapping[str, Any], layer_config: type[Frozen], beside: Iterable[str] = ()
) -> Recipe:
    """Put the overrides into a recipe or into its layer settings, and validate both.

    Raises UserError for a key that is in neither (with the legal ones, and others that are legal `beside` them) and for
    a value of the wrong type or range.
    """
    own = [name for name in Recipe.model_fields if name not in _FIXED]
    layer_keys = list(layer_config.model_fields)
    for key in overrides:
        if key not in own and key not in layer_keys:
            raise unknown("setting", key, [*own, *layer_keys, *beside])
    layer = {**recipe.layer, **{k: v for k, v in overrides.items() if k not in own}}
    fields = {**recipe.model_dump(), **{k: v for k, v in overrides.items() if k in own}}
    checked = validated(layer_config, layer)
    return validated(Recipe, {**fields, "layer": checked.model_dump(mode="json")})
