"""Data parallelism: every device has all parameters and takes its share of the batch."""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy every array of the tree to every device, whole."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shared_out(batch: Any, mesh: Mesh) -> Any:
    """Divide the leading axis of every array over the devices. Call it inside jit."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))
