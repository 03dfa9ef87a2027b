"""S5-PTD: the settings and recipes of S5 with the changes of the PTD authors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lra_bench.published_status import PublishedStatus
from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, Perturbed, notes, s5
from lra_bench.spec import Recipe

TITLE = "S5-PTD"
PAPER = "Yu et al. 2024 (arXiv 2310.01698)"
REFERENCE = "AnnanYu/Approximate_Diagonal @ ec98d6a6 S5-PTD/bin/run_experiments; Yu et al. 2024 (arXiv 2310.01698)"

BInit = Literal["lecun_normal", "hippo", "hippo_repeated"]


class Config(s5.Config, Perturbed):
    """The settings of S5 and four more."""

    gamma: float = Field(
        gt=0, description="the weight of ‖E‖ against the condition number; unused for blocks of size 2, where E = 0"
    )
    force_negative: bool = Field(description="whether Re Λ is replaced by −|Re Λ| (Path-X)")
    b_init: BInit = Field(
        description="the initial B₀: random, or for every feature HiPPO-LegS's own B, either whole for each block "
        "(hippo) or with each entry repeated once per block (hippo_repeated)"
    )

    @property
    def problem(self) -> tuple[int, float | None]:
        """The number of states of a block, and γ. Blocks of size 2 need no perturbation."""
        block = self.d_state // self.blocks
        return block, self.gamma if block > 2 else None


def row(
    task: str,
    *,
    published: float,
    gamma: float,
    force_negative: bool = False,
    b_init: BInit = "lecun_normal",
    epochs: float | None = None,
    warmup_epochs: float | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    notes: str = "",
) -> tuple[str, Recipe]:
    """A task and S5's recipe for it with these changes; None keeps S5's value.

    γ is our own: it makes ‖E‖ about as large as the authors' (`ssm/ptd.py`).
    """
    like = s5.RECIPES[task]
    config = Config(**like.layer, gamma=gamma, force_negative=force_negative, b_init=b_init)
    changes = {"epochs": epochs, "decay_epochs": epochs, "warmup_epochs": warmup_epochs, "lr": lr}
    changes |= {"weight_decay": weight_decay}
    changed = {key: value for key, value in changes.items() if value is not None}
    own = {"reference": REFERENCE, "published": published, "notes": notes, "layer": config.model_dump()}
    return task, Recipe.model_validate({**like.model_dump(), **changed, **own})


TWO_MATRICES = (
    "B starts from HiPPO-LegS's own, as the authors' README advises for CIFAR. Their code for it repeats each entry of "
    "B three times in a row (hippo_repeated); their README means the whole B once for each of the three blocks (--set "
    "b_init=hippo). That code is switched off as published, so it cannot be decided which of the two made 87.92. The "
    "authors published two matrices for this task: one is no perturbation, the other starts with a growing mode. Here "
    "E is our own, as for all tasks."
)
BATCH_SCHEDULE = (
    "The authors lowered the batch size in the course of training, by a schedule their script and its comments "
    "disagree about; here it is constant."
)

# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=62.75, gamma=1.0, epochs=35.0, weight_decay=0.05),
    row("text", published=89.41, gamma=0.3, epochs=40.0, warmup_epochs=5.0, notes=CHOSEN_ON_TEST),
    row("retrieval", published=91.51, gamma=0.3),
    row("image", published=87.92, gamma=0.006, b_init="hippo_repeated", lr=5e-3, notes=TWO_MATRICES),
    row("pathfinder", published=95.54, gamma=0.1, epochs=230.0, warmup_epochs=10.0, weight_decay=0.05),
    row("pathx", published=98.52, gamma=0.3, force_negative=True, epochs=90.0,
        notes=notes(PATHX_SEEDS, BATCH_SCHEDULE)),
])
# fmt: on

PUBLISHED_STATUS: dict[str, PublishedStatus] = {
    "listops": "memory",
    "text": "memory",
    "retrieval": "memory",
    "image": "secondary",
    "pathfinder": "memory",
    "pathx": "secondary",
}
