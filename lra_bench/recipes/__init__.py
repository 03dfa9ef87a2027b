"""The published recipes, one file per model: its title, its paper, the settings of its layer, and a recipe per task.

A file here is found by its name. It defines TITLE, PAPER, `Config` (a spec.Frozen) and RECIPES, a dictionary from the
name of a task to its Recipe. `models/` has a file of the same name with the layer itself. JAX is not imported here.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from typing import Literal, NamedTuple

from pydantic import Field

from lra_bench.spec import Frozen, Recipe, Task

CHOSEN_ON_TEST = "The checkpoint is chosen on the test split: the published protocol has no validation split."
"""A note for Text, in the recipe of every model."""

PATHX_SEEDS = (
    "Path-X depends on the seed: of ten runs of the S5 authors' script four learned nothing (lindermanlab/S5#10). "
    "Train three seeds or more, and stop one that is still at 50 % after a third of its epochs."
)
"""A note for Path-X, in the recipe of every state space model."""

RISING = (
    "Epochs and schedule are the configuration's, and the cosine ends before training does: it rises again, as in the "
    "code. The best validation epoch counts."
)
"""A note for a recipe of which training outlasts the schedule."""


class Perturbed(Frozen):
    """The setting of a layer that starts from a perturbed HiPPO matrix A + E (`ssm/ptd.py`)."""

    perturbation: str | None = Field(
        default=None,
        description="the first digits of the SHA-256 of E where it was solved for on the machine that began the run, "
        "because solutions differ between versions of LAPACK; None where E is shipped with lra-bench",
    )

    @property
    @abstractmethod
    def problem(self) -> tuple[int, float | None]:
        """The number of states of a block, and the γ by which its E is solved for."""


class Input(NamedTuple):
    """The form in which a task's examples enter a network: tokens with so many rows of a table, or scaled pixels."""

    embedding: int | None
    pixels: Literal["unit", "signed", "standard", "color"] | None


def steps_per_epoch(task: str, batch_size: int) -> int:
    """The number of steps in one epoch of the full training split of `task`. A last, smaller batch is dropped."""
    described: Task = importlib.import_module(f"lra_bench.tasks.{task}").TASK
    return described.splits["train"] // batch_size


def notes(*parts: str) -> str:
    """Join the parts that are not empty to one text."""
    return " ".join(part for part in parts if part)


def in_color(image: Recipe, note: str) -> Recipe:
    """The recipe for sCIFAR of a model whose published settings for color are not known: those of Image."""
    said = "The published settings for color are not known; these are Image's."
    return image.model_copy(update={"pixels": "color", "published": None, "notes": notes(said, note)})
