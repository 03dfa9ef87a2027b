"""Noise on the input of every sequence layer, or on pixels, of a network in evaluation.

A Fourier mode on the layers is that of Yu et al. 2024 (arXiv 2310.01698), section 3, and its code
`S4-PTD/robustness.py`: the input u of each layer becomes u + amplitude · r · cos(ω dt t), where dt is each feature's
own step, t counts steps, and r is uniform in [0, 1], drawn for each example and feature. Padding gets it, too.

Numbers are drawn by the number of the example's row, so that they depend on neither batches nor devices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.models.response import input_steps
from lra_bench.spec import NoiseKind, NoisePlace

INPUT = 1 << 20
"""The number of the input in random streams, where layers count from 0."""


class Noise(NamedTuple):
    """The noise of one evaluation. All of it is data, so that one program is compiled for all frequencies and seeds."""

    amplitude: Array  # ()
    frequency: Array  # (), ω in the layers' continuous time, or radians per pixel; unused where the noise is Gaussian
    key: Array


def mode(turns: Array, L: int) -> Array:
    """The wave cos(2π turns t) for t < L: (L, H) from turns per step (H,).

    Whole turns are taken off before anything is multiplied, because ω dt t may be a million radians.
    """
    phase = jnp.arange(L, dtype=turns.dtype)[:, None] * jnp.mod(turns, 1.0)
    return jnp.cos(2 * math.pi * jnp.mod(phase, 1.0))


def drawn(kind: NoiseKind, noise: Noise, rows: Array, number: int, dt: Array, L: int) -> Array:
    """The noise (L, b, H) of layer `number` for examples of these rows (b,), whose features have steps dt (H,)."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(noise.key, number), rows)
    if kind == "gaussian":
        numbers = jax.vmap(lambda key: jax.random.normal(key, (L, len(dt))))(keys)
        return noise.amplitude * jnp.moveaxis(numbers, 0, 1)
    r = jax.vmap(lambda key: jax.random.uniform(key, dt.shape))(keys)
    return noise.amplitude * r * mode(noise.frequency * dt / (2 * math.pi), L)[:, None]


class DisturbedLayer:
    """A sequence layer whose input has noise added."""

    def __init__(self, layer: Any, kind: NoiseKind, noise: Noise, rows: Array, number: int):
        self.layer, self.kind, self.noise, self.rows, self.number = layer, kind, noise, rows, number

    def __call__(self, u: Array) -> Array:
        """Apply the layer to (L, b, H)."""
        dt = input_steps(self.layer, u.shape[-1])
        added = drawn(self.kind, self.noise, self.rows, self.number, dt, len(u))
        return self.layer((u + added).astype(u.dtype))


class DisturbedEncoder:
    """The encoder of pixels, whose scaled pixels have noise added."""

    def __init__(self, encoder: Any, kind: NoiseKind, noise: Noise, rows: Array):
        self.encoder, self.kind, self.noise, self.rows = encoder, kind, noise, rows

    def __call__(self, inputs: Array) -> Array:
        """Encode pixels (L, b), or (L, b, 3) in color, of which each color has noise of its own."""
        kernel = self.encoder.dense.kernel[...]
        added = drawn(self.kind, self.noise, self.rows, INPUT, jnp.ones(len(kernel)), len(inputs))
        return self.encoder(inputs) + (added[..., None] * kernel).sum(-2)  # the encoder is affine in the pixel


def disturb(network: Any, place: NoisePlace, kind: NoiseKind, noise: Noise, rows: Array) -> None:
    """Add noise in a network, in place. `rows` (b,) are the numbers of the batch's examples."""
    if network.shape.documents == 2:
        rows = jnp.concatenate([2 * rows, 2 * rows + 1])  # as `classifier.as_one_batch` puts documents
    if place == "input":
        object.__setattr__(network, "encoder", DisturbedEncoder(network.encoder, kind, noise, rows))
        return
    for number, block in enumerate(network.blocks):
        object.__setattr__(block, "layer", DisturbedLayer(block.layer, kind, noise, rows, number))
