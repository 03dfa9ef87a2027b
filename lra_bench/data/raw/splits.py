"""The orders in which published code cuts one set of examples into splits.

They are computed here without PyTorch, TFDS or `datasets`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

S4_SEED = 42
"""The seed of every split in state-spaces/s4 and lindermanlab/S5."""

Indices = NDArray[np.int64]


def torch_permutation(n: int, seed: int = S4_SEED) -> Indices:
    """Return the permutation of `torch.utils.data.random_split(…, generator=torch.Generator().manual_seed(seed))`.

    Its shape is (n,). PyTorch's CPU `randperm` draws one raw 32-bit Mersenne Twister output u per position i and swaps
    it with position i + u mod (n − i) (ATen/native/TensorFactories.cpp). NumPy's legacy generator has the same raw
    outputs.
    """
    draws = np.random.RandomState(seed).randint(0, 2**32, size=max(n - 1, 0), dtype=np.uint32)
    order = list(range(n))
    for i, draw in enumerate(draws.tolist()):
        j = i + draw % (n - i)
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)


def tfds_order(keys: Sequence[str | int], split: str) -> Indices:
    """Return the order in which TFDS stores examples generated under `keys`.

    TFDS sorts by the 128-bit MD5 of split name and key (tensorflow_datasets/core/hashing.py). The result, shape (n,),
    holds the position in `keys` of the first, second, … stored example. Slices such as `train[:90%]` cut this order.
    """
    salt = hashlib.md5(split.encode(), usedforsecurity=False)

    def stored_at(index: int) -> bytes:
        salted = salt.copy()
        salted.update(str(keys[index]).encode())
        return salted.digest()

    return np.array(sorted(range(len(keys)), key=stored_at), dtype=np.int64)


def holdout(n: int, fraction: float, seed: int = S4_SEED) -> tuple[Indices, Indices]:
    """Return the (train, val) indices of `datasets.Dataset.train_test_split(test_size=fraction, seed=seed)`.

    This is S4's `val_split`, though of texts S4 may number the rows in another order. The order is NumPy's
    `default_rng(seed).permutation(n)`. Its first ⌈fraction·n⌉ indices are val and the rest is train, both in that order
    (huggingface/datasets, arrow_dataset.py).
    """
    order = np.random.default_rng(seed).permutation(n)
    held = math.ceil(fraction * n)
    return order[held:], order[:held]


# The first indices of the orders as PyTorch 2.13 and TFDS 4.9.10 gave them, by the number of examples.
_S4_STARTS = {50_000: [37542, 44491, 216, 43688, 41558], 200_000: [37542, 143173, 127710, 58234, 152906]}
_TFDS_STARTS = {50_000: [16399, 1680, 47917, 17307, 27051, 48736]}


def order_problems() -> list[str]:
    """List the orders of Image and Pathfinder that differ here from those of PyTorch 2.13 and TFDS 4.9.10."""
    found = []
    for n, start in _S4_STARTS.items():
        if torch_permutation(n)[: len(start)].tolist() != start:
            found.append(f"the seed-42 order of {n:,} examples is not PyTorch's")
    for n, start in _TFDS_STARTS.items():
        if tfds_order(range(n), "train")[: len(start)].tolist() != start:
            found.append(f"the MD5 order of {n:,} examples is not that of TFDS")
    return found


def tenths(n: int) -> tuple[int, int]:
    """Return the first position of val and of test in Pathfinder's order of n images (80/10/10).

    S4 rounds val and test down and gives train the rest (src/dataloaders/lra.py). TFDS's slicing does the same for
    200,000 images.
    """
    tenth = int(0.1 * n)
    return n - 2 * tenth, n - tenth
