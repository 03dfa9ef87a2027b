"""The pictures of the report, made from the same cells and records as the tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from statistics import fmean, median
from typing import TYPE_CHECKING

from lra_bench.published_status import with_meaning
from lra_bench.records.schema import NoisePoint, RobustnessRecord
from lra_bench.registry import published_mark, task_title
from lra_bench.report.drawing import (
    COLUMN,
    FEATURED,
    HIDDEN,
    LIGHT,
    PAGE,
    Cells,
    Drawing,
    Picture,
    Style,
    legend,
    log_axis,
    panels,
    plain,
    render,
    styles,
    thinned,
)
from lra_bench.report.select import (
    Entry,
    Loaded,
    SelectedRecords,
    row_label,
)
from lra_bench.report.speed_figures import accuracy_speed_drawings, lines_of, scaling_drawings
from lra_bench.report.stamp import stamp_of
from lra_bench.report.statistics import mean_interval
from lra_bench.report.tested import noise_points, tested_names, tested_runs
from lra_bench.report.window_figures import audit_of, window_drawings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FARTHEST = -15.0
"""The left edge of differences to published numbers, in points. What failed is far beyond all others."""


def pictures(chosen: SelectedRecords, loaded: Sequence[Loaded]) -> list[Picture]:
    """Draw every picture that there are records for, with its stamp. Needs matplotlib."""
    stamp = stamp_of(chosen, loaded)
    return [render(drawing, stamp) for drawing in drawings(chosen, loaded)]


def drawings(chosen: SelectedRecords, loaded: Sequence[Loaded]) -> list[Drawing]:
    """Return every picture that there are records for, before it is drawn."""
    published = [(place, runs) for place, runs in chosen.cells.items() if place[0].section == "published"]
    cells: Cells = {(plain(row_label(key)), task): runs for (key, task), runs in published}
    tasks = [task for task in chosen.tasks(("published",)) if any(place == task for _, place in cells)]
    noise, audit = _noise(loaded), audit_of(loaded)
    tested = [model for models in noise.values() for model in models] + [
        model for models in audit.values() for model in models
    ]
    best = _featured(cells, [*lines_of(loaded), *tested])
    found = []
    if cells:
        found += accuracy_speed_drawings(cells, tasks, loaded, best)
        draw = partial(_draw_seeds, cells=cells, tasks=tasks, featured=best)
        found.append(Drawing("seeds", "Every seed", SEEDS + _marks_of(cells), draw))
        if any(runs[0].record.recipe.published is not None for runs in cells.values()):
            draw = partial(_draw_differences, cells=cells, tasks=tasks, featured=best)
            found.append(
                Drawing("published", "Difference to the published number", DIFFERENCES + _marks_of(cells), draw)
            )
        draw = partial(_draw_curves, cells=cells, tasks=tasks, featured=best)
        found.append(Drawing("curves", "Learning curves", CURVES + _marks_of(cells), draw))
    found += scaling_drawings(loaded, best)
    if noise:
        draw = partial(_draw_robustness, series=noise, featured=best)
        found.append(Drawing("robustness", "Robustness to noise", ROBUSTNESS, draw))
    return found + window_drawings(loaded, best)


SEEDS = (
    "Each dot is one seed's test accuracy, the bar the mean, in which a seed that failed counts as the majority class, "
    "the hollow diamond the published number of the recipe. Panels show the seeds that solved the task; × at the left "
    "edge: how many did not."
)
DIFFERENCES = (
    "Mean test accuracy minus the published number of the recipe, in points, with the 95 % interval of the mean over "
    "seeds and test examples, where no seed failed. A seed that failed counts as the majority class. × at the left "
    "edge: beyond it."
)
CURVES = (
    "Validation accuracy while training: median over seeds, and a band from the least to the largest. Dotted: the "
    "published test accuracy of the recipe."
)
ROBUSTNESS = (
    "Test accuracy with one Fourier mode added to every layer's input or to the pixels, against its frequency; mean "
    "and range over runs and seeds of the noise. Dotted: without noise. Dashed gray: the majority class."
)


def _featured(cells: Cells, others: Sequence[str]) -> list[str]:
    """Return the models that get a color: those with most cells, then with the highest mean accuracy, then `others`."""
    merit: dict[str, list[float]] = defaultdict(list)
    for (model, _), runs in cells.items():
        merit[model].append(fmean(run.counted for run in runs))
    ranked = sorted(merit, key=lambda model: (-len(merit[model]), -fmean(merit[model]), model))
    return list(dict.fromkeys([*ranked, *sorted(others)]))[:FEATURED]


# The marks of published numbers


def _mark_of(runs: Sequence[Entry]) -> str:
    """Return the footnote letter of the published number of a cell's recipe; "" where it was read in its source."""
    record = runs[0].record
    return "" if record.recipe.published is None else published_mark(record.model, record.data.task)


def _marks_of(cells: Cells) -> str:
    """Return the end of a caption that explains the footnote letters of the published numbers of these cells."""
    marks = sorted({_mark_of(runs) for runs in cells.values()} - {""})
    return f" Published numbers: {'; '.join(map(with_meaning, marks))}." if marks else ""


