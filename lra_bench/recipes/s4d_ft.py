"""S4D-FT: the S4 family's settings and the scale of its frequencies, and the recipes of its code."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, RISING, notes, s4, steps_per_epoch
from lra_bench.spec import Group, Recipe, Role

TITLE = "S4D-FT"
PAPER = "Yu, Lyu, Lim, Mahoney & Erichson 2025 (arXiv 2410.02035)"
REFERENCE = (
    "AnnanYu/FreqBiasSSM @ b21e52a configs/experiment/lra/bias-s4-*.yaml; accuracy as quoted in arXiv 2505.09022, "
    "Table 4"
)
FILTER_LR = 0.01
"""The learning rate of the filter in every configuration, without decay."""


class Config(s4.FamilyConfig):
    """The settings of the S4 family and one more."""

    frequency_scale: float = Field(gt=0, le=1e6, description="the factor α of the initial Im Λ")


NOTES = "The published standard deviations and numbers of seeds are not known."

GROUPS: dict[Role, Group] = {"eigenvalues": "ssm", "dt": "ssm", "filter": "regular_no_decay"}
"""The optimizer groups of the configurations. Norms and biases have decay: `config.yaml` groups none of them."""

GROUPS_DT_GLOBAL: dict[Role, Group] = {**GROUPS, "dt": "regular_no_decay"}


def row(
    task: str,
    *,
    published: float,
    d_model: int,
    n_ssm: int = 1,
    frequency_scale: float = 3.0,
    dt_min: float = 1e-3,
    norm: Literal["batch", "layer"] = "batch",
    prenorm: bool = True,
    pooling: Literal["mean", "last"] = "mean",
    dropout: float = 0.0,
    batch_size: int,
    epochs: float,
    steps: int,
    warmup_steps: int,
    lr: float,
    ssm_lr: float = 1e-3,
    weight_decay: float = 0.03,
    groups: dict[Role, Group] = GROUPS,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: six layers of 64 stored states, zero-order hold."""
    config = Config(
        d_state=128, n_ssm=n_ssm, dt_min=dt_min, dt_max=0.1, dt_transform="softplus", frequency_scale=frequency_scale
    )
    rising = RISING if epochs * steps_per_epoch(task, batch_size) > steps else ""
    return s4.family_row(
        task,
        config,
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, rising, note),
        n_layers=6,
        d_model=d_model,
        norm=norm,
        prenorm=prenorm,
        pooling=pooling,
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        warmup_steps=warmup_steps,
        lr=lr,
        ssm_lr=ssm_lr,
        weight_decay=weight_decay,
        groups=groups,
        role_lr={"filter": FILTER_LR},
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=62.75, d_model=128, pooling="last", batch_size=32, epochs=160.0, steps=150_000,
        warmup_steps=5_000, lr=8e-3, ssm_lr=4e-3, groups=GROUPS_DT_GLOBAL),
    row("text", published=89.76, d_model=256, frequency_scale=5.0, batch_size=32, epochs=200.0, steps=20_000,
        warmup_steps=2_000, lr=0.01, weight_decay=0.05, groups=GROUPS_DT_GLOBAL, note=CHOSEN_ON_TEST),
    row("retrieval", published=92.45, d_model=128, batch_size=64, epochs=40.0, steps=100_000, warmup_steps=5_000,
        lr=4e-3, groups=GROUPS_DT_GLOBAL),
    row("image", published=90.89, d_model=512, n_ssm=512, norm="layer", prenorm=False, dropout=0.1, batch_size=50,
        epochs=1_200.0, steps=180_000, warmup_steps=18_000, lr=0.01, weight_decay=0.01),
    row("pathfinder", published=95.89, d_model=256, batch_size=50, epochs=300.0, steps=800_000, warmup_steps=150_000,
        lr=4e-3),
    row("pathx", published=97.84, d_model=128, n_ssm=128, frequency_scale=5.0, dt_min=1e-4, batch_size=20,
        epochs=150.0, steps=1_250_000, warmup_steps=200_000, lr=1e-3, note=PATHX_SEEDS),
])
# fmt: on
