"""Tables of every paddle and marker that the Pathfinder generator can draw, rendered once with PIL.

A paddle has one of 360 orientations when it begins a snake and one of a few dozen afterwards, because its head then
lies on the pixels of a small circle. All of them are drawn beforehand at `antialias` times the resolution and shrunk
with Lanczos. drewlinsley/pathfinder @ ab9c130 `snakes.py` draws each one in the same way when it needs it. Lines and
markers are shrunk as real numbers (their overshoot is in the released images), masks as bytes (hence clipped to 0…255).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from lra_bench.spec import Frozen

Array = npt.NDArray[Any]

DEGREES = 360
"""The number of orientations of a first paddle: whole degrees from −180."""

HALO = 16
"""The width in pixels of the border around the window. With it a patch anywhere in the window needs no clipping."""

BREADTH = 2 * HALO
"""The number of columns of the byte patches.

With a constant number the compiler turns a row into one vector instruction.
"""

COLLISION = 459
"""The least sum of mask and occupied pixel at which a paddle is refused: 1.8 in units of 1/255."""


class SnakeParameters(Frozen):
    """The parameters of one Pathfinder data set.

    Lengths are in pixels. Names are those of drewlinsley/pathfinder where they are clear.
    """

    window: int = Field(ge=16, description="side of the image")
    padding: int = Field(ge=1, description="width of the border that no paddle may cover")
    paddle_length: int = Field(ge=1)
    paddle_thickness: float = Field(gt=0)
    margins: tuple[int, ...] = Field(min_length=1, description="free space around a paddle; one is drawn per image")
    marker_radius: float = Field(gt=0)
    seed_distance: int = Field(ge=1, description="distance of the beginnings of the two target snakes")
    antialias: int = Field(ge=1)
    continuity: float = Field(gt=0, description="straightness of the snakes; a larger value gives straighter ones")
    contour_length: int = Field(ge=2, description="number of paddles of a target snake")
    distractors: int = Field(ge=0, description="number of distractor snakes that are tried")
    distractor_length: int = Field(ge=2, description="number of paddles of a distractor snake")
    target_contrast: float = Field(gt=0, description="contrast of the target snakes' paddles; markers have 1")
    distractor_contrast: float = Field(gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> SnakeParameters:
        if self.seed_distance <= self.paddle_length + max(self.margins) + 2:
            raise ValueError("seed_distance must exceed paddle_length + margin + 2, so that a target's beginning fits")
        if self.window <= 4 * self.seed_distance:
            raise ValueError("window must exceed 4 seed_distance, or no place is left for the first target")
        if self.paddle_length + math.ceil(self.paddle_thickness) + 2 * max(self.margins) >= HALO:
            raise ValueError(f"paddle_length + paddle_thickness + 2 margin must stay below {HALO}")
        if self.paddle_thickness * self.antialias % 1:
            raise ValueError("paddle_thickness times antialias must be a whole number")
        return self


class Beginning(NamedTuple):
    """The 360 paddles o that begin a snake. Displacements and places are (y, x)."""

    head: Array
    """The displacements from the tail to the head before rounding up, float64 (360, 2)."""
    pivot: Array
    """The displacements from the head back to the pivot before rounding up, float64 (360, 2)."""
    body: Array
    """The pixels, relative to the tail, that must be free; int64 (360, n, 2), padded with the last pixel."""
    room: Array
    """The rectangles (top, left, height, width) of the first target's possible tails, int64 (360, 4)."""
    beyond: Array
    """Further possible tails of the first target, int64 (n, 2): at an edge, with `body` wholly outside the window."""
    beyond_start: Array
    """The bounds of each paddle in `beyond`, int64 (361,): its tails are beyond_start[o]:beyond_start[o + 1]."""
    turns: Array
    """The sine and cosine of 0 … 359 degrees, float64 (360, 2)."""


class Turning(NamedTuple):
    """The possible continuations of a snake. Those of paddle o of n are the rows start[o]:start[o + 1]."""

    advance: Array
    """The displacements from each paddle's pivot to the next paddle's pivot before rounding up, float64 (n, 2)."""
    start: Array
    """The bounds of each paddle's rows in `head` and `weight`, int64 (n + 1,)."""
    head: Array
    """y and x of the next head relative to the pivot, and the index of the paddle with that head, int64 (r, 3)."""
    weight: Array
    """The weight of each row, positive, float64 (r,)."""


