"""The published algorithm of S5, for comparison with our model: same parameters and results, another algorithm.

It is re-created from the paper (Smith, Warrington & Linderman 2023) and from lindermanlab/S5 @ 3c18fdb6 (`s5/ssm.py`,
`s5/layers.py`, `s5/seq_model.py`): complex64 throughout, `associative_scan` over pairs (Λ̄, B̄u), one example at a time
under `vmap` with BatchNorm's moments averaged over the mapped axis, tokens as one-hot vectors through a dense layer,
derivatives by JAX's autodiff. `tests/test_reference_s5.py` compares outputs and gradients with those of our model.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from lra_bench.models.classifier import PIXEL_SCALES
from lra_bench.models.layers import DataShape
from lra_bench.recipes.s5 import Config
from lra_bench.spec import Recipe
from lra_bench.training.state import Examples

MAPPED = "examples"
"""The name of the axis that `vmap` adds, over which BatchNorm takes its mean."""


class PreparedBatch(NamedTuple):
    """A batch as the published loop passes it to its training step: one-hot or real inputs (b, L, vocabulary or 1).

    Pairs of documents make 2b rows: the first documents of all pairs, then the second ones.
    """

    inputs: Array
    lengths: Array
    labels: Array


def prepare(batch: Examples, recipe: Recipe) -> PreparedBatch:
    """Encode a batch, which the published loop does outside of its training step."""
    inputs, lengths = batch.inputs, batch.lengths
    if inputs.ndim == 3:
        inputs = jnp.concatenate([inputs[:, 0], inputs[:, 1]])
        lengths = jnp.concatenate([lengths[:, 0], lengths[:, 1]])
    if recipe.pixels is None:
        return PreparedBatch(jax.nn.one_hot(inputs, recipe.embedding), lengths, batch.labels)
    mean, deviation = PIXEL_SCALES[recipe.pixels]
    return PreparedBatch(((inputs.astype(jnp.float32) - mean) / deviation)[..., None], lengths, batch.labels)


def binary_operator(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return (A_i, b_i) ∘ (A_j, b_j) = (A_j A_i, A_j b_i + b_j), for diagonal A (paper, appendix H)."""
    return later[0] * earlier[0], later[0] * earlier[1] + later[1]


def apply_ssm(params: dict[str, Any], config: Config, u: Array) -> Array:
    """Return y (L, H) for one example u (L, H), with conjugate symmetry and zero-order hold."""
    real = params["Lambda_re"]
    Lambda = lax.complex(jnp.minimum(real, -1e-4) if config.clip_eigs else real, params["Lambda_im"])
    B_tilde, C_tilde = (lax.complex(params[name][..., 0], params[name][..., 1]) for name in ("B", "C"))
    Lambda_bar = jnp.exp(Lambda * jnp.exp(params["log_dt"]))
    B_bar = ((Lambda_bar - 1) / Lambda)[:, None] * B_tilde

    elements = Lambda_bar * jnp.ones((u.shape[0], 1)), jax.vmap(lambda u_t: B_bar @ u_t)(u)
    _, xs = lax.associative_scan(binary_operator, elements)
    if params.get("C_reverse") is not None:
        _, xs_reverse = lax.associative_scan(binary_operator, elements, reverse=True)
        xs = jnp.concatenate([xs, xs_reverse], axis=-1)
        C_reverse = lax.complex(params["C_reverse"][..., 0], params["C_reverse"][..., 1])
        C_tilde = jnp.concatenate([C_tilde, C_reverse], axis=-1)
    ys = jax.vmap(lambda x: 2 * (C_tilde @ x).real)(xs)
    return ys + jax.vmap(lambda u_t: params["D"] * u_t)(u)


def dense(params: dict[str, Array], x: Array) -> Array:
    """Return the dense layer's output for x (..., inputs)."""
    return x @ params["kernel"] + params["bias"]


def batch_norm(
    params: dict[str, Array], stats: dict[str, Array], decay: float, train: bool, x: Array
) -> tuple[Array, dict[str, Array]]:
    """Normalize x (L, H) over its steps and over the mapped examples; also return the new running moments."""
    mean, var = stats["mean"], stats["var"]
    if train:
        mean, square = lax.pmean((x.mean(0), (x * x).mean(0)), MAPPED)
        var = jnp.maximum(square - mean * mean, 0.0)
        stats = {
            "mean": decay * stats["mean"] + (1 - decay) * mean,
            "var": decay * stats["var"] + (1 - decay) * var,
        }
    return (x - mean) * (lax.rsqrt(var + 1e-5) * params["scale"]) + params["bias"], stats


