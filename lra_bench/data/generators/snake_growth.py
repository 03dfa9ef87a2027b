"""The growth of Pathfinder's snakes, compiled with numba: two targets, then distractors.

The original, drewlinsley/pathfinder @ ab9c130 (`two_snakes` and `make_many_snakes`), dilates the whole image for every
paddle. Here everything that a paddle adds is a patch (`snake_paddles.Paddles`), so a paddle costs a fraction of a
microsecond. `grids`, uint8 (2, side, side), are OCCUPIED (the paddles with their margins) and CLOSE (the same dilated
by the margin), with a border of HALO pixels around the window. The module is imported only when images are made,
because numba takes long to load.

The code is written for the compiler. Loops over whole rows with unsigned indices become vector instructions. Views of
arrays would cost reference counts (a third of the time), and array expressions or tuple assignments would cost seconds
of compilation.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled
from .snake_paddles import DEGREES, HALO, Array, Beginning, Paddles, Turning

Place = tuple[float, float]
"""A place (y, x)."""

Paddle = tuple[int, int, int]
"""A placed paddle (index into `Paddles`, y, x)."""

OCCUPIED, CLOSE = 0, 1
"""The indices of the two grids."""

TRIES = 3
"""The number of draws of a paddle, or of a beginning, before a snake is given up."""

ATTEMPTS = 5
"""The number of attempts at each distractor snake."""

TAKEN = 77
"""The least value of an occupied pixel that is not free for a beginning (0.3 in units of 1/255)."""

LEAST_WEIGHT = 255e-4
"""The least sum of all weights, in units of 1/255, with which a snake can be continued."""

LEAST_FREE = 0.01
"""The fraction of the window that must be free for another distractor."""

index = np.uint64
"""The type of indices. Unsigned ones need no code for negative indices."""

BLIND_DRAWS = 0.05
"""The number of draws of a random place, as a fraction of the window's pixels, before all free places are counted."""


@compiled
def below(rng: np.random.Generator, n: int) -> int:
    """Draw a whole number from 0 … n − 1."""
    return int(rng.random() * n)


