"""Use from Python: the six names of `import lra_bench`. `docs/python.md` shows them at work.

They take and return what the commands do, and raise `lra_bench.errors.UserError` and `WorkError` with the same
sentences. JAX is imported where it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lra_bench.data.prepare import prepare

if TYPE_CHECKING:
    from lra_bench.data.packed import PackedSplit
    from lra_bench.records.schema import Record
    from lra_bench.runs.pretraining import Objective
    from lra_bench.runs.run import Run
    from lra_bench.spec import Precision, Protocol, SplitName
    from lra_bench.training.predict import Predictions, TrainedModel

__all__ = ["evaluate", "load", "load_model", "predict", "prepare", "train"]


class Evaluation(NamedTuple):
    """The accuracies of a run's best checkpoint, scored again, as shares in [0, 1], and its epoch.

    `recorded_test_accuracy` is None where the run has no record of one.
    """

    epoch: float
    val_accuracy: float
    test_accuracy: float
    recorded_test_accuracy: float | None


def load(
    task: str,
    split: SplitName = "test",
    *,
    protocol: Protocol | None = None,
    size: str | None = None,
    data: str | None = None,
) -> PackedSplit:
    """The examples of a prepared task: inputs (n, L), (n, 2, L) or (n, L, 3), lengths (n,) or (n, 2), labels (n,).

    They stay on disk. Raises UserError where the task is not prepared, or is not as it was prepared.
    """
    from lra_bench.data.integrity import open_checked
    from lra_bench.data.manifest import find_prepared
    from lra_bench.registry import task_module

    task_module(task)
    folder, manifest = find_prepared(task, protocol, size, data)
    return open_checked(folder, manifest.fingerprint)[_split(split)]


def train(
    model: str,
    task: str,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    protocol: Protocol | None = None,
    size: str | None = None,
    data: str | None = None,
    precision: Precision | None = None,
    minutes: float | None = None,
    results_dir: Path | None = None,
    pretrain: Objective | None = None,
) -> Record:
    """Train a model on a prepared task, or go on with it, and return its record. A finished run returns at once.

    `settings` are those of `--set`, `pretrain` is the objective of `--pretrain`. After `minutes` it is saved, and
    OutOfTime is raised. In the main thread a signal saves it and raises Interrupted; in any other thread signals are
    left alone. Raises as `lra-bench train`.
    """
    from lra_bench.commands.options import chosen_precision, chosen_results_dir
    from lra_bench.commands.train import check_writable
    from lra_bench.registry import canonical_model, task_module
    from lra_bench.runs.plan import plan_runs

    canonical_model(model)  # `all` is none: this trains one
    task_module(task)
    results = chosen_results_dir(None if results_dir is None else Path(results_dir))
    (planned,) = plan_runs(
        [model],
        tasks=[task],
        seeds=[seed],
        overrides=settings or {},
        protocol=protocol,
        size=size,
        data=data,
        precision=chosen_precision(precision),
        smoke=False,
        pretrain=pretrain,
    )
    from lra_bench.training.train import train as train_run

    check_writable(results)
    assert planned.data_folder is not None, "only a dry run has no data"
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    return train_run(planned.run, planned.data_folder, results, deadline)


def evaluate(run: str | Path | Record) -> Evaluation:
    """Score the best checkpoint of a run again. `run` is a record of this machine's run, its folder or its name.

    Raises as `lra-bench evaluate`.
    """
    described, folder, record = _found(run)
    from lra_bench.training.evaluate import score_best

    val, test, history = score_best(described, folder, record)
    assert history.best_epoch is not None
    return Evaluation(history.best_epoch, val.accuracy, test.accuracy, record.accuracy.test if record else None)


def predict(run: str | Path | Record, split: SplitName = "test") -> Predictions:
    """The labels (n,), predictions (n,) and logits (n, classes) of the best checkpoint on a split.

    Raises as `evaluate`.
    """
    described, folder, record = _found(run)
    from lra_bench.training.predict import trained_model

    model, packed = trained_model(described, folder, record)
    return model.predict(packed[_split(split)])


def load_model(run: str | Path | Record) -> TrainedModel:
    """The network of the best checkpoint: `model(inputs, lengths)` gives logits (b, classes). Raises as `evaluate`."""
    described, folder, record = _found(run)
    from lra_bench.training.predict import trained_model

    return trained_model(described, folder, record)[0]


def _found(run: str | Path | Record) -> tuple[Run, Path, Record | None]:
    """The run, its folder, and its record if it has ended. It starts JAX. Raises UserError where there is none."""
    from lra_bench.machine.environment import start_jax
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.records.schema import Record
    from lra_bench.runs.run import find_run, load_run

    name = f"{run.data.task}/{run.model}/{run.digest}-s{run.seed}" if isinstance(run, Record) else str(run)
    folder = find_run(name)
    described = load_run(folder)
    record = load_finished(folder) if is_finished(folder) else None
    start_jax()
    return described, folder, record


def _split(name: str) -> SplitName:
    from lra_bench.spec import SPLITS, unknown

    for split in SPLITS:
        if split == name:
            return split
    raise unknown("split", name, SPLITS)
