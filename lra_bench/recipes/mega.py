"""MEGA: the settings of its network, and the recipes of its repository with full attention."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from lra_bench.recipes import CHOSEN_ON_TEST, notes, steps_per_epoch
from lra_bench.recipes.s4 import INPUTS
from lra_bench.spec import WIDEST, Frozen, Recipe

TITLE = "MEGA"
PAPER = "Ma et al. 2023 (arXiv 2209.10655)"
REFERENCE = (
    "facebookresearch/mega @ aeaa4b4 examples/mega/README.lra.md, fairseq/models/lra; accuracy as stated in arXiv "
    "2209.10655"
)


class Config(Frozen):
    """The settings of MEGA. The recipe's `d_model` is the width of the embedding and of the residual stream."""

    hidden_dim: int = Field(
        ge=1, le=WIDEST, description="the width of values, of the feed-forward network and of the head's hidden layer"
    )
    z_dim: int = Field(ge=1, le=WIDEST, description="the width of queries and keys")
    ema_dim: int = Field(ge=1, le=WIDEST, description="the number n of moving averages of each feature")
    truncation: int = Field(ge=1, description="the number of lags that the moving average sees in each direction")
    chunk_size: int | None = Field(
        ge=1, description="the number of positions of a chunk that attend to each other; None means all"
    )
    attention: Literal["softmax", "laplace"] = Field(description="the function from scores to weights")


NOTES = (
    "The published standard deviations over five seeds are not known. On ListOps, Text and Retrieval, tokens and "
    "splits of the published runs are the authors' own copy of the data; their script makes those of images as S4 does."
)
MOMENTS = "There BatchNorm's moments are of 16 examples, two on each of eight GPUs, and eight such parts are a batch."


class Network(NamedTuple):
    """The sizes of a task's network, which MEGA and MEGA-chunk share."""

    n_layers: int
    d_model: int
    hidden_dim: int
    z_dim: int
    norm: Literal["batch", "layer", "scale"]
    truncation: int = 1_024


class Training(NamedTuple):
    """The settings of a task's training, which MEGA and MEGA-chunk share. Durations are in steps."""

    lr: float
    dropout: float
    batch_size: int
    steps: int
    warmup_steps: int
    weight_decay: float
    schedule: Literal["linear", "quadratic-linear"] = "linear"
    note: str = ""


# fmt: off
TASKS: dict[str, tuple[Network, Training]] = {
    "listops": (Network(6, 80, 160, 64, "layer"), Training(1e-3, 0.1, 64, 90_000, 3_000, 0.01)),
    "text": (Network(4, 128, 256, 64, "scale"), Training(4e-3, 0.1, 50, 25_000, 10_000, 0.01, note=CHOSEN_ON_TEST)),
    "retrieval": (Network(6, 128, 256, 64, "scale"), Training(3e-3, 0.1, 64, 91_960, 10_000, 0.04)),
    "image": (Network(8, 160, 320, 96, "batch"), Training(1e-2, 0.0, 50, 180_000, 9_000, 0.02)),
    "pathfinder": (Network(6, 128, 256, 64, "batch"), Training(1e-2, 0.0, 128, 250_000, 50_000, 0.01)),
    "pathx": (Network(4, 64, 128, 32, "batch", 4_096),
              Training(1e-2, 0.0, 128, 125_000, 25_000, 0.01, "quadratic-linear", MOMENTS)),
}
# fmt: on


def row(task: str, published: float, chunk_size: int | None) -> tuple[str, Recipe]:
    """A task and its recipe: tokens with a softmax and the norm last, pixels with Laplace attention and it first.

    All parameters have the same learning rate and weight decay, and the gradient is clipped.
    """
    network, training = TASKS[task]
    per_epoch = steps_per_epoch(task, training.batch_size)
    embedding, pixels = INPUTS[task]
    config = Config(
        hidden_dim=network.hidden_dim,
        z_dim=network.z_dim,
        ema_dim=16,
        truncation=network.truncation,
        chunk_size=chunk_size,
        attention="softmax" if pixels is None else "laplace",
    )
    return task, Recipe(
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, training.note),
        n_layers=network.n_layers,
        d_model=network.d_model,
        norm=network.norm,
        prenorm=pixels is not None,
        norm_decay=0.9 if network.norm == "batch" else 0.0,
        bidirectional=True,
        pooling="mean",
        embedding=embedding,
        pixels="signed" if pixels == "unit" else pixels,
        dropout=training.dropout,
        layer=config.model_dump(),
        batch_size=training.batch_size,
        epochs=training.steps / per_epoch,
        lr=training.lr,
        ssm_lr=training.lr,
        weight_decay=training.weight_decay,
        adam_b2=0.98,
        adam_eps=1e-8,
        schedule=training.schedule,
        warmup_epochs=training.warmup_steps / per_epoch,
        decay_epochs=training.steps / per_epoch,
        groups={},
        clip_norm=1.0,
    )


RECIPES: dict[str, Recipe] = dict(
    [
        row("listops", 63.14, None),
        row("text", 90.43, None),
        row("retrieval", 91.25, None),
        row("image", 90.44, None),
        row("pathfinder", 96.01, None),
        row("pathx", 97.98, None),
    ]
)