class Paddles(NamedTuple):
    """Every paddle of one margin m, as patches of radius R.

    The first 360 of the n paddles are the beginnings of a snake. The others are extensions, one per pixel of a circle.
    A beginning is drawn around its tail, an extension around its head.
    """

    line: Array
    """The brightness at contrast 1, float64 (n, 2R + 1, 2R + 1)."""
    mask: Array
    """The paddle and its margin, uint8 (n, 2R + 1, BREADTH), with the center in column HALO − 1."""
    limit: Array
    """The largest occupied pixel with which the paddle is accepted, uint8 (n, 2R + 1, BREADTH)."""
    near: Array
    """The mask dilated by the margin, where no head may lie, uint8 (n, 2(R + m) + 1, BREADTH)."""
    beginning: Beginning
    turning: Turning


def disc(radius: int) -> Array:
    """Return the pixels within `radius` of the center, bool `(2 radius + 1, 2 radius + 1)`."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2


def displacement(orientation: float, distance: float) -> tuple[float, float]:
    """Return the displacement (y, x) by `distance` along `orientation` (radians).

    Positions are rounded up after it is added.
    """
    return distance * math.sin(orientation), distance * math.cos(orientation)


def flip(orientation: float) -> float:
    """Return the opposite orientation (radians)."""
    return orientation + math.pi if orientation < 0 else orientation - math.pi


def draw_paddle(parameters: SnakeParameters, margin: int, orientation: float) -> tuple[Array, Array]:
    """Draw one paddle from the center of its patch along `orientation` (radians).

    Returns its line (float64, 1 is white) and its mask (uint8), both (2R + 1, 2R + 1).
    """
    from PIL import Image, ImageDraw
    from scipy import ndimage

    p, scale = parameters, parameters.antialias
    radius = p.paddle_length + math.ceil(p.paddle_thickness) + margin
    center, side = radius * scale, 2 * radius + 1
    dy, dx = displacement(orientation, p.paddle_length * scale)
    blown = Image.new("F", (2 * center + 1, 2 * center + 1))
    ends = [(center, center), (math.ceil(center + dx), math.ceil(center + dy))]
    ImageDraw.Draw(blown).line(ends, fill=255.0, width=round(p.paddle_thickness * scale))
    line = np.asarray(blown.resize((side, side), Image.Resampling.LANCZOS), np.float64) / 255
    grown = ndimage.binary_dilation(np.asarray(blown) > 0, disc(margin * scale))
    mask = Image.fromarray(np.where(grown, 255, 0).astype(np.uint8)).resize((side, side), Image.Resampling.LANCZOS)
    return line, np.asarray(mask)


def heads(radius: int) -> Array:
    """Return the distinct pixels of a circle sampled at every pixel of its arc, int64 (c, 2), from its center."""
    angles = np.arange(0, 360, 360 / (2 * np.pi * radius)) * np.pi / 180
    points = radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    return np.unique(np.floor(points).astype(np.int64), axis=0)


def weights(orientations: Array, last: float, continuity: float) -> Array:
    """Return the weight of a turn from `last` to each of `orientations` (radians).

    The weight is cos² of continuity times the turn, and 0 where that product is π/2 or more.
    """
    turn = np.abs(orientations - last)
    turn = np.minimum(turn, 2 * np.pi - turn)
    return np.where(turn * continuity < np.pi / 2, np.cos(turn * continuity) ** 2, 0.0)


def _bodies(masks: Array, reach: int) -> Array:
    """Return the pixels that must be free for each beginning, as `Beginning.body`.

    The original checks pixels that lie one too far down and right, because its kernel is drawn off center, and none
    further than `reach`. Both are kept.
    """
    radius = masks.shape[1] // 2
    bodies = []
    for mask in masks:
        pixels = np.argwhere(mask == 255) - radius + 1
        bodies.append(pixels[(np.abs(pixels) <= reach).all(axis=1)])
    longest = max(len(body) for body in bodies)
    return np.stack([np.pad(body, ((0, longest - len(body)), (0, 0)), mode="edge") for body in bodies])


def _room(body: Array, window: int, border: int) -> Array:
    """Return the rectangles (top, left, height, width) of tails whose `body` keeps `border` pixels from every edge."""
    low, high = border - body.min(axis=1), window - border - body.max(axis=1)
    return np.concatenate([low, np.maximum(high - low, 0)], axis=1)


def _beyond(body: Array, window: int) -> tuple[Array, Array]:
    """Return the tails in the window whose whole `body` is outside it, so that no pixel must be free; and their bounds.

    The two arrays are `Beginning.beyond` and `Beginning.beyond_start`.
    """
    depth = int(np.abs(body).max(axis=2).min(axis=1).max())
    frame = np.pad(np.zeros((window - 2 * depth,) * 2, bool), depth, constant_values=True)
    tails = np.argwhere(frame)
    out = [((tails[:, None] + one < 0) | (tails[:, None] + one >= window)).any(-1).all(-1) for one in body]
    found = [tails[places] for places in out]
    return np.concatenate(found), np.cumsum([0, *map(len, found)])


def _broad(patches: Array, value: int) -> Array:
    """Widen square patches `(o, n, n)` to `(o, n, BREADTH)`.

    Their center is then in column HALO − 1, and new columns hold `value`.
    """
    left = HALO - 1 - patches.shape[2] // 2
    sides = (left, BREADTH - left - patches.shape[2])
    return np.pad(patches, ((0, 0), (0, 0), sides), constant_values=value).astype(np.uint8)


def _beginning(parameters: SnakeParameters, margin: int, first: Array, mask: Array) -> Beginning:
    length = parameters.paddle_length
    body = _bodies(mask, length + margin)
    beyond, beyond_start = _beyond(body, parameters.window)
    turns = np.deg2rad(np.arange(DEGREES))
    return Beginning(
        head=np.array([displacement(angle, length) for angle in first]),
        pivot=np.array([displacement(flip(angle), length + margin) for angle in first]),
        body=body,
        room=_room(body, parameters.window, 2 * parameters.seed_distance),
        beyond=beyond,
        beyond_start=beyond_start,
        turns=np.stack([np.sin(turns), np.cos(turns)], axis=1),
    )


def _turning(parameters: SnakeParameters, margin: int, first: Array, circle: Array, onward: Array) -> Turning:
    orientations = np.concatenate([first, onward])
    weight = np.stack([weights(onward, last, parameters.continuity) for last in orientations])
    last, reach = np.nonzero(weight)
    return Turning(
        advance=np.array([displacement(angle, parameters.paddle_length + 2 * margin) for angle in orientations]),
        start=np.searchsorted(last, np.arange(len(orientations) + 1)),
        head=np.concatenate([circle[reach], DEGREES + reach[:, None]], axis=1),
        weight=weight[last, reach],
    )


@functools.lru_cache
def paddles(parameters: SnakeParameters, margin: int) -> Paddles:
    """Return all paddles of one margin. The first call takes about 0.1 s; the result is cached."""
    from scipy import ndimage

    first = np.deg2rad(np.arange(-180, 180))
    circle = heads(parameters.paddle_length + margin)
    onward = np.arctan2(circle[:, 0], circle[:, 1])
    drawn = [draw_paddle(parameters, margin, angle) for angle in first]
    drawn += [draw_paddle(parameters, margin, flip(angle)) for angle in onward]
    line, mask = (np.stack(patches) for patches in zip(*drawn, strict=True))
    wide = np.pad(mask, ((0, 0), (margin, margin), (margin, margin)))
    near = np.stack([ndimage.grey_dilation(patch, footprint=disc(margin), mode="constant") for patch in wide])
    limit = np.where(mask >= COLLISION - 255, COLLISION - 1 - mask.astype(np.int64), 255)
    return Paddles(
        line=line,
        mask=_broad(mask, 0),
        limit=_broad(limit, 255),
        near=_broad(near, 0),
        beginning=_beginning(parameters, margin, first, mask[:DEGREES]),
        turning=_turning(parameters, margin, first, circle, onward),
    )


@functools.lru_cache
def markers(parameters: SnakeParameters) -> Array:
    """Return the marker for each distance to the window's edges, float64 `(S, S, S, S)` with S = 2K + 1.

    `markers[a, b]` is a canvas with the disc at (a, b). It is laid over the image so that (a, b) lies on the marker's
    pixel. The index K means far from any edge. a or b below (above) K means that close to the top or left (bottom or
    right) edge of the window, where Lanczos weighs fewer pixels and the disc is brighter.
    """
    from PIL import Image

    scale, far = parameters.antialias, math.ceil(parameters.marker_radius) + 4
    side = 2 * far + 1
    canvases = np.empty((side, side, side, side))
    grid = np.arange(side * scale)
    for a, b in np.ndindex(side, side):
        square = (grid[:, None] - a * scale) ** 2 + (grid - b * scale) ** 2
        filled = (square <= (parameters.marker_radius * scale) ** 2).astype(np.float32)
        canvases[a, b] = np.asarray(Image.fromarray(filled).resize((side, side), Image.Resampling.LANCZOS))
    return canvases
