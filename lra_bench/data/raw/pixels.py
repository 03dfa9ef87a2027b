"""Conversion of rows of pixels to pictures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_RAMP = np.array(list(" .:-=+*#%@"))
"""The characters for shades of gray, from dark to bright."""

_WIDTH = 32
"""The largest number of lines of a picture in characters."""


def picture_of(inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reshape pixels (L,) or (L, 3) to rows, (height, width) or (height, width, 3).

    The picture is a square, or two of them, one above the other.
    """
    width = math.isqrt(len(inputs))
    if width * width < len(inputs):
        width = math.isqrt(len(inputs) // 2)
    return inputs.reshape(-1, width, *inputs.shape[1:])


def shades(inputs: NDArray[np.uint8]) -> str:
    """Return the picture (L,) or (L, 3) in characters, `_WIDTH` lines at most; colors become their mean.

    A larger picture is reduced to the brightest pixel of each block.
    """
    picture = picture_of(inputs if inputs.ndim == 1 else inputs.mean(axis=1).astype(np.uint8))
    block = max(1, math.ceil(len(picture) / _WIDTH))
    padded = np.pad(picture, [(0, -side % block) for side in picture.shape])
    blocks = padded.reshape(len(padded) // block, block, -1, block).max(axis=(1, 3))
    letters = _RAMP[blocks.astype(np.int64) * (len(_RAMP) - 1) // 255]
    # Two characters per pixel, because a character is about twice as high as wide.
    return "\n".join("".join(np.repeat(line, 2)).rstrip() for line in letters)
