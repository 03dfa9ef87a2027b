"""What the readers of raw files share: which examples a request wants, and rows gathered into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lra_bench.datasource import PlacedRows, Request, counts_for, pad_rows
from lra_bench.errors import UserError
from lra_bench.spec import SPLITS, SplitName, Task

BATCH = 1_000

Example = tuple[int, tuple[NDArray[np.uint8], ...], int]
"""Global index, unpadded documents, label."""


def wanted_counts(
    request: Request,
    published: Mapping[SplitName, int],
    tiny: Mapping[SplitName, int],
    found: Mapping[SplitName, int],
    path: Path,
) -> dict[SplitName, int]:
    """Examples to take of each split: all of exactly the published number, or the first few of what was found.

    Raises UserError where the files do not hold them.
    """
    counts = counts_for(request.size, published, tiny)
    for split in SPLITS:
        if found[split] < counts[split] or (request.size == "full" and found[split] != counts[split]):
            raise UserError(
                f"{path} holds {found[split]:,} {split} examples where {counts[split]:,} are expected: it is "
                "cut short or another data set. Give the whole one, or a smaller --size."
            )
    return counts


def places(total: int, orders: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Global index of each of `total` raw examples, −1 where left out; `orders` are the splits' raw indices."""
    order = np.concatenate(orders)
    place = np.full(total, -1, np.int64)
    place[order] = np.arange(len(order))
    return place


def in_batches(examples: Iterable[Example], length: int) -> Iterator[PlacedRows]:
    """The examples, `BATCH` at a time, padded to `length`."""
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
    """Raises UserError where a validation split is asked of a task that comes with one."""
    if request.val_fraction is not None:
        raise UserError(f"{task.title} has a validation split of its own; leave --val-fraction out.")
