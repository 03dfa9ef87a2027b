"""Learning curves of single runs: as lines of text, as CSV, and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lra_bench.records.schema import CurvePoint
from lra_bench.report.drawing import COLORS, PAGE, Drawing, Picture, legend, panels, plain, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[CurvePoint]]
"""The points of each run by its name, at least one each."""

BARS = "▁▂▃▄▅▆▇█"
"""The marks of a curve in text, the lowest first."""

ASCII_BARS = "_.-~=+*#"
"""The marks where the output cannot have those."""

WIDTH = 40
"""The most marks of a curve in text."""

FIELDS = tuple(CurvePoint.model_fields)
"""The columns of the CSV after the run's name."""


def bars_for(encoding: str | None) -> str:
    """Return the marks that an output of this encoding can have."""
    try:
        BARS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII_BARS
    return BARS


def sparkline(values: Sequence[float], width: int = WIDTH, bars: str = BARS) -> str:
    """Return the values, at least one, as at most `width` marks between their least and their largest.

    Neighbors share a mark, which stands for their mean. A value that is not finite is drawn as ×, or x in ASCII.
    """
    groups = [values[len(values) * i // width : len(values) * (i + 1) // width] for i in range(width)]
    means = [math.fsum(group) / len(group) for group in groups if group]
    finite = [value for value in means if math.isfinite(value)]
    low, spread = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    top, broken = len(bars) - 1, "x" if bars.isascii() else "×"

    def mark(value: float) -> str:
        if not math.isfinite(value):
            return broken
        return bars[round(top * (value - low) / spread) if spread else 0]

    return "".join(map(mark, means))


def text_of(curves: Curves, bars: str = BARS) -> str:
    """Return a paragraph per run: its losses and accuracies as marks, with first and last values and the best epoch."""
    parts = []
    for name, points in curves.items():
        best = max(points, key=lambda point: point.val_accuracy)
        parts.append(
            f"{name}: {len(points)} evaluations, the last after step {points[-1].step:,}; best validation accuracy "
            f"{best.val_accuracy:.2%} after epoch {best.epoch:g}"
        )
        for title, field, form in (
            ("train loss", "train_loss", "{:.4f}"),
            ("validation loss", "val_loss", "{:.4f}"),
            ("train accuracy", "train_accuracy", "{:.2%}"),
            ("validation accuracy", "val_accuracy", "{:.2%}"),
        ):
            values = [getattr(point, field) for point in points]
            marks = sparkline(values, bars=bars)
            parts.append(f"  {title:<20}{form.format(values[0])} {marks} {form.format(values[-1])}")
    return "\n".join(parts)


def csv_of(curves: Curves) -> str:
    """Return a line per evaluation: the run's name and the fields of the point."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", *FIELDS])
    for name, points in curves.items():
        writer.writerows([name, *(getattr(point, field) for field in FIELDS)] for point in points)
    return out.getvalue()


def picture_of(curves: Curves) -> Picture:
    """Draw loss and accuracy against the epoch in a panel each: training dashed, validation solid, a color per run."""
    return render(Drawing("curves", "Learning curves", "", partial(_draw, curves)))


def _draw(curves: Curves) -> Figure:
    made, axes = panels(PAGE, 2.6 + 0.12 * len(curves), 1, 2)
    for i, (name, points) in enumerate(curves.items()):
        epochs, color = [point.epoch for point in points], COLORS[i % len(COLORS)]
        marker = "o" if len(points) == 1 else ""
        for ax, field, scale in ((axes[0], "loss", 1), (axes[1], "accuracy", 100)):
            for split, line in (("train", "--"), ("val", "-")):
                values = [scale * getattr(point, f"{split}_{field}") for point in points]
                label = plain(name) if split == "val" else None
                ax.plot(epochs, values, color=color, linestyle=line, linewidth=1, marker=marker, label=label)
    for ax, what in zip(axes, ("loss", "accuracy (%)"), strict=True):
        ax.set_xlabel("epoch")
        ax.set_ylabel(f"{what}: validation solid, training dashed")
    legend(made, axes, columns=2)
    return made
