"""The drawing of grown snakes and their markers, and the search for markers in an image.

The functions are compiled like those of `snake_growth`.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled
from .snake_paddles import HALO, Array


@compiled
def draw(canvas: Array, line: Array, placed: Array, contrast: float) -> None:
    """Draw the paddles `placed` (n, 3) on `canvas`, float64 (side, side) with its halo.

    `line` is `Paddles.line`. The brighter value stays where paddles cross.
    """
    n = line.shape[1]
    for k in range(len(placed)):
        o, top, left = placed[k, 0], placed[k, 1] + HALO - n // 2, placed[k, 2] + HALO - n // 2
        for i in range(n):
            for j in range(n):
                canvas[top + i, left + j] = max(canvas[top + i, left + j], line[o, i, j] * contrast)


@compiled
def edge_class(position: int, window: int, far: int) -> int:
    """Return the index into `snake_paddles.markers` for a coordinate.

    It is `far` unless the coordinate is nearer to an edge of the window than `far` pixels.
    """
    if position < far:
        return position
    return max(far, position - window + 2 * far + 1)


@compiled
def draw_marker(canvas: Array, markers: Array, y: int, x: int) -> None:
    """Draw a marker at (y, x) on `canvas`, float64 (side, side) with its halo. The brighter value stays."""
    side, window = len(markers), len(canvas) - 2 * HALO
    a, b = edge_class(y, window, side // 2), edge_class(x, window, side // 2)
    top, left = y - a + HALO, x - b + HALO
    for i in range(side):
        for j in range(side):
            canvas[top + i, left + j] = max(canvas[top + i, left + j], markers[a, b, i, j])


@compiled
def develop(canvas: Array, image: Array) -> None:
    """Write `canvas` without its halo into `image`, uint8 (window, window).

    The largest value becomes 255. The others are scaled alike and truncated to whole numbers.
    """
    window, largest = len(image), 0.0
    for y in range(window):
        for x in range(window):
            largest = max(largest, canvas[y + HALO, x + HALO])
    for y in range(window):
        for x in range(window):
            image[y, x] = int(canvas[y + HALO, x + HALO] / largest * 255)


@compiled
def fits_at(image: Array, darkest: Array, y: int, x: int) -> bool:
    """Whether no pixel around (y, x) is below the marker's least value `darkest` there.

    `darkest` has the shape of `snake_paddles.markers`, uint8.
    """
    window, side = len(image), len(darkest)
    a, b = edge_class(y, window, side // 2), edge_class(x, window, side // 2)
    if image[y, x] < darkest[a, b, a, b]:  # the center decides most cases
        return False
    for i in range(side):
        for j in range(side):
            if image[y - a + i, x - b + j] < darkest[a, b, i, j]:
                return False
    return True


@compiled
def fits(image: Array, darkest: Array) -> Array:
    """Return for each pixel whether a marker fits there, bool (window, window)."""
    fitting = np.empty(image.shape, np.bool_)
    for y in range(len(image)):
        for x in range(len(image)):
            fitting[y, x] = fits_at(image, darkest, y, x)
    return fitting
