"""What the kernels of the gate (`kernels/gate.py`) take and give."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array


class GateParameters(NamedTuple):
    """The parameters of one block from the state space's output on; (H,) each, but (H, H) for `gate` and `value`."""

    skip: Array  # D ∘ scale
    shift: Array  # D ∘ shift
    gate: Array
    gate_bias: Array
    value: Array | None
    value_bias: Array | None


class OutputGradient(NamedTuple):
    """The gradient of `out` (L, b, H), beside that of its sums: of out, and twice that of out²; (H,) each."""

    dout: Array
    d_sum: Array
    d_square: Array


class GateGradients(NamedTuple):
    """The gradients of z and of x but for its way through y, (tokens, H); those of the parameters; and sums."""

    dz: Array
    dx: Array  # skip ∘ dz and the gradient of `out`, (L, b, H)
    sum_dz: Array  # (H,)
    sum_x_dz: Array  # (H,)
    gate: Array
    gate_bias: Array
    value: Array | None
    value_bias: Array | None