@compiled
def stamp(grids: Array, grid: int, patches: Array, paddle: Paddle) -> None:
    """Lay a paddle's patch over one of the grids. The larger value stays."""
    o, top, left = index(paddle[0]), index(paddle[1] + HALO - patches.shape[1] // 2), index(paddle[2] + 1)
    for i in range(index(patches.shape[1])):
        for j in range(index(patches.shape[2])):
            grids[grid, top + i, left + j] = max(grids[grid, top + i, left + j], patches[o, i, j])


@compiled
def settle(paddles: Paddles, grids: Array, paddle: Paddle) -> None:
    """Mark a placed paddle in both grids."""
    stamp(grids, OCCUPIED, paddles.mask, paddle)
    stamp(grids, CLOSE, paddles.near, paddle)


@compiled
def collides(grids: Array, limits: Array, paddle: Paddle) -> bool:
    """Whether an occupied pixel is above the paddle's limit.

    The loop checks a whole row, as bytes, before it branches. This is twice as fast as a check of each pixel.
    """
    o, top, left = index(paddle[0]), index(paddle[1] + HALO - limits.shape[1] // 2), index(paddle[2] + 1)
    for i in range(index(limits.shape[1])):
        excess = np.uint8(0)
        for j in range(index(limits.shape[2])):
            value = grids[OCCUPIED, top + i, left + j]
            excess = max(excess, np.uint8(value - min(value, limits[o, i, j])))
        if excess > 0:
            return True
    return False


@compiled
def copy_around(paddles: Paddles, source: Array, target: Array, placed: Array, n: int) -> None:
    """Copy the grids `source` to `target` wherever one of the first `n` paddles `placed` may have changed either."""
    rows = paddles.near.shape[1]
    for k in range(n):
        top, left = index(placed[k, 1] + HALO - rows // 2), index(placed[k, 2] + 1)
        for grid in range(index(2)):
            for i in range(index(rows)):
                for j in range(index(paddles.near.shape[2])):
                    target[grid, top + i, left + j] = source[grid, top + i, left + j]


@compiled
def note(placed: Array, row: int, paddle: Paddle) -> None:
    """Store a paddle in a row of `placed` (n, 3)."""
    placed[row, 0], placed[row, 1], placed[row, 2] = paddle[0], paddle[1], paddle[2]


@compiled
def translated(place: Place, displacements: Array, o: int) -> Place:
    """Return `place` moved by `displacements[o]` and rounded up.

    Rounding follows the sum, as in the original. Rounding the displacement would change the result by one pixel where a
    sine is 1e-16 instead of 0 and the place is near the top or left edge.
    """
    return math.ceil(place[0] + displacements[o, 0]), math.ceil(place[1] + displacements[o, 1])


@compiled
def extend(
    rng: np.random.Generator, turning: Turning, limits: Array, grids: Array, sums: Array, pivot: Place, last: int
) -> tuple[bool, Paddle, Place]:
    """Draw the paddle that follows one of index `last` that turned around `pivot`.

    Returns whether a paddle fits, the paddle and its pivot. `sums` is scratch space for the cumulative weights.
    """
    window = grids.shape[1] - 2 * HALO
    pivot_y, pivot_x = translated(pivot, turning.advance, last)
    start, stop = turning.start[last], turning.start[last + 1]
    total = 0.0
    for k in range(start, stop):
        y, x = pivot_y + turning.head[k, 0], pivot_x + turning.head[k, 1]
        if 0 <= y < window and 0 <= x < window:
            total += turning.weight[k] * (255 - grids[CLOSE, y + HALO, x + HALO])
        sums[k - start] = total
    if total < LEAST_WEIGHT:
        return False, (0, 0, 0), (0, 0)
    for _ in range(TRIES):
        drawn = rng.random() * total
        k = start
        while sums[k - start] <= drawn and k < stop - 1:
            k += 1
        paddle = (turning.head[k, 2], pivot_y + turning.head[k, 0], pivot_x + turning.head[k, 1])
        if not collides(grids, limits, paddle):
            return True, paddle, (pivot_y, pivot_x)
    return False, (0, 0, 0), (0, 0)


@compiled
def first_pivot(beginning: Beginning, paddle: Paddle) -> Place:
    """Return the pivot of a snake's first paddle."""
    o, y, x = paddle
    return translated(translated((y, x), beginning.head, o), beginning.pivot, o)


@compiled
def is_inside(beginning: Beginning, window: int, paddle: Paddle) -> bool:
    """Whether head and pivot of a snake's first paddle lie in the window."""
    o, y, x = paddle
    head_y, head_x = translated((y, x), beginning.head, o)
    pivot_y, pivot_x = first_pivot(beginning, paddle)
    return min(head_y, head_x, pivot_y, pivot_x) >= 0 and max(head_y, head_x, pivot_y, pivot_x) < window


@compiled
def begin_first(rng: np.random.Generator, beginning: Beginning, window: int) -> tuple[bool, Paddle]:
    """Draw the first paddle of the first target; return whether one was found, and the paddle.

    It lies far from the edges, except that at 32 pixels it occasionally lies right at one (`Beginning.beyond`).
    """
    for _ in range(TRIES):
        o = below(rng, DEGREES)
        height, width = beginning.room[o, 2], beginning.room[o, 3]
        start, stop = beginning.beyond_start[o], beginning.beyond_start[o + 1]
        room = height * width
        if room + stop - start == 0:
            break
        place = below(rng, room + stop - start)
        if place < room:
            return True, (o, beginning.room[o, 0] + place // width, beginning.room[o, 1] + place % width)
        paddle = (o, beginning.beyond[start + place - room, 0], beginning.beyond[start + place - room, 1])
        if is_inside(beginning, window, paddle):
            return True, paddle
    return False, (0, 0, 0)


@compiled
def begin_second(
    rng: np.random.Generator, beginning: Beginning, window: int, seed_distance: int, first: Paddle
) -> tuple[bool, Paddle]:
    """Draw the first paddle of the second target, at `seed_distance` from the first target's.

    Returns whether one was found, and the paddle. The original also permits a tail one pixel outside the window; at 32
    pixels that would be 1 image in 7,000.
    """
    for _ in range(TRIES):
        o, direction = below(rng, DEGREES), below(rng, DEGREES)
        y = int(np.rint(first[1] + seed_distance * beginning.turns[direction, 0]))
        x = int(np.rint(first[2] + seed_distance * beginning.turns[direction, 1]))
        if 0 <= y < window and 0 <= x < window and is_inside(beginning, window, (o, y, x)):
            return True, (o, y, x)
    return False, (0, 0, 0)


@compiled
def grow_targets(
    rng: np.random.Generator, paddles: Paddles, grids: Array, sums: Array, seed_distance: int, placed: Array
) -> int:
    """Grow two snakes, one paddle each in turn, into the even and odd rows of `placed` (n, 3).

    Returns the number of paddles before a snake could not be continued. A paddle is marked in the grids only after its
    successor was placed, so the two may touch. The original never marks the first snake's last paddle, so distractors
    may cross it. This is kept.
    """
    window = grids.shape[1] - 2 * HALO
    found, one = begin_first(rng, paddles.beginning, window)
    if not found:
        return 0
    found, two = begin_second(rng, paddles.beginning, window, seed_distance, one)
    if not found:
        return 0
    note(placed, 0, one)
    note(placed, 1, two)
    last, other = one, two
    pivot, other_pivot = first_pivot(paddles.beginning, one), first_pivot(paddles.beginning, two)
    for row in range(2, len(placed)):
        found, paddle, pivot = extend(rng, paddles.turning, paddles.limit, grids, sums, pivot, last[0])
        if not found:
            return row
        settle(paddles, grids, last)
        note(placed, row, paddle)
        last, other = other, paddle
        pivot, other_pivot = other_pivot, pivot
    settle(paddles, grids, other)
    return len(placed)


@compiled
def is_free(grids: Array, body: Array, o: int, place: int) -> bool:
    """Whether no pixel of `body[o]` around a place (window · y + x) is occupied by TAKEN or more."""
    y, x = divmod(place, grids.shape[1] - 2 * HALO)
    for k in range(body.shape[1]):
        if grids[OCCUPIED, y + HALO + body[o, k, 0], x + HALO + body[o, k, 1]] >= TAKEN:
            return False
    return True


@compiled
def free_place(rng: np.random.Generator, grids: Array, body: Array, o: int) -> int:
    """Draw a place (window · y + x) uniformly from those where `body[o]` is free; −1 if there is none.

    Places are drawn until one is free. After BLIND_DRAWS the free places are counted and one of them is drawn. Both
    have the same distribution.
    """
    places = (grids.shape[1] - 2 * HALO) ** 2
    for _ in range(int(BLIND_DRAWS * places)):
        place = below(rng, places)
        if is_free(grids, body, o, place):
            return place
    free = 0
    for place in range(places):
        free += is_free(grids, body, o, place)
    if free == 0:
        return -1
    wanted = below(rng, free)
    for place in range(places):
        if is_free(grids, body, o, place):
            if wanted == 0:
                return place
            wanted -= 1
    return -1


@compiled
def begin_distractor(rng: np.random.Generator, beginning: Beginning, grids: Array) -> tuple[bool, Paddle]:
    """Draw the first paddle of a distractor; return whether one was found, and the paddle."""
    window = grids.shape[1] - 2 * HALO
    for _ in range(TRIES):
        o = below(rng, DEGREES)
        place = free_place(rng, grids, beginning.body, o)
        if place < 0:
            break
        paddle = (o, place // window, place % window)
        if is_inside(beginning, window, paddle):
            return True, paddle
    return False, (0, 0, 0)


@compiled
def grow_distractor(rng: np.random.Generator, paddles: Paddles, grids: Array, sums: Array, placed: Array) -> int:
    """Grow one distractor into the rows of `placed` (n, 3); return its paddles before it could not be continued."""
    found, last = begin_distractor(rng, paddles.beginning, grids)
    if not found:
        return 0
    note(placed, 0, last)
    pivot = first_pivot(paddles.beginning, last)
    for row in range(1, len(placed)):
        found, paddle, pivot = extend(rng, paddles.turning, paddles.limit, grids, sums, pivot, last[0])
        if not found:
            return row
        settle(paddles, grids, last)
        note(placed, row, paddle)
        last = paddle
    settle(paddles, grids, last)
    return len(placed)


@compiled
def is_full(grids: Array) -> bool:
    """Whether too little of the window is free to try another distractor."""
    window, free = grids.shape[1] - 2 * HALO, 0
    for y in range(HALO, HALO + window):
        for x in range(HALO, HALO + window):
            free += grids[OCCUPIED, y, x] < TAKEN
    return free < LEAST_FREE * window * window


@compiled
def grow(
    rng: np.random.Generator, paddles: Paddles, empty: Array, seed_distance: int, targets: Array, distractors: Array
) -> int:
    """Grow one image's snakes on a copy of the grids `empty`, which hold the window's border alone.

    `targets`, int64 (2 contour_length, 3), and `distractors`, int64 (n, distractor_length, 3), receive the paddles
    (index, y, x). Returns the number of distractors.
    """
    grids = empty.copy()
    sums = np.empty(len(paddles.line) - DEGREES)
    n = 0
    while n < len(targets):
        copy_around(paddles, empty, grids, targets, n)
        n = grow_targets(rng, paddles, grids, sums, seed_distance, targets)
    kept = grids.copy()  # the grids of the finished snakes alone
    laid = 0
    for _ in range(len(distractors)):
        if is_full(grids):
            break
        placed = distractors[laid]
        for _ in range(ATTEMPTS):
            n = grow_distractor(rng, paddles, grids, sums, placed)
            if n == len(placed):
                copy_around(paddles, grids, kept, placed, n)
                laid += 1
                break
            copy_around(paddles, kept, grids, placed, n)
    return laid
