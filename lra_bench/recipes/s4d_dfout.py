"""S4D-DFouT: the S4 family's settings, and the recipes of its paper."""

from __future__ import annotations

from pydantic import Field

from lra_bench.recipes import CHOSEN_ON_TEST, PATHX_SEEDS, notes, s4, s4d
from lra_bench.spec import WIDEST, Recipe

TITLE = "S4D-DFouT"
PAPER = "Solozabal et al. 2025 (arXiv 2508.20441)"
REFERENCE = (
    "Solozabal et al. 2025 (arXiv 2508.20441), tables 1 and 5 and appendix C; what they leave open is of S4D's recipes"
)


class Config(s4.FamilyConfig):
    """The settings of the S4 family. The paper's decay ξ has the place of dt: `dt_min`, `dt_max`, `dt_transform`."""

    d_state: int = Field(
        ge=2,
        le=WIDEST,
        multiple_of=2,
        description="the number N of poles of each feature around the circle; the N/2 + 1 of its upper half are stored",
    )
    dt_min: float = Field(gt=0, description="the smallest initial ξ; half of it is the initial decay per step")
    dt_max: float = Field(gt=0, description="the largest initial ξ")
    version: s4d.Version = Field(description="the version of state-spaces/s4 that decides where dropout is")


NOTES = (
    "From the paper, without the authors' code, which is in its supplement. It states layers, widths, norm, dropout, "
    "rate, batch, epochs, weight decay, the range of ξ and the scale of pixels. It does not state pooling, schedule, "
    "optimizer groups and the layer's rate: these are of S4D's recipe for the task. Nor does it state B̄, here "
    "zero-order hold's at step ξ. Each mode's decay (1/2 at the start, times ξ) and frequency, ξ, B and C are trained. "
    "Standard deviations and numbers of seeds are known of scifar alone: 0.07 and 3 (table 2)."
)
PATHX_256 = (
    "PathX-256, 87.89 in the paper: --task pathfinder256 --set lr=0.0001 --set ssm_lr=0.0001 --set batch_size=16 --set "
    "epochs=20 --set decay_epochs=20."
)


def row(
    task: str,
    *,
    published: float,
    n_layers: int = 6,
    d_model: int = 256,
    d_state: int = 64,
    xi_min: float = 1e-3,
    batch_size: int | None = None,
    lr: float = 0.01,
    epochs: float | None = None,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task and its recipe: that of S4D, with what the paper states. The other columns of table 5 are S4D's own."""
    like = s4d.RECIPES[task]
    config = Config(d_state=d_state, n_ssm=None, dt_min=xi_min, dt_max=0.1, dt_transform="exp", version="v3.0.0")
    return task, like.model_copy(
        update={
            "reference": REFERENCE,
            "published": published,
            "notes": notes(NOTES, note),
            "n_layers": n_layers,
            "d_model": d_model,
            "layer": config.model_dump(),
            "batch_size": batch_size or like.batch_size,
            "lr": lr,
            "epochs": epochs or like.epochs,
            "decay_epochs": epochs or like.decay_epochs,
        }
    )


# fmt: off
RECIPES: dict[str, Recipe] = dict([
    row("listops", published=61.89),
    row("text", published=87.41, note=CHOSEN_ON_TEST),
    row("retrieval", published=90.95),
    row("image", published=88.48, d_model=512),
    row("pathfinder", published=94.30, d_state=128, lr=1e-3),
    row("pathx", published=94.17, d_state=128, xi_min=1e-4, batch_size=32, lr=5e-4, note=notes(PATHX_SEEDS, PATHX_256)),
    row("scifar", published=89.87, d_model=128, batch_size=64, epochs=100.0),
])
# fmt: on
