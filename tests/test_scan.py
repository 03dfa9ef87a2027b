"""The scan engine against the sequential float64 oracle: values, gradients, every size, every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm.oracle import diagonal_ssm_oracle
from lra_bench.ssm.scan import diagonal_ssm, step


def problem(L, b=2, H=3, P=4, dtype=np.float64, seed=0, smallest=0.0):
    """Random operator arguments: eigenvalues anywhere in the disc, slow ones (|λ| up to 1 − 1e-4) among them."""
    rng = np.random.default_rng(seed)
    radius = np.where(np.arange(P) % 2, 1 - 10.0 ** rng.uniform(-4, -1, P), rng.uniform(smallest, 1, P))
    Lambda = radius * np.exp(1j * rng.uniform(-np.pi, np.pi, P))
    arrays = [
        Lambda.real,
        Lambda.imag,
        *(rng.normal(size=s) / np.sqrt(s[0]) for s in ((H, 2 * P), (2 * P, H), (2 * P, H))),
    ]
    real, imag, B, C, C_reverse, u = (jnp.asarray(a, dtype) for a in (*arrays, rng.normal(size=(L, b, H))))
    return (real, imag), B, C, C_reverse, u


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)


def gradients(function, arguments):
    """Gradients of Σ w·y over all arguments, flattened; w is fixed noise so that no component is favoured."""
    weight = jnp.asarray(np.random.default_rng(9).normal(size=arguments[-1].shape), arguments[-1].dtype)
    return jax.tree.leaves(jax.jit(jax.grad(lambda *a: (function(*a) * weight).sum(), tuple(range(5))))(*arguments))


@pytest.mark.parametrize("L", [1, 2, 3, 7, 64, 97])
def test_values_and_gradients_equal_the_oracle_in_float64(L):
    with jax.enable_x64(True):
        arguments = problem(L)
        assert relative(diagonal_ssm(*arguments), diagonal_ssm_oracle(*arguments)) < 1e-12
        for ours, oracle in zip(
            gradients(diagonal_ssm, arguments), gradients(diagonal_ssm_oracle, arguments), strict=True
        ):
            assert relative(ours, oracle) < 1e-9


def test_step_by_step_equals_the_causal_scan():
    with jax.enable_x64(True):
        Lambda_bar, B, C, _, u = problem(20)
        state, outputs = jnp.zeros((2, 8)), []
        for u_t in u:
            state, y_t = step(Lambda_bar, B, C, state, u_t)
            outputs.append(y_t)
        assert relative(jnp.stack(outputs), diagonal_ssm(Lambda_bar, B, C, None, u)) < 1e-13


def test_wrong_shapes_are_named():
    Lambda_bar, B, C, C_reverse, u = problem(5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"C_reverse must be \(8, 3\)"):
        diagonal_ssm(Lambda_bar, B, C, C_reverse.T, u)
    with pytest.raises(ValueError, match="time first"):
        diagonal_ssm(Lambda_bar, B, C, C_reverse, u[0])
