"""Pathfinder the slow way, to compare `data/generators/snakes.py` with: every paddle is drawn by PIL when it is needed,
every dilation is of the whole window, masks are real numbers. It reads the random stream in the same order.

Written from drewlinsley/pathfinder @ ab9c130 (`snakes.py`, `snakes2.py`), with PIL's Lanczos for SciPy's `imresize`.
"""

import math

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage


def translate(point, angle, distance):
    return [math.ceil(point[0] + distance * math.sin(angle)), math.ceil(point[1] + distance * math.cos(angle))]


def turned_back(angle):
    return angle + math.pi if angle < 0 else angle - math.pi


def round_kernel(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.hypot(y, x) <= radius + 1e-9


class Stuck(Exception):
    """No paddle fits."""


class Oracle:
    """Grows and draws the image of one random stream."""

    def __init__(self, parameters, rng):
        self.p, self.rng = parameters, rng
        self.label = self.below(2)
        self.margin = parameters.margins[self.below(len(parameters.margins))]

    def below(self, n):
        return int(self.rng.random() * n)

    def paddle(self, side, start, angle):
        """Line and mask, both (side, side), of a paddle from `start` along `angle`."""
        p, aa = self.p, self.p.antialias
        radius = p.paddle_length + math.ceil(p.paddle_thickness) + self.margin
        center = radius * aa
        head = translate([center, center], angle, p.paddle_length * aa)
        blown = Image.new("F", (2 * radius * aa + 1,) * 2, "black")
        pen = ImageDraw.Draw(blown)
        pen.line([(center, center), (head[1], head[0])], fill="white", width=round(p.paddle_thickness * aa))
        small = (2 * radius + 1,) * 2
        line = np.array(blown.resize(small, Image.LANCZOS), float) / 255
        swollen = ndimage.maximum_filter(np.array(blown), footprint=round_kernel(self.margin * aa), mode="constant")
        mask = np.array(Image.fromarray(swollen.astype(np.uint8)).resize(small, Image.LANCZOS), float) / 255
        placed = np.zeros((2, side + 2 * radius, side + 2 * radius))
        placed[:, start[0] : start[0] + 2 * radius + 1, start[1] : start[1] + 2 * radius + 1] = line, mask
        return placed[:, radius : radius + side, radius : radius + side]

    def free_for_beginning(self, occupied, angle):
        """Pixels where a snake may begin: the window dilated by the paddle's own mask, drawn one pixel off center."""
        reach = self.p.paddle_length + self.margin
        _, kernel = self.paddle(2 * reach + 1, (reach + 1, reach + 1), angle)
        dilated = ndimage.maximum_filter(occupied, footprint=kernel >= 1, mode="constant")
        return np.ceil(dilated - 0.3) <= 0

    def inside(self, *points):
        return all(0 <= c < self.p.window for point in points for c in point)

    def begin(self, tail, angle):
        """Head and pivot of a snake's first paddle."""
        head = translate(tail, angle, self.p.paddle_length)
        return head, translate(head, turned_back(angle), self.p.paddle_length + self.margin)

    def extend(self, occupied, pivot, angle):
        """Pivot, angle, head, line and mask of the next paddle."""
        p, radius = self.p, self.p.paddle_length + self.margin
        pivot = translate(pivot, angle, p.paddle_length + 2 * self.margin)
        close = ndimage.maximum_filter(occupied, footprint=round_kernel(self.margin), mode="constant")
        arc = np.arange(0, 360, 360 / (2 * np.pi * radius)) * np.pi / 180
        points = np.stack([pivot[0] + radius * np.sin(arc), pivot[1] + radius * np.cos(arc)], axis=1)
        points = points[((points >= 0) & (points < p.window)).all(axis=1)].astype(int)
        if len(points) == 0:
            raise Stuck
        points = np.unique(points, axis=0)
        angles = np.arctan2(points[:, 0] - pivot[0], points[:, 1] - pivot[1])
        turn = np.abs(angles - angle)
        turn = np.minimum(np.minimum(turn, 2 * np.pi - turn) * p.continuity, np.pi / 2)
        weight = (1 - close[points[:, 0], points[:, 1]]) * np.cos(turn) ** 2
        if weight.sum() < 1e-4:
            raise Stuck
        cumulative = np.cumsum(weight / weight.sum())
        for _ in range(3):
            chosen = np.argmax(cumulative > self.rng.random())
            line, mask = self.paddle(p.window, points[chosen], turned_back(angles[chosen]))
            if np.round((occupied + mask).max() * 255) < 1.8 * 255:
                return pivot, angles[chosen], points[chosen], line, mask
        raise Stuck

    def first_beginning(self, occupied):
        """Tail and angle of the first target. Places from which its mask leaves the window are put last."""
        border = 2 * self.p.seed_distance
        walled = np.pad(occupied[border:-border, border:-border], border, constant_values=1.0)
        for _ in range(3):
            angle = math.radians(self.below(360) - 180)
            places = np.argwhere(self.free_for_beginning(walled, angle)).tolist()
            if not places:
                raise Stuck
            places.sort(key=lambda tail: min(*tail, *(self.p.window - 1 - c for c in tail)) < border // 2)
            tail = places[self.below(len(places))]
            if self.inside(*self.begin(tail, angle)):
                return tail, angle
        raise Stuck

    def second_beginning(self, first):
        for _ in range(3):
            angle = math.radians(self.below(360) - 180)
            around = math.radians(self.below(360))
            y = round(first[0] + self.p.seed_distance * math.sin(around))
            x = round(first[1] + self.p.seed_distance * math.cos(around))
            if self.inside((y, x), *self.begin((y, x), angle)):
                return (y, x), angle
        raise Stuck

    def targets(self):
        p = self.p
        occupied = np.pad(np.zeros((p.window - 2 * p.padding,) * 2), p.padding, constant_values=1.0)
        tail, angle = self.first_beginning(occupied)
        other, second = self.second_beginning(tail)
        tails, angles = [tail, other], [angle, second]
        pivots = [self.begin(tail, angle)[1] for tail, angle in zip(tails, angles, strict=True)]
        lines, last = zip(
            *(self.paddle(p.window, tail, angle) for tail, angle in zip(tails, angles, strict=True)), strict=True
        )
        image, last, ends = np.maximum(0, np.maximum(*lines)), list(last), [None, None]
        for _ in range(p.contour_length - 1):
            for s in (0, 1):
                pivots[s], angles[s], ends[s], line, mask = self.extend(occupied, pivots[s], angles[s])
                image = np.maximum(image, line)
                occupied, last[s] = np.maximum(occupied, last[s]), mask
        return image * p.target_contrast, np.maximum(occupied, last[1]), tails, ends

    def distractor_beginning(self, occupied):
        window = self.p.window
        for _ in range(3):
            angle = math.radians(self.below(360) - 180)
            free = self.free_for_beginning(occupied, angle)
            for _ in range(int(0.05 * window * window)):
                tail = divmod(self.below(window * window), window)
                if free[tail]:
                    break
            else:
                if not free.any():
                    raise Stuck
                places = np.argwhere(free)
                tail = places[self.below(len(places))]
            head, pivot = self.begin(tail, angle)
            if self.inside(head, pivot):
                return tail, angle, pivot
        raise Stuck

    def distractor(self, image, occupied):
        p = self.p
        tail, angle, pivot = self.distractor_beginning(occupied)
        line, last = self.paddle(p.window, tail, angle)
        image = np.maximum(image, line * p.distractor_contrast)
        for _ in range(p.distractor_length - 1):
            pivot, angle, _, line, mask = self.extend(occupied, pivot, angle)
            image = np.maximum(image, line * p.distractor_contrast)
            occupied, last = np.maximum(occupied, last), mask
        return image, np.maximum(occupied, last)

    def disc(self, center):
        aa, side = self.p.antialias, self.p.window * self.p.antialias
        y, x = np.mgrid[:side, :side]
        inside = np.hypot(y - center[0] * aa, x - center[1] * aa) <= self.p.marker_radius * aa
        return np.array(Image.fromarray(inside.astype(np.float32)).resize((self.p.window,) * 2, Image.LANCZOS), float)

    def image(self):
        """The finished image, uint8."""
        while True:
            try:
                image, occupied, tails, ends = self.targets()
                break
            except Stuck:
                continue
        for _ in range(self.p.distractors):
            if np.mean(np.ceil(occupied - 0.3) <= 0) < 0.01:
                continue
            for _ in range(5):
                try:
                    image, occupied = self.distractor(image, occupied)
                    break
                except Stuck:
                    continue
        marked = self.below(2)
        terminal = ends[marked if self.label else 1 - marked]
        image = np.maximum(image, np.maximum(self.disc(tails[marked]), self.disc(terminal)))
        return (image / image.max() * 255).astype(np.uint8)
