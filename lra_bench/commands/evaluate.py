"""The command `lra-bench evaluate`: score a run's best checkpoint again and compare with its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lra_bench.commands.options import Json, ResultsDir, chosen_results_dir
from lra_bench.errors import UserError, WorkError

if TYPE_CHECKING:
    from lra_bench.records.schema import Record, WindowRecord
    from lra_bench.runs.run import Run

FORMATS = (".csv", ".jsonl")
"""The endings of a file of predictions."""


def evaluate(
    run: Annotated[
        str, typer.Argument(help="A run's folder or name, or the start of its digest. `lra-bench ls runs` lists runs.")
    ],
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Also write the predictions on the test split into this .csv or .jsonl file: row, label, prediction, "
            "logits."
        ),
    ] = None,
    window: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=1 << 30,
            help="Also score the test split with every layer cut to this many steps: an output of a layer depends only "
            "on its inputs less than WINDOW steps away. May be repeated. `lra-bench report` draws the accuracy against "
            "the window.",
        ),
    ] = None,
    results_dir: ResultsDir = None,
    as_json: Json = False,
) -> None:
    """Score a run's best checkpoint again. It must reproduce the recorded accuracy.

    With --window, it also tells how far the accuracy rests on distant inputs; a finished run's answers are recorded.

    Which test examples are right is kept with a finished run that does not keep it yet, for `lra-bench compare`.
    """
    from lra_bench.machine.environment import start_jax
    from lra_bench.progress import print_line
    from lra_bench.records.finished import CORRECT, is_finished, keep_correct, load_finished
    from lra_bench.runs.run import find_run, load_run

    if predictions is not None:
        refuse_other_format(predictions)
    folder = find_run(run)
    described = load_run(folder)
    record = load_finished(folder) if is_finished(folder) else None
    start_jax()  # before anything else imports JAX
    from lra_bench.machine.system import describe_system
    from lra_bench.training.evaluate import score_best, score_windows

    # First, because it may be refused.
    tested = list(score_windows(described, folder, record, sorted(set(window)))) if window else []
    val, test, history = score_best(described, folder, record)
    recorded = record.accuracy.test if record else None
    findings: dict[str, Any] = {
        "run": described.name,
        "epoch": history.best_epoch,
        "val_accuracy": val.accuracy,
        "test_accuracy": test.accuracy,
        "recorded_test_accuracy": recorded,
    }
    if tested:
        findings["windows"] = {each.window: each.accuracy for each in tested}
    if as_json:
        print(json.dumps(findings, indent=1))
    else:
        unrecorded = f"not recorded: the run {record.status}" if record else "not recorded yet: the run is unfinished"
        comparison = unrecorded if recorded is None else f"recorded {recorded:.2%}"
        print(
            f"{described.name}, epoch {history.best_epoch:g}: validation {val.accuracy:.2%}, test {test.accuracy:.2%} "
            f"({comparison})"
        )
        for each in tested:
            print(f"window {each.window:,}: test {each.accuracy:.2%}")
    if predictions is not None:
        write_predictions(described, folder, record, predictions)
    n = described.data.counts["test"]
    if record is None or recorded is None:
        return
    if round(recorded * n) != round(test.accuracy * n):
        here, there = describe_system(described.precision), record.system
        devices = [f"{each.devices} × {each.device_kind}" for each in (here, there)]
        why = "" if devices[0] == devices[1] else f" It was scored on {devices[1]}, and here are {devices[0]}."
        raise WorkError(
            f"{described.name} scores {test.accuracy:.4%} on the test split, its record says {recorded:.4%}.{why}"
        )
    keep_windows(tested, chosen_results_dir(results_dir))
    if keep_correct(folder, record, test.correct):
        print_line(f"Which test examples are right is now kept in {folder / CORRECT}.")


def keep_windows(tested: list[WindowRecord], results_dir: Path) -> None:
    """Write the records of a finished run's windows. Raises WorkError where one is there with another accuracy."""
    from lra_bench.records.files import load_any, path_of, write_record

    for record in tested:
        path = path_of(results_dir, record)
        if not path.exists():
            write_record(results_dir, record)
        elif load_any(path).model_dump(include={"accuracy", "whole"}) != {
            "accuracy": record.accuracy,
            "whole": record.whole,
        }:
            raise WorkError(
                f"window {record.window} scores {record.accuracy:.4%} on the test split; {path} says otherwise."
            )


def refuse_other_format(file: Path) -> None:
    """Check, before the work, that predictions can be written to `file`. Raises UserError where they cannot."""
    if file.suffix not in FORMATS:
        raise UserError(f"--predictions takes a .csv or a .jsonl file; got {file}.")
    if file.is_dir():
        raise UserError(f"--predictions takes a file; {file} is a folder.")


def write_predictions(run: Run, folder: Path, record: Record | None, file: Path) -> None:
    """Write what the best checkpoint says of every test example."""
    from lra_bench.paths import write_atomically
    from lra_bench.training.predict import predictions_text, trained_model

    model, packed = trained_model(run, folder, record)
    write_atomically(file, predictions_text(model.predict(packed["test"]), file.suffix))
