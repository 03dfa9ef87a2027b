"""RTF: the settings of its layer, and the recipes of its code."""

from __future__ import annotations

from pydantic import Field

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, notes, s4
from lra_bench.spec import WIDEST, Frozen, Group, Recipe, Role

TITLE = "RTF"
PAPER = "Parnichkun et al. 2024 (arXiv 2405.06147)"
REFERENCE = (
    "ruke1ire/RTF @ 1d9e1e5 experiments/state-spaces/configs/experiment/lra/rtf-*.yaml; accuracy as stated in arXiv "
    "2405.06147"
)


class Config(Frozen):
    """The settings of the RTF layer."""

    d_state: int = Field(ge=1, le=WIDEST, description="the number n of coefficients of each numerator and denominator")
    num_a: int | None = Field(
        ge=1, description="the number of different denominators of a direction; None means one for each feature"
    )
    layer_dropout: float = Field(
        ge=0, lt=1, description="the share of the numbers after each layer's GELU that is dropped, drawn at each step"
    )


NOTES = (
    "Where paper and configurations disagree, this is the configurations. There h_0 starts normal; the paper writes 1. "
    "The published standard deviations and numbers of seeds are not known."
)

GLOBAL: dict[Role, Group] = {}
"""The optimizer groups of the configurations without a rate of the layer: all is regular and has decay. Here as in the
other two, so have norms and biases: `config.yaml` groups none of them."""

WITHOUT_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "output": "ssm", "skip": "ssm"}
"""The optimizer groups of the configurations that give a, b and h_0 a learning rate and no weight decay."""

WITH_DECAY: dict[Role, Group] = {"eigenvalues": "ssm_decay", "output": "ssm_decay", "skip": "ssm_decay"}
"""The optimizer groups of the configuration that gives them a learning rate and the general weight decay."""


def row(
    task: str,
    *,
    published: float,
    d_model: int = 256,
    d_state: int,
    num_a: int | None = 1,
    prenorm: bool = True,
    dropout: float = 0.0,
    layer_dropout: float = 0.0,
    batch_size: int,
    epochs: float,
    steps: int,
    lr: float,
    ssm_lr: float = 1e-3,
    weight_decay: float,
    groups: dict[Role, Group],
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: six layers, BatchNorm, mean pooling, a tenth of the steps as warm-up."""
    return s4.family_row(
        task,
        Config(d_state=d_state, num_a=num_a, layer_dropout=layer_dropout),
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, note),
        n_layers=6,
        d_model=d_model,
        norm="batch",
        prenorm=prenorm,
        pooling="mean",
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        warmup_steps=steps // 10,
        lr=lr,
        ssm_lr=ssm_lr,
        weight_decay=weight_decay,
        groups=groups,
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=61.59, d_state=4, prenorm=False, batch_size=32, epochs=40.0, steps=120_000, lr=2e-3,
        weight_decay=0.07, groups=GLOBAL, note="The paper has 50 epochs."),
    row("text", published=89.72, d_state=4, dropout=0.1, layer_dropout=0.1, batch_size=16, epochs=32.0, steps=50_000,
        lr=5e-3, weight_decay=0.05, groups=WITHOUT_DECAY,
        note=notes("The paper has a rate of 0.0001 and a decay of 0.025 for a, b and h_0.", CHOSEN_ON_TEST)),
    row("retrieval", published=92.04, d_state=4, batch_size=64, epochs=20.0, steps=57_040, lr=2e-3, ssm_lr=1e-5,
        weight_decay=0.0, groups=WITHOUT_DECAY, note="The paper has a rate of 0.000001 for a, b and h_0."),
    row("image", published=90.51, d_model=512, d_state=64, prenorm=False, dropout=0.1, layer_dropout=0.1,
        batch_size=50, epochs=200.0, steps=180_000, lr=6e-3, ssm_lr=5e-3, weight_decay=0.05, groups=WITH_DECAY),
    row("pathfinder", published=96.11, d_state=64, num_a=None, dropout=0.1, layer_dropout=0.1, batch_size=64,
        epochs=200.0, steps=500_000, lr=2e-3, weight_decay=0.05, groups=GLOBAL),
    row("pathx", published=96.32, d_state=2_048, num_a=None, dropout=0.1, batch_size=16, epochs=50.0, steps=500_000,
        lr=1e-3, weight_decay=0.025, groups=WITHOUT_DECAY, note=notes("The paper has 64 states.", PATHX_SEEDS)),
])
# fmt: on
