"""The mesh of all devices along one axis, `data`: each device takes its share of a batch.

A program is written for the whole batch, and XLA divides its arrays along the axis of the examples. Where a batch
cannot be divided evenly, XLA fills the last shares up and leaves the filling out of every sum. So means, random numbers
and gradients are those of the whole batch on any number of devices.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P


def data_mesh() -> Mesh:
    """Make a mesh of all devices along one axis, `data`.

    The axis is Auto, because Explicit ones break optax's cross-entropy on JAX 0.12 (docs/references.md, "Auto axes of
    the mesh").
    """
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def for_each_document(function: Callable[[Array], Array], x: Array) -> Array:
    """Compute function(x) of x (H, b, …), where it treats each document on its own, on each device for its share.

    XLA divides most operations by itself, but it would gather all documents of a Fourier transform on every device.
    """
    devices, documents = jax.device_count(), x.shape[1]
    if devices == 1:
        return function(x)
    filled = jnp.pad(x, ((0, 0), (0, -documents % devices), *((0, 0),) * (x.ndim - 2)))
    share = P(None, "data")
    return jax.shard_map(function, mesh=data_mesh(), in_specs=share, out_specs=share)(filled)[:, :documents]
