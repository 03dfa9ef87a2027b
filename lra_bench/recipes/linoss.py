"""LinOSS: the settings of its layer, and recipes for the tasks, on which its authors published nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, notes, s5
from lra_bench.spec import WIDEST, Frozen, GateKind, Recipe

TITLE = "LinOSS"
PAPER = "Rusch & Rus 2025 (arXiv 2410.03943)"
REFERENCE = (
    "layer and block of tk-rusch/linoss @ 83e6318 (models/LinOSS.py), with the task's settings of S5: " + s5.REFERENCE
)


class Config(Frozen):
    """The settings of the LinOSS layer."""

    d_state: int = Field(ge=1, le=WIDEST, description="the number P of complex oscillators")
    discretization: Literal["im", "imex"] = Field(
        description="the discretization: implicit, which damps, or implicit-explicit, which conserves energy"
    )
    activation: GateKind


NOTES = (
    "No accuracy of LinOSS on this benchmark is known. Chosen here: the block of the authors' UEA runs (full GLU) and "
    "the discretization of five of their six (IM). All other settings are S5's for the task, in two directions as "
    "there. P is half of S5's, so that B and C have S5's size, and at least 16, the smallest in the UEA runs. Those "
    "had Adam at a constant rate without decay, dropout 0.05, one direction, and BatchNorm without scale and bias."
)
SHORT_MEMORY = (
    "At the start A is uniform in [0, 1] and dt in 0.5 to 0.73, so the slowest of 128 oscillators forgets within about "
    "a thousand steps. The authors learn from sequences of 17,984 steps with this start, so it is kept."
)


def row(task: str, *, d_state: int, note: str = "") -> tuple[str, Recipe]:
    """A task and its recipe: S5's with another layer."""
    config = Config(d_state=d_state, discretization="im", activation="full_glu")
    return task, s5.RECIPES[task].model_copy(
        update={
            "reference": REFERENCE,
            "published": None,
            "notes": notes(NOTES, note),
            "layer": config.model_dump(),
        }
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", d_state=16),
    row("text", d_state=96, note=CHOSEN_ON_TEST),
    row("retrieval", d_state=128),
    row("image", d_state=192),
    row("pathfinder", d_state=128),
    row("pathx", d_state=128, note=notes(SHORT_MEMORY, PATHX_SEEDS)),
])
# fmt: on
