"""The growing of Pathfinder's snakes, compiled with numba: two targets, then distractors; and their drawing.

The original, drewlinsley/pathfinder @ ab9c130 (`two_snakes` and `make_many_snakes`), dilates the whole image at every
step; here everything a paddle adds is a patch (`snake_paddles.Paddles`), so a step costs a fraction of a microsecond.
Two grids of bytes are kept: `occupied`, the paddles with their margins, and `close`, the same dilated by the margin.
Both have a border of HALO pixels around the window. Imported only when images are made: numba takes long to load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .snake_paddles import BREADTH, DEGREES, HALO, Array, Paddles

Place = tuple[float, float]
"""y, x."""

Paddle = tuple[int, int, int]
"""Index into `Paddles`, y, x."""

TRIES = 3
"""Draws of a paddle, or of a beginning, before the snake is given up."""

ATTEMPTS = 5
"""At each distractor snake."""

TAKEN = 77
"""Occupied pixels from here on (0.3 in units of 1/255) are not free for a beginning."""

LEAST_WEIGHT = 255e-4
"""A snake is stuck where all weights, in units of 1/255, sum to less."""

LEAST_FREE = 0.01
"""Share of the window that must be free for another distractor."""

BLIND_DRAWS = 0.05
"""Draws of a random place, as a share of the window's pixels, before all free places are looked for."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code, kept on disk where numba finds a folder it may write to."""
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # a read-only installation and no user cache folder
        return numba.njit(function, nogil=True)


@compiled
def below(rng: np.random.Generator, n: int) -> int:
    """A whole number in 0…n-1."""
    return int(rng.random() * n)


@compiled
def patch_of(grid: Array, rows: int, y: int, x: int) -> Array:
    """The `rows` rows of `grid` that a byte patch around (y, x) of the window covers."""
    top, left = y + HALO - rows // 2, x + 1
    return grid[top : top + rows, left : left + BREADTH]


@compiled
def stamp(grid: Array, patch: Array, y: int, x: int) -> None:
    """Lay `patch` over `grid` around (y, x), the larger value staying."""
    part = patch_of(grid, len(patch), y, x)
    for i in range(len(patch)):
        for j in range(patch.shape[1]):
            part[i, j] = max(part[i, j], patch[i, j])


@compiled
def collides(occupied: Array, limit: Array, y: int, x: int) -> bool:
    """Whether an occupied pixel around (y, x) is above its limit. Sought a row at a time, as bytes: twice as fast."""
    part = patch_of(occupied, len(limit), y, x)
    for i in range(len(limit)):
        excess = np.uint8(0)
        for j in range(limit.shape[1]):
            excess = max(excess, np.uint8(part[i, j] - min(part[i, j], limit[i, j])))
        if excess > 0:
            return True
    return False


@compiled
def settle(paddles: Paddles, grids: Array, paddle: Paddle) -> None:
    """Let a placed paddle occupy its place."""
    o, y, x = paddle
    stamp(grids[0], paddles.mask[o], y, x)
    stamp(grids[1], paddles.near[o], y, x)


@compiled
def copy_around(paddles: Paddles, source: Array, target: Array, placed: Array) -> None:
    """Make the grids `target` like `source` wherever one of the paddles `placed` may have changed either."""
    rows = paddles.near.shape[1]
    for k in range(len(placed)):
        for g in range(2):
            old = patch_of(source[g], rows, placed[k, 1], placed[k, 2])
            new = patch_of(target[g], rows, placed[k, 1], placed[k, 2])
            for i in range(rows):
                for j in range(old.shape[1]):
                    new[i, j] = old[i, j]


@compiled
def translated(place: Place, steps: Array) -> tuple[int, int]:
    """`place` moved by `steps` (2,) and rounded up: sums first, as the original, which makes a difference of one pixel
    where a sine is 1e-16 instead of 0 and the place is near the top or left edge."""
    return math.ceil(place[0] + steps[0]), math.ceil(place[1] + steps[1])


@compiled
def extend(
    rng: np.random.Generator, paddles: Paddles, grids: Array, cumulative: Array, pivot: Place, last: int
) -> tuple[bool, Paddle, Place]:
    """The paddle behind one of index `last` that turned around `pivot`: whether one fits, which, and its pivot."""
    window = grids.shape[1] - 2 * HALO
    pivot_y, pivot_x = translated(pivot, paddles.advance[last])
    start, stop = paddles.start[last], paddles.start[last + 1]
    total = 0.0
    for k in range(start, stop):
        y = pivot_y + paddles.circle[paddles.reach[k], 0]
        x = pivot_x + paddles.circle[paddles.reach[k], 1]
        if 0 <= y < window and 0 <= x < window:
            total += paddles.weight[k] * (255 - grids[1, y + HALO, x + HALO])
        cumulative[k - start] = total
    if total < LEAST_WEIGHT:
        return False, (0, 0, 0), (0, 0)
    for _ in range(TRIES):
        drawn = rng.random() * total
        k = 0
        while cumulative[k] <= drawn and k < stop - start - 1:
            k += 1
        head = paddles.reach[start + k]
        y, x = pivot_y + paddles.circle[head, 0], pivot_x + paddles.circle[head, 1]
        if not collides(grids[0], paddles.limit[DEGREES + head], y, x):
            return True, (DEGREES + head, y, x), (pivot_y, pivot_x)
    return False, (0, 0, 0), (0, 0)


