"""The task psCIFAR: sCIFAR with its pixels in another order, which is the same for every image.

The order is that of bit-reversed positions, as in state-spaces/s4 `src/dataloaders/basic.py` (`permute: br`): it has a
closed form, so no file of random numbers has to be kept. Other works draw an order of their own and do not publish it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import Drawn
from lra_bench.datasource import Layout
from lra_bench.spec import Task

from . import scifar

TASK = Task(
    name="pscifar",
    title="psCIFAR",
    version="1.0.0",
    description="CIFAR-10 as sequences of 1,024 pixels in color, in one permuted order; ten classes.",
    citation=scifar.TASK.citation,
    inputs="pixels",
    documents=1,
    length=1_024,
    channels=3,
    classes=10,
    variable_length=False,
    splits=scifar.TASK.splits,
    majority=0.1,
    selects_on_test=False,
    column=None,
    like="scifar",
    official={"s4": "2b3c75944a3b5838", "lra": "2a6bc0f865ef0541"},
)

CLASSES = scifar.CLASSES


def bit_reversal(n: int) -> NDArray[np.int64]:
    """Return the pixel that each position reads, int64 (n,), n a power of 2: its binary digits read backwards.

    The permutation is its own inverse. Neighbors in an image come to lie half a sequence apart.
    """
    order = np.zeros(1, np.int64)
    while len(order) < n:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order


def draw_permuted(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw an image of sCIFAR's tiny set in the permuted order."""
    (colors,), label = scifar.draw_colors(rng, layout)
    return (colors[bit_reversal(len(colors))],), label


class PermutedData(scifar.ColorData):
    """The data source of psCIFAR; see `lra_bench.datasource.DataSource`."""

    parameters: ClassVar[Mapping[str, Any]] = {"permutation": "bit reversal"}
    draw = staticmethod(draw_permuted)

    def arrange(self, pixels: NDArray[np.uint8], raw: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Permute images (n, pixels, 3); see `ColorData.arrange`."""
        del raw
        return pixels[:, bit_reversal(pixels.shape[1])]

    def images(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Undo the permutation; see `ColorData.images`."""
        return inputs[:, bit_reversal(inputs.shape[1])]


DATA = PermutedData(TASK)
