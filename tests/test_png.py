"""A PNG gives exactly the shades it holds, or one sentence that names the image and its mode."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lra_bench.data.raw.png import color_planes, gray_pixels
from lra_bench.errors import UserError

SIDE = 16
SHADES = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)


def save(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw(side, depth, color, rows):
    """A PNG written by hand, for what PIL does not write."""
    header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


GRAY = Image.fromarray(SHADES)
SIXTEEN = Image.fromarray(SHADES.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    "png",
    [
        save(GRAY),
        save(SIXTEEN),
        save(GRAY.convert("RGB")),
        save(GRAY.convert("RGBA")),
        save(GRAY.convert("LA")),
        save(GRAY.convert("P")),
        save(GRAY, optimize=True),
    ],
    ids=["L", "16 bits", "RGB", "RGBA", "LA", "P", "optimized"],
)
def test_same_shades_however_they_are_stored(png):
    assert np.array_equal(gray_pixels(png, "x.png", SIDE), SHADES.ravel())


COLORED = np.stack([SHADES, SHADES, SHADES.T], axis=-1)
CLEAR = np.dstack([COLORED[..., :1].repeat(3, axis=-1), np.full_like(SHADES, 254)])


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (save(Image.fromarray(SHADES.astype(np.uint16))), "16 bits, mode I.*times 257"),
        (save(Image.fromarray(SHADES.astype(np.uint16) * 256)), "16 bits, mode I.*times 257"),
        (save(GRAY.convert("1")), "1 bits, mode 1"),
        (raw(SIDE, 4, 0, bytes(SIDE * (SIDE // 2 + 1))), "4 bits, mode L"),
        (save(Image.fromarray(COLORED)), "mode RGB, with colors"),
        (save(Image.fromarray(CLEAR)), "mode RGBA, with colors or transparency"),
        (save(GRAY, transparency=0), "mode L, with colors or transparency"),
        (save(GRAY.convert("1"), "TIFF"), "no readable image"),
        (save(GRAY, "GIF"), "no readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n", "no readable image"),
        (b"", "no readable image"),
        (save(GRAY)[:50], "no readable image"),
        (raw(SIDE, 8, 0, b"\0"), "no readable image"),
    ],
)
def test_others_are_refused(png, message):
    with pytest.raises(UserError, match=f"^x.png is .*{message}") as error:
        gray_pixels(png, "x.png", SIDE)
    assert "\n" not in str(error.value)


def test_size_is_checked_before_anything_is_decoded(monkeypatch):
    """The header of an image of 400 megapixels, and one that names a second size later."""
    one = raw(SIDE, 8, 0, bytes(SIDE * (SIDE + 1)))
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match="20000 × 20000 pixels; 16 × 16"):
        gray_pixels(raw(20_000, 8, 0, b""), "x.png", SIDE)
    with pytest.raises(UserError, match="no readable image"):
        gray_pixels(one[:33] + second + one[33:], "x.png", SIDE)


def test_colors():
    planes = color_planes(save(Image.fromarray(COLORED)), "x.png", SIDE)
    assert np.array_equal(planes, COLORED.reshape(-1, 3).T)
    for wrong in (GRAY, GRAY.convert("RGBA"), SIXTEEN):
        with pytest.raises(UserError, match="8 bits, RGB, are expected"):
            color_planes(save(wrong), "x.png", SIDE)
