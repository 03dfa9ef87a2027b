"""What a sweep looks like in the terminal: a row per run in full, or all cells in one view that is drawn again."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lra_bench.plain_text import one_line
from lra_bench.registry import cli_name
from lra_bench.report.select import settings_of
from lra_bench.runs.plan import PlannedRun
from lra_bench.sweeps.cells import STATES, Standing, standing_of

LISTED = 12
"""The most running and failed cells that the one view lists below its table."""

DRAW_SECONDS = 2.0
"""The seconds between two drawings of the one view."""

COLORS = {"done": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "missing": "dim"}


def rows_of(standings: Iterable[Standing]) -> list[dict[str, Any]]:
    """A row per cell: its run, what it is, its state, steps, time left, accuracy in % and why it failed."""
    return [
        {
            "run": each.cell.run.name,
            "task": each.cell.run.data.task,
            "model": cli_name(each.cell.run.model),
            "seed": each.cell.run.seed,
            "settings": _settings_of(each.cell),
            "state": each.state,
            "step": each.step,
            "steps": each.cell.steps,
            "left": None if each.seconds_left is None else clock(each.seconds_left),
            "accuracy": None if each.accuracy is None else round(100 * each.accuracy, 2),
            "why": each.why,
        }
        for each in standings
    ]


def clock(seconds: float) -> str:
    """The seconds as hours, minutes and seconds, such as 1:02:03."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def counts(standings: Sequence[Standing]) -> str:
    """How many cells are in each state, as in `2 of 6 done, 1 running, 3 missing`."""
    found = Counter(each.state for each in standings)
    others = [f"{found[state]} {state}" for state in STATES[1:] if found[state]]
    return ", ".join([f"{found['done']} of {len(standings)} done", *others])


def one_view(standings: Sequence[Standing]) -> RenderableType:
    """All cells in one view: a row per model and settings, a column per task, and in each cell its seeds.

    A seed is its test accuracy in % if it is done, the share of its steps while it runs, else the name of its state.
    What runs and what failed is listed below.
    """
    tasks = list(dict.fromkeys(each.cell.run.data.task for each in standings))
    table = Table("Model", "Settings", *tasks)
    rows: dict[tuple[str, str], dict[str, list[Text]]] = {}
    for each in standings:
        row = rows.setdefault(_row_of(each.cell), {task: [] for task in tasks})
        row[each.cell.run.data.task].append(Text(_short(each), style=COLORS[each.state]))
    for (model, settings), cells in rows.items():
        table.add_row(Text(model), Text(settings), *(Text(" ").join(cells[task]) for task in tasks))
    listed = [Text(_line(each), style=COLORS[each.state]) for each in standings if each.state in ("running", "failed")]
    more = [Text(f"… and {len(listed) - LISTED} more")] if len(listed) > LISTED else []
    return Group(table, *listed[:LISTED], *more, Text(counts(standings)))


def _row_of(cell: PlannedRun) -> tuple[str, str]:
    return cli_name(cell.run.model), _settings_of(cell)


def _settings_of(cell: PlannedRun) -> str:
    return settings_of(cell.run.overrides, cell.run.pretraining)


def _short(each: Standing) -> str:
    if each.state == "done":
        return f"{each.accuracy:.2%}".removesuffix("%")
    if each.state == "running":
        return f"{each.step / each.cell.steps:.0%}"
    return "–" if each.state == "missing" else each.state


def _line(each: Standing) -> str:
    run = each.cell.run
    name = f"{run.data.task} {cli_name(run.model)} seed {run.seed} {_settings_of(each.cell)}".strip()
    if each.state == "failed":
        return f"{name} failed: {one_line(each.why)}"
    left = "" if each.seconds_left is None else f", {clock(each.seconds_left)} left"
    best = "" if each.accuracy is None else f", best validation accuracy {each.accuracy:.2%}"
    return f"{name}: {each.why or f'step {each.step:,} of {each.cell.steps:,}'}{left}{best}"


class LiveView:
    """The one view of all cells, drawn anew every two seconds on a terminal, and not at all elsewhere.

    Used as a context manager around calls of `show`.
    """

    def __init__(self, cells: Sequence[PlannedRun], console: Console):
        """Take the cells of the sweep, and where the view is drawn."""
        self._cells, self._shown = cells, list[Standing]()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._drawn = -math.inf

    def __enter__(self) -> LiveView:
        """Begin to draw."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw how it ended, and leave it there."""
        if self._live:
            self._draw(self._live)
            self._live.stop()

    def show(self) -> None:
        """Draw the view where the last time is long enough ago."""
        if self._live and time.monotonic() - self._drawn >= DRAW_SECONDS:
            self._draw(self._live)

    @property
    def ended(self) -> bool:
        """Whether no cell was running, stopped or missing when the view was drawn last."""
        return bool(self._shown) and all(each.state in ("done", "failed") for each in self._shown)

    def _draw(self, live: Live) -> None:
        # What has ended is not read again.
        ended = {each.cell.run.name: each for each in self._shown if each.ended}
        self._shown = [ended.get(cell.run.name) or standing_of(cell) for cell in self._cells]
        live.update(one_view(self._shown), refresh=True)
        self._drawn = time.monotonic()
