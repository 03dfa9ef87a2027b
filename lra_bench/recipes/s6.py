"""S6, the layer of Mamba: its settings, and the recipes of B²S6 with it in place of B²S6's layer."""

from __future__ import annotations

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, b2s6, notes, s4
from lra_bench.spec import Group, Recipe, Role

TITLE = "S6 (Mamba)"
PAPER = "Gu & Dao 2023 (arXiv 2312.00752)"
REFERENCE = (
    "layer of arXiv 2312.00752, algorithm 2, with the task's settings of B²S6 (arXiv 2505.09022, table 5); accuracy as "
    "stated there in table 3, row S6 (Mamba)"
)


class Config(b2s6.SelectiveConfig):
    """The settings of the S6 layer."""


NOTES = (
    "Published accuracies of Mamba contradict each other. The one here is of the B²S6 paper (mean 66.59), which states "
    "no settings for it: those here are B²S6's, so a difference says little. Another paper has 32.5 on ListOps, 90.2 "
    "on Retrieval, 68.9 on Image and 99.2 on Pathfinder for Mamba (quoted in arXiv 2502.16249), and one of models with "
    "S6 layers 83.2 to 89.8 on five tasks. What is measured here is news. One direction, 16 states, A from -1 to -16 "
    "for each feature, D = 1 and the input's factor dt are Mamba's. dt has rank one, as in its algorithm. Mamba's "
    "convolution and gate are left out, and the block is that of S4. dt has the general learning rate, since a lower "
    "one is what B²S6 adds. The laws of the weights of B, C and dt, and dt from 0.0001 on Path-X, are B²S6's as chosen "
    "here. `--set bidirectional=true` adds a second direction."
)
GROUPS: dict[Role, Group] = {
    "eigenvalues": "regular_no_decay",
    "dt": "regular_no_decay",
    "skip": "regular_no_decay",
    **s4.NO_DECAY,
}
"""A and D have no decay, as in Mamba's code. Here nor have w and b of dt."""


def row(task: str, *, published: float, note: str = "") -> tuple[str, Recipe]:
    """A task and its recipe: B²S6's with another layer."""
    settings = b2s6.RECIPES[task]
    layer = {key: settings.layer[key] for key in Config.model_fields}
    return task, settings.model_copy(
        update={
            "reference": REFERENCE,
            "published": published,
            "notes": notes(NOTES, note),
            "layer": Config.model_validate(layer).model_dump(),
            "groups": GROUPS,
            "role_lr": {},
        }
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=38.02),
    row("text", published=82.98, note=CHOSEN_ON_TEST),
    row("retrieval", published=72.14),
    row("image", published=69.82),
    row("pathfinder", published=69.26),
    row("pathx", published=67.32, note=PATHX_SEEDS),
])
# fmt: on
