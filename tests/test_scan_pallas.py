"""The fused GPU kernels and their gradients without a GPU: arithmetic in interpret mode, and lowering for CUDA."""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm.oracle import diagonal_ssm_oracle
from lra_bench.ssm.scan import diagonal_ssm
from lra_bench.ssm.scan_pallas import fits, fused_forward
from lra_bench.ssm.scan_pallas_gradient import fused_backward


def problem(L, b, H, P, two_directions=True, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    magnitude = np.concatenate([[0, 1e-6, 0.05], rng.uniform(0.5, 1, P - 4), [0.9999]])
    Lambda = magnitude * np.exp(1j * rng.uniform(-np.pi, np.pi, P))
    B, C, C_reverse = (
        jnp.asarray(rng.normal(size=s) / np.sqrt(s[0]), jnp.float32) for s in ((H, 2 * P), (2 * P, H), (2 * P, H))
    )
    u = jnp.asarray(rng.normal(size=(L, b, H)), dtype)
    return (jnp.float32(Lambda.real), jnp.float32(Lambda.imag)), B, C, C_reverse if two_directions else None, u


def error(y, arguments):
    """Relative to the float64 oracle on the same, already rounded inputs."""
    with jax.enable_x64(True):
        exact = np.asarray(diagonal_ssm_oracle(*jax.tree.map(lambda a: a.astype(jnp.float64), arguments)))
    return np.linalg.norm(np.asarray(y, np.float64) - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("L", "b", "H", "P", "two_directions"),
    [(128, 2, 16, 32, True), (96, 1, 32, 40, True), (16, 3, 16, 8, True), (192, 2, 16, 64, False)],
)
def test_kernels_equal_the_oracle(L, b, H, P, two_directions):
    arguments = problem(L, b, H, P, two_directions)
    assert error(jax.jit(lambda *a: fused_forward(*a, interpret=True))(*arguments), arguments) < 2e-6


def test_bfloat16_is_as_good_as_unfused_bfloat16():
    arguments = problem(128, 2, 32, 32, dtype=jnp.bfloat16)
    fused = error(jax.jit(lambda *a: fused_forward(*a, interpret=True))(*arguments), arguments)
    assert fused < 1.2 * error(diagonal_ssm(*arguments), arguments) < 0.01


def weighted_sum(y):
    y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return (y * jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)).sum()


def gradient_errors(found, arguments):
    """Of each array, relative to autodiff of the float64 oracle."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: a.astype(jnp.float64), arguments)
        exact = jax.grad(lambda *a: weighted_sum(diagonal_ssm_oracle(*a)), argnums=range(5))(*wide)
    assert jax.tree.structure(found) == jax.tree.structure(exact)
    leaves = ([np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in (found, exact))
    return [np.linalg.norm(ours - right) / np.linalg.norm(right) for ours, right in zip(*leaves, strict=True)]


@pytest.mark.parametrize(
    ("L", "b", "H", "P", "two_directions"),
    [
        (128, 2, 16, 32, True),
        (96, 1, 32, 40, True),
        (16, 3, 16, 8, True),
        (192, 2, 16, 64, False),
        (16, 1, 256, 8, True),
    ],
)
def test_gradients_equal_autodiff_of_the_oracle(L, b, H, P, two_directions):
    arguments = problem(L, b, H, P, two_directions)
    dy = jax.grad(weighted_sum)(arguments[-1])
    found = jax.jit(lambda *a: fused_backward(*a, interpret=True))(*arguments, dy)
    assert max(gradient_errors(found, arguments)) < 5e-6


def test_gradients_in_bfloat16_are_as_good_as_unfused_ones():
    arguments = problem(128, 2, 32, 32, dtype=jnp.bfloat16)
    dy = jax.grad(weighted_sum)(arguments[-1])
    fused = gradient_errors(jax.jit(lambda *a: fused_backward(*a, interpret=True))(*arguments, dy), arguments)
    unfused = jax.grad(lambda *a: weighted_sum(diagonal_ssm(*a)), argnums=range(5))(*arguments)
    for ours, theirs in zip(fused, gradient_errors(unfused, arguments), strict=True):
        assert ours < 1.2 * theirs + 1e-3


def test_shapes_that_the_kernels_do_not_take_use_another_form():
    assert [fits(L, H) for L, H in ((16384, 128), (4000, 128), (1024, 192), (999, 128))] == [True, True, False, False]
    arguments = problem(50, 1, 24, 8)
    assert error(diagonal_ssm(*arguments, form="fused"), arguments) < 2e-6


def abstract_gpu():
    """JAX 0.12 asks which GPU a Triton kernel is lowered for."""
    if not hasattr(jax.sharding, "AbstractDevice"):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_lowers_for_cuda_without_a_gpu(dtype):
    arguments = problem(1024, 4, 128, 128, dtype=dtype)
    program = jax.jit(lambda *a: diagonal_ssm(*a, form="fused"))
    with abstract_gpu():
        lowered = program.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("gpu$xla.gpu.triton") == 2
    # neither the driven inputs nor the states of the 4,096 tokens are arrays of the program
    assert not re.search("1024x4x256x|4096x256x", lowered)
    training = jax.jit(jax.value_and_grad(lambda *a: weighted_sum(program(*a)), argnums=range(5)))
    with abstract_gpu():
        lowered = training.trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    assert lowered.count("gpu$xla.gpu.triton") == 6
    assert not re.search("1024x4x256x|4096x256x", lowered)
