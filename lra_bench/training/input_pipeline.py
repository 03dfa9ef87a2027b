"""The input pipelines: examples are on the device as a whole, or come buffer by buffer while the device computes.

Both give the same batches in the same order, so a run is the same bit for bit. One background thread gathers each
buffer by numpy from the memory-mapped arrays. On rows of 16,384 bytes in the page cache and batches of 32, that was
measured at 100,000 rows a second, and Grain's loader, which collates row by row in Python, at 20,000 with 0, 2 or 16
threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from numpy.typing import NDArray

from lra_bench.data.packed import PackedSplit
from lra_bench.machine.memory import free_memory
from lra_bench.spec import Placement, SplitName
from lra_bench.training.mesh import replicate
from lra_bench.training.state import Batches, EvalRows, Examples, epoch_order

SHARE_FOR_DATA = 0.5
"""The share of a device's free memory up to which `auto` keeps the examples there. The rest is for training."""

BUFFER_BYTES = 64 * 2**20
"""The bytes of inputs in a buffer. One buffer is on the device while the host gathers the next."""


class InputPipeline(Protocol):
    """An input pipeline of one split."""

    labels: NDArray[np.int32]
    """The labels of all examples, (examples,)."""

    def take(self, epoch: int, first: int, n: int) -> tuple[Batches, int]:
        """The batches of an epoch from number `first` on, and their number: `n`, or fewer where a buffer ends."""
        ...

    def in_order(self) -> Iterator[tuple[EvalRows, int]]:
        """Yield all examples in their own order, in pieces, each with the number of examples that count."""
        ...


def rows_of(split: PackedSplit, rows: NDArray[np.integer] | slice) -> Examples:
    """Read these rows of a memory-mapped split into host memory."""
    return Examples(*(np.asarray(column[rows]) for column in split))  # type: ignore[arg-type]


class ResidentPipeline:
    """An input pipeline whose split is on the device as a whole."""

    def __init__(self, split: PackedSplit, order_key: Array, mesh: Mesh):
        self.labels = np.asarray(split.labels)
        self.examples: Examples = replicate(Examples(*(jnp.asarray(column) for column in split)), mesh)
        self._order_key, self._mesh = order_key, mesh
        self._order: tuple[int, Array] | None = None

    def take(self, epoch: int, first: int, n: int) -> tuple[Batches, int]:
        """The batches of an epoch from number `first` on, and their number, which is always `n`."""
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(self._order_key, epoch, len(self.labels))
            self._order = epoch, replicate(order, self._mesh)
        return batches_of(self.examples, self._order[1], first, n, self._mesh), n

    def in_order(self) -> Iterator[tuple[EvalRows, int]]:
        """Yield all examples in their own order, as one piece."""
        count = len(self.labels)
        yield EvalRows(self.examples, replicate(jnp.asarray(count, jnp.int32), self._mesh)), count


class StreamedPipeline:
    """An input pipeline whose split stays on disk. A thread gathers the next buffer while the device computes."""

    def __init__(self, split: PackedSplit, order_key: Array, mesh: Mesh, batch_size: int):
        self.labels = np.asarray(split.labels)
        self._split, self._order_key, self._mesh = split, order_key, mesh
        self._epoch_batches = len(self.labels) // batch_size
        self._batch_size = batch_size
        # All buffers have as many rows, so that one compiled program takes each of them.
        row_bytes = split.inputs[0].nbytes
        batches = -(-len(self.labels) // batch_size)
        self.buffer_batches = min(batches, max(1, BUFFER_BYTES // (row_bytes * batch_size)))
        self._buffer_rows = self.buffer_batches * batch_size
        self._own_order = replicate(jnp.arange(self._buffer_rows, dtype=jnp.int32), mesh)
        self._order: tuple[int, NDArray[np.int32]] | None = None
        self._here: tuple[tuple[int, int], Examples] | None = None
        self._coming: tuple[tuple[int, int], Future[Examples]] | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="examples")

    def take(self, epoch: int, first: int, n: int) -> tuple[Batches, int]:
        """The batches of an epoch from number `first` on, and their number: `n`, or fewer where a buffer ends."""
        buffer, within = divmod(first, self.buffer_batches)
        if self._here is None or self._here[0] != (epoch, buffer):
            self._here = None  # frees the memory of the last buffer for the next one
            self._here = (epoch, buffer), replicate(self._collect(epoch, buffer), self._mesh)
            self._prefetch(*self._next_buffer(epoch, buffer))
        n = min(n, self.buffer_batches - within)
        return batches_of(self._here[1], self._own_order, within, n, self._mesh), n

    def in_order(self) -> Iterator[tuple[EvalRows, int]]:
        """Yield all examples in their own order, buffer by buffer, each with the number of examples that count.

        The last buffer repeats the last example up to its full size.
        """
        count = len(self.labels)
        starts = range(0, count, self._buffer_rows)
        coming = self._reader.submit(self._rows_from, 0)
        for start, after in zip_longest(starts, starts[1:]):
            buffer = coming.result()
            if after is not None:
                coming = self._reader.submit(self._rows_from, after)
            here = min(self._buffer_rows, count - start)
            yield replicate(EvalRows(buffer, jnp.asarray(here, jnp.int32)), self._mesh), here

    def _rows_from(self, start: int) -> Examples:
        return rows_of(self._split, np.minimum(np.arange(start, start + self._buffer_rows), len(self.labels) - 1))

    def _next_buffer(self, epoch: int, buffer: int) -> tuple[int, int]:
        last = (buffer + 1) * self.buffer_batches >= self._epoch_batches
        return (epoch + 1, 0) if last else (epoch, buffer + 1)

    def _collect(self, epoch: int, buffer: int) -> Examples:
        """The buffer that the thread has gathered. If it gathered another one, this one is gathered now."""
        if self._coming is None or self._coming[0] != (epoch, buffer):
            self._prefetch(epoch, buffer)
        assert self._coming is not None
        return self._coming[1].result()

    def _prefetch(self, epoch: int, buffer: int) -> None:
        order = self._order_of(epoch)
        start = buffer * self._buffer_rows
        rows = order[np.minimum(np.arange(start, start + self._buffer_rows), len(order) - 1)]
        self._coming = (epoch, buffer), self._reader.submit(rows_of, self._split, rows)

    def _order_of(self, epoch: int) -> NDArray[np.int32]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.asarray(epoch_order(self._order_key, epoch, len(self.labels)))
        return self._order[1]


def batches_of(examples: Examples, order: Array, first: int, n: int, mesh: Mesh) -> Batches:
    """Describe `n` batches from number `first` on, with both numbers on every device."""
    return Batches(examples, order, *replicate((jnp.asarray(first, jnp.int32), jnp.asarray(n, jnp.int32)), mesh))


def make_pipelines(
    splits: dict[SplitName, PackedSplit], order_key: Array, mesh: Mesh, batch_size: int, placement: Placement
) -> dict[SplitName, InputPipeline]:
    """Make an input pipeline of the same kind for every split. `order_key` decides the order of each epoch."""
    if placement == "device" or (placement == "auto" and fits_on_device(list(splits.values()))):
        return {name: ResidentPipeline(split, order_key, mesh) for name, split in splits.items()}
    return {name: StreamedPipeline(split, order_key, mesh, batch_size) for name, split in splits.items()}


def fits_on_device(splits: list[PackedSplit]) -> bool:
    """Whether the examples take at most their share of the memory that is free on the fullest local device."""
    return sum(column.nbytes for split in splits for column in split) <= SHARE_FOR_DATA * free_memory()
