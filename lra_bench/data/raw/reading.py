"""Functions that the readers of raw files share: the choice of examples for a request, and their batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lra_bench.datasource import PlacedRows, Request, counts_for, pad_rows
from lra_bench.errors import UserError
from lra_bench.spec import SPLITS, SplitName, Task

BATCH = 1_000
"""The number of examples that a reader yields at a time."""

MANY = 500
"""The number of examples from which their average says what data set they are from."""

Example = tuple[int, tuple[NDArray[np.uint8], ...], int]
"""One example: its global index, its unpadded documents and its label."""


def wanted_counts(
    request: Request,
    published: Mapping[SplitName, int],
    tiny: Mapping[SplitName, int],
    found: Mapping[SplitName, int],
    path: Path,
) -> dict[SplitName, int]:
    """Return the number of examples to take of each split.

    The size `full` demands that the numbers in `found` are exactly the published ones. A smaller size takes the first
    examples of each split. Raises UserError if the files do not hold these numbers.
    """
    counts = counts_for(request.size, published, tiny)
    for split in SPLITS:
        if found[split] < counts[split] or (request.size == "full" and found[split] != counts[split]):
            raise UserError(
                f"{path} holds {found[split]:,} {split} examples where {counts[split]:,} are expected: it is "
                "cut short or another data set. Give the whole one, or a smaller --size."
            )
    return counts


def global_indices(total: int, orders: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the global index of each raw example, int64 (total,); −1 where it is left out.

    `orders` are the raw indices of the examples of each split, in the splits' order.
    """
    order = np.concatenate(orders)
    index_of = np.full(total, -1, np.int64)
    index_of[order] = np.arange(len(order))
    return index_of


def balanced(order: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices `order` rearranged so that every beginning of the result has the classes in equal parts.

    `labels` are the classes of all raw examples; `order` keeps its sequence within each class. Where a class is used
    up, the others go on.
    """
    mine = labels[order]
    rank = np.empty(len(order), np.int64)  # the number of examples of the same class that come before
    for label in np.unique(mine):
        here = np.flatnonzero(mine == label)
        rank[here] = np.arange(len(here))
    return order[np.lexsort((mine, rank))]


def in_batches(examples: Iterable[Example], length: int) -> Iterator[PlacedRows]:
    """Yield the examples, `BATCH` at a time, padded to `length`."""
    indices: list[int] = []
    documents: list[tuple[NDArray[np.uint8], ...]] = []
    labels: list[int] = []
    for index, example, label in examples:
        indices.append(index)
        documents.append(example)
        labels.append(label)
        if len(indices) == BATCH:
            yield PlacedRows(np.array(indices, np.int64), pad_rows(documents, labels, length))
            indices, documents, labels = [], [], []
    if indices:
        yield PlacedRows(np.array(indices, np.int64), pad_rows(documents, labels, length))


def no_val_fraction(request: Request, task: Task) -> None:
    """Raise UserError if the request has a validation fraction, because the task has a validation split of its own."""
    if request.val_fraction is not None:
        raise UserError(f"{task.title} has a validation split of its own; leave --val-fraction out.")
