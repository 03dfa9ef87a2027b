"""Messages and progress on stderr: a bar with rate and time left on a terminal, a plain line at intervals in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import cache
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from lra_bench.plain_text import plain

Unit = Literal["B", "examples", "images", "lines", "files", "steps", "measurements", "programs"]

LOG_SECONDS = 15.0
"""The seconds between two lines where stderr is not a terminal."""


def print_line(message: str) -> None:
    """Print one line to stderr, because stdout is reserved for a command's answer. It may quote a file."""
    with _output_may_be_gone():
        Console(stderr=True).print(plain(message), highlight=False, markup=False, emoji=False, soft_wrap=True)


def _output_may_be_gone() -> contextlib.AbstractContextManager[None]:
    """A context that ignores errors of the output, such as a closed terminal, for which no work may end."""
    return contextlib.suppress(OSError)


@cache
def warn(message: str) -> None:
    """Print a warning to stderr, the same one once in a process."""
    print_line(f"Warning: {message}")


class Progress:
    """Progress reports long work on stderr while it is used as a context manager.

    On a terminal it shows a bar. Elsewhere it prints one line every `LOG_SECONDS`, and none for work that ends sooner;
    with `first_line`, the first line comes after so many seconds.
    Usage: `with Progress("IMDB", total=50_000, unit="examples") as progress: progress.advance(1)`.
    """

    def __init__(self, title: str, *, total: int | None, unit: Unit, first_line: float = LOG_SECONDS) -> None:
        """Prepare the report of `total` units of work; None if their number is not known."""
        self.title, self.total, self.unit, self.done = title, total, unit, 0
        self.note = ""
        """A text shown behind the figures, such as the latest result of the work."""
        self._started = self._logged = time.monotonic()
        self._pause = first_line
        self._first = 0  # the amount that was already done when the rate began to be measured
        self._bar: Bar | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            figures = TextColumn("{task.fields[figures]}")
            name = TextColumn("{task.description}")
            self._bar = Bar(name, BarColumn(), figures, TimeRemainingColumn(), console=console, transient=True)
            self._task = self._bar.add_task(title, total=total, figures="")

    def __enter__(self) -> Progress:
        """Show the bar where there is one."""
        if self._bar:
            with _output_may_be_gone():
                self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove the bar where there is one."""
        if self._bar:
            with _output_may_be_gone():
                self._bar.stop()

    def advance(self, amount: int) -> None:
        """Record that `amount` more is done, and show it if enough time has passed since the last update."""
        self.done += amount
        with _output_may_be_gone():
            self._show(time.monotonic())

    def _show(self, now: float) -> None:
        # Ten updates a second are enough for the eye; more would slow down work that advances in small amounts.
        if self._bar and (now - self._logged > 0.1 or self.done == self.total):
            self._logged = now
            self._bar.update(self._task, completed=self.done, total=self.total, figures=self._figures(now))
        elif not self._bar and now - self._logged > self._pause:
            self._logged, self._pause = now, LOG_SECONDS
            self.log(self._figures(now) + self._left(now))

    def at(self, done: int, total: int | None) -> None:
        """Set the progress to `done` of `total` without counting it in the rate.

        Use it for work that was done by an earlier call, or for work that starts again.
        """
        self.done, self._first, self.total = done, done, total
        self._started = time.monotonic()

    def log(self, message: str) -> None:
        """Print one line, above the bar where there is one."""
        message = plain(message)
        with _output_may_be_gone():
            if self._bar:
                self._bar.console.print(f"{self.title}: {message}", highlight=False, markup=False, emoji=False)
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


def bytes_in_words(number: float) -> str:
    """Return a number of bytes as text, in KiB, MiB or GiB, as in `12 MiB` and `1.5 GiB`."""
    mebibytes = number / 2**20
    if mebibytes < 1:
        return f"{number / 2**10:,.0f} KiB"
    return f"{mebibytes:,.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"