class Reference:
    """The network of published S5, with the interface of `functional.FunctionalNetwork`.

    Both networks can therefore be trained by the same training step.
    """

    def __init__(self, recipe: Recipe, shape: DataShape):
        """Create the network of a recipe. Raises ValueError for settings that S5's LRA runs do not use."""
        self.config = Config.model_validate(recipe.layer)
        self.recipe, self.shape = recipe, shape
        fixed = (recipe.norm, recipe.prenorm, recipe.pooling, self.config.discretization)
        if fixed != ("batch", True, "mean", "zoh") or self.config.activation not in ("half_glu1", "half_glu2"):
            raise ValueError("S5's LRA runs use prenorm BatchNorm, mean pooling, zoh, and half_glu1 or half_glu2")

    def apply_train(self, params: Any, stats: Any, batch: PreparedBatch, key: Array) -> tuple[Array, Any]:
        """Return logits (b, classes) with dropout, and the new running moments."""
        logits, updated = self._classify(params, stats, batch, key)
        return logits, jax.tree.unflatten(jax.tree.structure(stats), jax.tree.leaves(updated))

    def apply_eval(self, params: Any, stats: Any, batch: PreparedBatch) -> Array:
        """Return logits (b, classes) without dropout, with the running moments."""
        return self._classify(params, stats, batch, None)[0]

    def _classify(self, params: Any, stats: Any, batch: PreparedBatch, key: Array | None) -> tuple[Array, Any]:
        weights, moments = nnx.to_pure_dict(params), nnx.to_pure_dict(stats)
        keys = None if key is None else jax.random.split(key, batch.inputs.shape[0])
        one = partial(self._encode_one, weights, moments)
        axes = (0, 0, None if keys is None else 0)
        pooled, updated = jax.vmap(one, in_axes=axes, out_axes=(0, None), axis_name=MAPPED)(
            batch.inputs, batch.lengths, keys
        )
        head = weights["head"]
        if self.shape.documents == 1:
            return jax.vmap(partial(dense, head))(pooled), updated
        a, b = jnp.split(pooled, 2)
        features = jax.nn.gelu(dense(head["hidden"], jnp.concatenate([a, b, a - b, a * b], axis=-1)))
        return dense(head["output"], features), updated

    def _encode_one(
        self, weights: dict[str, Any], moments: dict[str, Any], inputs: Array, length: Array, key: Array | None
    ) -> tuple[Array, dict[str, Any]]:
        """Return the pooled features (H,) of one example (L, vocabulary or 1), and the new running moments."""
        x = dense(weights["encoder"]["dense"], inputs)
        updated: dict[int, Any] = {}
        for i, block in weights["blocks"].items():
            block_key = None if key is None else jax.random.fold_in(key, i)
            x, updated[i] = self._layer(block, moments["blocks"][i], x, block_key)
        if not self.shape.variable_length:
            return x.mean(0), {"blocks": updated}
        mask = jnp.arange(x.shape[0]) < length
        return jnp.sum(mask[:, None] * x, axis=0) / length, {"blocks": updated}

    def _layer(self, block: dict[str, Any], moments: dict[str, Any], x: Array, key: Array | None) -> tuple[Array, Any]:
        skip = x
        u, norm = batch_norm(block["norm"], moments["norm"], self.recipe.norm_decay, key is not None, x)
        y = apply_ssm(block["layer"], self.config, u)
        activated = self._dropout(jax.nn.gelu(y), key, 0)
        value = activated if self.config.activation == "half_glu1" else y
        gated = value * jax.nn.sigmoid(dense(block["gate"]["gate"], activated))
        return skip + self._dropout(gated, key, 1), {"norm": norm}

    def _dropout(self, x: Array, key: Array | None, number: int) -> Array:
        """Apply dropout with one mask for all steps of x (L, H), as flax's Dropout with broadcast_dims=(0,)."""
        rate = self.recipe.dropout
        if key is None or rate == 0.0:
            return x
        keep = jax.random.bernoulli(jax.random.fold_in(key, number), 1.0 - rate, (1, x.shape[1]))
        return jnp.where(keep, x / (1.0 - rate), 0.0)
