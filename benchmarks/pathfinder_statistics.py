"""Compare generated Pathfinder images with the known statistics of the released ones.

    python benchmarks/pathfinder_statistics.py                           # Path-X and 32 px, 2,000 images each
    python benchmarks/pathfinder_statistics.py --window 64 --images 500

The column "released" is from eight images of Path-X, the only ones at hand when its parameters were recovered; no
image of Pathfinder at 32 px was at hand. The script prints a Markdown table per window, with the time per image.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize, stats

from lra_bench.data.generators.snake_paddles import SnakeParameters, markers, paddles
from lra_bench.data.generators.snakes import PARAMETERS, Sketch, find_markers, render, sketches

Array = npt.NDArray[Any]

RELEASED = {
    "pixels ≥ 250 per image": "4",
    "paddle to marker contrast": "0.82 ± 0.003",
    "components, margin 2": "94.3 (95, 96, 92)",
    "components, margin 3": "83.6 (83, 92, 76, 88, 79)",
    "pixels of gray value 1 / 2 / 3 per image": "462 / 524 / 128",
    "non-zero pixels": "0.161",
    "mean / 255": "0.0370",
    "standard deviation / 255": "0.1417",
}
"""The statistics of eight released images of Path-X, with margins 2, 3, 3, 3, 2, 2, 3, 3."""

RELEASED_SHARE = {2: 3 / 8, 3: 5 / 8}
"""The share of each margin in the released sample. Averages are weighted by it where both margins occur."""

COMPONENT_LEVEL = 90
"""The gray value above which pixels form a connected component."""

HALF = 0.5
"""The part of a gray value that rounding down to a whole number removes on average."""

VISIBLE = 0.03
"""The brightness above which a paddle or a marker counts as being in a pixel."""


def contrasts(parameters: SnakeParameters, sketch: Sketch, image: Array) -> list[float]:
    """Return the brightness of each target paddle that nothing else touches, in units of the marker's brightness.

    It is fitted to the paddle's pixels by least squares.
    """
    line, discs = np.maximum(paddles(parameters, sketch.margin).line, 0), markers(parameters)
    radius, far = line.shape[1] // 2, len(discs) // 2
    border = max(radius, far)
    touching = np.zeros((parameters.window + 2 * border,) * 2, int)
    everything = np.concatenate([sketch.targets, sketch.distractors.reshape(-1, 3)])

    def patch(grid: Array, y: int, x: int, size: int) -> Array:
        return grid[y + border - size : y + border + size + 1, x + border - size : x + border + size + 1]

    for o, y, x in everything:
        patch(touching, y, x, radius)[line[o] > VISIBLE] += 1
    for y, x in (sketch.origin, sketch.terminal):
        patch(touching, y, x, far)[discs[far, far] > VISIBLE] += 1
    scale = discs[far, far, far, far] / (image[sketch.origin] + HALF)
    brightness = np.pad((image + HALF) * scale, border)
    gains = []
    for o, y, x in sketch.targets:
        seen = line[o] > VISIBLE
        if (patch(touching, y, x, radius)[seen] == 1).all():
            shown = patch(brightness, y, x, radius)[seen]
            gains.append(float(shown @ line[o][seen] / (line[o][seen] @ line[o][seen])))
    return gains


def logistic_accuracy(distances: Array, labels: Array) -> float:
    """Return the training accuracy of a logistic regression of the label on the distance.

    It shows how far the distance between the markers reveals the label.
    """
    features = np.stack([np.ones(len(labels)), stats.zscore(distances)], axis=1)
    sign = 2 * labels - 1
    fitted = optimize.minimize(lambda w: np.logaddexp(0, -sign * (features @ w)).mean(), np.zeros(2)).x
    return float(((features @ fitted > 0) == labels).mean())


class Sample(NamedTuple):
    """The sketches and images (n, window, window) uint8 of one set of parameters, and their CPU time in seconds."""

    parameters: SnakeParameters
    sketches: list[Sketch]
    images: Array
    seconds: float


def draw(parameters: SnakeParameters, seed: int, n: int) -> Sample:
    """Generate the first n images of a seed."""
    start = time.process_time()
    drawn = list(sketches(parameters, seed, 0, n))
    images = np.stack([render(parameters, sketch) for sketch in drawn])
    return Sample(parameters, drawn, images, time.process_time() - start)


def pictures(sample: Sample) -> dict[str, str]:
    """Return the statistics of the pixels, by name."""
    n, flat = len(sample.images), sample.images.reshape(len(sample.images), -1)
    margins = np.array([sketch.margin for sketch in sample.sketches])
    both = set(sample.parameters.margins) == set(RELEASED_SHARE)
    shares = RELEASED_SHARE if both else dict.fromkeys(sample.parameters.margins, 1.0)

    def average(values: Array) -> float:
        return float(sum(share * values[margins == margin].mean() for margin, share in shares.items()))

    drawn = list(zip(sample.sketches, sample.images, strict=True))
    gains = [gain for sketch, image in drawn for gain in contrasts(sample.parameters, sketch, image)]
    right = sum(
        sorted(find_markers(image, sample.parameters).tolist()) == sorted(map(list, (sketch.origin, sketch.terminal)))
        for sketch, image in drawn
    )
    parts = np.array([ndimage.label(image > COMPONENT_LEVEL, np.ones((3, 3)))[1] for image in sample.images])
    of_margin = {m: parts[margins == m] for m in sample.parameters.margins}
    return {
        "markers found where they are, and nowhere else": f"{right} of {n} images",
        "pixels ≥ 250 per image": f"{average((flat >= 250).sum(1)):.2f}",
        "paddle to marker contrast": f"{np.mean(gains):.3f} ± {np.std(gains):.3f} ({len(gains):,} lone paddles)",
        **{f"components, margin {m}": f"{found.mean():.1f} ± {found.std():.1f}" for m, found in of_margin.items()},
        "pixels of gray value 1 / 2 / 3 per image": " / ".join(f"{average((flat == v).sum(1)):.0f}" for v in (1, 2, 3)),
        "non-zero pixels": f"{average((flat > 0).mean(1)):.3f}",
        "mean / 255": f"{average(flat.mean(1)) / 255:.4f}",
        "standard deviation / 255": f"{average(flat.std(1)) / 255:.4f}",
    }


def labels(sample: Sample) -> dict[str, str]:
    """Return the statistics of the labels and marker distances, and the CPU time per image, by name."""
    n = len(sample.sketches)
    label = np.array([sketch.label for sketch in sample.sketches])
    apart = np.array([math.dist(sketch.origin, sketch.terminal) for sketch in sample.sketches])
    laid = np.mean([len(sketch.distractors) for sketch in sample.sketches])
    return {
        "distractors laid": f"{laid:.2f} of {sample.parameters.distractors}",
        "label 1": f"{label.mean():.3f} (binomial sd {0.5 / n**0.5:.3f})",
        "marker distance, label 1 / 0": f"{apart[label == 1].mean():.1f} / {apart[label == 0].mean():.1f} px",
        "accuracy of the distance alone": f"{logistic_accuracy(apart, label):.1%} (± {0.5 / n**0.5:.1%})",
        "CPU time per image": f"{sample.seconds / n * 1e3:.2f} ms",
    }


def main() -> None:
    """Print one table per window of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=int, nargs="+", default=[128, 32], choices=sorted(PARAMETERS))
    arguments = parser.parse_args()
    for window in arguments.window:
        list(sketches(PARAMETERS[window], 0, 0, 1))  # compiles the generator before the time is taken
        known = RELEASED if window == 128 else {}
        print(f"\n| {window} px, {arguments.images} images, seed {arguments.seed} | released | here |\n|---|---|---|")
        sample = draw(PARAMETERS[window], arguments.seed, arguments.images)
        for name, value in (pictures(sample) | labels(sample)).items():
            print(f"| {name} | {known.get(name, '–')} | {value} |")
    print(f"\nPeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
