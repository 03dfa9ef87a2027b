"""The platform that programs are traced for, by which the forms of a computation are chosen."""

from __future__ import annotations

import jax


def target_platform() -> str:
    """The platform of the program that is being traced: `cpu`, `gpu` or `tpu`.

    It is the one of the device that `jax.sharding.use_abstract_mesh` describes, as where a program is compiled for a
    device that is not here, and otherwise the default backend's.
    """
    described = _described()
    platform = jax.default_backend() if described is None else described.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def target_has_bfloat16_products() -> bool:
    """Whether the platform is an NVIDIA GPU that multiplies bfloat16 matrices in tensor cores.

    A described GPU, which tells no compute capability, is taken for one.
    """
    if target_platform() != "gpu":
        return False
    return _described() is not None or has_bfloat16_products(device_capability())


def default_product_precision() -> str | None:
    """JAX's name for the precision of products where no other is given, as set by `jax.default_matmul_precision`."""
    return jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]


def has_bfloat16_products(capability: str | None) -> bool:
    """Whether a GPU of this compute capability is NVIDIA's and multiplies bfloat16 matrices in tensor cores."""
    major = (capability or "").partition(".")[0]
    return major.isdecimal() and int(major) >= 8  # other vendors name an architecture, such as gfx942


def device_capability() -> str | None:
    """The compute capability of the first device; None where devices have none."""
    return getattr(jax.devices()[0], "compute_capability", None)


def _described() -> jax.sharding.AbstractDevice | None:
    return jax.sharding.get_abstract_mesh().abstract_device
