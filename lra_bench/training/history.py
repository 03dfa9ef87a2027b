"""The history of a run: its learning curve, its best epoch and its clocks, kept beside the state in each checkpoint."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import Field

from lra_bench.machine.processes import is_first
from lra_bench.paths import write_atomically
from lra_bench.records.curves import FILE, best_step
from lra_bench.records.schema import CurvePoint, Pretrained, PretrainingPoint
from lra_bench.runs.run import Run
from lra_bench.spec import Frozen, HealthMark

Own = TypeVar("Own", bound="Clocks")


class Clocks(Frozen):
    """What both stages of a run keep of themselves: the clocks of their training steps."""

    devices: str | None = Field(default=None, description="what the clocks below were measured on")
    train_seconds: float = Field(default=0.0, description="in dispatches of training steps, all sessions on `devices`")
    timed_steps: int = 0
    compile_seconds: float = 0.0

    @property
    @abstractmethod
    def best_step(self) -> int | None:
        """The step after which the best parameters were saved; None before the first evaluation."""

    def on(self: Own, devices: str, compile_seconds: float) -> Own:
        """The history as it goes on, on these devices. Clocks that ran on others start anew: their sum has no meaning.

        `compile_seconds` were spent for this session.
        """
        if self.devices == devices:
            return self
        clocks = {"devices": devices, "train_seconds": 0.0, "timed_steps": 0, "compile_seconds": compile_seconds}
        return self.model_copy(update=clocks)

    def after_steps(self: Own, steps: int, seconds: float) -> Own:
        """The history with so many more steps, which took so long."""
        update = {"train_seconds": self.train_seconds + seconds, "timed_steps": self.timed_steps + steps}
        return self.model_copy(update=update)


class PretrainingHistory(Clocks):
    """What happened in the self-pretraining of a run so far."""

    curve: list[PretrainingPoint] = Field(default_factory=list)

    @property
    def best(self) -> PretrainingPoint | None:
        """The point of least validation loss, the earliest of equal ones; None before the first evaluation."""
        return min(self.curve, key=lambda point: point.val_loss, default=None)

    @property
    def best_step(self) -> int | None:
        """The step after which the best parameters were saved; None before the first evaluation."""
        return None if self.best is None else self.best.step

    def after_epoch(self, point: PretrainingPoint) -> PretrainingHistory:
        """The history with one more point on the curve."""
        return self.model_copy(update={"curve": [*self.curve, point]})

    def describe_epoch(self) -> str:
        """The last point of the curve, as one line for people."""
        point, best = self.curve[-1], self.best
        assert best is not None
        return (
            f"epoch {point.epoch:g}: train loss {point.train_loss:.4f}; validation loss "
            f"{point.val_loss:.4f} (best {best.val_loss:.4f})"
        )


class History(Clocks):
    """What happened in a run so far."""

    curve: list[CurvePoint] = Field(default_factory=list)
    best_val: float | None = None
    best_epoch: float | None = None
    pretrained: Pretrained | None = Field(default=None, description="what came of a self-pretraining before the run")

    def after_epoch(self, point: CurvePoint) -> History:
        """The history with one more point on the curve. A tie keeps the earlier epoch as best."""
        update: dict[str, Any] = {"curve": [*self.curve, point]}
        if self.best_val is None or point.val_accuracy > self.best_val:
            update |= {"best_val": point.val_accuracy, "best_epoch": point.epoch}
        return self.model_copy(update=update)

    @property
    def best_step(self) -> int | None:
        """The step after which the best parameters were saved; None before the first evaluation."""
        return best_step(self.curve, self.best_epoch)

    @property
    def last_is_best(self) -> bool:
        """Whether the last epoch is the best one so far."""
        return self.best_epoch == self.curve[-1].epoch

    def below(self, marks: Sequence[HealthMark]) -> str:
        """Which of the marks that are due the best epoch so far does not reach, as a sentence; "" where it does all."""
        for mark in marks:
            if self.curve[-1].epoch >= mark.epoch and 100 * (self.best_val or 0.0) < mark.accuracy:
                return (
                    f"the best validation accuracy after epoch {self.curve[-1].epoch:g} is {self.best_val or 0.0:.2%}, "
                    f"below {mark.accuracy:g} % at epoch {mark.epoch:g}"
                )
        return ""

    def describe_epoch(self) -> str:
        """The last point of the curve, as one line for people."""
        point = self.curve[-1]
        return (
            f"epoch {point.epoch:g}: train loss {point.train_loss:.4f}, accuracy {point.train_accuracy:.2%}; "
            f"validation loss {point.val_loss:.4f}, accuracy {point.val_accuracy:.2%} (best {self.best_val:.2%})"
        )

    def write_metrics(self, run: Run) -> None:
        """Write `metrics.jsonl`, a line per evaluation. The file is written whole, so that it never tells of an epoch
        that a resumed run will repeat. Process 0 writes it."""
        lines = [json.dumps(point.model_dump(mode="json")) + "\n" for point in self.curve]
        if is_first():
            write_atomically(run.folder / FILE, "".join(lines))
