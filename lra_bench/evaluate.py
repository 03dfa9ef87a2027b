"""Score a run's best checkpoint again, from disk, and hold it to what the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lra_bench import UserError, WorkError
from lra_bench.account import Score
from lra_bench.checkpoint import Checkpoints
from lra_bench.data.manifest import prepared
from lra_bench.results import load_record
from lra_bench.run import Run, find_run, load_run
from lra_bench.train import memory_in_words, set_up


def evaluate_run(name: str, as_json: bool) -> None:
    """Print validation and test accuracy of the best checkpoint.

    Raises UserError when the run or its data is not there, WorkError when the recorded accuracy is not reproduced.
    """
    folder = find_run(name)
    run = load_run(folder)
    if not (folder / "checkpoints" / "best").exists():
        raise UserError(f"{run.name} has no checkpoint yet. Train it on: {run.command}")
    val, test, progress = _score(run, folder)
    finished = folder / "result.json"
    record = load_record(finished) if finished.exists() else None
    recorded = record.accuracy.test if record else None
    findings = {
        "run": run.name,
        "epoch": progress["best_epoch"],
        "val_accuracy": val[1],
        "test_accuracy": test[1],
        "recorded_test_accuracy": recorded,
    }
    if as_json:
        print(json.dumps(findings, indent=1))
    else:
        unrecorded = f"not recorded: the run {record.status}" if record else "not recorded yet: the run is unfinished"
        of_record = unrecorded if recorded is None else f"recorded {recorded:.2%}"
        print(
            f"{run.name}, epoch {progress['best_epoch']:g}: validation {val[1]:.2%}, test {test[1]:.2%} ({of_record})"
        )
    if recorded is not None and round(recorded * run.data.counts["test"]) != round(test[1] * run.data.counts["test"]):
        raise WorkError(f"{run.name} scores {test[1]:.4%} on the test split, its record says {recorded:.4%}.")


def _score(run: Run, folder: Path) -> tuple[Score, Score, dict[str, Any]]:
    """Loss and accuracy of the best checkpoint on validation and test, and the run's account at that epoch."""
    with memory_in_words(run):
        lab, state = set_up(run, _data_folder(run))
        checkpoints = Checkpoints(folder / "checkpoints")
        best = checkpoints.restore_best((state.params, state.stats))
        checkpoints.close()
        if best is None:
            raise UserError(f"{run.name} has not come to its first evaluation yet. Train it on: {run.command}")
        (params, stats), progress = best
        return lab.evaluate(params, stats, "val"), lab.evaluate(params, stats, "test"), progress


def _data_folder(run: Run) -> Path:
    for folder, manifest in prepared(run.data.task):
        if manifest.fingerprint == run.data.fingerprint:
            return folder
    raise UserError(
        f"the data {run.name} was trained on (fingerprint {run.data.fingerprint}) is not prepared here. "
        f"Type: lra-bench prepare {run.data.task} --protocol {run.data.protocol} --size {run.data.size}"
    )
