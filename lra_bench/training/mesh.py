"""Data parallelism: every device holds the parameters, each takes its share of the batch."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lra_bench.errors import UserError


def data_mesh(batch_size: int) -> Mesh:
    """All devices along one axis, `data`. Auto axes: Explicit ones break optax's cross-entropy on JAX 0.12
    (docs/references.md, "Auto axes of the mesh").

    Raises UserError when the batch cannot be shared out evenly.
    """
    devices = jax.device_count()
    if batch_size % devices:
        raise UserError(
            f"batch_size {batch_size} cannot be shared out over {devices} devices; use --set batch_size=N×{devices}."
        )
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Every array of the tree, whole, on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shared_out(batch: Any, mesh: Mesh) -> Any:
    """Inside jit: the leading axis of every array divided over the devices."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))
