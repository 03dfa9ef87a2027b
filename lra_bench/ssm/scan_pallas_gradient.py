"""The derivative of the fused operator: no states in memory either, those of a tile are computed again.

du is the operator of the adjoint runs applied to dy, by the forward pass's own kernels. A third kernel has the
gradients of the weights: one program takes a block of states of one example, goes through its tiles, and keeps the sums
of products in registers; only sums over all steps are written.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from lra_bench.ssm.scan_pallas import (
    STATE_BLOCK,
    Runs,
    arriving_states,
    doubled_powers,
    driven,
    kernel_call,
    outputs,
    previous_states,
    tile_length,
    tile_states,
)
from lra_bench.ssm.scan_sequential import Pair

Gradients = tuple[Pair, Array, Array, Array | None, Array]
"""Of Λ̄, B, C, C_reverse and u, in the layout of `scan.diagonal_ssm`."""


def fused_backward(
    Lambda_bar: Pair, B: Array, C: Array, C_reverse: Array | None, u: Array, dy: Array, interpret: bool = False
) -> Gradients:
    """The gradients of Σ y · dy, for shapes that `scan_pallas.fits`. dy: (L, b, H) in u's dtype."""
    runs = Runs.of(Lambda_bar, B, C, C_reverse)
    adjoint = runs.adjoint
    arriving, leaving = arriving_states(runs, u, interpret), arriving_states(adjoint, dy, interpret)
    du = outputs(adjoint, dy, leaving, interpret)
    dLambda, dB, dC = (part.sum(0) for part in _weights(runs, u, dy, arriving, leaving, interpret))
    P, H = Lambda_bar[0].shape[0], B.shape[0]
    in_layout = dB[..., :P].swapaxes(0, 1).reshape(H, 2 * P).astype(B.dtype)
    readouts = [part[:, :P].reshape(2 * P, H).astype(C.dtype) for part in dC]
    dC_reverse = None if C_reverse is None else readouts[1]
    return (dLambda[0, :P], dLambda[1, :P]), in_layout, readouts[0], dC_reverse, du


def _weights(
    runs: Runs, u: Array, dy: Array, arriving: Array, leaving: Array, interpret: bool
) -> tuple[Array, Array, Array]:
    """Of each example: dΛ̄ (batch, 2, P), dB (batch, 2, H, P) and dC (batch, directions, 2, P, H)."""
    L, batch, H = u.shape
    P, directions, dtype = runs.Lambda_bar[0].shape[0], len(runs.reverses), runs.Lambda_bar[0].dtype
    # The sums of a program are 6 · H · block numbers: 96 registers of each thread.
    block = STATE_BLOCK if H <= 128 else STATE_BLOCK // 2
    T = tile_length(u)
    doubled = doubled_powers(runs.Lambda_bar, T)
    tokens = pl.BlockSpec((L, None, H), lambda b, k: (0, b, 0))
    columns = partial(pl.BlockSpec, index_map=lambda b, k: (0, 0, 0, k))
    states = pl.BlockSpec((directions, 2, L // T, None, block), lambda b, k: (0, 0, 0, b, k))
    return kernel_call(
        partial(_weights_kernel, runs.reverses, T),
        interpret,
        grid=(batch, P // block),
        in_specs=[
            tokens,
            tokens,
            columns((1, 2, H, block)),
            columns((directions, 2, H, block)),
            pl.BlockSpec((*doubled.shape[:2], block), lambda b, k: (0, 0, k)),
            states,
            states,
        ],
        out_specs=[
            pl.BlockSpec((None, 2, block), lambda b, k: (b, 0, k)),
            pl.BlockSpec((None, 2, H, block), lambda b, k: (b, 0, 0, k)),
            pl.BlockSpec((None, directions, 2, block, H), lambda b, k: (b, 0, 0, k, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(shape, dtype)
            for shape in ((batch, 2, P), (batch, 2, H, P), (batch, directions, 2, P, H))
        ],
    )(u, dy, runs.input_maps, runs.adjoint.input_maps, doubled, arriving, leaving)


def _weights_kernel(
    reverses: tuple[bool, ...],
    T: int,
    u: Any,
    dy: Any,
    input_map: Any,
    adjoint_maps: Any,
    doubled: Any,
    arriving: Any,
    leaving: Any,
    dLambda: Any,
    dB: Any,
    dC: Any,
) -> None:
    H, block = input_map.shape[2:]
    dtype, every = dLambda.dtype, pl.ds(0, block)

    def tile(c: Array, sums: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        eigenvalues, inputs, readouts = sums
        rows = pl.ds(c * T, T)
        x, g = u[rows, :], dy[rows, :]
        drive, total, new_readouts = driven(x, input_map, 0, every), None, []
        for direction, reverse in enumerate(reverses):
            entering = arriving[direction, 0, c, every], arriving[direction, 1, c, every]
            states = tile_states(drive, entering, doubled, every, reverse, x.dtype)
            adjoint = tile_states(
                driven(g, adjoint_maps, direction, every),
                (leaving[direction, 0, c, every], leaving[direction, 1, c, every]),
                doubled,
                every,
                not reverse,
                x.dtype,
                conjugate=True,
            )
            kept_and_new = zip(readouts[direction], states, strict=True)
            new_readouts.append([kept + _over_steps(state, g, dtype) for kept, state in kept_and_new])
            before = previous_states(states, entering, reverse, x.dtype)
            eigenvalues = [
                eigenvalues[0] + jnp.sum(adjoint[0] * before[0] + adjoint[1] * before[1], axis=0),
                eigenvalues[1] + jnp.sum(adjoint[1] * before[0] - adjoint[0] * before[1], axis=0),
            ]
            total = adjoint if total is None else (total[0] + adjoint[0], total[1] + adjoint[1])
        assert total is not None
        inputs = [kept + _over_steps(x, part, dtype) for kept, part in zip(inputs, total, strict=True)]
        return eigenvalues, inputs, new_readouts

    def zeros(*shape: int) -> list[Array]:
        return [jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)]

    start = zeros(block), zeros(H, block), [zeros(block, H) for _ in reverses]
    eigenvalues, inputs, readouts = lax.fori_loop(0, u.shape[0] // T, tile, start)
    for part in (0, 1):
        dLambda[part, :] = eigenvalues[part]
        dB[part, :, :] = inputs[part]
        for direction in range(len(reverses)):
            dC[direction, part, :, :] = readouts[direction][part]


def _over_steps(a: Array, b: Array, dtype: jnp.dtype) -> Array:
    """aᵀ b: the sum over the steps of a tile. Products in the dtype of the tokens, as in the forward pass."""
    tokens = min(a.dtype, b.dtype, key=lambda each: each.itemsize)
    summed = (((0,), (0,)), ((), ()))
    return lax.dot_general(a.astype(tokens), b.astype(tokens), summed, preferred_element_type=dtype)
