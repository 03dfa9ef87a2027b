"""The S5 block on a GPU: one function with a gradient of its own, in a third of XLA's passes over memory.

The plain twin is `layers.Block`, with the same values and gradients up to the rounding of products. Three things save
passes over tokens × features:

1. BatchNorm is folded into the state space. With scale = γ/σ and shift = β − μ ∘ scale, B u = (x ∘ scale) B + shift B
   and D ∘ u = (D ∘ scale) ∘ x + D ∘ shift, so no normalized array is written. The gradients of scale and shift follow
   from those of the weights, without a sum over tokens of their own.
2. The moments of a block's output are summed up where it is written. The next block takes them as an argument, and
   their gradient is added where the gradient of that output is read. Evaluation folds the running ones.
3. What stands between the products is fused with them: `kernels/gate.py`, `kernels/residual.py`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lra_bench.kernels import gate, projection, residual, triton
from lra_bench.kernels.gate_arrays import GateParameters, OutputGradient
from lra_bench.machine.platform import default_product_precision
from lra_bench.machine.products import exact_product, product
from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.layers import EPSILON, BatchNorm, Block, Gate, wide
from lra_bench.models.shapes import DropoutMasks
from lra_bench.ssm import scan
from lra_bench.ssm.shapes import Features, Pair


class BlockParameters(NamedTuple):
    """The arrays of a block. The state space is discretized, as `scan.diagonal_ssm` takes it."""

    norm_scale: Array  # γ (H,)
    norm_bias: Array  # β (H,)
    Lambda_bar: Pair  # two of (P,)
    B: Array  # (H, 2P)
    C: Array  # (2P, H), or (4P, H) for both directions
    D: Array  # (H,)
    gate: Array  # (H, H)
    gate_bias: Array  # (H,)
    value: Array | None  # (H, H)
    value_bias: Array | None  # (H,)


class _Kind(NamedTuple):
    """What does not change in training."""

    gate: str
    both: bool


class _Folded(NamedTuple):
    """BatchNorm as an affine map, and what its gradient needs; (H,) each."""

    mean: Array
    inverse: Array  # 1/σ
    scale: Array
    shift: Array


class _Applied(NamedTuple):
    """What the forward pass computes."""

    out: Array
    moments: Array
    states: Array
    y: Array


def can_fuse(block: Block, x: Features) -> bool:
    """Whether the kernels compute this block on these arrays.

    They need one GPU, products as TF32 or of bfloat16 arrays, more steps than `projection.ROWS`, a residual block with
    BatchNorm first, a diagonal state space without a window, and widths that are multiples of 16 and not above
    `gate.WIDEST`.
    """
    fast = x.dtype == jnp.bfloat16 or default_product_precision() == "tensorfloat32"
    layer, head = block.layer, block.gate
    if not (fast and isinstance(layer, DiagonalSSM) and layer.window is None and isinstance(head, Gate)):
        return False
    (L, b, H), width = x.shape, layer.discretized_width
    # For both directions, a row of states has twice that width.
    here = L > projection.ROWS and triton.usable(L * b * max(H, 2 * width))
    known = isinstance(block.norm, BatchNorm) and block.prenorm and not block.mask_before_layer and block.residual
    known = known and block.output_dropout == "none" and head.kind != "gelu" and head.conventions.gelu == "tanh"
    return here and known and H <= gate.WIDEST and bool(gate.column_block(H) and gate.column_block(width))


def moments_of(x: Features) -> Array:
    """The sums (2, H) of x and x² over all tokens, in float32."""
    tokens = wide(x.reshape(-1, x.shape[-1]))
    return jnp.stack([tokens.sum(0), (tokens * tokens).sum(0)])


def fused(block: Block, x: Features, moments: Array, masks: DropoutMasks | None) -> tuple[Features, Array]:
    """Apply the block in training mode to (L, b, H), whose moments are given. Returns the output and its moments.

    BatchNorm's running statistics are updated. Moments are sums, as `moments_of` makes them.
    """
    kind, parameters = _parameters(block)
    tokens = x.shape[0] * x.shape[1]
    _norm(block).keep(*_mean_and_variance(jax.lax.stop_gradient(moments), tokens), tokens)
    return _block(kind, parameters, x, moments, masks)


def fused_evaluation(block: Block, x: Features) -> Features:
    """Apply the block in evaluation mode to (L, b, H)."""
    kind, parameters = _parameters(block)
    norm = _norm(block)
    return _apply(kind, parameters, _fold(parameters, norm.mean[...], norm.var[...]), x, None).out


def _norm(block: Block) -> BatchNorm:
    assert isinstance(block.norm, BatchNorm)
    return block.norm


def _parameters(block: Block) -> tuple[_Kind, BlockParameters]:
    layer, norm, head = block.layer, _norm(block), block.gate
    assert isinstance(layer, DiagonalSSM)
    assert isinstance(head, Gate)
    Lambda_bar, B, C, C_reverse = layer.discretized()
    full = head.kind == "full_glu"
    parameters = BlockParameters(
        norm.scale[...],
        norm.bias[...],
        Lambda_bar,
        B,
        C if C_reverse is None else jnp.concatenate([C, C_reverse]),
        layer.D[...],
        head.gate.kernel[...],
        head.gate.bias[...],
        head.value.kernel[...] if full else None,
        head.value.bias[...] if full else None,
    )
    return _Kind(head.kind, C_reverse is not None), parameters


def _mean_and_variance(moments: Array, tokens: int) -> tuple[Array, Array]:
    mean = moments[0] / tokens
    # Rounding can make this difference negative.
    return mean, jnp.maximum(moments[1] / tokens - mean * mean, 0.0)


def _fold(parameters: BlockParameters, mean: Array, variance: Array) -> _Folded:
    inverse = jax.lax.rsqrt(variance + EPSILON)
    scale = parameters.norm_scale * inverse
    return _Folded(mean, inverse, scale, parameters.norm_bias - mean * scale)


def _gate_parameters(parameters: BlockParameters, folded: _Folded) -> GateParameters:
    p = parameters
    skip, shift = p.D * folded.scale, p.D * folded.shift
    return GateParameters(skip, shift, p.gate, p.gate_bias, p.value, p.value_bias)


_Residuals = tuple[BlockParameters, Array, Array, Array | None, Array, Array]
"""The parameters, x, the moments, the masks, the states and y."""


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _block(
    kind: _Kind, parameters: BlockParameters, x: Array, moments: Array, masks: Array | None
) -> tuple[Array, Array]:
    return _forward(kind, parameters, x, moments, masks)[0]


def _forward(
    kind: _Kind, parameters: BlockParameters, x: Array, moments: Array, masks: Array | None
) -> tuple[tuple[Array, Array], _Residuals]:
    folded = _fold(parameters, *_mean_and_variance(moments, x.shape[0] * x.shape[1]))
    out, sums, states, y = _apply(kind, parameters, folded, x, masks)
    return (out, sums), (parameters, x, moments, masks, states, y)


def _apply(kind: _Kind, parameters: BlockParameters, folded: _Folded, x: Array, masks: Array | None) -> _Applied:
    p, (L, b, H) = parameters, x.shape
    drive = exact_product(folded.shift, p.B)
    states = scan.driven_states(p.Lambda_bar, x, folded.scale[:, None] * p.B, drive, kind.both)
    y = product(states.reshape(L * b, -1), p.C).astype(x.dtype).reshape(L, b, H)
    out, sums = gate.gate_forward(kind.gate, x, y, _gate_parameters(p, folded), masks)
    return _Applied(out, sums, states, y)


def _backward(
    kind: _Kind, residuals: _Residuals, cotangents: tuple[Array, Array]
) -> tuple[BlockParameters, Array, Array, Array | None]:
    (p, x, moments, masks, states, y), (dout, d_moments) = residuals, cotangents
    L, b, H = x.shape
    folded = _fold(p, *_mean_and_variance(moments, L * b))
    output = OutputGradient(dout, d_moments[0], 2.0 * d_moments[1])
    found = gate.gate_backward(kind.gate, output, x, y, _gate_parameters(p, folded), masks)
    dC = product(states.reshape(L * b, -1).T, found.dz)
    d_Lambda, d_drive, db = scan.driven_gradient(p.Lambda_bar, states, found.dz.reshape(L, b, H), p.C, kind.both)
    # The gradients of scale ∘ B and of shift B, then those of scale and shift.
    dx, dB_scaled = residual.input_gradients(found.dx, x, db, folded.scale[:, None] * p.B)
    d_shift = exact_product(p.B, d_drive) + p.D * found.sum_dz
    d_scale = (dB_scaled * p.B).sum(1) + p.D * found.sum_x_dz - folded.mean * d_shift
    d_variance = -0.5 * p.norm_scale * d_scale * folded.inverse**3
    d_mean = -folded.scale * d_shift - 2.0 * folded.mean * d_variance
    gradients = BlockParameters(
        norm_scale=d_scale * folded.inverse,
        norm_bias=d_shift,
        Lambda_bar=d_Lambda,
        B=folded.scale[:, None] * dB_scaled + folded.shift[:, None] * d_drive,
        C=dC,
        D=folded.scale * found.sum_x_dz + folded.shift * found.sum_dz,
        gate=found.gate,
        gate_bias=found.gate_bias,
        value=found.value,
        value_bias=found.value_bias,
    )
    return gradients, dx, jnp.stack([d_mean, d_variance]) / (L * b), None if masks is None else jnp.zeros_like(masks)


_block.defvjp(_forward, _backward)
