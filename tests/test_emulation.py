"""Emulated TF32 on a CPU: which products have their factors rounded, how, and wherever they stand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from lra_bench.machine.emulation import emulated

X, W, Y = np.random.default_rng(0).standard_normal((3, 16, 16)).astype(np.float32)


def rounded(x):
    """Round float32 numbers to 10 bits of mantissa, ties to even, by integer arithmetic on their bits."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & ~np.uint64(0x1FFF)
    return bits.astype(np.uint32).view(np.float32)


def tf32(a, b):
    """The product of the rounded factors, in float64."""
    return rounded(a).astype(np.float64) @ rounded(b).astype(np.float64)


def run(function, *arguments, precision="tensorfloat32"):
    with jax.default_matmul_precision(precision):
        return jax.jit(emulated(function))(*arguments)


def assert_rounded(found, expected):
    """The float32 sum of rounded factors is 30 times nearer to them than to the exact factors."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_factors_are_rounded_to_ten_bits_and_the_sum_is_not():
    assert_rounded(run(jnp.dot, X, W), tf32(X, W))
    assert np.abs(run(jnp.dot, X, W) - X.astype(np.float64) @ W).max() > 1e-4
    eye = np.eye(16, dtype=np.float32)
    np.testing.assert_array_equal(run(jnp.dot, X, eye), rounded(X))
    np.testing.assert_array_equal(run(lambda x: x @ x.T + x, eye), 2 * eye)


@jax.custom_vjp
def own_gradient(x):
    return x @ W


own_gradient.defvjp(lambda x: (own_gradient(x), None), lambda _, d: (d @ W.T,))


@jax.custom_jvp
def own_derivative(x):
    return x @ W


own_derivative.defjvp(lambda primals, tangents: (primals[0] @ W, tangents[0] @ W))


PLACES = {
    "jit": jax.jit(lambda x: x @ W),
    "jit in jit": jax.jit(lambda x: jax.jit(jnp.dot)(x, W)),
    "fori_loop": lambda x: lax.fori_loop(0, 1, lambda i, c: c @ W, x),
    "while_loop": lambda x: lax.while_loop(lambda c: c[1] < 1, lambda c: (c[0] @ W, c[1] + 1), (x, 0))[0],
    "scan": lambda x: lax.scan(lambda c, _: (c @ W, None), x, None, length=1)[0],
    "inputs of scan": lambda x: lax.scan(lambda c, row: (c, row @ W), 0.0, x)[1],
    "cond": lambda x: lax.cond(x[0, 0] < 100, lambda x: x @ W, lambda x: x, x),
    "switch in scan": lambda x: lax.scan(
        lambda c, i: (lax.switch(i, [lambda c: c, lambda c: c @ W], c), None), x, jnp.array([0, 1])
    )[0],
    "vmap": jax.vmap(lambda row: row @ W),
    "checkpoint": jax.checkpoint(lambda x: x @ W),
    "jit in checkpoint": jax.checkpoint(lambda x: jax.jit(lambda y: y @ W)(x)),
    "custom_vjp": own_gradient,
    "custom_jvp": own_derivative,
    "custom_vjp in scan": lambda x: lax.scan(lambda c, _: (own_gradient(c), None), x, None, length=1)[0],
    "platform_dependent": lambda x: lax.platform_dependent(x, cpu=lambda x: x @ W, default=lambda x: x),
}


@pytest.mark.parametrize("place", PLACES)
def test_products_are_rounded_wherever_they_stand(place):
    assert_rounded(run(PLACES[place], X), tf32(X, W))


@pytest.mark.parametrize("place", PLACES)
def test_so_are_those_of_gradients(place):
    """d sum(y ∘ D) / dx = D Wᵀ, in which the rule rounds D and W."""
    if place == "while_loop":
        pytest.skip("JAX has no reverse gradient of a loop of unknown length")
    D = Y
    function = PLACES[place]
    assert_rounded(run(jax.grad(lambda x: (function(x) * D).sum()), X), tf32(D, W.T))


def test_every_product_of_a_loop_is_rounded():
    expected = X
    for _ in range(3):
        expected = np.tanh(tf32(expected, W).astype(np.float32))
    found = run(lambda x: lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c @ W), x), X)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # a factor next to a tie may be rounded the other way


def test_products_with_a_precision_of_their_own_are_left_alone():
    exact = jax.jit(lambda x: jnp.dot(x, W, precision=lax.Precision.HIGHEST))
    np.testing.assert_array_equal(run(exact, X), exact(X))
    np.testing.assert_array_equal(run(lambda x: lax.fori_loop(0, 1, lambda i, c: exact(c), x), X), exact(X))


@pytest.mark.parametrize("place", ["jit", "scan", "custom_vjp"])
def test_nothing_is_rounded_under_the_highest_precision(place):
    with jax.default_matmul_precision("highest"):
        plain = jax.jit(PLACES[place])(X)
    np.testing.assert_array_equal(run(PLACES[place], X, precision="highest"), plain)


def test_other_types_are_left_alone():
    narrow = jnp.asarray(X, jnp.bfloat16)
    np.testing.assert_array_equal(run(lambda x: x @ x, narrow), jax.jit(lambda x: x @ x)(narrow))
    with jax.enable_x64(True):
        wide = jnp.asarray(X, jnp.float64)
        np.testing.assert_allclose(run(lambda x: x @ x, wide), X.astype(np.float64) @ X, rtol=1e-12)


def test_programs_for_other_platforms_are_left_alone():
    gpu = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=gpu)
    with jax.sharding.use_abstract_mesh(mesh), jax.default_matmul_precision("tensorfloat32"):
        assert "reduce_precision" not in str(jax.make_jaxpr(emulated(jnp.dot))(X, W))
    with jax.default_matmul_precision("tensorfloat32"):
        assert str(jax.make_jaxpr(emulated(jnp.dot))(X, W)).count("reduce_precision") == 2


def test_arguments_and_results_keep_their_structure():
    def function(tree, key):
        return {"sum": tree["a"] + tree["b"][0], "key": jax.random.split(key)[0], "nothing": None}

    found = run(function, {"a": X, "b": [W]}, jax.random.key(1))
    assert found["nothing"] is None
    np.testing.assert_array_equal(found["sum"], X + W)
    assert jnp.issubdtype(found["key"].dtype, jax.dtypes.prng_key)
