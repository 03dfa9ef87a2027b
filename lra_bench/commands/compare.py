"""The command `lra-bench compare`: two runs side by side."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lra_bench.commands.options import Json

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from lra_bench.runs.run import Run

RUN = "A run's folder or name."


def compare(
    first: Annotated[str, typer.Argument(help=f"{RUN} `lra-bench ls runs` lists runs.", metavar="A")],
    second: Annotated[str, typer.Argument(help=RUN, metavar="B")],
    as_json: Json = False,
) -> None:
    """Show two runs side by side: settings that differ, curves, test accuracy, speed and memory.

    Finished runs with the same test set are tested on it example by example (McNemar). Where both have other seeds on
    this machine, an interval of the difference of their means is shown as well.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    described = [describe(name) for name in (first, second)]
    rows = {name: [one[name] for one in described] for name in described[0]}
    rows |= {name: values for name, values in settings_of_both(first, second).items() if values[0] != values[1]}
    paired, why_not = paired_tests(first, second)
    if as_json:
        print(json.dumps({**rows, **({"paired": paired} if paired else {})}, indent=1))
        return
    table = Table(box=SIMPLE)
    for title in ("", "A", "B"):
        table.add_column(title, overflow="fold")
    for name, values in rows.items():
        table.add_row(Text(name), *(Text(written(value)) for value in values))
    Console().print(table)
    for line in [why_not] if paired is None else sentences_of(paired):
        print(line)


def written(value: Any) -> str:
    """A value as text: floats with six digits, – for None."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def describe(name: str) -> dict[str, Any]:
    """Collect what two runs are compared by, beside their settings. Raises UserError for an unknown run."""
    from lra_bench.records.curves import read_curve
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.report.curves import bars_for, sparkline
    from lra_bench.runs.run import find_run, load_run

    folder = find_run(name)
    run = load_run(folder)
    record = load_finished(folder) if is_finished(folder) else None
    points = record.curve if record else read_curve(folder)
    accuracy, speed = (record.accuracy, record.throughput) if record else (None, None)
    bars = bars_for(sys.stdout.encoding)
    marks = sparkline([point.val_accuracy for point in points], 20, bars) if points else None
    best = max(points, key=lambda point: point.val_accuracy, default=None)
    return {
        "run": run.name,
        "status": record.status if record else "unfinished",
        "test accuracy %": percent(accuracy.test if accuracy else None),
        "best validation accuracy %": percent(best.val_accuracy if best else None),
        "after epoch": best and best.epoch,
        "evaluations": len(points),
        "validation accuracy": marks,
        "last train loss": points[-1].train_loss if points else None,
        "last validation loss": points[-1].val_loss if points else None,
        "parameters": record and record.parameters,
        "examples/s/device": speed and round(speed.examples_per_second_per_device, 1),
        "peak memory MiB": speed and speed.peak_memory_bytes and round(speed.peak_memory_bytes / 2**20),
        "device": record and f"{record.system.devices} × {record.system.device_kind}",
    }


def settings_of_both(first: str, second: str) -> dict[str, list[Any]]:
    """The settings of two runs by name: what their digests are made of, and the seed, without what is only text."""
    from lra_bench.runs.run import find_run, load_run

    found = []
    for name in (first, second):
        run = load_run(find_run(name))
        fields = run.model_dump(mode="json", include={"model", "code", "seed", "precision", "data", "pretraining"})
        found.append(flat({**fields, "recipe": run.recipe.identity()}))
    names = dict.fromkeys([*found[0], *found[1]])
    return {name: [one.get(name) for one in found] for name in names}


def paired_tests(first: str, second: str) -> tuple[dict[str, Any] | None, str]:
    """Test two runs on the test examples they share; or None, and a sentence that says why this is not possible.

    Raises UserError where the file of a run's correct examples is damaged.
    """
    from dataclasses import asdict

    import numpy as np

    from lra_bench.records.finished import is_finished, load_correct, load_finished
    from lra_bench.report.paired import mcnemar, paired_interval
    from lra_bench.runs.run import find_run, load_run

    folders = [find_run(name) for name in (first, second)]
    runs = [load_run(folder) for folder in folders]
    if runs[0].data.fingerprint != runs[1].data.fingerprint:
        return None, "No paired test: the runs have different test sets."
    correct = []
    for folder, run in zip(folders, runs, strict=True):
        found = load_correct(folder, load_finished(folder)) if is_finished(folder) else None
        if found is None:
            return None, (
                f"No paired test: {run.name} does not keep which test examples are right. "
                f"`lra-bench evaluate {folder.name}` writes it once the run has ended."
            )
        correct.append(found)
    tested: dict[str, Any] = asdict(mcnemar(*correct))
    seeds = [all_seeds(folder, run) for folder, run in zip(folders, runs, strict=True)]
    if runs[0].digest != runs[1].digest and min(map(len, seeds)) > 1:
        a, b = (np.stack(list(found.values())) for found in seeds)
        interval = paired_interval(a, b)
        tested["seeds"] = [list(found) for found in seeds]
        tested["difference"] = float(a.mean() - b.mean())
        tested["interval"] = [interval.low, interval.high]
    return tested, ""


def all_seeds(folder: Path, run: Run) -> dict[int, NDArray[np.bool_]]:
    """The correct test examples of the finished runs that differ from a run in the seed only, by seed, with its own."""
    from lra_bench.errors import UserError
    from lra_bench.progress import warn
    from lra_bench.records.finished import is_finished, load_correct, load_finished
    from lra_bench.runs.run import all_runs

    folders = [each for each in all_runs() if each.name.startswith(f"{run.digest}-s") and is_finished(each)]
    found = {}
    for each in (folder, *folders):
        try:
            record = load_finished(each)
            correct = load_correct(each, record)
        except UserError as error:
            if each == folder:
                raise
            warn(f"{each.name} is left out: {error}")
            continue
        if correct is not None:
            found[record.seed] = correct
    return dict(sorted(found.items()))


def sentences_of(paired: dict[str, Any]) -> list[str]:
    """What paired tests say, as lines for people."""
    lines = [
        f"Test examples that only A classifies correctly: {paired['only_a']:,}, only B: {paired['only_b']:,} "
        f"(McNemar's χ² {paired['statistic']:.2f}, exact p {paired['p']:.2g})."
    ]
    if "interval" in paired:
        seeds = "; ".join(f"{name}: {', '.join(map(str, of))}" for name, of in zip("AB", paired["seeds"], strict=True))
        low, high = paired["interval"]
        lines.append(
            f"Mean test accuracy of A minus that of B over seeds ({seeds}): {100 * paired['difference']:+.2f} points, "
            f"95 % interval {100 * low:+.2f} to {100 * high:+.2f} (over examples, which are paired, and over seeds)."
        )
    return lines


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their path, as in `recipe.layer.d_state`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def percent(share: float | None) -> float | None:
    """A share in %, with two decimals."""
    return None if share is None else round(100 * share, 2)
