"""Reading of PNG files whose size is known, as exactly the shades of gray or the colors that they hold."""

from __future__ import annotations

import io
import struct
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lra_bench.errors import UserError

LARGEST = 1 << 20
"""The largest number of bytes of a file. An image of 256 × 256 colors takes less than a quarter of it."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"
_GRAY = 0
"""The color type of gray without transparency."""


class _Opened(NamedTuple):
    """A decoded image: its mode in PIL, the bits of each value, whether it is gray without transparency, its pixels."""

    mode: str
    depth: int
    gray: bool
    pixels: NDArray[np.generic]


def gray_pixels(png: bytes, where: str, side: int) -> NDArray[np.uint8]:
    """Return the shades of gray of an image of `side` × `side` pixels, uint8 (side²,).

    An image of 16 bits is taken if every value is a shade of 8 bits times 257, a colored or transparent one if it is
    opaque and all its colors are gray. Raises UserError beginning with `where` for any other, because a rounded or
    clipped image would go by unnoticed.
    """
    opened = _open(png, where, side)
    kind = f"{where} is an image of {opened.depth} bits, mode {opened.mode},"
    if not opened.gray:
        colors = opened.pixels.reshape(-1, 4)
        if (colors[:, 3] != 255).any() or (colors[:, :3] != colors[:, :1]).any():
            raise UserError(f"{kind} with colors or transparency; 8 bits of gray, mode L, are expected.")
        return colors[:, 0].astype(np.uint8)
    if opened.depth < 8:
        raise UserError(f"{kind} too few for its shades; 8 bits of gray, mode L, are expected.")
    values = opened.pixels.ravel().astype(np.int64)
    if opened.depth == 8:
        return values.astype(np.uint8)
    shades = values >> 8
    if (shades * 257 != values).any():
        raise UserError(f"{kind} whose values are not shades of 8 bits times 257; 8 bits, mode L, are expected.")
    return shades.astype(np.uint8)


def color_planes(png: bytes, where: str, side: int) -> NDArray[np.uint8]:
    """Return the colors of an image of `side` × `side` pixels, uint8 (3, side²).

    Raises UserError beginning with `where` for an image that is not of 8 bits red, green and blue.
    """
    opened = _open(png, where, side)
    if opened.mode != "RGB" or opened.depth != 8:
        raise UserError(f"{where} is an image of {opened.depth} bits, mode {opened.mode}; 8 bits, RGB, are expected.")
    return opened.pixels.reshape(-1, 4)[:, :3].T.astype(np.uint8)


def _open(png: bytes, where: str, side: int) -> _Opened:
    """Decode an image. The pixels are (side, side) if it is gray, else (side, side, 4) as RGBA.

    Its size is checked before it is decoded, because a kilobyte can stand for gigabytes of pixels.
    """
    if len(png) < 33 or not png.startswith(_SIGNATURE) or png[12:16] != b"IHDR":
        raise UserError(f"{where} is no readable image (not a PNG).")
    if _END not in png:
        raise UserError(f"{where} is no readable image (cut short).")
    width, height, depth, color = struct.unpack(">IIBB", png[16:26])
    if (width, height) != (side, side):
        raise UserError(f"{where} is {width} × {height} pixels; {side} × {side} are expected.")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            warnings.simplefilter("error")
            if image.size != (side, side):
                raise ValueError("two sizes in one file")
            gray = color == _GRAY and "transparency" not in image.info
            mode = image.mode
            pixels = np.asarray(image if gray and depth > 1 else image.convert("L" if gray else "RGBA"))
    except Exception as error:  # PIL has no common error for damaged files
        reason = " ".join(f"{error}".split())[:200] or type(error).__name__
        raise UserError(f"{where} is no readable image ({reason}).") from None
    return _Opened(mode, depth, gray, pixels)
