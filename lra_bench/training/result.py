"""The result record of a run that has ended, made and written to its folder and to the results folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from lra_bench.errors import WorkError
from lra_bench.machine.memory import peak_memory
from lra_bench.machine.processes import on_first
from lra_bench.machine.system import describe_provenance, describe_system
from lra_bench.machine.xla import Cost
from lra_bench.records.files import path_of, write_record
from lra_bench.records.finished import is_finished, write_finished
from lra_bench.records.schema import Accuracies, Record, Status, Throughput
from lra_bench.runs.run import Run
from lra_bench.runs.saved_steps import PRETRAINING, saved_steps
from lra_bench.training.history import History


class Score(NamedTuple):
    """Mean loss and accuracy over a split, and which of its examples, in their order, are classified correctly."""

    loss: float
    accuracy: float
    correct: NDArray[np.bool_]


def accuracies(run: Run, history: History, majority: float, test: Score | None, last_test: Score | None) -> Accuracies:
    """The accuracies of a record. `test` is the best checkpoint's score, `last_test` that of the last step."""
    return Accuracies(
        selection="test" if run.data.validation_is_test else "val",
        best_val=history.best_val,
        best_epoch=history.best_epoch,
        test=test.accuracy if test else None,
        test_loss=test.loss if test and math.isfinite(test.loss) else None,
        last_val=history.curve[-1].val_accuracy if history.curve else None,
        last_test=last_test.accuracy if last_test else None,
        majority=majority,
    )


def devices_of(run: Run, remat: bool, microbatch: int | None) -> str:
    """What the clocks of this session measure: the kind and the number of devices, and how memory is saved."""
    system = describe_system(run.precision)
    parts = "" if microbatch is None else f", microbatch {microbatch}"
    processes = "" if system.processes == 1 else f" in {system.processes} processes"
    return f"{system.devices} x {system.device_kind}{processes}{', remat' if remat else ''}{parts}"


def throughput(
    run: Run, history: History, cost: Cost, tokens_per_example: int, remat: bool, microbatch: int | None
) -> Throughput:
    """The speed and memory of a record, from the run's own clocks."""
    examples = history.timed_steps * run.recipe.batch_size
    rate = examples / history.train_seconds if history.train_seconds else 0.0
    measured = peak_memory()
    return Throughput(
        steps=history.timed_steps,
        train_seconds=history.train_seconds,
        examples_per_second=rate,
        examples_per_second_per_device=rate / jax.device_count(),
        tokens_per_second=rate * tokens_per_example,
        compile_seconds=history.compile_seconds,
        peak_memory_bytes=cost.peak_bytes if measured is None else measured,
        peak_memory_source="compiler estimate" if measured is None else "device",
        remat=remat,
        microbatch=microbatch,
    )


def make_record(
    run: Run,
    status: Status,
    parameters: int,
    history: History,
    accuracy: Accuracies,
    speed: Throughput,
    note: str = "",
) -> Record:
    """The record of a run that has ended, with the machine, the software and the commit it was made by."""
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
        curve=history.curve,
        throughput=speed,
        system=describe_system(run.precision),
        provenance=describe_provenance(run.command),
        note=note,
        code=run.code,
        pretraining=run.pretraining,
        pretrained=history.pretrained,
    )


def write_result(record: Record, run: Run, results_dir: Path, correct: NDArray[np.bool_] | None = None) -> Record:
    """Write the record to the run's folder and to `results_dir`.

    correct: which test examples were classified correctly, (test examples,), kept in the run's folder.

    Raises WorkError for a run that diverged or was stopped, saying what is kept.
    """

    def write() -> None:
        if not is_finished(run.folder):
            write_finished(run.folder, record, correct)
        write_record(results_dir, record)

    on_first(write)
    path = path_of(results_dir, record)
    if record.status != "completed":
        checkpoints = run.folder / "checkpoints"
        saved = any(saved_steps(checkpoints / kind) for kind in ("last", "best", f"{PRETRAINING}/last"))
        kept = f"The last good checkpoint is in {checkpoints}." if saved else "No checkpoint had been saved."
        rate = "pretrain_lr" if record.pretraining is not None and record.pretrained is None else "ssm_lr"
        advice = {
            "diverged": f"Try a smaller learning rate, as in --set {rate}=0.0005.",
            "stopped": f"It counts as failed. To train it anyway: lra-bench rm {run.name}, then without the mark.",
        }[record.status]
        how = "training diverged" if record.status == "diverged" else "training was stopped"
        raise WorkError(f"{how}: {record.note}. {kept} The record is in {path}. {advice}")
    return record
