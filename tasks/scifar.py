"""The task sCIFAR: classify CIFAR-10 in color, read pixel by pixel. Each position holds red, green and blue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import TINY_SPLITS, Drawn, TinyGenerator
from lra_bench.data.raw import cifar
from lra_bench.data.raw.cifar import SIDE
from lra_bench.data.raw.pixels import shades
from lra_bench.data.raw.reading import MANY, no_val_fraction
from lra_bench.datasource import Generator, Layout, Reader, Request, Rows
from lra_bench.spec import HealthMark, Source, SplitName, Task

from . import image

TASK = Task(
    name="scifar",
    title="sCIFAR",
    version="1.0.0",
    description="CIFAR-10 as sequences of 1,024 pixels in color; ten classes.",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    inputs="pixels",
    documents=1,
    length=1_024,
    channels=3,
    classes=10,
    variable_length=False,
    splits={"train": 45_000, "val": 5_000, "test": 10_000},
    majority=0.1,
    selects_on_test=False,
    column=None,
    like=None,
    official={"s4": "161204911dcf6d12", "lra": "d4222323308d06a2"},
    # S4D of 4 × 128 has 58.5 % after one epoch and 82 % after 20 (docs/references.md, "CIFAR-10 in color").
    health=(HealthMark(epoch=1, accuracy=40), HealthMark(epoch=20, accuracy=75)),
)

CLASSES = image.CLASSES


def draw_colors(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw the stripes of Image's tiny set, in a random color. The class is their direction."""
    (gray,), label = image.draw_stripes(rng, layout)
    return ((gray[:, None] * rng.uniform(0.5, 1, 3)).astype(np.uint8),), label


MEAN_RANGE = 8.0
"""How far the mean of a color in `MANY` images may be from CIFAR-10's: more than four standard errors."""

LARGEST_STEP = 20.0
"""The largest average difference of neighboring pixels.

CIFAR-10 has 13.8 along rows and 15.5 along columns, in every five hundred images within 0.6.
"""


class ColorData:
    """The data source of CIFAR-10 in color; see `lra_bench.datasource.DataSource`.

    A variant of the task overrides `arrange`, its inverse `images`, `parameters` and `draw`.
    """

    origins = image.ORIGINS
    parameters: ClassVar[Mapping[str, Any]] = {}
    """How an input is made of an image, for the manifest."""
    draw: Callable[[np.random.Generator, Layout], Drawn] = staticmethod(draw_colors)
    """The function that draws an example of the tiny set."""

    def __init__(self, task: Task) -> None:
        """Serve `task`, whose sequences have a whole number of positions for each pixel."""
        self.task = task

    def arrange(self, pixels: NDArray[np.uint8], raw: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the inputs (n, L, 3) of images (n, pixels, 3); `raw` (n,) are their raw indices."""
        del raw
        return pixels

    def images(self, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the images (n, pixels, 3) that inputs (n, L, 3) were made of."""
        return inputs

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        return cifar.locate(path)

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        no_val_fraction(request, self.task)

        def convert(colors: NDArray[np.uint8], raw: NDArray[np.int64]) -> NDArray[np.uint8]:
            return self.arrange(colors.swapaxes(1, 2), raw)

        return image.read(path, request, self.task, self._layout, convert, self.parameters)

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        no_val_fraction(request, self.task)
        if request.size != "tiny":
            return None
        return TinyGenerator(self._layout(TINY_SPLITS, image.TINY_SIDE), self.draw)

    def _layout(self, counts: Mapping[SplitName, int], side: int = SIDE) -> Layout:
        length = self.task.length // SIDE**2 * side**2
        return Layout(counts, 1, length, self.task.classes, vocabulary=None, channels=3)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List images of one even color, and files that are not CIFAR-10 in color; see `DataSource.problems`."""
        del layout
        pictures = self.images(rows.inputs)
        even = (pictures == pictures[:, :1]).all(axis=(1, 2))
        found = [f"row {row} is one even color" for row in np.flatnonzero(even)]
        if source == "generated" or len(pictures) < MANY:
            return found
        return found + problems_of_many(pictures)

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return an image as lines of characters; see `DataSource.decode`."""
        del layout, lengths
        return shades(inputs)


def problems_of_many(pictures: NDArray[np.uint8]) -> list[str]:
    """List what CIFAR-10 contradicts in the averages of many images (n, pixels, 3)."""
    found = []
    means = pictures.mean(axis=(0, 1))
    shown = ", ".join(f"{mean:.1f}" for mean in means)
    if np.abs(means - cifar.MEANS).max() > MEAN_RANGE or not means[0] > means[1] > means[2]:
        expected = ", ".join(f"{mean:.1f}" for mean in cifar.MEANS)
        found.append(f"red, green and blue of {len(pictures):,} images are {shown} on average; CIFAR-10 has {expected}")
    squares = pictures.reshape(-1, SIDE, SIDE, 3).astype(np.int16)
    down, across = (float(np.abs(np.diff(squares, axis=axis)).mean()) for axis in (1, 2))
    if max(across, down) > LARGEST_STEP:
        found.append(
            f"neighboring pixels of {len(pictures):,} images differ by {max(across, down):.1f} shades on average, "
            "those of CIFAR-10 by 15: the pixels are in another order"
        )
    elif across > down:
        found.append(f"{len(pictures):,} images change more along rows than along columns: they lie on their side")
    return found


DATA = ColorData(TASK)
