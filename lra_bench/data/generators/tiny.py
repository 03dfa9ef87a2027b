"""Small made-up sets for `--size tiny`, which smoke tests and demos use.

They have each task's kind of inputs and a rule that a network can learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.datasource import Layout, Rows, pad_rows
from lra_bench.spec import SplitName

TINY_SPLITS: dict[SplitName, int] = {"train": 1_000, "val": 250, "test": 250}
"""The splits of a tiny set, unless a task has its own."""

Drawn = tuple[tuple[NDArray[np.uint8], ...], int]
"""One drawn example: its unpadded documents and its label."""


def rng_of(seed: int, index: int) -> np.random.Generator:
    """Return the random number generator of example `index`, which has its own block of the Philox stream of `seed`."""
    key, counter = np.array([seed, 0], np.uint64), np.array([0, 0, index, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True)
class TinyGenerator:
    """The generator of a tiny set; see `lra_bench.datasource.Generator`.

    `draw(rng, layout)` makes one example. It must be a function of a module, so that the generator pickles.
    """

    layout: Layout
    draw: Callable[[np.random.Generator, Layout], Drawn]
    distinct: bool = False
    chunk: int = 250
    seconds_per_example: float = 2e-4

    @property
    def parameters(self) -> dict[str, Any]:
        """The name of the drawing function, for the manifest."""
        return {"made_up": self.draw.__name__}

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        """Make the examples start … stop − 1; see `Generator.generate`."""
        drawn = [self.draw(rng_of(seed, index), self.layout) for index in range(start, stop)]
        return pad_rows([documents for documents, _ in drawn], [label for _, label in drawn], self.layout.length)
