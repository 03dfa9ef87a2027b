"""The precision of a run on this machine: JAX's name for its matrix products, and the dtype of its activations."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

from lra_bench.machine.platform import device_capability, has_bfloat16_products, target_platform
from lra_bench.spec import Precision

THREE_PRODUCTS = "BF16_BF16_F32_X3"
"""JAX's name for a float32 product as three products of bfloat16 parts, summed in float32 (`machine/products.py`).

On an H200 its relative error is 4.5e-6 and its time 0.6 of an exact float32 product's (measured).
"""


def jax_precision(precision: Precision, platform: str) -> str:
    """JAX's name for the products of float32 matrices, as `jax.default_matmul_precision` takes it.

    platform: `cpu`, `gpu` or `tpu`. A CPU has no TF32; there `machine/emulation.py` rounds the factors.
    """
    if precision == "float32":
        return "highest"
    return "high" if platform == "tpu" else "tensorfloat32"


def recorded_precision(precision: Precision, platform: str, capability: str | None) -> str:
    """The same as a record has it. It names the algorithm of a GPU's exact products, and what a CPU only emulates.

    capability: the compute capability of an NVIDIA GPU, such as "9.0"; None where there is none.
    """
    name = jax_precision(precision, platform)
    if platform == "gpu" and precision == "float32" and has_bfloat16_products(capability):
        return THREE_PRODUCTS
    if platform == "gpu" and (capability or "?")[0].isdecimal() and not has_bfloat16_products(capability):
        return "highest"  # NVIDIA's GPUs before 8.0 have no TF32
    return f"{name}, emulated" if platform == "cpu" and precision != "float32" else name


def default_precision_on(platform: str) -> Precision:
    """The precision of a run where none is asked for: `float32` on a CPU, `tf32` on accelerators, as the papers ran."""
    return "float32" if platform == "cpu" else "tf32"


def default_precision() -> Precision:
    """The precision of a run on this machine where none is asked for. It starts JAX."""
    return default_precision_on(target_platform())


def product_precision(precision: Precision) -> str:
    """The precision of products of float32 matrices on this machine, as a record has it."""
    return recorded_precision(precision, target_platform(), device_capability())


def matmul_precision(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """A context in which float32 matrices are multiplied at this precision.

    Without it JAX decides by the device, and an accelerator may round them to TF32 or bfloat16.
    """
    return jax.default_matmul_precision(jax_precision(precision, target_platform()))


def activation_dtype(precision: Precision) -> Any:
    """The dtype of activations and of saved states."""
    return jnp.bfloat16 if precision == "bfloat16" else jnp.float32
