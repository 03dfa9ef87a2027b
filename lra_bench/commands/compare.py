"""The command `lra-bench compare`: two runs side by side."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from lra_bench.commands.options import Json

RUN = "A run's folder or name."


def compare(
    first: Annotated[str, typer.Argument(help=f"{RUN} `lra-bench ls runs` lists runs.", metavar="A")],
    second: Annotated[str, typer.Argument(help=RUN, metavar="B")],
    as_json: Json = False,
) -> None:
    """Show two runs side by side: settings that differ, curves, test accuracy, speed and memory."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    described = [describe(name) for name in (first, second)]
    rows = {name: [one[name] for one in described] for name in described[0]}
    rows |= {name: values for name, values in settings_of_both(first, second).items() if values[0] != values[1]}
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(box=SIMPLE)
    for title in ("", "A", "B"):
        table.add_column(title, overflow="fold")
    for name, values in rows.items():
        table.add_row(Text(name), *(Text(written(value)) for value in values))
    Console().print(table)


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
    """The settings of two runs by name: model, seed, precision, data and recipe, without what is only text."""
    from lra_bench.runs.run import find_run, load_run
    from lra_bench.spec import TEXT_FIELDS

    found = []
    for name in (first, second):
        run = load_run(find_run(name))
        fields = run.model_dump(mode="json", include={"model", "seed", "precision", "data"})
        found.append(flat({**fields, "recipe": run.recipe.model_dump(mode="json", exclude=TEXT_FIELDS)}))
    names = dict.fromkeys([*found[0], *found[1]])
    return {name: [one.get(name) for one in found] for name in names}


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
