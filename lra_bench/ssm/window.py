"""State spaces cut to a window: y_t depends on the inputs less than w steps away, and on no others.

A kernel is cut to w taps. The states of a recurrence become sums of w terms, x_t = Σ_{j<w} A^j b_{t−j}. They are put
together from sums of 1, 2, 4, … terms, each of two sums of half as many:

    S_{2m,t} = S_{m,t} + A^m S_{m,t−m}.

That takes log₂ w passes, and nothing is subtracted. The difference of two recurrences, x_t − A^w x_{t−w}, is as many
numbers in exact arithmetic, but where A^w is near 1 it is left with the rounding of everything before the window.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from lra_bench.ssm.scan_chunked import powers_of, rotate
from lra_bench.ssm.shapes import Kernels, Pair, States


def cut(kernels: Kernels, window: int) -> Kernels:
    """Set the taps of kernels (c, H, L) at lags of `window` steps and more to zero.

    As in `convolution.convolve`, the first kernel has lag j at index j, and the future's, if any, lag −1 − j.
    """
    directions, _, L = kernels.shape
    distance = jnp.arange(L) + jnp.arange(directions)[:, None]
    return jnp.where((distance < window)[:, None], kernels, 0.0)


def windowed_states(Lambda_bar: Pair, b: States, window: int, reverse: bool) -> States:
    """The states (L, batch, 2P) of x_t = Λ̄ x_{t−1} + b_t that remember `window` inputs, the current one included.

    Arrays are as in `scan.recurrence`: packed `[Re | Im]`; with `reverse`, the last step comes first.
    """

    def power(n: int, x: Array) -> Array:
        return rotate(powers_of(Lambda_bar, [n]), x)

    return windowed_sums(power, b, window, reverse)


def windowed_sums(power: Callable[[int, Array], Array], b: Array, window: int, reverse: bool) -> Array:
    """The sums over j < `window` of A^j b_{t−j}, or b_{t+j} with `reverse`, where power(n, x) is Aⁿ x."""
    window = min(window, len(b))
    total, taken = jnp.zeros_like(b), 0
    part, terms = b, 1
    while terms <= window:
        if window & terms:
            total, taken = total + power(taken, _shifted(part, taken, reverse)), taken + terms
        part, terms = part + power(terms, _shifted(part, terms, reverse)), 2 * terms
    return total


def _shifted(x: Array, steps: int, reverse: bool) -> Array:
    """The array of x_{t−steps} at each t, or x_{t+steps} with `reverse`, with zeros beyond the ends."""
    zeros, rest = jnp.zeros_like(x[: min(steps, len(x))]), max(len(x) - steps, 0)
    return jnp.concatenate([x[len(x) - rest :], zeros] if reverse else [zeros, x[:rest]])
