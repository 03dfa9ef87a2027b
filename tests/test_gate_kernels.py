"""The kernels of a block's second half, in Pallas' interpreter, against plain functions and JAX's gradients of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.kernels import gate, residual
from lra_bench.kernels.triton import Interpreter


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(Interpreter, "on", True)
    with jax.default_matmul_precision("highest"):
        yield


def distance(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def plain(kind, x, y, parameters, masks):
    """`out` and its sums, as the head of `kernels/gate.py` defines them."""
    p = parameters
    m, m_out = (1.0, 1.0) if masks is None else masks
    z = y + p.skip * x + p.shift
    a = jax.nn.gelu(z, approximate=True) * m
    value = {"half_glu1": a, "half_glu2": z}[kind] if p.value is None else a @ p.value + p.value_bias
    out = x + value * jax.nn.sigmoid(a @ p.gate + p.gate_bias) * m_out
    tokens = out.reshape(-1, out.shape[-1])
    return out, jnp.stack([tokens.sum(0), (tokens**2).sum(0)])


def arguments(kind, L, batch, H, dropout, dtype=jnp.float32):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    full = kind == "full_glu"
    parameters = gate.GateParameters(
        normal(H),
        normal(H),
        normal(H, H) / H**0.5,
        normal(H),
        normal(H, H) / H**0.5 if full else None,
        normal(H) if full else None,
    )
    masks = jnp.asarray(rng.integers(0, 2, (2, batch, H)) * 2.0, jnp.float32) if dropout else None
    x, y = normal(L, batch, H).astype(dtype), normal(L, batch, H).astype(dtype)
    gradient = normal(L, batch, H).astype(dtype), normal(2, H) / L**0.5
    return x, y, parameters, masks, gradient


def as_one_gradient(kind, x, y, parameters, masks, gradient):
    """`gate_backward`'s results as the gradients of x, y and the parameters."""
    dout, d_sums = gradient
    found = gate.gate_backward(kind, gate.OutputGradient(dout, d_sums[0], 2.0 * d_sums[1]), x, y, parameters, masks)
    weights = found.gate, found.gate_bias, found.value, found.value_bias
    return found.dx, found.dz.reshape(y.shape), gate.GateParameters(found.sum_x_dz, found.sum_dz, *weights)


CASES = {
    # kind, widest accumulated, width, dropout. A width of 48 has three blocks of columns and one of 64 has one.
    "half_glu1 accumulated": ("half_glu1", 128, 48, True),
    "half_glu1 wide": ("half_glu1", 16, 48, False),
    "half_glu2 accumulated": ("half_glu2", 128, 64, False),
    "half_glu2 wide": ("half_glu2", 16, 48, True),
    "full_glu": ("full_glu", 128, 48, True),
    "full_glu without dropout": ("full_glu", 128, 16, False),
}


@pytest.mark.parametrize(
    "name", [*list(CASES)[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in list(CASES)[2:])]
)
def test_the_gate_and_its_gradients_are_the_plain_ones(name, monkeypatch):
    """Of 5 groups of 64 tokens, the last one has 29, and two programs of the gradient take three and two of them."""
    kind, widest, H, dropout = CASES[name]
    monkeypatch.setattr(gate, "WIDEST_ACCUMULATED", widest)
    monkeypatch.setattr(gate, "PROGRAMS", 2)
    x, y, parameters, masks, gradient = arguments(kind, 95, 3, H, dropout)
    wanted, pullback = jax.vjp(lambda *a: plain(kind, *a, masks), x, y, parameters)
    found = gate.gate_forward(kind, x, y, parameters, masks)
    gradients = as_one_gradient(kind, x, y, parameters, masks, gradient)
    pairs = zip(jax.tree.leaves((found, gradients)), jax.tree.leaves((wanted, pullback(gradient))), strict=True)
    for value, expected in pairs:
        assert distance(value, expected) < 3e-6


@pytest.mark.parametrize("widest", [16, pytest.param(128, marks=pytest.mark.slow)])
def test_in_16_bits_only_what_is_stored_and_multiplied_is_rounded(widest, monkeypatch):
    monkeypatch.setattr(gate, "WIDEST_ACCUMULATED", widest)
    x, y, parameters, masks, gradient = arguments("half_glu1", 50, 2, 32, True, jnp.bfloat16)
    wide = [array.astype(jnp.float32) for array in (x, y)]
    (wanted, sums), pullback = jax.vjp(lambda *a: plain("half_glu1", *a, masks), *wide, parameters)
    found, found_sums = gate.gate_forward("half_glu1", x, y, parameters, masks)
    dx, dy, rest = as_one_gradient("half_glu1", x, y, parameters, masks, gradient)
    assert found.dtype == dx.dtype == dy.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((found_sums, rest))} == {jnp.dtype(jnp.float32)}
    wanted_dx, wanted_dy, wanted_rest = pullback((gradient[0].astype(jnp.float32), gradient[1]))
    pairs = [(found, wanted), (found_sums, sums), (dx, wanted_dx), (dy, wanted_dy)]
    pairs += zip(jax.tree.leaves(rest), jax.tree.leaves(wanted_rest), strict=True)
    for value, expected in pairs:
        assert distance(value, expected) < 2.0**-7


@pytest.mark.parametrize("largest", [0, 128 * 256])
@pytest.mark.parametrize(("H", "width"), [(48, 32), (16, 48)])
def test_the_gradients_of_an_input_and_its_matrix_are_the_two_products(largest, H, width, monkeypatch):
    monkeypatch.setattr(residual, "LARGEST", largest)
    monkeypatch.setattr(residual, "PROGRAMS", 2)
    rng = np.random.default_rng(0)
    r, x, db = (jnp.asarray(rng.standard_normal((95, 3, size)), jnp.float32) for size in (H, H, width))
    B = jnp.asarray(rng.standard_normal((H, width)), jnp.float32)
    dx, dB = residual.input_gradients(r, x, db, B)
    assert distance(dx, r + db @ B.T) < 3e-6
    assert distance(dB, jnp.einsum("lbh,lbp->hp", x, db)) < 3e-6
    dx, dB = residual.input_gradients(*(array.astype(jnp.bfloat16) for array in (r, x, db)), B)
    assert (dx.dtype, dB.dtype) == (jnp.bfloat16, jnp.float32)
    assert distance(dx, r + db @ B.T) < 2.0**-7
    assert distance(dB, jnp.einsum("lbh,lbp->hp", x, db)) < 2.0**-7


@pytest.mark.parametrize(("width", "block"), [(16, 16), (48, 16), (96, 32), (128, 64), (20, 0), (8, 0)])
def test_a_block_of_features_divides_the_width(width, block):
    assert gate.column_block(width) == block
