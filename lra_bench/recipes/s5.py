"""S5: the settings of its layer, and the recipes that its authors used."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, Input, in_color
from lra_bench.spec import WIDEST, Discretization, Frozen, GateKind, Group, Recipe, Role

TITLE = "S5"
PAPER = "Smith, Warrington & Linderman 2023 (arXiv 2208.04933)"
CODE = "lindermanlab/S5 @ 3c18fdb6"
REFERENCE = f"{CODE} bin/run_experiments; Smith, Warrington & Linderman 2023, table 11"


class Config(Frozen):
    """The settings of the S5 layer, with the reference's names where it has them.

    Raises ValueError where 2·blocks does not divide d_state, or dt_min exceeds dt_max.
    """

    d_state: int = Field(ge=2, le=WIDEST, description="the number P of states; with conjugate symmetry P/2 are stored")
    blocks: int = Field(ge=1, description="the number J of copies of a HiPPO block of size P/J that Λ starts from")
    activation: GateKind
    c_init: Literal["lecun_normal", "trunc_standard_normal", "complex_normal"]
    discretization: Discretization
    dt_min: float = Field(gt=0, description="the smallest initial step size dt")
    dt_max: float = Field(gt=0, description="the largest initial step size dt")
    clip_eigs: bool = Field(description="whether Re Λ is clipped to at most −1e-4")

    @model_validator(mode="after")
    def _blocks_divide_states(self) -> Config:
        if self.d_state % (2 * self.blocks):
            raise ValueError(f"d_state must be a multiple of 2·blocks = {2 * self.blocks}, got {self.d_state}")
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min must not exceed dt_max, got {self.dt_min} > {self.dt_max}")
        return self


STANDARD: dict[Role, Group] = {"eigenvalues": "ssm", "dt": "ssm", "input": "ssm"}
"""The optimizer groups of the reference's `--opt_config` by role.

Norms, D, C and biases are always regular there, although the code seems to say otherwise: its key "norm" matches no
leaf (lindermanlab/S5#10). The three dictionaries below are the groups of other values of `--opt_config`, and of
`--dt_global`.
"""

STANDARD_DT_GLOBAL: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm"}
B_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "dt": "ssm", "input": "ssm_decay"}
B_FAST_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "dt": "ssm"}

INPUTS: dict[str, Input] = {
    "listops": Input(embedding=20, pixels=None),
    "text": Input(embedding=135, pixels=None),
    "retrieval": Input(embedding=98, pixels=None),
    "image": Input(embedding=None, pixels="standard"),
    "scifar": Input(embedding=None, pixels="color"),
    "pathfinder": Input(embedding=None, pixels="signed"),
    "pathx": Input(embedding=None, pixels="signed"),
}
"""The form in which the reference gives each task to its networks."""


def row(
    task: str,
    *,
    published: float,
    n_layers: int = 6,
    d_model: int,
    d_state: int,
    blocks: int,
    activation: GateKind,
    c_init: Literal["lecun_normal", "trunc_standard_normal", "complex_normal"],
    dt_min: float = 1e-3,
    clip_eigs: bool = False,
    norm_decay: float = 0.95,
    dropout: float,
    batch_size: int,
    epochs: float,
    warmup_epochs: float = 1.0,
    lr: float,
    ssm_lr: float = 1e-3,
    weight_decay: float,
    groups: dict[Role, Group],
    notes: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: bidirectional, prenorm BatchNorm, zero-order hold, mean pooling, S5's own schedule."""
    config = Config(
        d_state=d_state,
        blocks=blocks,
        activation=activation,
        c_init=c_init,
        discretization="zoh",
        dt_min=dt_min,
        dt_max=0.1,
        clip_eigs=clip_eigs,
    )
    return task, Recipe(
        reference=REFERENCE,
        published=published,
        notes=notes,
        n_layers=n_layers,
        d_model=d_model,
        norm="batch",
        prenorm=True,
        norm_decay=norm_decay,
        bidirectional=True,
        pooling="mean",
        embedding=INPUTS[task].embedding,
        pixels=INPUTS[task].pixels,
        dropout=dropout,
        layer=config.model_dump(),
        batch_size=batch_size,
        epochs=epochs,
        lr=lr,
        ssm_lr=ssm_lr,
        weight_decay=weight_decay,
        adam_b2=0.999,
        adam_eps=1e-8,
        schedule="reference",
        warmup_epochs=warmup_epochs,
        decay_epochs=epochs,
        groups=groups,
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=62.15, n_layers=8, d_model=128, d_state=16, blocks=8, activation="half_glu2",
        c_init="lecun_normal", dropout=0.0, batch_size=50, epochs=40.0, lr=3e-3, weight_decay=0.04,
        groups=B_FAST_AND_C_DECAY),
    row("text", published=89.31, d_model=256, d_state=192, blocks=12, activation="half_glu2",
        c_init="lecun_normal", dropout=0.1, batch_size=50, epochs=35.0, warmup_epochs=0.0, lr=4e-3, weight_decay=0.07,
        groups=STANDARD_DT_GLOBAL, notes=CHOSEN_ON_TEST),
    row("retrieval", published=91.40, d_model=128, d_state=256, blocks=16, activation="half_glu1",
        c_init="trunc_standard_normal", dropout=0.0, batch_size=32, epochs=20.0, lr=2e-3, weight_decay=0.05,
        groups=STANDARD_DT_GLOBAL),
    row("image", published=88.00, d_model=512, d_state=384, blocks=3, activation="half_glu1",
        c_init="lecun_normal", clip_eigs=True, dropout=0.1, batch_size=50, epochs=250.0, lr=4.5e-3, weight_decay=0.07,
        groups=B_FAST_AND_C_DECAY),
    row("pathfinder", published=95.33, d_model=192, d_state=256, blocks=8, activation="half_glu1",
        c_init="trunc_standard_normal", norm_decay=0.9, dropout=0.05, batch_size=64, epochs=200.0, lr=4.5e-3,
        ssm_lr=9e-4, weight_decay=0.03, groups=STANDARD),
    row("pathx", published=98.58, d_model=128, d_state=256, blocks=16, activation="half_glu1",
        c_init="complex_normal", dt_min=1e-4, norm_decay=0.9, dropout=0.0, batch_size=32, epochs=75.0, lr=1.8e-3,
        ssm_lr=6e-4, weight_decay=0.06, groups=B_AND_C_DECAY, notes=PATHX_SEEDS),
])
# fmt: on
RECIPES["scifar"] = in_color(
    RECIPES["image"],
    "The S5 paper has 90.10 %, as that of S4D-DFouT quotes it (arXiv 2508.20441, table 2); the LRU paper has 88.8 % "
    "for S5.",
)
