"""One epoch of steps, of a run or of the self-pretraining before it: dispatched, timed, noted and saved."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Generic, NamedTuple

from jax import Array

from lra_bench.machine.processes import from_first, is_first
from lra_bench.progress import Progress
from lra_bench.runs.run import Run
from lra_bench.runs.standing import PositionWriter
from lra_bench.training.checkpoint import H
from lra_bench.training.input_pipeline import InputPipeline
from lra_bench.training.saving import Saver
from lra_bench.training.state import TrainState
from lra_bench.training.steps import TrainProgram
from lra_bench.training.stopping import StopRequest

DISPATCH_SECONDS = 2.0
"""How long the steps of one dispatch take about: so long do Ctrl-C and the progress bar wait."""


class DispatchSize:
    """How many steps to dispatch at once, from how long the last ones took."""

    def __init__(self) -> None:
        self.seconds_per_step: float | None = None

    def steps(self, left: int) -> int:
        """The steps of the next dispatch, of so many that are left."""
        if self.seconds_per_step is None:
            return 1
        return max(1, min(left, int(DISPATCH_SECONDS / self.seconds_per_step)))

    def took(self, seconds: float, steps: int) -> None:
        """Note how long a dispatch took."""
        self.seconds_per_step = max(seconds / steps, 1e-6)


class Trained(NamedTuple, Generic[H]):
    """What an epoch ends with: the step, the state and the history after it, and the epoch's means."""

    step: int
    state: TrainState
    history: H
    loss: float
    accuracy: float
    first_bad: int
    """The first step whose loss or gradient was not finite, with which the epoch ended; −1 where there is none."""


@dataclass(frozen=True)
class Epochs(Generic[H]):
    """The epochs of a stage of a run: its program and data, and what becomes of it between two dispatches."""

    run: Run
    program: TrainProgram
    data: InputPipeline
    key: Array
    """The key from which the program draws its random numbers."""
    total_steps: int
    steps_per_epoch: int
    saver: Saver[H]
    stop: StopRequest
    position: PositionWriter
    classifies: bool
    """Whether the stage counts correct answers."""
    dispatch: DispatchSize = field(default_factory=DispatchSize)

    def train(self, step: int, state: TrainState, history: H, progress: Progress) -> Trained[H]:
        """Train from `step` to the end of its epoch, as many steps at a time as take about two seconds.

        Raises Interrupted or OutOfTime after saving. Of several processes, the first decides what a clock decides.
        """
        epoch, past = divmod(step, self.steps_per_epoch)
        start, size = step - past, self.run.recipe.batch_size
        end = min(start + self.steps_per_epoch, self.total_steps)
        loss = accuracy = math.nan
        while step < end:
            started = time.perf_counter()
            wanted = from_first(self.dispatch.steps(end - step))
            batches, n = self.data.take(epoch, step - start, wanted)
            state = self.program(state, batches, self.key)
            first_bad = int(state.first_bad)  # waits for the device
            seconds = time.perf_counter() - started
            if first_bad >= 0:
                return Trained(step, state, history, loss, accuracy, first_bad)
            step += n
            self.dispatch.took(seconds, n)
            history = history.after_steps(n, seconds)
            seen = (step - start) * size
            loss, accuracy = float(state.totals.loss) / seen, int(state.totals.correct) / seen
            answers = f", accuracy {accuracy:.1%}" if self.classifies else ""
            progress.note = f"loss {loss:.3f}{answers}, {n * size / seconds:,.0f} examples/s"
            progress.advance(n)
            if is_first():
                self.position.at(step, seconds / n)
            if step < end and (self.stop.agree() or from_first(self.saver.due_in_epoch)):
                self.saver.save(step, state, history)
                self.stop.raise_if_wanted(self.run)
        return Trained(step, state, history, loss, accuracy, -1)

    def save_if_due(self, step: int, state: TrainState, history: H) -> None:
        """Save after an epoch where it is time, always after the last one. Raises as `train`."""
        if self.stop.agree() or from_first(self.saver.due_after_epoch) or step == self.total_steps:
            self.saver.save(step, state, history)
            self.stop.raise_if_wanted(self.run)
