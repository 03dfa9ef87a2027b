"""The Transformer encoder of the LRA paper: its settings and recipes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lra_bench.recipes import notes, steps_per_epoch
from lra_bench.spec import WIDEST, Frozen, Recipe

TITLE = "Transformer"
PAPER = "Tay et al. 2021 (arXiv 2011.04006)"
REFERENCE = "google-research/long-range-arena @ cd31e5c6 lra_benchmarks; Tay et al. 2021"


class Config(Frozen):
    """The settings of the encoder. Raises ValueError where `heads` does not divide `qkv_dim`, or rotary positions find
    an odd number of numbers in a head.

    The recipe's `d_model` is the width of the embedding, and its `dropout` is that outside attention.
    """

    heads: int = Field(ge=1, le=WIDEST)
    qkv_dim: int = Field(ge=1, le=WIDEST, description="the width of queries, keys and values, all heads together")
    mlp_dim: int = Field(ge=2, le=WIDEST, description="the hidden width of each block's MLP and of the head")
    attention_dropout: float = Field(ge=0, lt=1)
    positions: Literal["sinusoidal", "learned", "rotary"] = Field(
        description="what tells positions apart: tables that are added to the embedding, or (rotary, Su et al. 2021) "
        "queries and keys turned by an angle that grows with the position"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Config:
        if self.qkv_dim % self.heads:
            raise ValueError(f"qkv_dim must be a multiple of heads = {self.heads}, got {self.qkv_dim}")
        if self.positions == "rotary" and self.qkv_dim // self.heads % 2:
            raise ValueError(f"rotary positions need an even qkv_dim / heads, got {self.qkv_dim} / {self.heads}")
        return self


NOTES = "The published accuracy is of LRA's own tokens and splits: prepare with --protocol lra to compare."
BLACK = "A black pixel counts as padding, as in the LRA code."


def row(
    task: str,
    config: Config,
    *,
    published: float | None,
    n_layers: int,
    d_model: int,
    pooling: Literal["cls", "first", "mean"],
    embedding: int,
    dropout: float,
    batch_size: int,
    epochs: float,
    warmup_epochs: float,
    decay_epochs: float,
    lr: float,
    weight_decay: float,
    schedule: Literal["rsqrt", "cosine"],
    note: str,
) -> tuple[str, Recipe]:
    """A task and its recipe: prenorm LayerNorm, AdamW with β₂ = 0.98 and ε = 1e-9 for all parameters."""
    return task, Recipe(
        reference=REFERENCE,
        published=published,
        notes=notes(NOTES, note),
        n_layers=n_layers,
        d_model=d_model,
        norm="layer",
        prenorm=True,
        norm_decay=0.0,
        bidirectional=True,
        pooling=pooling,
        embedding=embedding,
        pixels=None,
        dropout=dropout,
        layer=config.model_dump(),
        batch_size=batch_size,
        epochs=epochs,
        lr=lr,
        ssm_lr=lr,
        weight_decay=weight_decay,
        adam_b2=0.98,
        adam_eps=1e-9,
        schedule=schedule,
        warmup_epochs=warmup_epochs,
        decay_epochs=decay_epochs,
        groups={},
    )


def text_row(
    task: str,
    *,
    published: float,
    embedding: int,
    pooling: Literal["cls", "first"] = "cls",
    heads: int,
    width: int,
    mlp_dim: int,
    steps: int,
    warmup_steps: int,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task of tokens and its recipe: four layers as wide as their queries, batches of 32, rate 0.05 / √step."""
    per_epoch = steps_per_epoch(task, 32)
    config = Config(heads=heads, qkv_dim=width, mlp_dim=mlp_dim, attention_dropout=0.1, positions="sinusoidal")
    return row(
        task,
        config,
        published=published,
        n_layers=4,
        d_model=width,
        pooling=pooling,
        embedding=embedding,
        dropout=0.1,
        batch_size=32,
        epochs=steps / per_epoch,
        warmup_epochs=warmup_steps / per_epoch,
        decay_epochs=steps / per_epoch,
        lr=0.05,
        weight_decay=0.1,
        schedule="rsqrt",
        note=note,
    )


def pixel_row(
    task: str,
    *,
    published: float | None,
    n_layers: int,
    d_model: int,
    pooling: Literal["cls", "mean"],
    heads: int,
    qkv_dim: int,
    mlp_dim: int,
    attention_dropout: float = 0.1,
    positions: Literal["sinusoidal", "learned"],
    dropout: float = 0.1,
    batch_size: int,
    lr: float,
    note: str = "",
) -> tuple[str, Recipe]:
    """A task of pixels and its recipe: 256 tokens, 200 epochs, a warm-up of one, a cosine over the next 200."""
    config = Config(
        heads=heads, qkv_dim=qkv_dim, mlp_dim=mlp_dim, attention_dropout=attention_dropout, positions=positions
    )
    return row(
        task,
        config,
        published=published,
        n_layers=n_layers,
        d_model=d_model,
        pooling=pooling,
        embedding=256,
        dropout=dropout,
        batch_size=batch_size,
        epochs=200.0,
        warmup_epochs=1.0,
        decay_epochs=201.0,
        lr=lr,
        weight_decay=0.0,
        schedule="cosine",
        note=notes(BLACK, note),
    )


CUT = "The code cuts reviews at 1,000 bytes, the paper at 4,000; here they are as prepared."
FIRST_BYTE = "The head reads the first byte of each document: the LRA code's encoder of pairs has no class token."
LONG_WARMUP = "The warm-up of 8,000 steps outlasts the 5,000 of training, in the LRA configuration too."
FAILED = "The paper reports failure: no better than chance. Its code clips the gradient's norm to 1; not here."

# fmt: off
RECIPES: dict[str, Recipe] = dict([
    text_row("listops", published=36.37, embedding=18, heads=8, width=512, mlp_dim=1024, steps=5_000,
             warmup_steps=1_000),
    text_row("text", published=64.27, embedding=257, heads=4, width=256, mlp_dim=1024, steps=20_000,
             warmup_steps=8_000, note=CUT),
    text_row("retrieval", published=57.46, embedding=257, pooling="first", heads=4, width=128, mlp_dim=512,
             steps=5_000, warmup_steps=8_000, note=notes(FIRST_BYTE, LONG_WARMUP)),
    pixel_row("image", published=42.44, n_layers=1, d_model=128, pooling="cls", heads=8, qkv_dim=64, mlp_dim=128,
              attention_dropout=0.2, positions="learned", dropout=0.3, batch_size=256, lr=5e-4),
    pixel_row("pathfinder", published=71.40, n_layers=4, d_model=32, pooling="mean", heads=4, qkv_dim=16, mlp_dim=32,
              positions="sinusoidal", dropout=0.2, batch_size=512, lr=1e-3),
    pixel_row("pathx", published=None, n_layers=1, d_model=32, pooling="mean", heads=2, qkv_dim=16, mlp_dim=32,
              positions="learned", batch_size=64, lr=1e-3, note=FAILED),
])
# fmt: on
