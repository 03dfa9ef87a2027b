"""The precision of a run on this machine: JAX's name for its matrix products, and the dtype of its activations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from lra_bench.errors import UserError
from lra_bench.spec import Precision

THREE_PRODUCTS = "BF16_BF16_F32_X3"
"""JAX's name for a float32 product as three products of bfloat16 parts, summed in float32.

On an H200 its relative error is 4.5e-6 and its time 0.6 of an exact float32 product's (measured).
"""


def jax_precision(precision: Precision, platform: str, capability: str | None) -> str:
    """JAX's name for the products of float32 matrices, as `jax.default_matmul_precision` takes it.

    platform: `cpu`, `gpu` or `tpu`. capability: the compute capability of an NVIDIA GPU, such as "9.0"; None where
    there is none. On a CPU the name tells the models to round the factors of products themselves, as the CPU would not.
    """
    if platform == "gpu":
        exact = THREE_PRODUCTS if has_bfloat16_products(capability) else "highest"
        return exact if precision == "float32" else "tensorfloat32"
    if precision == "float32":
        return "highest"
    return "tensorfloat32" if platform == "cpu" else "high"


def recorded_precision(precision: Precision, platform: str, capability: str | None) -> str:
    """The same as a record has it. It says where a CPU only emulates the products of a GPU."""
    name = jax_precision(precision, platform, capability)
    return f"{name}, emulated" if platform == "cpu" and precision != "float32" else name


def has_bfloat16_products(capability: str | None) -> bool:
    """Whether a GPU of this compute capability is NVIDIA's and multiplies bfloat16 matrices in tensor cores."""
    major = (capability or "").partition(".")[0]
    return major.isdecimal() and int(major) >= 8  # other vendors name an architecture, such as gfx942


def default_precision_on(platform: str) -> Precision:
    """The precision of a run where none is asked for: `float32` on a CPU, `tf32` on accelerators, as the papers ran."""
    return "float32" if platform == "cpu" else "tf32"


def default_precision() -> Precision:
    """The precision of a run on this machine where none is asked for. It starts JAX."""
    return default_precision_on(_platform())


def product_precision(precision: Precision) -> str:
    """The precision of products of float32 matrices on this machine, as a record has it."""
    return recorded_precision(precision, _platform(), _capability())


def matmul_precision(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """A context in which float32 matrices are multiplied at this precision.

    Without it JAX decides by the device, and an accelerator may round them to TF32 or bfloat16.
    """
    return jax.default_matmul_precision(jax_precision(precision, _platform(), _capability()))


def activation_dtype(precision: Precision) -> Any:
    """The dtype of activations and of saved states."""
    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32


def refuse_lossy_products(jaxpr: core.Jaxpr) -> None:
    """Check the products of a traced program. Raises UserError where one would lose what its dtype holds.

    JAX casts the factors of a product with an algorithm to float32, without a word: complex ones lose their imaginary
    part.
    """
    for equation in _equations(jaxpr):
        if equation.primitive.name != "dot_general":
            continue
        dtypes = [variable.aval.dtype for variable in equation.invars]
        algorithm = isinstance(equation.params["precision"], jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset)
        if algorithm and any(not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 4 for dtype in dtypes):
            raise UserError(
                f"a layer multiplies matrices of {' and '.join(sorted({str(dtype) for dtype in dtypes}))}, which the "
                "GPU's products of float32 would round to real float32. Give that product the argument "
                "precision=jax.lax.Precision.HIGHEST, or train with --precision tf32."
            )


def _equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Every equation of the program, with those of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for value in parameter if isinstance(parameter, tuple | list) else [parameter]:
                inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
                if isinstance(inner, core.Jaxpr):
                    yield from _equations(inner)


def _platform() -> str:
    return jax.default_backend()


def _capability() -> str | None:
    """The compute capability of the first device; None where devices have none."""
    return getattr(jax.devices()[0], "compute_capability", None)
