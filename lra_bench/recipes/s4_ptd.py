"""S4-PTD: the S4 family's settings and two of its own, and the recipes of the PTD authors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lra_bench.published_status import PublishedStatus
from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, Perturbed, notes, s4, steps_per_epoch
from lra_bench.spec import Group, Recipe, Role

TITLE = "S4-PTD"
PAPER = "Yu et al. 2024 (arXiv 2310.01698)"
REFERENCE = "AnnanYu/Approximate_Diagonal @ ec98d6a6 S4-PTD/configs/experiment/lra; Yu et al. 2024 (arXiv 2310.01698)"


class Config(s4.FamilyConfig, Perturbed):
    """The settings of the S4 family and three more. All d_state states are stored, not half of them."""

    gamma: float = Field(gt=0, description="the weight of ‖E‖ against the condition number (`ssm/ptd.py`)")
    init: Literal["paper", "published_code"] = Field(
        description="the initial Λ: that of A_HiPPO + E, or with Im Λ > 0 replaced by −0.0001, as the code does"
    )

    @property
    def problem(self) -> tuple[int, float | None]:
        """The number of states, and γ."""
        return self.d_state, self.gamma


NOTES = (
    "The perturbation E is our own, because the authors' matrix has no license. init=published_code: the code that "
    "made the accuracies replaces Im Λ by −0.0001 in every mode where it is positive. So 32 of its 64 modes oscillate "
    "at the start, and 30 of ours, where 4 modes are real. --set init=paper keeps Im Λ. The configurations may not be "
    "exactly the paper's, whose appendix we could not read. Published accuracies are quoted at second hand; those of "
    "ListOps, Image and Pathfinder are known to us only to fit the paper's average of 86.58."
)
RISES_AGAIN = "Training outlasts the cosine, and the rate then rises again, as in the code."


def row(
    task: str,
    *,
    published: float,
    n_layers: int = 6,
    d_model: int,
    dt_min: float = 1e-3,
    dt_max: float = 0.1,
    norm: Literal["batch", "layer"] = "batch",
    prenorm: bool,
    dropout: float = 0.0,
    batch_size: int,
    epochs: float,
    steps: int,
    warmup_steps: int,
    lr: float,
    ssm_lr: float = 1e-3,
    weight_decay: float,
    groups: dict[Role, Group],
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: 64 complex states, all stored.

    γ is our own: it makes ‖E‖ about as large as the authors'.
    """
    config = Config(
        d_state=64,
        n_ssm=1,
        dt_min=dt_min,
        dt_max=dt_max,
        dt_transform="softplus",
        gamma=0.02,
        init="published_code",
    )
    return s4.family_row(
        task,
        config,
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, note),
        n_layers=n_layers,
        d_model=d_model,
        norm=norm,
        prenorm=prenorm,
        pooling="mean",
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        warmup_steps=warmup_steps,
        lr=lr,
        ssm_lr=ssm_lr,
        weight_decay=weight_decay,
        groups=groups,
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=60.65, n_layers=8, d_model=256, dt_max=1.0, prenorm=False, batch_size=50, epochs=80.0,
        steps=1_200_000, warmup_steps=12_000, lr=2e-3, ssm_lr=4e-4, weight_decay=0.05, groups=s4.V3_GROUPS),
    row("text", published=88.32, d_model=256, prenorm=True, batch_size=16, epochs=80.0, steps=50_000,
        warmup_steps=5_000, lr=0.01, weight_decay=0.05, groups=s4.V3_GROUPS_DT_GLOBAL,
        note=notes(CHOSEN_ON_TEST, RISES_AGAIN)),
    row("retrieval", published=91.07, d_model=128, prenorm=True, batch_size=64, epochs=40.0, steps=100_000,
        warmup_steps=5_000, lr=4e-3, weight_decay=0.03, groups=s4.V3_GROUPS_DT_GLOBAL),
    row("image", published=88.27, d_model=128, norm="layer", prenorm=False, dropout=0.1, batch_size=128,
        epochs=2000.0, steps=1_760_000, warmup_steps=3_600, lr=0.01, weight_decay=0.01, groups=s4.V3_GROUPS),
    row("pathfinder", published=94.79, d_model=256, prenorm=True, batch_size=64, epochs=300.0, steps=800_000,
        warmup_steps=150_000, lr=4e-3, weight_decay=0.03, groups=s4.V3_GROUPS),
    row("pathx", published=96.39, d_model=128, dt_min=1e-4, prenorm=True, batch_size=20, epochs=100.0,
        steps=1_250_000, warmup_steps=200_000, lr=1e-3, weight_decay=0.03, groups=s4.V3_GROUPS, note=PATHX_SEEDS),
])
# fmt: on

NOISE_NOTES = (
    "The network of the paper's test under noise (docs/robustness.md): Λ and dt are frozen, blocks are not residual, "
    "and layers have no D. The paper has curves only; under its noise they stay near 75 %. In the authors' script, "
    "V⁻¹ B is frozen and C trained, whose product C is here; the rate falls once an epoch; nothing is dropped before "
    "GELU; and pixels are divided by 0.2023, 0.1994 and 0.2010."
)

_, UNDER_NOISE = s4.family_row(
    "scifar",
    Config(
        d_state=32,
        n_ssm=1,
        dt_min=1e-3,
        dt_max=0.1,
        dt_transform="exp",
        skip=False,
        gamma=0.1,
        init="paper",
    ),
    reference="AnnanYu/Approximate_Diagonal @ ec98d6a6 S4-PTD/robustness.py; Yu et al. 2024 (arXiv 2310.01698)",
    published=None,
    notes=NOISE_NOTES,
    n_layers=4,
    d_model=128,
    norm="layer",
    prenorm=False,
    pooling="mean",
    dropout=0.1,
    batch_size=64,
    epochs=100.0,
    steps=100 * steps_per_epoch("scifar", 64),
    warmup_steps=0,
    lr=0.01,
    ssm_lr=1e-3,
    weight_decay=0.05,
    groups={"eigenvalues": "frozen", "dt": "frozen"},
    role_lr={"output": 4e-3},
)
RECIPES["scifar"] = UNDER_NOISE.model_copy(update={"bidirectional": False, "residual": False})

PUBLISHED_STATUS: dict[str, PublishedStatus] = {
    "listops": "memory",
    "text": "secondary",
    "retrieval": "secondary",
    "image": "memory",
    "pathfinder": "memory",
    "pathx": "secondary",
}
