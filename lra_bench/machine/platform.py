"""The platform that programs are traced for, by which the forms of a computation are chosen."""

from __future__ import annotations

import jax


def target_platform() -> str:
    """The platform of the program that is being traced: `cpu`, `gpu` or `tpu`.

    It is the one of the device that `jax.sharding.use_abstract_mesh` describes, as where a program is compiled for a
    device that is not here, and otherwise the default backend's.
    """
    described = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if described is None else described.platform
    return "gpu" if platform in ("cuda", "rocm") else platform
