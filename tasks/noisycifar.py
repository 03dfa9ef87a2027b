"""The task Noisy sCIFAR: an image of sCIFAR, then as many positions of noise. Only these are pooled.

It tests memory: what is known of the image must outlast the noise (AnnanYu/HOPE-SSM `noisycifar_HOPE.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import Drawn, rng_of
from lra_bench.data.raw import cifar
from lra_bench.datasource import Layout, Rows
from lra_bench.spec import Source, Task

from . import scifar

TASK = Task(
    name="noisycifar",
    title="Noisy sCIFAR",
    version="1.0.0",
    description="CIFAR-10 as sequences of 1,024 pixels in color and 1,024 positions of noise; ten classes.",
    citation="Yu et al., HOPE for a Robust Parameterization of Long-memory State Space Models, 2024; "
    + scifar.TASK.citation,
    inputs="pixels",
    documents=1,
    length=2_048,
    channels=3,
    classes=10,
    variable_length=False,
    splits=scifar.TASK.splits,
    majority=0.1,
    selects_on_test=False,
    column=None,
    like="scifar",
    pooling="last_half",
    official={"s4": "8ef9fd6772465677", "lra": "87b852b5c0e5d9af"},
)

CLASSES = scifar.CLASSES

SEED = 0
"""The seed of the noise. It is no option, so that the set from the same files is always the same."""


def draw_noise(rng: np.random.Generator, positions: int) -> NDArray[np.uint8]:
    """Draw noise (positions, 3): uniform in [0, 1] on the scale on which sCIFAR's pixels enter a network.

    That is from the mean of each color to one deviation above it, in steps of one shade.
    """
    return np.rint(cifar.MEANS + rng.random((positions, 3)) * cifar.DEVIATIONS).astype(np.uint8)


def draw_padded(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw an image of sCIFAR's tiny set, and noise."""
    (colors,), label = scifar.draw_colors(rng, layout)
    return (np.concatenate([colors, draw_noise(rng, len(colors))]),), label


class PaddedData(scifar.ColorData):
    """The data source of Noisy sCIFAR; see `lra_bench.datasource.DataSource`."""

    parameters: ClassVar[Mapping[str, Any]] = {"noise_seed": SEED}
    draw = staticmethod(draw_padded)

    def arrange(self, pixels: NDArray[np.uint8], raw: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Put noise after images (n, pixels, 3). It depends on the seed and the raw index; see `ColorData.arrange`."""
        noise = [draw_noise(rng_of(SEED, int(index)), pixels.shape[1]) for index in raw]
        return np.concatenate([pixels, np.stack(noise)], axis=1)

    def images(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the first half; see `ColorData.images`."""
        return inputs[:, : inputs.shape[1] // 2]

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List what is wrong with the images, and noise outside its range; see `DataSource.problems`."""
        noise = rows.inputs[:, layout.length // 2 :]
        least, most = np.rint(cifar.MEANS), np.rint(np.add(cifar.MEANS, cifar.DEVIATIONS))
        outside = ((noise < least) | (noise > most)).any(axis=(1, 2))
        found = [f"row {row} ends with something that is no noise" for row in np.flatnonzero(outside)]
        return super().problems(layout, rows, source) + found


DATA = PaddedData(TASK)