def _letter(ax: Axes, mark: str, x: float, y: float, color: str = LIGHT.ink) -> None:
    """Write the footnote letter of a published number, if it has one, to the upper right of a point."""
    if mark:
        offset = (2.5, 1.5)
        ax.annotate(mark, (x, y), offset, textcoords="offset points", fontsize=5.5, color=color, zorder=5)


# The picture "seeds"


def _draw_seeds(cells: Cells, tasks: Sequence[str], featured: Sequence[str]) -> Figure:
    """Draw a panel per task, a line per model, and a dot per seed."""
    models = sorted({model for model, _ in cells}, reverse=True)
    made, axes = panels(PAGE, 0.9 + 0.19 * len(models), 1, len(tasks), sharey=True)
    look = styles(models, featured)
    for ax, task in zip(axes, tasks, strict=True):
        there = {model: cells[model, task] for model in models if (model, task) in cells}
        solved = [100 * run.counted for runs in there.values() for run in runs if run.solved]
        shown = [*solved, *(runs[0].record.recipe.published for runs in there.values())]
        numbers = [value for value in shown if value is not None]
        edge = min(numbers) - 0.12 * (max(numbers) - min(numbers) + 1) if numbers else 0.0
        for y, model in enumerate(models):
            if model in there:
                _draw_cell(ax, y, there[model], look[model], edge)
        ax.set_title(task_title(task))
        ax.set_xlim(left=edge)
        ax.set_yticks(range(len(models)), models)
        ax.set_ylim(-0.7, len(models) - 0.3)
    made.supxlabel("test accuracy (%)", fontsize=7.5, color=LIGHT.ink)
    return made


def _draw_cell(ax: Axes, y: int, runs: Sequence[Entry], style: Style, edge: float) -> None:
    """Draw one cell at height `y`: dots on up to three levels so that fewer of them overlap, mean, published number.

    The number of failed seeds stands at the left edge.
    """
    values = [100 * run.counted for run in runs if run.solved]
    rows = min(3, len(values))
    spread = [y + 0.22 * (i % rows - (rows - 1) / 2) for i in range(len(values))]
    ax.scatter(values, spread, s=9, color=style.color, alpha=0.8, linewidth=0, zorder=3)
    mean, failed = 100 * fmean(run.counted for run in runs), len(runs) - len(values)
    if len(runs) > 1 and mean > edge:
        ax.vlines(mean, y - 0.4, y + 0.4, color=LIGHT.ink, linewidth=1.0, zorder=4)
    if failed:
        _note_at_left(ax, y, f"× {failed}" if failed > 1 else "×")
    published = runs[0].record.recipe.published
    if published is not None:
        ax.scatter(published, y, s=20, marker="D", facecolor="none", edgecolor=LIGHT.ink, linewidth=0.7, zorder=2)
        _letter(ax, _mark_of(runs), published, y)


def _note_at_left(ax: Axes, y: float, text: str) -> None:
    """Write a few letters at height `y`, inside the left edge of the panel."""
    ax.text(0.02, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=6, color=LIGHT.ink, zorder=4)


# The picture "published"


def _draw_differences(cells: Cells, tasks: Sequence[str], featured: Sequence[str]) -> Figure:
    """Draw a panel per task, a line per model, and the mean difference with its interval."""
    models = sorted({model for model, _ in cells}, reverse=True)
    made, axes = panels(PAGE, 0.9 + 0.19 * len(models), 1, len(tasks), sharey=True)
    look = styles(models, featured)
    for ax, task in zip(axes, tasks, strict=True):
        ax.axvline(0.0, color=LIGHT.muted, linewidth=0.8)
        for y, model in enumerate(models):
            runs = cells.get((model, task), [])
            published = runs[0].record.recipe.published if runs else None
            if published is None:
                continue
            counted = [run.counted for run in runs]
            middle = 100 * fmean(counted)
            if middle - published < FARTHEST:
                _note_at_left(ax, y, "×")
                continue
            error = None
            if all(run.solved for run in runs):
                bounds = mean_interval(counted, runs[0].record.data.counts["test"])
                error = [[middle - 100 * bounds.low], [100 * bounds.high - middle]]
            style = look[model]
            ax.errorbar(
                middle - published, y, xerr=error, fmt=style.marker, color=style.color, markersize=4, elinewidth=0.9
            )
            _letter(ax, _mark_of(runs), middle - published, y)
        low, high = ax.get_xlim()
        ax.set_xlim(max(low, FARTHEST), min(high, -FARTHEST))
        ax.set_title(task_title(task))
        ax.set_yticks(range(len(models)), models)
        ax.set_ylim(-0.7, len(models) - 0.3)
    made.supxlabel("points above the published number", fontsize=7.5, color=LIGHT.ink)
    return made


# The picture "curves"


