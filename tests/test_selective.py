"""S6 and B²S6: the selective recurrence and both layers against their equations in float64, and how much memory it
takes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.errors import UserError
from lra_bench.kernels import selective as kernel
from lra_bench.machine.complex_parts import cos_sin
from lra_bench.models.b2s6 import B2S6Layer
from lra_bench.models.s6 import S6Layer
from lra_bench.registry import recipe_module
from lra_bench.spec import validated
from lra_bench.ssm.selective import selective_scan

H, N = 6, 3
REAL, COMPLEX = 1, 2
"""The number of real arrays that A, B and β have."""


def arguments(L, G, parts, batch=2, dtype=np.float64):
    """A, β, dt, u, B and C with memories of 2 to 1,000 steps."""
    rng = np.random.default_rng(L)

    def normal(*shape):
        return rng.normal(size=shape)

    A = (-rng.uniform(0.2, 1.0, (H, N)), 3 * normal(H, N))[:parts]
    bias = tuple(normal(H, N) for _ in range(parts)) if parts == COMPLEX else ()
    dt = np.exp(rng.uniform(np.log(5e-3), np.log(0.5), (L, batch, H)))
    B = tuple(normal(L, batch, G, N) for _ in range(parts))
    found = A, bias, dt, normal(L, batch, H), B, normal(L, batch, G, N)
    return jax.tree.map(lambda x: np.asarray(x, dtype), found)


def plain(A, bias, dt, u, B, C, reverse=False):
    """The recurrence by its equations, one step after another in numpy."""

    def whole(parts):
        wide = [np.asarray(part, np.float64) for part in parts]
        return wide[0] + 1j * wide[1] if len(wide) == COMPLEX else sum(wide)

    A, bias, B = map(whole, (A, bias, B))
    dt, u, C = (np.asarray(x, np.float64) for x in (dt, u, C))
    block = np.arange(H) * C.shape[2] // H
    x, y = 0.0, np.zeros(u.shape)
    for t in range(len(u))[:: -1 if reverse else 1]:
        x = np.exp(dt[t][..., None] * A) * x + (dt[t] * u[t])[..., None] * (B[t][:, block] + bias)
        y[t] = (C[t][:, block] * x).real.sum(-1)
    return y


def relative(found, expected):
    return np.abs(np.asarray(found, np.float64) - expected).max() / np.abs(expected).max()


CASES = [(1, 1, REAL, 1, False), (37, 1, REAL, 2, True), (70, 3, COMPLEX, 1, True), (130, 2, COMPLEX, 4, False)]
"""L, the blocks, the parts, the chunks, and the direction."""


@pytest.mark.parametrize(("L", "G", "parts", "chunks", "reverse"), CASES)
def test_scan_is_the_definition(L, G, parts, chunks, reverse):
    system = arguments(L, G, parts)
    with jax.enable_x64(True):
        y = jax.jit(selective_scan, static_argnums=(6, 7))(*jax.tree.map(jnp.asarray, system), reverse, chunks)
    assert relative(y, plain(*system, reverse)) < 1e-12


@pytest.mark.parametrize(("L", "G", "parts", "chunks", "reverse"), CASES[1:])
def test_gradients_are_those_of_finite_differences(L, G, parts, chunks, reverse):
    rng, system = np.random.default_rng(1), arguments(L, G, parts)
    weights = rng.normal(size=(L, 2, H))
    with jax.enable_x64(True):

        def loss(*system):
            return jnp.sum(jnp.sin(0.3 * selective_scan(*system, reverse, chunks)) * weights)

        found = jax.jit(jax.grad(loss, range(6)))(*jax.tree.map(jnp.asarray, system))
        gradients = jax.tree.map(np.asarray, found)
    for moved in (range(6), *([number] for number in range(6))):
        directions = [
            jax.tree.map(lambda x, on=i in moved: on * rng.normal(size=x.shape), a) for i, a in enumerate(system)
        ]
        up, down = (jax.tree.map(lambda x, v, e=e: x + e * v, system, tuple(directions)) for e in (1e-6, -1e-6))
        rise = np.sum((np.sin(0.3 * plain(*up, reverse)) - np.sin(0.3 * plain(*down, reverse))) * weights) / 2e-6
        pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(directions), strict=True)
        np.testing.assert_allclose(sum(np.sum(g * v) for g, v in pairs), rise, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("chunks", [1, 32])
def test_scan_in_float32_at_the_length_of_pathx(chunks):
    system = arguments(16_384, 2, COMPLEX, 1, np.float32)
    y = jax.jit(selective_scan, static_argnums=(6, 7))(*jax.tree.map(jnp.asarray, system), False, chunks)
    assert relative(y, plain(*system)) < 1e-4


@pytest.mark.parametrize("chunks", [1, 8])
def test_neither_pass_holds_an_array_of_all_states(chunks):
    """Nor half of one, in the program that computes y and all gradients: of L · b · H · N numbers."""
    L, width, states = 4_096, 64, 64

    def of(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    vectors = of(L, 1, 1, states)
    system = (of(width, states),), (), of(L, 1, width), of(L, 1, width), (vectors,), vectors

    def loss(*system):
        return jnp.sum(selective_scan(*system, False, chunks) ** 2)

    compiled = jax.jit(jax.value_and_grad(loss, range(6))).lower(*system).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * L * width * states / 2


@pytest.mark.parametrize("size", [3.0, 50.0, 5_000.0])
def test_cosine_and_sine(size):
    angles = np.random.default_rng(0).uniform(-size, size, 10_000).astype(np.float32)
    for found, exact in zip(cos_sin(jnp.asarray(angles)), (np.cos, np.sin), strict=True):
        assert np.abs(found - exact(angles.astype(np.float64))).max() < 2e-7


LAYERS = {"s6": S6Layer, "b2s6": B2S6Layer}


@cache
def layer_of(model, bidirectional=False, **changes):
    """A layer with small settings and random parameters."""
    recipe = recipe_module(model).RECIPES["listops"].model_copy(update={"d_model": H, "bidirectional": bidirectional})
    own = {"blocks": 2} if model == "b2s6" else {}
    config = validated(recipe_module(model).Config, {**recipe.layer, "d_state": N, **own, **changes})

    def made():
        return LAYERS[model](recipe, config, rngs=nnx.Rngs(0))

    return nnx.merge(nnx.graphdef(nnx.eval_shape(made)), jax.jit(lambda: nnx.state(made()))())


def equations(layer, u):
    """The layer by the equations of its paper, in float64, with dt as the factor of the input."""
    p = {name: np.asarray(getattr(layer, name)[...], np.float64) for name in ("w", "b", "B", "C", "D")}
    by_block = u.reshape(*u.shape[:2], len(p["C"]), -1)

    def product(weights):
        return np.einsum("lbgp,gpn->lbgn", by_block, weights)

    dt = np.log1p(np.exp(np.repeat(np.einsum("lbgp,gp->lbg", by_block, p["w"]), by_block.shape[-1], -1) + p["b"]))
    if isinstance(layer, S6Layer):
        A, bias, B = (-np.exp(np.asarray(layer.a[...], np.float64)),), (), (product(p["B"]),)
    else:
        one = -np.exp(np.asarray(layer.A_real[...], np.float64)), np.asarray(layer.A_imag[...], np.float64)
        A = tuple(np.tile(part, (H, 1)) for part in one)
        bias = tuple(np.moveaxis(np.asarray(layer.beta[...], np.float64), -1, 0))
        B = tuple(product(p["B"][..., part]) for part in range(2))
    y = plain(A, bias, dt, u, B, product(p["C"])) + p["D"] * u
    if layer.C_reverse is not None:
        y += plain(A, bias, dt, u, B, product(np.asarray(layer.C_reverse[...], np.float64)), True)
    return y


@pytest.mark.parametrize(("model", "bidirectional"), [("s6", False), ("b2s6", True)])
def test_layer_is_the_papers(model, bidirectional):
    layer = layer_of(model, bidirectional)
    u = np.random.default_rng(0).normal(size=(50, 2, H)).astype(np.float32)
    assert relative(jax.jit(lambda layer, u: layer(u))(layer, u), equations(layer, u.astype(np.float64))) < 1e-5


def test_layer_starts_as_it_says():
    s6, b2s6 = layer_of("s6"), layer_of("b2s6", True)
    np.testing.assert_allclose(-np.exp(s6.a[...]), np.tile([-1.0, -2.0, -3.0], (H, 1)), rtol=1e-6)
    np.testing.assert_allclose(np.abs(b2s6.A_imag[...]), np.pi * np.arange(N), rtol=1e-6)
    for layer in (s6, b2s6):
        dt = np.log1p(np.exp(layer.b[...]))
        assert ((dt > 9.9e-4) & (dt < 0.101)).all()


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="blocks must divide d_model = 6, got 4"):
        layer_of("b2s6", blocks=4)
    with pytest.raises(UserError, match="dt_min must not exceed dt_max"):
        layer_of("s6", dt_min=0.2)


def test_the_largest_array_of_the_kernels_is_one_that_they_have():
    """The states of all steps, which no kernel writes, would send long sequences to the chunked form."""

    def largest(L, batch, H, G, N):
        u, C = jax.ShapeDtypeStruct((L, batch, H), jnp.float32), jax.ShapeDtypeStruct((L, batch, G, N), jnp.float32)
        return kernel.largest_array(u, C, 16)

    assert largest(65_536, 24, 128, 1, 16) == 65_536 * 24 * 16 * 16  # B and C of 16 tiles of 8 features
    assert largest(1_024, 2, 64, 8, 4) == 1_024 * 2 * 64  # u
    assert largest(1_024, 2, 64, 8, 64) == 1_024 * 2 * 8 * 64  # a block is one tile
