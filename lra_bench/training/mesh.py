"""Data parallelism: every device has all parameters and takes its share of the batch."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lra_bench.errors import UserError


def data_mesh(batch_size: int) -> Mesh:
    """Make a mesh of all devices along one axis, `data`.

    The axis is Auto, because Explicit ones break optax's cross-entropy on JAX 0.12 (docs/references.md, "Auto axes of
    the mesh"). Raises UserError where the batch cannot be divided evenly.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"batch_size {batch_size} cannot be shared out over {devices} devices; use --set batch_size=N×{devices}."
        )
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy every array of the tree to every device, whole."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shared_out(batch: Any, mesh: Mesh) -> Any:
    """Divide the leading axis of every array over the devices. Call it inside jit."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))
