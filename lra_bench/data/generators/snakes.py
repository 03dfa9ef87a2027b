"""The Pathfinder generator: images of two long dashed curves among short ones, with discs at two of their four ends.

Every image holds two target snakes of `contour_length` paddles. The label is 1 if the discs lie on the same snake.
The distribution is that of drewlinsley/pathfinder @ ab9c130 (Linsley et al. 2018; MIT), which LRA used, with all its
oddities. `tests/snake_oracle.py` computes the same in plain Python. Image i depends on (seed, i) alone, so any division
of the work among processes, and any resumption, gives the same bytes.

`snake_paddles` draws all possible paddles once, `snake_growth` places them, and `snake_drawing` draws the image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .snake_paddles import HALO, Array, SnakeParameters, disc, markers, paddles

__all__ = ["PARAMETERS", "Sketch", "SnakeParameters", "find_markers", "generate", "render", "sketches"]

PARAMETERS: dict[int, SnakeParameters] = {
    25: SnakeParameters(
        window=25,
        padding=1,
        paddle_length=2,
        paddle_thickness=0.5,
        margins=(1,),
        marker_radius=1.5,
        seed_distance=6,
        antialias=2,
        continuity=1.0,
        contour_length=3,
        distractors=0,
        distractor_length=2,
        target_contrast=1.5,
        distractor_contrast=2.0,
    ),
    32: SnakeParameters(
        window=32,
        padding=1,
        paddle_length=2,
        paddle_thickness=0.5,
        margins=(1,),
        marker_radius=1.5,
        seed_distance=7,
        antialias=2,
        continuity=1.0,
        contour_length=14,
        distractors=5,
        distractor_length=4,
        target_contrast=1.5,
        distractor_contrast=2.0,
    ),
    64: SnakeParameters(
        window=64,
        padding=1,
        paddle_length=5,
        paddle_thickness=1.0,
        margins=(1,),
        marker_radius=2.5,
        seed_distance=12,
        antialias=2,
        continuity=1.8,
        contour_length=14,
        distractors=5,
        distractor_length=4,
        target_contrast=0.8,
        distractor_contrast=0.8,
    ),
    128: SnakeParameters(
        window=128,
        padding=1,
        paddle_length=5,
        paddle_thickness=1.5,
        margins=(2, 3),
        marker_radius=3.0,
        seed_distance=20,
        antialias=2,
        continuity=1.8,
        contour_length=14,
        distractors=18,
        distractor_length=4,
        target_contrast=0.82,
        distractor_contrast=0.82,
    ),
    256: SnakeParameters(
        window=256,
        padding=22,
        paddle_length=5,
        paddle_thickness=2.0,
        margins=(3,),
        marker_radius=5.0,
        seed_distance=27,
        antialias=2,
        continuity=1.8,
        contour_length=14,
        distractors=7,
        distractor_length=4,
        target_contrast=1.0,
        distractor_contrast=1.0,
    ),
}
"""The parameters by side of the image.

