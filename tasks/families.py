"""Recipes by family: what all LRA runs of one reference code share, so that a task states only what differs."""

from __future__ import annotations

from typing import Any

from lra_bench.spec import Group, Recipe, Role

S5_CODE = "lindermanlab/S5 @ 3c18fdb6 bin/run_experiments; Smith, Warrington & Linderman 2023, table 11"
PTD_CODE = "AnnanYu/Approximate_Diagonal @ ec98d6a6 S5-PTD/bin/run_experiments; Yu et al. 2024 (arXiv 2310.01698)"

STANDARD: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm", "input": "ssm"}
STANDARD_DT_GLOBAL: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm"}
B_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm", "input": "ssm_decay"}
B_FAST_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm"}
"""S5's `--opt_config` (and `--dt_global`) by role. Norms, D, C and biases are always regular there, whatever the code
seems to say: its key "norm" matches no leaf (lindermanlab/S5#10)."""

S5_LAYER = ("d_state", "blocks", "activation", "c_init", "dt_min", "clip_eigenvalues")


def s5(
    *, published: float | None, notes: str = "", source: str = S5_CODE, norm_decay: float = 0.95, **own: Any
) -> Recipe:
    """An S5 recipe: bidirectional, prenorm BatchNorm, zero-order hold, Δ up to 0.1, mean pooling, the reference's own
    schedule."""
    layer = {key: own.pop(key) for key in S5_LAYER}
    return Recipe(
        source=source,
        published=published,
        notes=notes,
        norm="batch",
        prenorm=True,
        norm_decay=norm_decay,
        bidirectional=True,
        pooling="mean",
        schedule="reference",
        decay_epochs=own["epochs"],
        adam_b2=0.999,
        layer={**layer, "discretisation": "zoh", "dt_max": 0.1},
        **own,
    )


def s5_ptd(like: Recipe, *, published: float | None, layer: dict[str, Any], notes: str = "", **changes: Any) -> Recipe:
    """S5's recipe for the task with what the PTD authors changed; γ is ours, chosen for the size of their ‖E‖
    (models.md §1.6)."""
    fields = {**like.model_dump(), **changes}
    fields["decay_epochs"] = fields["epochs"]
    own = {"force_negative": False, "b_init": "lecun_normal", **layer}
    return Recipe(
        **{**fields, "source": PTD_CODE, "published": published, "notes": notes, "layer": {**like.layer, **own}}
    )
