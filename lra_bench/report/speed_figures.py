"""The pictures of speed: accuracy against throughput, and time and memory against length."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from lra_bench.records.schema import BenchRecord
from lra_bench.registry import cli_name, task_title
from lra_bench.report.drawing import (
    COLUMN,
    HIDDEN,
    LIGHT,
    LINES,
    PAGE,
    Cells,
    Picture,
    legend,
    length_axis,
    log_axis,
    panels,
    plain,
    render,
    styles,
)
from lra_bench.report.select import Entry, Loaded, labeled, precision_labels
from lra_bench.report.speed import GIB, is_published_network
from lra_bench.spec import Precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCALING = (
    "Training step of one recipe on one device kind: time and peak memory per example against the length, both axes "
    "logarithmic."
)

FEWEST_LENGTHS = 3
"""The fewest lengths of a line in the picture of scaling. Two points lie on a line whatever the truth."""


MIB = 2**20
"""The bytes of one MiB."""


@dataclass(frozen=True)
class Point:
    """One model on one task and one device kind: accuracy in %, speed in examples/s/device, peak memory in bytes."""

    model: str
    accuracy: float
    speed: float
    memory: int | None


def accuracy_speed_pictures(
    cells: Cells, tasks: Sequence[str], loaded: Sequence[Loaded], featured: Sequence[str]
) -> list[Picture]:
    """Draw one picture per device kind of test accuracy against training throughput, with a panel per task."""
    kinds = sorted({run.record.system.device_kind for runs in cells.values() for run in runs})
    found = []
    for i, kind in enumerate(kinds):
        points = {task: _points(cells, task, kind, loaded) for task in tasks}
        points = {task: there for task, there in points.items() if there}
        if not points:
            continue
        slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-") or f"device-{i}"
        name = f"accuracy-throughput-{slug}"
        caption = (
            f"Mean test accuracy against training throughput on {plain(kind)}, a panel per task. Circle: peak memory. "
            "The line joins the models that none beats in both. Speeds of different device kinds are never compared."
        )
        draw = partial(_draw_speed, points=points, featured=featured)
        found.append(render(name, f"Accuracy against throughput, {plain(kind)}", caption, draw))
    return found


def _points(cells: Cells, task: str, kind: str, loaded: Sequence[Loaded]) -> list[Point]:
    """Return the points of one panel.

    Speeds are of `bench` where every model of the panel has a bench record, otherwise of the training runs.
    """
    there: list[tuple[str, float, list[Entry]]] = []
    for (model, place), runs in cells.items():
        same = [run for run in runs if run.record.system.device_kind == kind and run.record.throughput.steps > 0]
        if place == task and same:
            there.append((model, 100 * fmean(run.counted for run in runs), same))
    lengths = {run.record.data.length for _, _, runs in there for run in runs}
    benched = _benched(loaded, task, kind, lengths)
    same_network = [(runs[0].record.model, runs[0].record.system.precision) for _, _, runs in there]
    if all(network in benched for network in same_network):
        speeds = [benched[network] for network in same_network]
        return [Point(model, accuracy, *speed) for (model, accuracy, _), speed in zip(there, speeds, strict=True)]
    return [Point(model, accuracy, *_trained_speed(runs)) for model, accuracy, runs in there]


def _benched(
    loaded: Sequence[Loaded], task: str, kind: str, lengths: set[int]
) -> dict[tuple[str, Precision], tuple[float, int | None]]:
    """Return speed and memory of the training step of each model and precision at the task's own length.

    They are those that `bench` measured.
    """
    found = {}
    for item in loaded:
        record = item.record
        if not isinstance(record, BenchRecord) or not is_published_network(record):
            continue
        if (record.task, record.system.device_kind) == (task, kind):
            for measured in record.measurements:
                speed = measured.examples_per_second_per_device
                if measured.call == "train" and speed is not None and record.length in lengths:
                    found[record.model, record.system.precision] = (speed, measured.peak_memory_bytes)
    return found


def _trained_speed(runs: Sequence[Entry]) -> tuple[float, int | None]:
    """Return the median speed and peak memory that the runs measured while training."""
    speeds = [run.record.throughput for run in runs]
    peaks = [speed.peak_memory_bytes for speed in speeds if speed.peak_memory_bytes is not None]
    return median(speed.examples_per_second_per_device for speed in speeds), round(median(peaks)) if peaks else None


def pareto(points: Iterable[Point]) -> list[Point]:
    """Return the points that no other beats in both accuracy and speed, from the fastest to the most accurate."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.speed, -point.accuracy, point.model)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def _draw_speed(points: dict[str, list[Point]], featured: Sequence[str]) -> Figure:
    """Draw a panel per task with a circle per model; featured models, then smaller circles, are drawn on top."""
    columns = min(3, len(points))
    rows = math.ceil(len(points) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.3 * rows + 0.3, rows, columns)
    largest = max((point.memory or 0 for there in points.values() for point in there), default=0)
    for ax, (task, there) in zip(axes, points.items(), strict=False):
        look = styles([point.model for point in there], featured)
        front = pareto(there)
        ax.plot(
            [p.speed for p in front],
            [p.accuracy for p in front],
            color=LIGHT.ink,
            linewidth=0.7,
            linestyle="--",
            zorder=1,
        )
        for point in sorted(there, key=lambda point: (look[point.model].featured, -(point.memory or 0), point.model)):
            style = look[point.model]
            face = style.color if point.memory is not None else "none"
            size = _area(point, largest)
            ax.scatter(point.speed, point.accuracy, s=size, facecolor=face, edgecolor=style.color, alpha=0.7, zorder=2)
        ax.set_xscale("log")
        log_axis(ax.xaxis)
        ax.margins(x=0.2, y=0.15)
        ax.set_title(task_title(task))
        ax.set_xlabel("examples/s/device")
        _name_points(ax, there, {point.model for point in there if look[point.model].featured}, largest)
    for ax in axes[len(points) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("test accuracy (%)")
    note = f"circle area: peak memory, the largest {largest / GIB:.1f} GiB" if largest else "memory not measured"
    made.supxlabel(note, fontsize=7, color=LIGHT.ink)
    return made


def _area(point: Point, largest: int) -> float:
    """Return the area of a circle in square points: 12, and a part in proportion to the memory where it is known."""
    return 12 + 240 * (point.memory or 0) / largest if largest else 12


Box = tuple[float, float, float, float]
"""The left, bottom, right and top edge of a rectangle, as shares of the axes' width and height."""

PANEL_POINTS = (140, 120)
"""The approximate width and height of a panel in points, by which a circle's radius becomes a share of the axes."""

NAME_PLACES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""The places of a name beside its circle, as steps to the right and up; the best place first."""


def _name_points(ax: Axes, points: Sequence[Point], named: set[str], largest: int) -> None:
    """Write each name at the first place where it is inside and covers no other name or circle, else at the first."""
    ax.autoscale_view()
    to_axes = ax.transData + ax.transAxes.inverted()
    circles: dict[str, Box] = {}
    for point in points:
        x, y = to_axes.transform((point.speed, point.accuracy))
        radius = math.sqrt(_area(point, largest)) / 2
        across, up = (radius / points for points in PANEL_POINTS)
        circles[point.model] = (x - across, y - up, x + across, y + up)
    names: list[Box] = []
    for name in sorted(named, key=lambda name: (-circles[name][1], name)):
        others = [*names, *(circle for other, circle in circles.items() if other != name)]
        boxes = [_name_box(circles[name], len(name), *place) for place in NAME_PLACES]
        free = [box for box in boxes if _inside(box) and not any(_overlap(box, other) for other in others)]
        box = (free or boxes)[0]
        names.append(box)
        middle = (box[1] + box[3]) / 2
        behind = {"facecolor": LIGHT.paper, "edgecolor": "none", "alpha": 0.6, "pad": 0.5}
        look: dict[str, Any] = {"fontsize": 6, "color": LIGHT.ink, "va": "center", "bbox": behind, "zorder": 3}
        ax.text(box[0], middle, name, transform=ax.transAxes, **look)


def _name_box(circle: Box, letters: int, right: int, up: int) -> Box:
    """Return the approximate box of a name of 6-point letters beside its circle, in a panel a third of a page wide."""
    width, height, gap = 0.026 * letters, 0.055, 0.008
    x, y = (circle[0] + circle[2]) / 2, (circle[1] + circle[3]) / 2
    left = {1: circle[2] + gap, -1: circle[0] - gap - width, 0: x - width / 2}[right]
    bottom = {1: circle[3] + gap, -1: circle[1] - gap - height, 0: y - height / 2}[up]
    if right and up:  # a corner of a circle's box is empty, so the name moves toward the circle
        left -= right * (circle[2] - circle[0]) / 4
        bottom -= up * (circle[3] - circle[1]) / 4
    return left, bottom, left + width, bottom + height


def _inside(box: Box) -> bool:
    """Whether the box is inside the axes, with a little room to the right of them."""
    return box[0] >= 0 and box[1] >= 0 and box[2] <= 1.02 and box[3] <= 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def lines_of(loaded: Sequence[Loaded]) -> dict[str, list[BenchRecord]]:
    """Return the bench records of published networks by the name of their line.

    That is the model, with its precision where there are several, and the task whose recipe it is where there are
    several of those.
    """
    records = [item.record for item in loaded if isinstance(item.record, BenchRecord)]
    records = [record for record in records if is_published_network(record)]
    labels = precision_labels((record.model, record.system.precision) for record in records)
    several = len({record.task for record in records}) > 1
    found: dict[str, list[BenchRecord]] = defaultdict(list)
    for record in records:
        name = labeled(cli_name(record.model), labels[record.model, record.system.precision])
        found[plain(f"{name}, {task_title(record.task)}" if several else name)].append(record)
    return found


Series = dict[tuple[str, str], dict[int, tuple[float, float | None]]]
"""The milliseconds and the MiB per example at each length, by line and device kind."""


def scaling_pictures(loaded: Sequence[Loaded], featured: Sequence[str], fewest: int = FEWEST_LENGTHS) -> list[Picture]:
    """Draw one picture of time and memory against length, or none where no recipe was measured at so many lengths."""
    series = {line: points for line, points in _scaling(loaded).items() if len(points) >= fewest}
    if not series:
        return []
    draw = partial(_draw_scaling, series=series, featured=featured)
    return [render("scaling", "Time and memory against length", SCALING, draw)]


def _scaling(loaded: Sequence[Loaded]) -> Series:
    """Return the training steps on synthetic data of each recipe and its devices."""
    found: Series = defaultdict(dict)
    for name, records in lines_of(loaded).items():
        for record in records:
            here = record.batch_size / record.system.devices
            for measured in record.measurements:
                rate, peak = measured.examples_per_second_per_device, measured.peak_memory_bytes
                if measured.call == "train" and measured.input == "synthetic" and rate:
                    memory = None if peak is None else peak / MIB / here
                    found[name, devices_of(record)][record.length] = (1000 / rate, memory)
    return dict(sorted(found.items()))


def devices_of(record: BenchRecord) -> str:
    """Return the name of the record's devices, with their number where there are several."""
    count = record.system.devices
    return record.system.device_kind if count == 1 else f"{count} × {record.system.device_kind}"


def _draw_scaling(series: Series, featured: Sequence[str]) -> Figure:
    """Draw time and memory in a panel each; colors tell models apart, and line styles device kinds."""
    made, axes = panels(PAGE, 2.9, 1, 2)
    look = styles([model for model, _ in series], featured)
    kinds = sorted({kind for _, kind in series})
    for (model, kind), points in series.items():
        name = model if len(kinds) == 1 else f"{model}, {plain(kind)}"
        label = name if look[model].featured else HIDDEN
        style = {**look[model].points, "linestyle": LINES[kinds.index(kind) % len(LINES)]}
        axes[0].plot(sorted(points), [points[length][0] for length in sorted(points)], label=label, **style)
        memory = [(length, mib) for length, (_, mib) in sorted(points.items()) if mib is not None]
        axes[1].plot([length for length, _ in memory], [mib for _, mib in memory], label=label, **style)
    for ax, what in zip(axes, ("ms per example and device", "peak memory per example (MiB)"), strict=True):
        ax.set_xscale("log", base=2)
        length_axis(ax.xaxis)
        ax.set_yscale("log")
        log_axis(ax.yaxis)
        ax.set_xlabel("length L")
        ax.set_ylabel(what)
    if len(kinds) == 1:
        made.suptitle(f"training step, {plain(kinds[0])}", fontsize=8, color=LIGHT.ink)
    legend(made, axes, columns=3 if len(kinds) > 1 else 6)
    return made
