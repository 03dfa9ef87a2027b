"""B²S6: the settings of its layer and of selective state spaces, and the recipes of its paper."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, notes, s4, steps_per_epoch
from lra_bench.spec import WIDEST, Frozen, Group, Recipe, Role

TITLE = "B²S6"
PAPER = "Yu & Erichson 2025 (arXiv 2505.09022)"
REFERENCE = "arXiv 2505.09022, table 5 and appendix F; accuracy as stated in its table 3"


class SelectiveConfig(Frozen):
    """The settings that S6 and B²S6 share.

    Raises ValueError where dt_min exceeds dt_max.
    """

    d_state: int = Field(ge=1, le=WIDEST, description="the number N of states of each feature")
    dt_min: float = Field(gt=0, description="the smallest step size dt at the start, for an input of zeros")
    dt_max: float = Field(gt=0, description="the largest step size dt at the start, for an input of zeros")

    @model_validator(mode="after")
    def _order(self) -> SelectiveConfig:
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min must not exceed dt_max, got {self.dt_min} > {self.dt_max}")
        return self


class Config(SelectiveConfig):
    """The settings of the B²S6 layer."""

    blocks: int = Field(ge=1, le=WIDEST, description="the number h of blocks of features, which divides d_model")


NOTES = (
    "The authors' code is in a supplement that we did not have. From the paper: depth, width, norm and its place, "
    "learning rate, batch size, epochs, weight decay, 8 blocks, complex A, W_B and β, one direction as its equations "
    "have it. Not in it, so chosen here: 16 states; A as in S4D-Lin; W_B, W_C and w uniform as dense layers, β complex "
    "normal, D = 1; dt from 0.001 (Path-X 0.0001) to 0.1, its rate a tenth of the general one, where the paper says "
    "reduced; 0.001 for A; warm-up over a tenth of a cosine; dropout 0.1 on Image, 0 elsewhere; mean pooling; the "
    "block of S4, whose norms and biases have no decay, and its scale of pixels. The input's factor is dt, as in "
    "Mamba's code; the paper has zero-order hold. `--set bidirectional=true` adds a second direction."
)
SLOWER_THAN_S4D = (
    "A step takes a CPU about 3.4 times as long as S4D's: 16 complex exponentials per feature and position, of 40 "
    "flops each, are computed twice, and the states three times."
)

GROUPS: dict[Role, Group] = {"eigenvalues": "ssm", "dt": "ssm", **s4.NO_DECAY}


def row(
    task: str,
    *,
    published: float,
    n_layers: int = 6,
    d_model: int,
    norm: Literal["batch", "layer"] = "batch",
    prenorm: bool = True,
    dropout: float = 0.0,
    dt_min: float = 1e-3,
    batch_size: int,
    epochs: float,
    lr: float,
    weight_decay: float = 0.03,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: eight blocks, one direction, mean pooling, a cosine over all epochs."""
    steps = round(epochs * steps_per_epoch(task, batch_size))
    _, recipe = s4.family_row(
        task,
        Config(d_state=16, dt_min=dt_min, dt_max=0.1, blocks=8),
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, SLOWER_THAN_S4D, note),
        n_layers=n_layers,
        d_model=d_model,
        norm=norm,
        prenorm=prenorm,
        pooling="mean",
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        warmup_steps=steps // 10,
        lr=lr,
        ssm_lr=1e-3,
        weight_decay=weight_decay,
        groups=GROUPS,
        role_lr={"dt": lr / 10},
    )
    return task, recipe.model_copy(update={"bidirectional": False})


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=63.85, n_layers=8, d_model=128, prenorm=False, batch_size=32, epochs=120.0, lr=8e-3),
    row("text", published=88.32, d_model=256, batch_size=16, epochs=40.0, lr=0.01, weight_decay=0.05,
        note=CHOSEN_ON_TEST),
    row("retrieval", published=91.44, d_model=128, batch_size=60, epochs=200.0, lr=4e-3),
    row("image", published=88.81, d_model=512, norm="layer", prenorm=False, dropout=0.1, batch_size=48, epochs=500.0,
        lr=0.01, weight_decay=0.05),
    row("pathfinder", published=95.93, d_model=256, batch_size=48, epochs=250.0, lr=4e-3),
    row("pathx", published=97.90, d_model=128, dt_min=1e-4, batch_size=24, epochs=120.0, lr=1e-3, note=PATHX_SEEDS),
])
# fmt: on
