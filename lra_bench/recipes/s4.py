"""S4: the settings of its layer, the recipes of its repository, and the settings that the S4 family shares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, Input, notes, steps_per_epoch
from lra_bench.spec import WIDEST, Frozen, Group, LowRankInit, Recipe, Role

TITLE = "S4"
PAPER = "Gu, Goel & Ré 2022 (arXiv 2111.00396)"
REFERENCE = "state-spaces/s4 @ e757cef5 configs/experiment/lra; accuracy as stated in its models/s4/experiments.md"


class SteppedConfig(Frozen):
    """The settings of layers of independent features with a step size dt each, with the names of S4's code.

    Raises ValueError where dt_min exceeds dt_max.
    """

    d_state: int = Field(
        ge=2, le=WIDEST, multiple_of=2, description="the number N of states of each feature; N/2 are stored"
    )
    n_ssm: int | None = Field(
        ge=1,
        description="the number S of different Λ, P and B; feature h uses number h modulo S; None means one for each",
    )
    dt_min: float = Field(gt=0, description="the smallest initial step size dt")
    dt_max: float = Field(gt=0, description="the largest initial step size dt")
    dt_transform: Literal["softplus", "exp"] = Field(description="the function from the parameter to dt")
    skip: bool = Field(default=True, description="whether the layer adds D u to its output")

    @model_validator(mode="after")
    def _order(self) -> SteppedConfig:
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min must not exceed dt_max, got {self.dt_min} > {self.dt_max}")
        return self


class FamilyConfig(SteppedConfig):
    """The settings that S4, S4D and S4-PTD share."""

    real_transform: Literal["exp", "softplus", "best"] = Field(
        default="exp", description="the function from the parameter to −Re Λ; best is StableSSM's 1 / (w² + 1/2)"
    )


class Config(FamilyConfig):
    """The settings of the S4 layer."""

    init: LowRankInit = Field(description="the initial Λ, P and B: S4-LegS or S4-FouT")


V3_GROUPS: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm", "low_rank": "ssm", "dt": "ssm"}
"""The optimizer groups of `lr: 0.001` in state-spaces/s4 v3.0.0 and v4.0.0, and in S4-PTD's fork. C, D, norms and
biases are regular."""

V3_GROUPS_DT_GLOBAL: dict[Role, Group] = {**V3_GROUPS, "dt": "regular_no_decay"}
"""The optimizer groups of `lr: {dt: null, A: 0.001, B: 0.001}` in the same versions."""

NO_DECAY: dict[Role, Group] = {"norm": "regular_no_decay", "bias": "regular_no_decay"}
"""The optimizer groups of `optimizer_param_grouping` in configs/config.yaml of state-spaces/s4 @ e757cef5: norms and
biases of the blocks have no decay."""

GROUPS_C_GLOBAL: dict[Role, Group] = {**V3_GROUPS, **NO_DECAY}
"""The optimizer groups of configurations without `lr` in state-spaces/s4 @ e757cef5: configs/model/layer/s4.yaml has
0.001 for dt, A and B, and C is regular."""

GROUPS: dict[Role, Group] = {**GROUPS_C_GLOBAL, "output": "ssm_decay"}
"""The optimizer groups of `lr: 0.001` in state-spaces/s4 @ e757cef5. There the single rate is C's too, which has weight
decay (kernels/ssm.py, `register_params`)."""

GROUPS_DT_GLOBAL: dict[Role, Group] = {**V3_GROUPS_DT_GLOBAL, **NO_DECAY}
"""The optimizer groups of `lr: {dt: null, A: 0.001, B: 0.001}` in state-spaces/s4 @ e757cef5. C is regular."""

NOTES = (
    "The published accuracy belongs to the repository's configurations of v3.0.0. The repository states none for the "
    "configurations used here, which it recommends now."
)

IN_COLOR = {
    "reference": "state-spaces/s4 @ e757cef5 configs/experiment/cifar/s4-cifar.yaml; accuracy of Gu, Goel & Ré 2022 "
    "(arXiv 2111.00396)",
    "notes": "The published accuracy belongs to the paper's settings: six layers of 1,024 features, dropout 0.25, "
    "weight decay 0.01, a rate that falls at a plateau. The repository states none for the configuration used here.",
}
"""What is said of the recipe for CIFAR-10 in color."""

INPUTS: dict[str, Input] = {
    "listops": Input(embedding=18, pixels=None),
    "text": Input(embedding=134, pixels=None),
    "retrieval": Input(embedding=98, pixels=None),
    "image": Input(embedding=None, pixels="standard"),
    "scifar": Input(embedding=None, pixels="color"),
    "pathfinder": Input(embedding=None, pixels="unit"),
    "pathx": Input(embedding=None, pixels="unit"),
}
"""The form in which the reference gives each task to its networks."""


def family_row(
    task: str,
    config: Frozen,
    *,
    reference: str,
    published: float | None,
    notes: str,
    n_layers: int,
    d_model: int,
    norm: Literal["batch", "layer"],
    prenorm: bool,
    pooling: Literal["mean", "last"],
    dropout: float,
    batch_size: int,
    epochs: float,
    steps: int,
    warmup_steps: int,
    lr: float,
    ssm_lr: float,
    weight_decay: float,
    groups: dict[Role, Group],
    role_lr: dict[Role, float] | None = None,
) -> tuple[str, Recipe]:
    """A task and a recipe of a code like S4's: bidirectional, torch's BatchNorm, AdamW, a cosine over `steps`."""
    per_epoch = steps_per_epoch(task, batch_size)
    return task, Recipe(
        reference=reference,
        published=published,
        notes=notes,
        n_layers=n_layers,
        d_model=d_model,
        norm=norm,
        prenorm=prenorm,
        norm_decay=0.9 if norm == "batch" else 0.0,
        bidirectional=True,
        pooling=pooling,
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
        schedule="torch-cosine",
        warmup_epochs=warmup_steps / per_epoch,
        decay_epochs=steps / per_epoch,
        groups=groups,
        role_lr=role_lr or {},
    )


def row(
    task: str,
    *,
    published: float,
    d_model: int = 256,
    d_state: int,
    n_ssm: int | None = 1,
    dt_min: float = 1e-3,
    norm: Literal["batch", "layer"] = "batch",
    prenorm: bool,
    dropout: float = 0.0,
    batch_size: int,
    epochs: float,
    steps: int,
    warmup_steps: int | None = None,
    lr: float,
    groups: dict[Role, Group],
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe as the repository recommends it now: LegS, six layers, a tenth of the steps as warm-up."""
    config = Config(d_state=d_state, n_ssm=n_ssm, dt_min=dt_min, dt_max=0.1, dt_transform="softplus", init="legs")
    return family_row(
        task,
        config,
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, note),
        n_layers=6,
        d_model=d_model,
        norm=norm,
        prenorm=prenorm,
        pooling="mean",
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        warmup_steps=steps // 10 if warmup_steps is None else warmup_steps,
        lr=lr,
        ssm_lr=1e-3,
        weight_decay=0.05,
        groups=groups,
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=59.5, d_state=4, prenorm=False, batch_size=32, epochs=40.0, steps=120_000, lr=0.01,
        groups=GROUPS_DT_GLOBAL),
    row("text", published=86.5, d_state=4, prenorm=True, batch_size=16, epochs=32.0, steps=50_000, lr=0.01,
        groups=GROUPS_DT_GLOBAL, note=CHOSEN_ON_TEST),
    row("retrieval", published=91.0, d_state=4, prenorm=True, batch_size=64, epochs=20.0, steps=50_000, lr=0.01,
        groups=GROUPS_DT_GLOBAL),
    row("image", published=88.5, d_model=512, d_state=64, prenorm=False, dropout=0.1, batch_size=50, epochs=200.0,
        steps=180_000, lr=0.01, groups=GROUPS),
    row("pathfinder", published=94.0, d_state=64, n_ssm=None, prenorm=True, batch_size=64, epochs=200.0,
        steps=500_000, lr=4e-3, groups=GROUPS),
    row("pathx", published=96.0, d_state=64, n_ssm=None, dt_min=1e-4, prenorm=True, batch_size=16, epochs=50.0,
        steps=500_000, lr=1e-3, groups=GROUPS, note=PATHX_SEEDS),
    row("scifar", published=91.13, d_model=512, d_state=64, n_ssm=2, norm="layer", prenorm=False, dropout=0.1,
        batch_size=50, epochs=200.0, steps=180_000, warmup_steps=900, lr=0.01, groups=GROUPS_C_GLOBAL),
])
# fmt: on
RECIPES["scifar"] = RECIPES["scifar"].model_copy(update=IN_COLOR)
