"""Scoring the best checkpoint of a run again, from disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lra_bench.data.manifest import prepared_sets
from lra_bench.data.packed import majority_share
from lra_bench.errors import UserError
from lra_bench.machine.system import describe_provenance, describe_system
from lra_bench.records.schema import Record, WindowRecord
from lra_bench.runs.run import Run
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.history import History
from lra_bench.training.result import Score
from lra_bench.training.setup import EvaluationSetup, set_up_evaluation
from lra_bench.training.stopping import out_of_memory_in_words


def score_best(run: Run, folder: Path, record: Record | None) -> tuple[Score, Score, History]:
    """The scores of the best checkpoint on validation and on test, and the history that names it.

    `record` is that of the run if it has ended. Raises UserError where there is no checkpoint, or where the run's data
    is not prepared here, and WorkError where the best checkpoint cannot be read.
    """
    with out_of_memory_in_words(run):
        setup, params, stats, history = _restored(run, folder, record)
        return setup.evaluate(params, stats, "val"), setup.evaluate(params, stats, "test"), history


def score_windows(run: Run, folder: Path, record: Record | None, windows: Sequence[int]) -> Iterator[WindowRecord]:
    """Score the best checkpoint on test with every layer cut to each of the windows in turn, and yield the records.

    Raises UserError where a layer of the model cannot be cut to a window, and as `score_best`.
    """
    with out_of_memory_in_words(run):
        setup, params, stats, _ = _restored(run, folder, record)
        cut = {window: setup.within(params, stats, window) for window in windows}
        whole = setup.evaluate(params, stats, "test")
        for window, narrow in cut.items():
            yield WindowRecord(
                schema_version=1,
                kind="window",
                model=run.model,
                digest=run.digest,
                seed=run.seed,
                published_recipe=run.is_published_recipe,
                data=run.data,
                window=window,
                accuracy=narrow.evaluate(params, stats, "test").accuracy,
                whole=whole.accuracy,
                majority=majority_share(setup.data["test"].labels),
                examples=len(setup.data["test"].labels),
                system=describe_system(run.precision),
                provenance=describe_provenance(f"lra-bench evaluate {run.name} --window {window}"),
            )


def _restored(run: Run, folder: Path, record: Record | None) -> tuple[EvaluationSetup, Any, Any, History]:
    """The run set up for evaluation, parameters and statistics of its best checkpoint, and the history that names it.

    Raises as `score_best`.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    history = best_history(run, checkpoints, record)
    assert history.best_step is not None
    setup, state = set_up_evaluation(run, prepared_folder(run))
    params, stats = checkpoints.restore_best(history.best_step, state)
    checkpoints.close()
    return setup, params, stats, history


def best_history(run: Run, checkpoints: Checkpoints, record: Record | None) -> History:
    """The history that names the best checkpoint: that of the record, or where there is none that of the last state.

    Raises UserError where no epoch was evaluated.
    """
    if record is None:
        history = checkpoints.history()
    else:
        accuracy = record.accuracy
        history = History(curve=record.curve, best_val=accuracy.best_val, best_epoch=accuracy.best_epoch)
    if history is not None and history.best_step is not None:
        return history
    if record is not None:
        raise UserError(f"{run.name} {record.status} before its first evaluation, so there is no checkpoint to score.")
    if history is None:
        raise UserError(f"{run.name} has no checkpoint yet. Train it on: {run.command}")
    raise UserError(f"{run.name} has not come to its first evaluation yet. Train it on: {run.command}")


def prepared_folder(run: Run) -> Path:
    """The folder of the prepared set whose fingerprint the run recorded. Raises UserError where there is none."""
    for folder, manifest in prepared_sets(run.data.task):
        if manifest.fingerprint == run.data.fingerprint:
            return folder
    raise UserError(
        f"the data {run.name} was trained on (fingerprint {run.data.fingerprint}) is not prepared here. "
        f"Type: lra-bench prepare {run.data.task} --protocol {run.data.protocol} --size {run.data.size}"
    )
