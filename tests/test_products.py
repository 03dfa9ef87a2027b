"""The precision of products, as the program that is traced for a device has it."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from lra_bench.machine import platform
from lra_bench.machine.products import exact_product, product

GPU = AbstractMesh((), (), abstract_device=AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu"))
THREE = lax.DotAlgorithmPreset.BF16_BF16_F32_X3


def precisions(function, *arguments):
    """The precision of each product of a traced program."""
    return [
        equation.params["precision"]
        for equation in products(jax.make_jaxpr(lambda *arguments: function(*arguments))(*arguments).jaxpr)
    ]


def products(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def matrix(dtype):
    return jax.ShapeDtypeStruct((4, 4), dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ["highest", "tensorfloat32"])
@pytest.mark.parametrize("gpu", [False, True])
def test_only_exact_float32_products_on_a_gpu_are_three_of_bfloat16_parts(dtype, name, gpu):
    mesh = GPU if gpu else AbstractMesh((), ())
    with use_abstract_mesh(mesh), jax.default_matmul_precision(name):
        (found,) = precisions(product, matrix(dtype), matrix(jnp.float32))
        pulled = precisions(jax.grad(lambda a, b: product(a, b).sum(), (0, 1)), matrix(dtype), matrix(jnp.float32))
    three = gpu and name == "highest" and dtype == jnp.float32
    assert (found == THREE) == three
    # JAX gives the gradient of a product the precision of the product.
    assert [precision == THREE for precision in pulled] == [three] * len(pulled)


def test_a_gpu_without_such_tensor_cores_multiplies_float32(monkeypatch):
    monkeypatch.setattr("lra_bench.machine.products.target_has_bfloat16_products", lambda: False)
    with use_abstract_mesh(GPU), jax.default_matmul_precision("highest"):
        (found,) = precisions(product, matrix(jnp.float32), matrix(jnp.float32))
    assert found == (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def test_only_a_gpu_of_nvidia_from_compute_capability_8_on_has_them():
    assert [platform.has_bfloat16_products(name) for name in ("7.5", "8.0", "9.0", "12.0", "gfx942", None)] == [
        False, True, True, True, False, False
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["highest", "tensorfloat32"])
def test_a_product_that_must_be_exact_is_so_everywhere(name):
    with use_abstract_mesh(GPU), jax.default_matmul_precision(name):
        (found,) = precisions(exact_product, matrix(jnp.float32), matrix(jnp.float32))
    assert found == (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def test_sums_and_results_are_in_float32_or_wider():
    assert product(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 2))).dtype == jnp.float32
    # 257 ones are no number of bfloat16.
    assert product(jnp.ones((1, 257), jnp.bfloat16), jnp.ones((257, 1)))[0, 0] == 257
    with jax.enable_x64(True):
        assert product(jnp.ones((2, 3), jnp.float64), jnp.ones((3, 2))).dtype == jnp.float64