25 has short curves alone, for the tiny sets. 32, 64 and 256 are from the docstrings of google-research/long-range-arena
@ cd31e5c6 `data/pathfinder.py`. 128 was recovered from released images of Path-X, which hold more and fainter
distractors than the docstring states (18 with contrast 0.82 instead of 8 with 0.9).
"""


class Sketch(NamedTuple):
    """A sketch describes one image before it is rendered. Paddles are rows (index into `Paddles`, y, x)."""

    label: int
    margin: int
    targets: Array
    """The paddles of the two target snakes in turn, int64 (2 contour_length, 3)."""
    distractors: Array
    """The paddles of the distractor snakes, int64 (n, distractor_length, 3)."""
    origin: tuple[int, int]
    """The place (y, x) of the marker at a beginning."""
    terminal: tuple[int, int]
    """The place (y, x) of the marker at an end."""


def _empty(parameters: SnakeParameters, margin: int) -> Array:
    """Return the grids `occupied` and `close` of an image without snakes, uint8 `(2, side, side)`."""
    from scipy import ndimage

    free = np.zeros((parameters.window - 2 * parameters.padding,) * 2, np.uint8)
    occupied = np.pad(free, parameters.padding, constant_values=255)
    close = ndimage.grey_dilation(occupied, footprint=disc(margin), mode="constant")
    return np.pad(np.stack([occupied, close]), ((0, 0), (HALO, HALO), (HALO, HALO)))


def _sketch(parameters: SnakeParameters, empty: dict[int, Array], rng: np.random.Generator) -> Sketch:
    from .snake_growth import grow

    label = int(rng.random() * 2)
    margin = parameters.margins[int(rng.random() * len(parameters.margins))]
    targets = np.empty((2 * parameters.contour_length, 3), np.int64)
    distractors = np.empty((parameters.distractors, parameters.distractor_length, 3), np.int64)
    table = paddles(parameters, margin)
    laid = grow(rng, table, empty[margin], parameters.seed_distance, targets, distractors)
    marked = int(rng.random() * 2)
    end = marked if label else 1 - marked
    (_, *origin), (_, *terminal) = targets[marked].tolist(), targets[len(targets) - 2 + end].tolist()
    return Sketch(label, margin, targets, distractors[:laid], tuple(origin), tuple(terminal))


def sketches(parameters: SnakeParameters, seed: int, start: int, stop: int) -> Iterator[Sketch]:
    """Yield the sketches of the images `start` … `stop − 1`, for statistics and for drawing by other means.

    Image i takes its random numbers from the Philox stream of key `seed`, from where the highest word of the counter is
    i.
    """
    empty = {margin: _empty(parameters, margin) for margin in parameters.margins}
    for i in range(start, stop):
        rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i]))
        yield _sketch(parameters, empty, rng)


def render(parameters: SnakeParameters, sketch: Sketch) -> Array:
    """Draw a sketch as an image, uint8 `(window, window)`.

    The largest value becomes 255. The others are scaled alike and truncated to whole numbers.
    """
    from .snake_drawing import develop, draw, draw_marker

    line = paddles(parameters, sketch.margin).line
    canvas = np.zeros((parameters.window + 2 * HALO,) * 2)
    draw(canvas, line, sketch.targets, parameters.target_contrast)
    draw(canvas, line, sketch.distractors.reshape(-1, 3), parameters.distractor_contrast)
    for y, x in (sketch.origin, sketch.terminal):
        draw_marker(canvas, markers(parameters), y, x)
    image = np.empty((parameters.window,) * 2, np.uint8)
    develop(canvas, image)
    return image


def generate(parameters: SnakeParameters, seed: int, start: int, stop: int) -> tuple[Array, Array]:
    """Make the images `start` … `stop − 1` of the data set of `seed`.

    Returns the images, uint8 `(n, window, window)`, and the labels, int32 `(n,)`. Label 1 means that both discs lie on
    one snake. `seed` is any whole number from 0 to 2¹²⁸ − 1.
    """
    images = np.empty((stop - start, parameters.window, parameters.window), np.uint8)
    labels = np.empty(stop - start, np.int32)
    for row, sketch in enumerate(sketches(parameters, seed, start, stop)):
        images[row] = render(parameters, sketch)
        labels[row] = sketch.label
    return images, labels


@functools.lru_cache
def _darkest(parameters: SnakeParameters) -> Array:
    """Return the least gray value of each pixel of a marker, uint8 with the shape of `markers`.

    It is the value in an image with the brightest possible paddle, because the brightest pixel sets the scale.
    """
    discs = markers(parameters)
    lines = max(float(paddles(parameters, margin).line.max()) for margin in parameters.margins)
    contrast = max(parameters.target_contrast, parameters.distractor_contrast)
    brightest = max(float(discs.max()), lines * contrast)
    return np.maximum(discs / brightest * 255 - 1, 0).astype(np.uint8)


def find_markers(image: Array, parameters: SnakeParameters) -> Array:
    """Return the places (y, x) of markers in an image, int64 `(n, 2)`; n is 2 for an image of these parameters.

    A marker is found where no pixel is darker than a marker would make it. Snakes that cross it only brighten pixels.
    """
    from .snake_drawing import fits

    return np.argwhere(fits(image, _darkest(parameters)))
