"""MEGA-chunk: the recipes of MEGA with attention in chunks, whose cost is linear in the length."""

from __future__ import annotations

from lra_bench.recipes.mega import PAPER, Config, row
from lra_bench.spec import Recipe

__all__ = ["PAPER", "RECIPES", "TITLE", "Config"]

TITLE = "MEGA-chunk"

RECIPES: dict[str, Recipe] = dict(
    [
        row("listops", 58.76, 128),
        row("text", 90.19, 128),
        row("retrieval", 90.97, 128),
        row("image", 85.80, 128),
        row("pathfinder", 94.41, 128),
        row("pathx", 93.81, 4_096),
    ]
)
