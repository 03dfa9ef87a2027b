"""Sending the points of a learning curve to experiment trackers while a run trains: TensorBoard, Weights & Biases.

They get what `metrics.jsonl` gets, and decide nothing: where one fails, the run goes on without it.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lra_bench.errors import UserError
from lra_bench.progress import warn
from lra_bench.records.schema import CurvePoint
from lra_bench.runs.run import Run

TrackerName = Literal["tensorboard", "wandb"]

PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""The package that writes for each tracker. The extra of the tracker's name installs it."""

FOLDER = "tensorboard"
"""The name of the folder of TensorBoard's files in the folder of a run."""


@dataclass
class Tracker:
    """An open log: how to write values at a step and to close it, and the last step that it has already."""

    write: Callable[[Mapping[str, float], int], None]
    close: Callable[[], None]
    logged: int

    def update(self, curve: Sequence[CurvePoint]) -> None:
        """Write the points that the log does not have yet."""
        for point in curve:
            if point.step > self.logged:
                self.write(values_of(point), point.step)
                self.logged = point.step


def refuse_if_missing(names: Sequence[TrackerName]) -> None:
    """Check, before work begins, that the trackers' packages are installed. Raises UserError where one is not."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(f"--{name} needs {PACKAGES[name]}. Type: pip install {PACKAGES[name]}.")


def values_of(point: CurvePoint) -> dict[str, float]:
    """The values of a point by their names in a tracker, as in `val/accuracy`."""
    values = point.model_dump(exclude={"step", "epoch"})
    return {"epoch": point.epoch, **{name.replace("_", "/", 1): value for name, value in values.items()}}


def open_tensorboard(run: Run) -> Tracker:
    """Open TensorBoard's log in the run's folder. It drops the points it has and gets the whole curve.

    So it misses none of a session without it, and keeps none that the run will repeat.
    """
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(run.folder / FOLDER), purge_step=1)

    def write(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return Tracker(write, writer.close, 0)


def open_wandb(run: Run) -> Tracker:
    """Open the log of the run at Weights & Biases, or go on with it. A step that it has already is not sent again.

    Its project is `lra-bench`, unless WANDB_PROJECT names another.
    """
    import wandb

    log: Any = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "lra-bench"),
        id=re.sub(r"[^A-Za-z0-9]+", "-", run.name),
        name=run.name,
        dir=str(run.folder),
        config=run.model_dump(mode="json"),
        resume="allow",
    )
    return Tracker(lambda values, step: log.log(dict(values), step=step), log.finish, log.step - 1)


OPEN: dict[str, Callable[[Run], Tracker]] = {
    "tensorboard": open_tensorboard,
    "wandb": open_wandb,
}


class Tracking:
    """A context in which a run tells its trackers of its learning curve. They are opened at the first `update`."""

    def __init__(self, run: Run, names: Sequence[TrackerName]):
        self._run, self._unopened = run, list(names)
        self._open: dict[str, Tracker] = {}

    def __enter__(self) -> Tracking:
        return self

    def update(self, curve: Sequence[CurvePoint]) -> None:
        """Send the points that are new. The first call, before the first step, has those of earlier sessions.

        Raises UserError where a tracker cannot be opened.
        """
        while self._unopened:
            name = self._unopened.pop()
            try:
                self._open[name] = OPEN[name](self._run)
            except Exception as error:  # whatever the package raises
                raise UserError(f"--{name} cannot write: {_in_words(error)}. Leave it out to train without.") from None
        self._each(lambda tracker: tracker.update(curve))

    def __exit__(self, *_: object) -> None:
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # a run of days does not end for its log
                warn(f"--{name} failed, and the run goes on without it: {_in_words(error)}.")
                del self._open[name]


def _in_words(error: Exception) -> str:
    """The first line of an error, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
