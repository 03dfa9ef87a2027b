"""The picture of the window audit: accuracy against the number of steps that every layer is cut to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from lra_bench.records.schema import WindowRecord
from lra_bench.registry import task_title
from lra_bench.report.drawing import (
    COLUMN,
    HIDDEN,
    LIGHT,
    PAGE,
    Drawing,
    Style,
    legend,
    log_axis,
    panels,
    plain,
    styles,
)
from lra_bench.report.select import Loaded
from lra_bench.report.tested import tested_names, tested_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOWS = (
    "Test accuracy with every layer cut to w steps after training, against w; mean and range over seeds. Dotted: the "
    "whole model. Dashed gray: the majority class."
)

Audit = dict[str, dict[str, list[WindowRecord]]]
"""The window records of the runs that are tested alike, by task and name."""


def window_drawings(loaded: Sequence[Loaded], featured: Sequence[str]) -> list[Drawing]:
    """Return the picture of the window audit, before it is drawn; none where there are no records of it."""
    audit = audit_of(loaded)
    if not audit:
        return []
    return [Drawing("windows", "Accuracy within a window", WINDOWS, partial(_draw, audit=audit, featured=featured))]


def audit_of(loaded: Sequence[Loaded]) -> Audit:
    """Group the window records by task, and by the name of the runs that are tested alike."""
    records = [item.record for item in loaded if isinstance(item.record, WindowRecord)]
    names = tested_names(records)
    found: Audit = defaultdict(lambda: defaultdict(list))
    for record in records:
        found[record.data.task][names[tested_runs(record)]].append(record)
    return {task: dict(models) for task, models in sorted(found.items())}


def _draw(audit: Audit, featured: Sequence[str]) -> Figure:
    """Draw the test accuracy against the window, a panel per task."""
    columns = min(2, len(audit))
    rows = math.ceil(len(audit) / columns)
    made, axes = panels(PAGE if columns > 1 else COLUMN, 2.3 * rows + 0.4, rows, columns)
    look = styles(sorted({model for there in audit.values() for model in there}), featured)
    for ax, (task, there) in zip(axes, audit.items(), strict=False):
        for model, records in sorted(there.items()):
            _draw_model(ax, model, records, look[model])
        ax.axhline(100 * next(iter(there.values()))[0].majority, color=LIGHT.muted, linewidth=0.8, linestyle="--")
        ax.set_xscale("log")
        log_axis(ax.xaxis)
        ax.set_title(task_title(task))
        ax.set_xlabel("window w (steps)")
    for ax in axes[len(audit) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("test accuracy (%)")
    legend(made, axes, columns=4)
    return made


def _draw_model(ax: Axes, model: str, records: Sequence[WindowRecord], style: Style) -> None:
    """Draw one model's mean and range over seeds, and the accuracy of the whole as a dotted line."""
    by_window: dict[int, list[float]] = defaultdict(list)
    for record in records:
        by_window[record.window].append(100 * record.accuracy)
    windows = sorted(by_window)
    label = plain(model) if style.featured else HIDDEN
    ax.plot(windows, [fmean(by_window[w]) for w in windows], label=label, **style.points)
    low, high = [min(by_window[w]) for w in windows], [max(by_window[w]) for w in windows]
    ax.fill_between(windows, low, high, color=style.color, alpha=0.15, linewidth=0)
    whole = {record.seed: 100 * record.whole for record in records}
    ax.axhline(fmean(whole.values()), color=style.color, linewidth=0.7, linestyle=":")