def _draw_curves(cells: Cells, tasks: Sequence[str], featured: Sequence[str]) -> Figure:
    """Draw the validation accuracy against the epoch, a panel per task; featured models are drawn last, on top."""
    columns = min(3, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.0 * rows + 0.5, rows, columns)
    look = styles([model for model, _ in cells], featured)
    for ax, task in zip(axes, tasks, strict=False):
        there = [(model, runs) for (model, place), runs in cells.items() if place == task]
        for model, runs in sorted(there, key=lambda item: (look[item[0]].featured, item[0])):
            _draw_curve(ax, model, runs, look[model])
        ax.set_title(task_title(task))
        ax.set_xlabel("epoch")
    for ax in axes[len(tasks) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("validation accuracy (%)")
    legend(made, axes)
    return made


def _draw_curve(ax: Axes, model: str, runs: Sequence[Entry], style: Style) -> None:
    """Draw the median over seeds as a line, in gray for a model that is not featured, and their range as a band."""
    by_epoch: dict[float, list[float]] = defaultdict(list)
    for run in runs:
        for point in run.record.curve:
            by_epoch[point.epoch].append(100 * point.val_accuracy)
    if not by_epoch:
        return  # every run diverged before its first evaluation
    epochs = thinned(sorted(by_epoch))
    look = {"color": style.color, "linestyle": style.line, "zorder": 2 + style.featured}
    width, label = (1.0, model) if style.featured else (0.5, HIDDEN)
    ax.plot(epochs, [median(by_epoch[epoch]) for epoch in epochs], label=label, linewidth=width, **look)
    low, high = [min(by_epoch[epoch]) for epoch in epochs], [max(by_epoch[epoch]) for epoch in epochs]
    ax.fill_between(epochs, low, high, color=style.color, alpha=0.15, linewidth=0)
    published = runs[0].record.recipe.published
    if style.featured and published is not None:
        ax.axhline(published, color=style.color, linewidth=0.7, linestyle=":", zorder=1)
        _letter(ax, _mark_of(runs), max(epochs), published, style.color)


# The picture "robustness"

Noise = dict[tuple[str, str, float], dict[str, list[RobustnessRecord]]]
"""The records of the runs that are tested alike, by task, place of the noise (that on the pixels last) and amplitude,
and by name. Only modes count."""


def _noise(loaded: Sequence[Loaded]) -> Noise:
    """Group the robustness records by task, place, amplitude, and the name of the runs that are tested alike."""
    records = [item.record for item in loaded if isinstance(item.record, RobustnessRecord)]
    names = tested_names(records)
    found: Noise = defaultdict(lambda: defaultdict(list))
    for record in records:
        name = names[tested_runs(record)]
        for where, amplitude in sorted(
            {(_place(point), point.amplitude) for point in record.points if point.frequency}
        ):
            found[record.data.task, where, amplitude][name].append(record)
    return {place: dict(models) for place, models in sorted(found.items())}


def _place(point: NoisePoint) -> str:
    """Return where the noise of a point is, as the title of a panel says it."""
    return "on the pixels" if point.place == "input" else "on layers"


def _draw_robustness(series: Noise, featured: Sequence[str]) -> Figure:
    """Draw the test accuracy against the frequency, a panel per task, place and amplitude."""
    columns = min(2, len(series))
    rows = math.ceil(len(series) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.3 * rows + 0.4, rows, columns)
    models = sorted({model for there in series.values() for model in there})
    look = styles(models, featured)
    for ax, ((task, where, amplitude), there) in zip(axes, series.items(), strict=False):
        for model, records in sorted(there.items()):
            _draw_noise(ax, model, records, (where, amplitude), look[model])
        majority = next(iter(there.values()))[0].majority
        ax.axhline(100 * majority, color=LIGHT.muted, linewidth=0.8, linestyle="--")
        ax.set_xscale("log")
        log_axis(ax.xaxis)
        ax.set_title(f"{task_title(task)}, {where}, amplitude {amplitude:g}")
        ax.set_xlabel("frequency ω" + (" (radians per pixel)" if where == "on the pixels" else ""))
    for ax in axes[len(series) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("test accuracy (%)")
    legend(made, axes, columns=4)
    return made


def _draw_noise(
    ax: Axes, model: str, records: Sequence[RobustnessRecord], noise: tuple[str, float], style: Style
) -> None:
    """Draw one model's mean and range over runs and noise seeds, and its accuracy without noise as a dotted line."""
    by_frequency: dict[float, list[float]] = defaultdict(list)
    for point in noise_points(records):
        if point.frequency and (_place(point), point.amplitude) == noise:
            by_frequency[abs(point.frequency)].append(100 * point.accuracy)
    frequencies = sorted(by_frequency)
    label = plain(model) if style.featured else HIDDEN
    middle = [fmean(by_frequency[frequency]) for frequency in frequencies]
    ax.plot(frequencies, middle, label=label, **style.points)
    low, high = [min(by_frequency[f]) for f in frequencies], [max(by_frequency[f]) for f in frequencies]
    ax.fill_between(frequencies, low, high, color=style.color, alpha=0.15, linewidth=0)
    ax.vlines(frequencies, low, high, color=style.color, linewidth=0.8)
    clean = {record.seed: 100 * record.clean for record in records}
    ax.axhline(fmean(clean.values()), color=style.color, linewidth=0.7, linestyle=":")
