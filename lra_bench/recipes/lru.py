"""The LRU: the settings of its layer, and the recipes of its paper."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from lra_bench.recipes import PATHX_SEEDS, notes, s5, steps_per_epoch
from lra_bench.spec import WIDEST, Frozen, Group, Recipe, Role

TITLE = "LRU"
PAPER = "Orvieto et al. 2023 (arXiv 2303.06349)"
REFERENCE = "Orvieto et al. 2023 (arXiv 2303.06349), tables 8 and 9; NicolasZucchet/minimal-LRU @ bbd71b1"


class Config(Frozen):
    """The settings of the LRU layer, in the paper's letters."""

    d_state: int = Field(ge=1, le=WIDEST, description="the number N of complex states; there is no conjugate symmetry")
    r_min: float = Field(ge=0, lt=1, description="the inner radius of the ring in which λ starts")
    r_max: float = Field(gt=0, le=1, description="the outer radius of the ring in which λ starts")
    max_phase: float = Field(
        gt=0, le=2 * math.pi, description="the largest initial arg λ; it starts uniform between 0 and this"
    )
    activation: Literal["full_glu", "half_glu1"]

    @model_validator(mode="after")
    def _ring(self) -> Config:
        if self.r_min >= self.r_max:
            raise ValueError(f"r_min must be less than r_max, got {self.r_min} and {self.r_max}")
        return self


GROUPS: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm"}
"""The optimizer groups of minimal-LRU by role."""

LR = 1e-3
"""The base learning rate: minimal-LRU's default, because the paper lists none."""

NOTES = (
    "The paper tunes the base learning rate on a grid and does not list it; 0.001 here is minimal-LRU's default. "
    "In the paper, warm-up and cosine begin and end at 1e-7, here at 0. BatchNorm's decay is minimal-LRU's."
)


def row(
    task: str,
    *,
    published: float | None,
    d_model: int,
    d_state: int,
    ring: tuple[float, float],
    max_phase: float = 2 * math.pi,
    activation: Literal["full_glu", "half_glu1"] = "full_glu",
    bidirectional: bool,
    dropout: float,
    batch_size: int,
    iterations: int,
    lr_factor: float,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: six prenorm blocks, a cosine over the paper's number of iterations, inputs as in S5."""
    config = Config(d_state=d_state, r_min=ring[0], r_max=ring[1], max_phase=max_phase, activation=activation)
    epochs = iterations / steps_per_epoch(task, batch_size)
    return task, Recipe(
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, note),
        n_layers=6,
        d_model=d_model,
        norm="batch",
        prenorm=True,
        norm_decay=0.99,
        bidirectional=bidirectional,
        pooling="mean",
        embedding=s5.INPUTS[task].embedding,
        pixels=s5.INPUTS[task].pixels,
        dropout=dropout,
        layer=config.model_dump(),
        batch_size=batch_size,
        epochs=epochs,
        lr=LR,
        ssm_lr=lr_factor * LR,
        weight_decay=0.05,
        adam_b2=0.999,
        adam_eps=1e-8,
        schedule="cosine",
        warmup_epochs=0.1 * epochs,
        decay_epochs=epochs,
        groups=GROUPS,
    )


IN_COLOR = "The paper's settings and its 89.0 % are of CIFAR-10 in color; no accuracy in gray is published."

# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=60.2, d_model=128, d_state=256, ring=(0.0, 0.99), bidirectional=False, dropout=0.0,
        batch_size=32, iterations=80_000, lr_factor=0.5),
    row("text", published=89.4, d_model=256, d_state=192, ring=(0.5, 0.9), bidirectional=False, dropout=0.1,
        batch_size=32, iterations=50_000, lr_factor=0.1),
    row("retrieval", published=89.9, d_model=128, d_state=256, ring=(0.5, 0.9), bidirectional=False, dropout=0.1,
        batch_size=64, iterations=100_000, lr_factor=0.5),
    row("image", published=None, d_model=512, d_state=384, ring=(0.9, 0.999), bidirectional=False, dropout=0.1,
        batch_size=50, iterations=180_000, lr_factor=0.25, note=IN_COLOR),
    row("pathfinder", published=95.1, d_model=192, d_state=256, ring=(0.9, 0.999), bidirectional=True, dropout=0.0,
        batch_size=64, iterations=500_000, lr_factor=0.25),
    row("pathx", published=94.2, d_model=128, d_state=256, ring=(0.999, 0.9999), max_phase=0.1 * math.pi,
        activation="half_glu1", bidirectional=True, dropout=0.0, batch_size=32, iterations=250_000, lr_factor=0.25,
        note=PATHX_SEEDS),
    row("scifar", published=89.0, d_model=512, d_state=384, ring=(0.9, 0.999), bidirectional=False, dropout=0.1,
        batch_size=50, iterations=180_000, lr_factor=0.25),
])
# fmt: on
