"""Data parallelism: every device has all parameters and takes its share of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from lra_bench.machine.processes import is_first


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy every array of the tree to every device, whole. Each process gives its own devices the same values."""
    everywhere = NamedSharding(mesh, P())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)

    def copied(array: Any) -> Array:
        if isinstance(array, Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copied(jax.random.key_data(array)), impl=jax.random.key_impl(array))
        return jax.make_array_from_process_local_data(everywhere, np.asarray(array))

    return jax.tree.map(copied, tree)


def local(tree: Any) -> Any:
    """The arrays of the tree, which every device has whole, in this host's memory where there are several processes."""
    return tree if jax.process_count() == 1 else jax.tree.map(np.asarray, tree)


def sent_by_first(tree: Any, like: Any) -> Any:
    """Copy every array of the tree, as process 0 has it, to all devices of the arrays of `like`.

    `like` has the same shapes and dtypes. In a single process the tree is returned as it is.
    """
    if jax.process_count() == 1:
        return tree
    mesh: Mesh = jax.tree.leaves(like)[0].sharding.mesh
    leaves, structure = jax.tree.flatten(local(like))
    own = jax.tree.leaves(local(tree)) if is_first() else leaves
    parts = np.split(_bytes_of_first(own, mesh), np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    arrays = [
        np.frombuffer(part.tobytes(), leaf.dtype).reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)
    ]
    return replicate(jax.tree.unflatten(structure, arrays), mesh)


def _bytes_of_first(arrays: Sequence[NDArray], mesh: Mesh) -> NDArray[np.uint8]:
    """The bytes of these arrays, one after another, as process 0 has them: a sum over devices of which one gives them
    and the others zeros."""
    flat = np.concatenate([np.frombuffer(array.tobytes(), np.uint8) for array in arrays])
    source = next(place for place, device in enumerate(mesh.devices.flat) if device.process_index == 0)
    shares, everywhere = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def row(index: Any) -> NDArray[np.uint8]:
        return flat[None] * (index[0].start == source)

    rows = jax.make_array_from_callback((mesh.size, flat.size), shares, row)
    return np.asarray(jax.jit(lambda rows: rows.sum(axis=0, dtype=rows.dtype), out_shardings=everywhere)(rows))


def shared_out(batch: Any, mesh: Mesh) -> Any:
    """Divide the leading axis of every array over the devices. Call it inside jit."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P("data")))
