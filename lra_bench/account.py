"""What a run has to show: kept in its checkpoints while it trains, delivered as its record when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lra_bench import WorkError
from lra_bench.results import Accuracies, CurvePoint, Record, Throughput, write_atomically, write_record
from lra_bench.run import Run
from lra_bench.spec import Frozen
from lra_bench.steps import PRECISIONS, Cost
from lra_bench.system import describe_provenance, describe_system

Score = tuple[float, float]
"""Mean loss and accuracy over a split."""


class Account(Frozen):
    """The story of a run so far, as JSON beside the state in each checkpoint."""

    curve: list[CurvePoint] = Field(default_factory=list)
    best_val: float | None = None
    best_epoch: float | None = None
    train_seconds: float = Field(default=0.0, description="in dispatches of training steps, all sessions")
    timed_steps: int = 0
    compile_seconds: float = 0.0

    def after_steps(self, steps: int, seconds: float) -> Account:
        update = {"train_seconds": self.train_seconds + seconds, "timed_steps": self.timed_steps + steps}
        return self.model_copy(update=update)

    def after_epoch(self, point: CurvePoint) -> Account:
        """With one more point on the curve; a tie keeps the earlier epoch as best."""
        update: dict[str, Any] = {"curve": [*self.curve, point]}
        if self.best_val is None or point.val_accuracy > self.best_val:
            update |= {"best_val": point.val_accuracy, "best_epoch": point.epoch}
        return self.model_copy(update=update)

    @property
    def last_is_best(self) -> bool:
        return self.best_epoch == self.curve[-1].epoch

    def describe_epoch(self) -> str:
        point = self.curve[-1]
        return (
            f"epoch {point.epoch:g}: train loss {point.train_loss:.4f}, accuracy {point.train_accuracy:.2%}; "
            f"validation loss {point.val_loss:.4f}, accuracy {point.val_accuracy:.2%} (best {self.best_val:.2%})"
        )

    def write_metrics(self, run: Run) -> None:
        """`metrics.jsonl`, a line per evaluation; whole, so it never tells of an epoch that a resumed run will
        repeat."""
        lines = [json.dumps(point.model_dump(mode="json")) + "\n" for point in self.curve]
        write_atomically(run.folder / "metrics.jsonl", "".join(lines))


def majority_share(labels: NDArray[np.int32]) -> float:
    _, counts = np.unique(labels, return_counts=True)
    return float(counts.max() / counts.sum())


def accuracies(run: Run, account: Account, majority: float, test: Score | None, last_test: Score | None) -> Accuracies:
    return Accuracies(
        selection="test" if run.data.validation_is_test else "val",
        best_val=account.best_val,
        best_epoch=account.best_epoch,
        test=test[1] if test else None,
        test_loss=test[0] if test else None,
        last_val=account.curve[-1].val_accuracy if account.curve else None,
        last_test=last_test[1] if last_test else None,
        majority=majority,
    )


def throughput(run: Run, account: Account, cost: Cost, tokens_per_example: int, remat: bool) -> Throughput:
    examples = account.timed_steps * run.recipe.batch_size
    rate = examples / account.train_seconds if account.train_seconds else 0.0
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    measured = [stats["peak_bytes_in_use"] for stats in statistics if "peak_bytes_in_use" in stats]
    return Throughput(
        steps=account.timed_steps,
        train_seconds=account.train_seconds,
        examples_per_second=rate,
        examples_per_second_per_device=rate / jax.device_count(),
        tokens_per_second=rate * tokens_per_example,
        compile_seconds=account.compile_seconds,
        peak_memory_bytes=max(measured) if measured else cost.peak_bytes,
        peak_memory_source="device" if measured else "compiler estimate",
        remat=remat,
    )


def make_record(
    run: Run,
    status: Literal["completed", "diverged"],
    parameters: int,
    account: Account,
    accuracy: Accuracies,
    speed: Throughput,
    note: str = "",
) -> Record:
    return Record(
        schema_version=1,
        kind="train",
        model=run.model,
        digest=run.digest,
        seed=run.seed,
        status=status,
        published_recipe=run.is_published_recipe,
        data=run.data,
        recipe=run.recipe,
        overrides=run.overrides,
        parameters=parameters,
        accuracy=accuracy,
        curve=account.curve,
        throughput=speed,
        system=describe_system(run.precision, PRECISIONS[run.precision]),
        provenance=describe_provenance(run.command),
        note=note,
    )


def deliver(record: Record, run: Run, results_dir: Path) -> Record:
    """Write the record to the run's folder and to `results_dir`. A diverged run ends in an error that says what is
    kept."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
    if not (run.folder / "result.json").exists():
        write_atomically(run.folder / "result.json", text)
    path = write_record(results_dir, record)
    if record.status == "diverged":
        raise WorkError(
            f"training diverged: {record.note}. The last good checkpoint is in {run.folder / 'checkpoints'}, "
            f"the record in {path}. Try a smaller learning rate, as in --set ssm_lr=0.0005."
        )
    return record