@compiled
def first_pivot(paddles: Paddles, paddle: Paddle) -> Place:
    o, y, x = paddle
    return translated(translated((y, x), paddles.first_head[o]), paddles.first_pivot[o])


@compiled
def is_inside(paddles: Paddles, window: int, paddle: Paddle) -> bool:
    """Whether head and pivot of a snake's first paddle are in the window."""
    o, y, x = paddle
    head_y, head_x = translated((y, x), paddles.first_head[o])
    pivot_y, pivot_x = first_pivot(paddles, paddle)
    return min(head_y, head_x, pivot_y, pivot_x) >= 0 and max(head_y, head_x, pivot_y, pivot_x) < window


@compiled
def begin_first(rng: np.random.Generator, paddles: Paddles, window: int) -> tuple[bool, Paddle]:
    """The first paddle of the first target: far from the edges, or, at 32 px, now and then just at one."""
    for _ in range(TRIES):
        o = below(rng, DEGREES)
        top, left, height, width = paddles.room[o]
        start, stop = paddles.beyond_start[o], paddles.beyond_start[o + 1]
        room = height * width
        if room + stop - start == 0:
            break
        place = below(rng, room + stop - start)
        if place < room:
            return True, (o, top + place // width, left + place % width)
        paddle = (o, paddles.beyond[start + place - room, 0], paddles.beyond[start + place - room, 1])
        if is_inside(paddles, window, paddle):
            return True, paddle
    return False, (0, 0, 0)


@compiled
def begin_second(
    rng: np.random.Generator, paddles: Paddles, window: int, seed_distance: int, first: Paddle
) -> tuple[bool, Paddle]:
    """The first paddle of the second target, at `seed_distance` from the first target's.

    The original lets its tail lie a pixel out of the window; at 32 px that would be 1 image in 7,000.
    """
    for _ in range(TRIES):
        o, direction = below(rng, DEGREES), below(rng, DEGREES)
        y = int(np.rint(first[1] + seed_distance * paddles.turns[direction, 0]))
        x = int(np.rint(first[2] + seed_distance * paddles.turns[direction, 1]))
        if 0 <= y < window and 0 <= x < window and is_inside(paddles, window, (o, y, x)):
            return True, (o, y, x)
    return False, (0, 0, 0)


@compiled
def grow_targets(
    rng: np.random.Generator, paddles: Paddles, grids: Array, cumulative: Array, seed_distance: int, placed: Array
) -> int:
    """Two snakes, a paddle each in turn, into the even and odd rows of `placed` (n, 3); how many before one got stuck.

    A paddle occupies its place only once its successor is laid, so the two may touch. The original forgets the first
    snake's last paddle, so distractors may cross it; that is kept.
    """
    window = grids.shape[1] - 2 * HALO
    found, one = begin_first(rng, paddles, window)
    if not found:
        return 0
    found, two = begin_second(rng, paddles, window, seed_distance, one)
    if not found:
        return 0
    placed[0], placed[1] = one, two
    pivots = [first_pivot(paddles, one), first_pivot(paddles, two)]
    lasts = [one, two]
    for row in range(2, len(placed)):
        snake = row % 2
        found, paddle, pivot = extend(rng, paddles, grids, cumulative, pivots[snake], lasts[snake][0])
        if not found:
            return row
        settle(paddles, grids, lasts[snake])
        pivots[snake], lasts[snake], placed[row] = pivot, paddle, paddle
    settle(paddles, grids, lasts[1])
    return len(placed)


@compiled
def is_free(occupied: Array, body: Array, y: int, x: int) -> bool:
    """Whether no pixel of `body` around (y, x) is taken."""
    for k in range(len(body)):  # noqa: SIM110 — numba compiles no generator expression
        if occupied[y + HALO + body[k, 0], x + HALO + body[k, 1]] >= TAKEN:
            return False
    return True


@compiled
def free_place(rng: np.random.Generator, occupied: Array, body: Array) -> tuple[int, int]:
    """A pixel (y, x) uniformly from those where `body` is free; (-1, -1) if there is none.

    Draws pixels until one is free; after BLIND_DRAWS, counts the free ones and draws from those: the same law.
    """
    window = len(occupied) - 2 * HALO
    pixels = window * window
    for _ in range(int(BLIND_DRAWS * pixels)):
        y, x = divmod(below(rng, pixels), window)
        if is_free(occupied, body, y, x):
            return y, x
    free = [place for place in range(pixels) if is_free(occupied, body, place // window, place % window)]
    if len(free) == 0:
        return -1, -1
    return divmod(free[below(rng, len(free))], window)


@compiled
def begin_distractor(rng: np.random.Generator, paddles: Paddles, occupied: Array) -> tuple[bool, Paddle]:
    for _ in range(TRIES):
        o = below(rng, DEGREES)
        y, x = free_place(rng, occupied, paddles.body[o])
        if y < 0:
            return False, (0, 0, 0)
        if is_inside(paddles, len(occupied) - 2 * HALO, (o, y, x)):
            return True, (o, y, x)
    return False, (0, 0, 0)


@compiled
def grow_distractor(rng: np.random.Generator, paddles: Paddles, grids: Array, cumulative: Array, placed: Array) -> int:
    """One distractor into the rows of `placed` (n, 3); how many paddles before it got stuck."""
    found, last = begin_distractor(rng, paddles, grids[0])
    if not found:
        return 0
    placed[0], pivot = last, first_pivot(paddles, last)
    for row in range(1, len(placed)):
        found, paddle, pivot = extend(rng, paddles, grids, cumulative, pivot, last[0])
        if not found:
            return row
        settle(paddles, grids, last)
        placed[row], last = paddle, paddle
    settle(paddles, grids, last)
    return len(placed)


@compiled
def grow(
    rng: np.random.Generator, paddles: Paddles, empty: Array, seed_distance: int, targets: Array, distractors: Array
) -> int:
    """Grow one image's snakes.

    `empty`: uint8 (2, side, side), `occupied` and `close` of the window without a snake. `targets`: int64
    (2 contour_length, 3) and `distractors`: int64 (n, distractor_length, 3) receive the paddles (index, y, x).
    Returns how many distractors were laid.
    """
    grids = empty.copy()
    window = grids.shape[1] - 2 * HALO
    inner = grids[0, HALO : HALO + window, HALO : HALO + window]
    cumulative = np.empty(len(paddles.circle))
    n = 0
    while n < len(targets):
        copy_around(paddles, empty, grids, targets[:n])
        n = grow_targets(rng, paddles, grids, cumulative, seed_distance, targets)
    kept = grids.copy()
    laid = 0
    for _ in range(len(distractors)):
        if (inner < TAKEN).sum() < LEAST_FREE * window * window:
            break
        for _ in range(ATTEMPTS):
            placed = distractors[laid]
            n = grow_distractor(rng, paddles, grids, cumulative, placed)
            if n == len(placed):
                copy_around(paddles, grids, kept, placed)
                laid += 1
                break
            copy_around(paddles, kept, grids, placed[:n])
    return laid


@compiled
def draw(canvas: Array, line: Array, placed: Array, contrast: float) -> None:
    """Draw the paddles `placed` (n, 3) on `canvas` (float64, with its halo)."""
    n = line.shape[1]
    for row in range(len(placed)):
        patch = line[placed[row, 0]]
        top, left = placed[row, 1] + HALO - n // 2, placed[row, 2] + HALO - n // 2
        part = canvas[top : top + n, left : left + n]
        for i in range(n):
            for j in range(n):
                part[i, j] = max(part[i, j], patch[i, j] * contrast)


@compiled
def edge_class(position: int, window: int, far: int) -> int:
    """Index into `snake_paddles.markers`: `far` unless the position is nearer to an edge than that."""
    if position < far:
        return position
    return max(far, position - window + 2 * far + 1)


@compiled
def draw_marker(canvas: Array, markers: Array, y: int, x: int) -> None:
    side = len(markers)
    window = len(canvas) - 2 * HALO
    a, b = edge_class(y, window, side // 2), edge_class(x, window, side // 2)
    part = canvas[HALO + y - a : HALO + y - a + side, HALO + x - b : HALO + x - b + side]
    part[:] = np.maximum(part, markers[a, b])


@compiled
def develop(canvas: Array, image: Array) -> None:
    """`canvas` as bytes: its largest value becomes 255, the rest is cut to whole numbers."""
    window = len(image)
    part = canvas[HALO : HALO + window, HALO : HALO + window]
    largest = part.max()
    for i in range(window):
        for j in range(window):
            image[i, j] = int(part[i, j] / largest * 255)


@compiled
def fits(image: Array, darkest: Array) -> Array:
    """Where the marker fits (bool, one per pixel): no pixel of its canvas is below `darkest` (of its edge class)."""
    window, side = len(image), len(darkest)
    fitting = np.zeros((window, window), np.bool_)
    for y in range(window):
        for x in range(window):
            a, b = edge_class(y, window, side // 2), edge_class(x, window, side // 2)
            if image[y, x] >= darkest[a, b, a, b]:
                part = image[y - a : y - a + side, x - b : x - b + side]
                fitting[y, x] = (part >= darkest[a, b]).all()
    return fitting
