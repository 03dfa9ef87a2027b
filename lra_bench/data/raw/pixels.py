"""Conversion of rows of pixels to pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_RAMP = np.array(list(" .:-=+*#%@"))
"""The characters for shades of gray, from dark to bright."""

_WIDTH = 32
"""The largest number of lines of a picture in characters."""


def square(inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reshape the pixels of a square image from (side²,) to (side, side)."""
    side = math.isqrt(len(inputs))
    return inputs.reshape(side, side)


def shades(inputs: NDArray[np.uint8]) -> str:
    """Return the picture (side²,) in characters, `_WIDTH` lines at most.

    A larger picture is reduced to the brightest pixel of each block.
    """
    picture = square(inputs)
    block = max(1, math.ceil(len(picture) / _WIDTH))
    edge = -len(picture) % block
    padded = np.pad(picture, ((0, edge), (0, edge)))
    blocks = padded.reshape(len(padded) // block, block, -1, block).max(axis=(1, 3))
    letters = _RAMP[blocks.astype(np.int64) * (len(_RAMP) - 1) // 255]
    # Two characters per pixel, because a character is about twice as high as wide.
    return "\n".join("".join(np.repeat(line, 2)).rstrip() for line in letters)
