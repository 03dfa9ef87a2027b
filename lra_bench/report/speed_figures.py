"""The pictures of speed: accuracy against throughput, and time and memory against length."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from lra_bench.records.schema import BenchRecord
from lra_bench.registry import model_title, task_title
from lra_bench.report.drawing import (
    COLUMN,
    HIDDEN,
    LIGHT,
    LINES,
    PAGE,
    Cells,
    Drawing,
    legend,
    length_axis,
    log_axis,
    panels,
    plain,
    styles,
)
from lra_bench.report.select import Entry, Loaded, labeled, precision_labels
from lra_bench.report.speed import is_published_network
from lra_bench.report.statistics import summarize
from lra_bench.spec import Precision

if TYPE_CHECKING:
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
    """One model on one task and one device kind.

    Accuracy: mean and sample standard deviation over seeds in %. Speed: median, least and largest in examples/s/device.
    """

    model: str
    accuracy: float
    deviation: float
    speed: float
    slowest: float
    fastest: float


def accuracy_speed_drawings(
    cells: Cells, tasks: Sequence[str], loaded: Sequence[Loaded], featured: Sequence[str]
) -> list[Drawing]:
    """Return one picture per device kind of test accuracy against training throughput, with a panel per task."""
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
            f"Test accuracy against training throughput on {plain(kind)}, a panel per task: mean ± standard deviation "
            "over seeds, where a failed seed counts as the majority class, and the range of speeds over runs. Speeds "
            "of different device kinds are never compared."
        )
        draw = partial(_draw_speed, points=points, featured=featured)
        found.append(Drawing(name, f"Accuracy against throughput, {plain(kind)}", caption, draw))
    return found


def _points(cells: Cells, task: str, kind: str, loaded: Sequence[Loaded]) -> list[Point]:
    """Return the points of one panel.

    Speeds are of `bench` where every model of the panel has a bench record, otherwise of the training runs.
    """
    there: list[tuple[str, list[Entry], list[Entry]]] = []
    for (model, place), runs in cells.items():
        same = [run for run in runs if run.record.system.device_kind == kind and run.record.throughput.steps > 0]
        if place == task and same:
            there.append((model, runs, same))
    lengths = {run.record.data.length for _, _, runs in there for run in runs}
    benched = _benched(loaded, task, kind, lengths)
    networks = [(same[0].record.model, same[0].record.system.precision) for _, _, same in there]
    all_benched = all(network in benched for network in networks)
    points = []
    for network, (model, runs, same) in zip(networks, there, strict=True):
        trained = [run.record.throughput.examples_per_second_per_device for run in same]
        speeds = [benched[network]] if all_benched else trained
        found = summarize([100 * run.counted for run in runs])
        points.append(Point(model, found.mean, found.std or 0.0, median(speeds), min(speeds), max(speeds)))
    return points


def _benched(loaded: Sequence[Loaded], task: str, kind: str, lengths: set[int]) -> dict[tuple[str, Precision], float]:
    """Return the speed of the training step of each model and precision at the task's own length, from `bench`.

    Of several, as of other batches, it is that of the newest record.
    """
    found = {}
    for item in sorted(loaded, key=lambda item: item.record.provenance.finished):
        record = item.record
        if not isinstance(record, BenchRecord) or not is_published_network(record):
            continue
        if (record.task, record.system.device_kind) == (task, kind):
            for measured in record.measurements:
                speed = measured.examples_per_second_per_device
                synthetic = measured.call == "train" and measured.input == "synthetic"
                if synthetic and speed is not None and record.length in lengths:
                    found[record.model, record.system.precision] = speed
    return found


def _draw_speed(points: dict[str, list[Point]], featured: Sequence[str]) -> Figure:
    """Draw a panel per task with a marker per model; featured models are drawn on top."""
    columns = min(3, len(points))
    rows = math.ceil(len(points) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.1 * rows + 0.5, rows, columns)
    for ax, (task, there) in zip(axes, points.items(), strict=False):
        look = styles([point.model for point in there], featured)
        for point in sorted(there, key=lambda point: (look[point.model].featured, point.model)):
            style = look[point.model]
            ax.errorbar(
                point.speed,
                point.accuracy,
                xerr=[[point.speed - point.slowest], [point.fastest - point.speed]],
                yerr=point.deviation,
                fmt=style.marker,
                color=style.color,
                markersize=5,
                elinewidth=0.8,
                zorder=2 + style.featured,
                label=point.model if style.featured else HIDDEN,
            )
        ax.set_xscale("log")
        log_axis(ax.xaxis)
        ax.margins(x=0.15, y=0.15)
        ax.set_ylim(top=min(ax.get_ylim()[1], 101.0))
        ax.set_title(task_title(task))
        ax.set_xlabel("examples/s/device")
    for ax in axes[len(points) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("test accuracy (%)")
    legend(made, axes)
    return made


def lines_of(loaded: Sequence[Loaded]) -> dict[str, list[BenchRecord]]:
    """Return the bench records of published networks by the name of their line.

    That is the model, with its precision where there are several, and the task whose recipe it is where there are
    several of those.
    """
    records = [item.record for item in loaded if isinstance(item.record, BenchRecord)]
    records = [record for record in records if is_published_network(record)]
    labels = precision_labels(record.system.precision for record in records)
    several = len({record.task for record in records}) > 1
    found: dict[str, list[BenchRecord]] = defaultdict(list)
    for record in records:
        name = labeled(model_title(record.model), labels[record.system.precision])
        found[plain(f"{name}, {task_title(record.task)}" if several else name)].append(record)
    return found


Series = dict[tuple[str, str], dict[int, tuple[float, float | None]]]
"""The milliseconds and the MiB per example at each length, by line and device kind."""


def scaling_drawings(loaded: Sequence[Loaded], featured: Sequence[str], fewest: int = FEWEST_LENGTHS) -> list[Drawing]:
    """Return one picture of time and memory against length, or none where no recipe was measured at so many lengths."""
    series = {line: points for line, points in _scaling(loaded).items() if len(points) >= fewest}
    if not series:
        return []
    draw = partial(_draw_scaling, series=series, featured=featured)
    return [Drawing("scaling", "Time and memory against length", SCALING, draw)]


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
