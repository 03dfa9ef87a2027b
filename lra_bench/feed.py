"""How examples reach the device: all of them at once where they fit, else block after block while the device computes.

Both hand out the same batches in the same order: a run is the same bit for bit. A block is gathered by numpy from the
memory-mapped arrays in one background thread: measured on rows of 16,384 bytes in the page cache, batches of 32, that
is 100,000 rows a second, against 20,000 from Grain's loader (0, 2 or 16 threads), which collates row by row in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from typing import NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from numpy.typing import NDArray

from lra_bench.data.packed import PackedSplit
from lra_bench.distributed import replicate
from lra_bench.measure import free_memory
from lra_bench.run import Placement
from lra_bench.spec import SplitName
from lra_bench.steps import Examples, epoch_order

SHARE_FOR_DATA = 0.5
"""Of the free memory of a device: `auto` keeps the examples there up to this; the rest is for training."""
BLOCK_BYTES = 64 * 2**20
"""Of the inputs in a block: one block is on the device, the next in preparation on the host."""


class Batches(NamedTuple):
    """Operands of the training program: the batches `first` … `first` + `n` − 1 of `order`, which are rows of
    `examples`."""

    examples: Examples
    order: Array
    first: int
    n: int


class Feed(Protocol):
    """One split on its way to the device."""

    labels: NDArray[np.int32]
    example_shape: tuple[int, ...]

    def take(self, epoch: int, first: int, n: int) -> Batches:
        """Batches of an epoch from number `first` on: `n`, or fewer where a block ends."""
        ...

    def in_order(self) -> Iterator[tuple[Examples, int]]:
        """All examples in their own order: (rows, how many of them are examples; the rest repeat one)."""
        ...


def rows_of(split: PackedSplit, rows: NDArray[np.integer] | slice) -> Examples:
    """These rows of a memory-mapped split, read into host memory."""
    return Examples(*(np.asarray(column[rows]) for column in split))  # type: ignore[arg-type]


class Resident:
    """A split that is on the device as a whole."""

    def __init__(self, split: PackedSplit, order_key: Array, mesh: Mesh):
        self.labels, self.example_shape = np.asarray(split.labels), split.inputs.shape[1:]
        self.examples: Examples = replicate(Examples(*(jnp.asarray(column) for column in split)), mesh)
        self._order_key, self._mesh = order_key, mesh
        self._order: tuple[int, Array] | None = None

    def take(self, epoch: int, first: int, n: int) -> Batches:
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(self._order_key, epoch, len(self.labels))
            self._order = epoch, replicate(order, self._mesh)
        return Batches(self.examples, self._order[1], first, n)

    def in_order(self) -> Iterator[tuple[Examples, int]]:
        yield self.examples, len(self.labels)


class Streamed:
    """A split that stays on disk: while the device works on one block of batches, a thread gathers the next."""

    def __init__(self, split: PackedSplit, order_key: Array, mesh: Mesh, batch_size: int):
        self.labels, self.example_shape = np.asarray(split.labels), split.inputs.shape[1:]
        self._split, self._order_key, self._mesh = split, order_key, mesh
        self._epoch_batches = len(self.labels) // batch_size
        self._batch_size = batch_size
        row_bytes = split.inputs[0].nbytes
        batches = -(-len(self.labels) // batch_size)
        self.block_batches = min(batches, max(1, BLOCK_BYTES // (row_bytes * batch_size)))
        self._block_rows = self.block_batches * batch_size
        self._own_order = replicate(jnp.arange(self._block_rows, dtype=jnp.int32), mesh)
        self._order: tuple[int, NDArray[np.int32]] | None = None
        self._here: tuple[tuple[int, int], Examples] | None = None
        self._coming: tuple[tuple[int, int], Future[Examples]] | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="examples")

    def take(self, epoch: int, first: int, n: int) -> Batches:
        block, within = divmod(first, self.block_batches)
        if self._here is None or self._here[0] != (epoch, block):
            self._here = None
            self._here = (epoch, block), replicate(self._collect(epoch, block), self._mesh)
            self._prefetch(*self._next_block(epoch, block))
        return Batches(self._here[1], self._own_order, within, min(n, self.block_batches - within))

    def in_order(self) -> Iterator[tuple[Examples, int]]:
        count = len(self.labels)
        starts = range(0, count, self._block_rows)
        coming = self._reader.submit(self._rows_from, 0)
        for start, after in zip_longest(starts, starts[1:]):
            block = coming.result()
            if after is not None:
                coming = self._reader.submit(self._rows_from, after)
            yield replicate(block, self._mesh), min(self._block_rows, count - start)

    def _rows_from(self, start: int) -> Examples:
        return rows_of(self._split, np.minimum(np.arange(start, start + self._block_rows), len(self.labels) - 1))

    def _next_block(self, epoch: int, block: int) -> tuple[int, int]:
        last = (block + 1) * self.block_batches >= self._epoch_batches
        return (epoch + 1, 0) if last else (epoch, block + 1)

    def _collect(self, epoch: int, block: int) -> Examples:
        """The block, from the thread if that is what it was told to gather."""
        if self._coming is None or self._coming[0] != (epoch, block):
            self._prefetch(epoch, block)
        assert self._coming is not None
        return self._coming[1].result()

    def _prefetch(self, epoch: int, block: int) -> None:
        order = self._order_of(epoch)
        start = block * self._block_rows
        rows = order[np.minimum(np.arange(start, start + self._block_rows), len(order) - 1)]
        self._coming = (epoch, block), self._reader.submit(rows_of, self._split, rows)

    def _order_of(self, epoch: int) -> NDArray[np.int32]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.asarray(epoch_order(self._order_key, epoch, len(self.labels)))
        return self._order[1]


def make_feeds(
    splits: dict[SplitName, PackedSplit], order_key: Array, mesh: Mesh, batch_size: int, placement: Placement
) -> dict[SplitName, Feed]:
    """A feed for every split, all of one kind; `order_key` decides the order of each epoch."""
    if placement == "device" or (placement == "auto" and fits_on_device(list(splits.values()))):
        return {name: Resident(split, order_key, mesh) for name, split in splits.items()}
    return {name: Streamed(split, order_key, mesh, batch_size) for name, split in splits.items()}


def fits_on_device(splits: list[PackedSplit]) -> bool:
    """Whether the examples take no more than their share of what is free on the fullest local device."""
    return sum(column.nbytes for split in splits for column in split) <= SHARE_FOR_DATA * free_memory()
