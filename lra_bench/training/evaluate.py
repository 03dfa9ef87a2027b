"""Scoring the best checkpoint of a run again, from disk."""

from __future__ import annotations

from pathlib import Path

from lra_bench.data.manifest import prepared_sets
from lra_bench.errors import UserError
from lra_bench.runs.run import Run
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.history import History
from lra_bench.training.result import Score
from lra_bench.training.setup import set_up
from lra_bench.training.stopping import out_of_memory_in_words


def score_best(run: Run, folder: Path) -> tuple[Score, Score, History]:
    """Loss and accuracy of the best checkpoint on validation and on test, and the run's history at that epoch.

    Raises UserError where there is no checkpoint yet, or where the run's data is not prepared here.
    """
    if not (folder / "checkpoints" / "best").exists():
        raise UserError(f"{run.name} has no checkpoint yet. Train it on: {run.command}")
    with out_of_memory_in_words(run):
        setup, state = set_up(run, _data_folder(run))
        checkpoints = Checkpoints(folder / "checkpoints")
        best = checkpoints.restore_best((state.params, state.stats))
        checkpoints.close()
        if best is None:
            raise UserError(f"{run.name} has not come to its first evaluation yet. Train it on: {run.command}")
        (params, stats), history = best[0], History.model_validate(best[1])
        return setup.evaluate(params, stats, "val"), setup.evaluate(params, stats, "test"), history


def _data_folder(run: Run) -> Path:
    """The folder of the prepared set whose fingerprint the run recorded. Raises UserError where there is none."""
    for folder, manifest in prepared_sets(run.data.task):
        if manifest.fingerprint == run.data.fingerprint:
            return folder
    raise UserError(
        f"the data {run.name} was trained on (fingerprint {run.data.fingerprint}) is not prepared here. "
        f"Type: lra-bench prepare {run.data.task} --protocol {run.data.protocol} --size {run.data.size}"
    )
