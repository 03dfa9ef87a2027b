"""How far a run is and why it failed, in two files of its folder: written by training, read by who watches it.

Neither is part of the run. They are lost without harm, and a run that is begun again starts without a failure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from lra_bench.errors import Interrupted, OutOfTime, UserError
from lra_bench.json_files import read_json
from lra_bench.paths import write_atomically
from lra_bench.plain_text import one_line
from lra_bench.runs.checksums import SETTINGS
from lra_bench.runs.run import Run, write_settings
from lra_bench.spec import Amount, Count, Frozen

POSITION = "position.json"
"""The file of the step that a run has come to."""

FAILURE = "failure.txt"
"""The file of the reason why a run ended without a record."""

POSITION_SECONDS = 5.0
"""The least time between two writes of the position."""

LONGEST_FAILURE = 2_000
"""The most characters of a failure."""


class Position(Frozen):
    """The steps taken in a run or in its pretraining, and the seconds that one of the last ones took."""

    step: Count
    seconds_per_step: Amount
    stage: Literal["training", "pretraining"] = "training"


class PositionWriter:
    """It writes the position of a run that trains, at most every few seconds."""

    def __init__(self, folder: Path, stage: Literal["training", "pretraining"] = "training"):
        """Take the folder of the run. The first call of `at` writes."""
        self._path, self._stage = folder / POSITION, stage
        self._written = -POSITION_SECONDS

    def at(self, step: int, seconds_per_step: float) -> None:
        """Note that the run has come to `step`. A disk that refuses the file stops no training."""
        now = time.monotonic()
        if now - self._written >= POSITION_SECONDS:
            self._written = now
            with contextlib.suppress(OSError):
                position = Position(step=step, seconds_per_step=seconds_per_step, stage=self._stage)
                write_atomically(self._path, position.model_dump_json() + "\n")


def read_position(folder: Path) -> Position | None:
    """The position of the run in `folder`; None where there is none, or none that can be read."""
    try:
        return Position.model_validate(read_json(folder / POSITION))
    except (UserError, ValidationError):
        return None


@contextlib.contextmanager
def failure_noted(run: Run) -> Iterator[None]:
    """Write down what ends the context with an error, other than a signal or the end of the time.

    A run that was refused before it began has no folder, and gets none.
    """
    (run.folder / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except (Interrupted, OutOfTime):
        raise
    except Exception as error:
        if run.folder.is_dir() or not isinstance(error, UserError):
            note_failure(run, str(error) or type(error).__name__)
        raise


def note_failure(run: Run, why: str) -> None:
    """Write down why a run failed, beside its settings. A disk that refuses the file raises nothing."""
    folder = run.folder
    with contextlib.suppress(OSError):
        if not (folder / SETTINGS).exists():
            write_settings(run)
        write_atomically(folder / FAILURE, one_line(why)[:LONGEST_FAILURE] + "\n")


def failure_of(folder: Path) -> str | None:
    """Why the run in `folder` failed when it was last trained; None where it did not, or where nobody knows."""
    try:
        text = (folder / FAILURE).read_bytes()[: 4 * LONGEST_FAILURE].decode("utf-8", errors="replace")
    except OSError:
        return None
    return one_line(text).strip() or None
