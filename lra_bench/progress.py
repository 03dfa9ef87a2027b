"""One way to show long work: a bar with rate and time left on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

Unit = Literal["B", "examples", "images", "lines", "files", "steps", "measurements"]

LOG_SECONDS = 15.0
"""Between two lines where stderr is not a terminal."""


class Progress:
    """`with Progress("IMDB", total=50_000, unit="examples") as progress: progress.advance(1)`.

    A bar appears on a terminal. Elsewhere one line is printed every `LOG_SECONDS`, none for work that ends before.
    """

    def __init__(self, title: str, *, total: int | None, unit: Unit) -> None:
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        self.note = ""
        """Shown behind the figures: what the work has come to so far."""
        self._started = self._logged = time.monotonic()
        self._first = 0
        self._bar: Bar | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            figures = TextColumn("{task.fields[figures]}")
            name = TextColumn("{task.description}")
            self._bar = Bar(name, BarColumn(), figures, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(title, total=total, figures="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """`amount` more is done."""
        self.done += amount
        now = time.monotonic()
        if self._bar and (now - self._logged > 0.1 or self.done == self.total):
            self._logged = now
            self._bar.update(self._task, completed=self.done, total=self.total, figures=self._figures(now))
        elif not self._bar and now - self._logged > LOG_SECONDS:
            self._logged = now
            self.say(self._figures(now) + self._left(now))

    def at(self, done: int, total: int | None) -> None:
        """Work stands at `done` of `total` without having been done now: it was there before, or starts again."""
        self.done, self._first, self.total = done, done, total
        self._started = time.monotonic()

    def say(self, message: str) -> None:
        """One line, above the bar where there is one."""
        if self._bar:
            self._bar.console.print(f"{self.title}: {message}", highlight=False, markup=False)
        else:
            print(f"{self.title}: {message}", file=sys.stderr, flush=True)

    def _rate(self, now: float) -> float:
        return (self.done - self._first) / max(now - self._started, 1e-9)

    def _amount(self, amount: float) -> str:
        return decimal(int(amount)) if self.unit == "B" else f"{amount:,.0f}"

    def _figures(self, now: float) -> str:
        of = "" if self.total is None else f" of {self._amount(self.total)}"
        unit = "" if self.unit == "B" else f" {self.unit}"
        note = f", {self.note}" if self.note else ""
        return f"{self._amount(self.done)}{of}{unit}, {self._amount(self._rate(now))}/s{note}"

    def _left(self, now: float) -> str:
        rate = self._rate(now)
        if self.total is None or rate <= 0:
            return ""
        seconds = int((self.total - self.done) / rate)
        return f", {seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d} left"
