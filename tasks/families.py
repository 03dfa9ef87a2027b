"""Recipes by family: what all LRA runs of one reference code share, so that a task states only what differs."""

from __future__ import annotations

import math
from typing import Any

from lra_bench.spec import Group, Recipe, Role

S5_CODE = "lindermanlab/S5 @ 3c18fdb6 bin/run_experiments; Smith, Warrington & Linderman 2023, table 11"
LRU_PAPER = "Orvieto et al. 2023 (arXiv 2303.06349), tables 8 and 9; NicolasZucchet/minimal-LRU @ bbd71b1"
LRA_CODE = "google-research/long-range-arena @ cd31e5c6 lra_benchmarks; Tay et al. 2021"
PTD_CODE = "AnnanYu/Approximate_Diagonal @ ec98d6a6 S5-PTD/bin/run_experiments; Yu et al. 2024 (arXiv 2310.01698)"

STANDARD: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm", "input": "ssm"}
STANDARD_DT_GLOBAL: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm"}
B_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm", "input": "ssm_decay"}
B_FAST_AND_C_DECAY: dict[Role, Group] = {"eigenvalues": "ssm", "step": "ssm"}
"""S5's `--opt_config` (and `--dt_global`) by role. Norms, D, C and biases are always regular there, whatever the code
seems to say: its key "norm" matches no leaf (lindermanlab/S5#10)."""

LRU_GROUPS: dict[Role, Group] = {"eigenvalues": "ssm", "input": "ssm"}
LRU_LR = 1e-3
LRU_NOTES = (
    "The paper tunes the base learning rate on a grid and does not list it; 0.001 here is minimal-LRU's default. "
    "Warm-up and cosine there begin and end at 1e-7, here at 0. BatchNorm's decay is minimal-LRU's."
)
LRA_NOTES = "The published accuracy is of LRA's own tokens and splits: prepare with --protocol lra to compare. "

S5_LAYER = ("d_state", "blocks", "activation", "c_init")


def s5(
    *,
    published: float | None,
    notes: str = "",
    source: str = S5_CODE,
    norm_decay: float = 0.95,
    dt_min: float = 1e-3,
    clip_eigenvalues: bool = False,
    **own: Any,
) -> Recipe:
    """An S5 recipe: bidirectional, prenorm BatchNorm, zero-order hold, Δ up to 0.1, mean pooling, the reference's own
    schedule."""
    layer = {key: own.pop(key) for key in S5_LAYER}
    layer |= {"dt_min": dt_min, "clip_eigenvalues": clip_eigenvalues}
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


def lru(
    *, like: Recipe, iterations: int, examples: int, lr_factor: float, ring: tuple[float, float], **own: Any
) -> Recipe:
    """An LRU recipe: what enters the network as in S5's (`like`), six blocks, schedule in iterations on `examples`."""
    batch_size, activation = own["batch_size"], own.pop("activation", "full_glu")
    epochs = iterations / (examples // batch_size)
    layer = {"d_state": own.pop("d_state"), "r_min": ring[0], "r_max": ring[1], "activation": activation}
    return Recipe(
        **{
            **like.model_dump(),
            "source": LRU_PAPER,
            "n_layers": 6,
            "norm_decay": 0.99,
            "epochs": epochs,
            "warmup_epochs": 0.1 * epochs,
            "decay_epochs": epochs,
            "schedule": "cosine",
            "lr": LRU_LR,
            "ssm_lr": lr_factor * LRU_LR,
            "groups": LRU_GROUPS,
            "layer": {**layer, "max_phase": own.pop("max_phase", 2 * math.pi)},
            **own,
            "notes": " ".join(part for part in (LRU_NOTES, own.get("notes", "")) if part),
        }
    )


def transformer(
    *, published: float | None, notes: str = "", lr: float, layer: dict[str, Any], pooling: str = "cls", **own: Any
) -> Recipe:
    """The LRA paper's encoder: prenorm LayerNorm, AdamW with β₂ = 0.98 for all parameters."""
    return Recipe(
        source=LRA_CODE,
        published=published,
        notes=(LRA_NOTES + notes).strip(),
        norm="layer",
        prenorm=True,
        norm_decay=0.0,
        bidirectional=True,
        pooling=pooling,
        pixels=None,
        adam_b2=0.98,
        lr=lr,
        ssm_lr=lr,
        groups={},
        layer={"positions": "sinusoidal", "attention_dropout": 0.1, **layer},
        **{"dropout": 0.1, **own},
    )


def lra_text(
    *, steps: int, warmup_steps: int, examples: int, heads: int, qkv_dim: int, mlp_dim: int, **own: Any
) -> Recipe:
    """LRA's Transformer on ListOps, Text and Retrieval: batches of 32, rate 0.05 / √step."""
    per_epoch = examples // 32
    return transformer(
        n_layers=4,
        d_model=qkv_dim,
        layer={"heads": heads, "qkv_dim": qkv_dim, "mlp_dim": mlp_dim},
        batch_size=32,
        lr=0.05,
        weight_decay=0.1,
        schedule="rsqrt",
        epochs=steps / per_epoch,
        warmup_epochs=warmup_steps / per_epoch,
        decay_epochs=steps / per_epoch,
        **own,
    )


def lra_pixels(*, notes: str = "", **own: Any) -> Recipe:
    """LRA's Transformer on images: pixels are tokens, 200 epochs, one of them warm-up, then a cosine over 200 more."""
    return transformer(
        embedding=256,
        weight_decay=0.0,
        schedule="cosine",
        epochs=200.0,
        warmup_epochs=1.0,
        decay_epochs=201.0,
        notes=f"A black pixel counts as padding, as in the LRA code. {notes}",
        **own,
    )
