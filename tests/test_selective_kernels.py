"""The GPU kernels of the selective recurrence, in Pallas' interpreter, against their plain twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.kernels import selective as kernels
from lra_bench.kernels.triton import Interpreter
from lra_bench.ssm import selective


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    monkeypatch.setattr(Interpreter, "on", True)
    monkeypatch.setattr(kernels, "FEATURES", 4)
    monkeypatch.setattr(selective, "PIECE", 4)


# Tiles of features and of states that blocks do not fill, and a last piece that the sequence does not fill.
@pytest.mark.parametrize(("G", "p", "parts", "reverse"), [(1, 6, 1, False), (2, 3, 2, True)])
def test_values_and_gradients_are_those_of_the_plain_twin(G, p, parts, reverse):
    L, batch, N, rng = 10, 2, 3, np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    bias = tuple(normal(G, N, p) for _ in range(parts)) if parts == 2 else ()
    constants = selective.Constants((-jnp.exp(normal(G, N, p)), normal(G, N, p))[:parts], bias)
    vectors = tuple(normal(L, batch, G, N) for _ in range(parts))
    dt = jnp.exp(normal(L, batch, G, p) - 1)
    steps = selective.Steps(dt, normal(L, batch, G, p), vectors, normal(L, batch, G, N))

    @jax.jit
    def both(constants, steps, dy):
        y, pullback = jax.vjp(lambda *a: selective.loop_recurrence(*a, reverse), constants, steps)
        plain, plain_pullback = jax.vjp(lambda *a: selective.recurrence(*a, reverse, 1), constants, steps)
        return (y, pullback(dy)), (plain, plain_pullback(dy))

    found, expected = both(constants, steps, normal(L, batch, G, p))
    for ours, plain in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())
