"""The command `lra-bench quickstart`: every stage from data to table, in minutes on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lra_bench.commands.options import chosen_precision

OVERRIDES = {
    "n_layers": 3,
    "d_model": 64,
    "batch_size": 32,
    "epochs": 10.0,
    "warmup_epochs": 1.0,
    "decay_epochs": 11.0,
}
"""The settings of a network that trains in well under a minute on two CPU cores."""


def quickstart(
    results_dir: Annotated[
        Path, typer.Option("--results-dir", help="The folder of the result record and its tables.")
    ] = Path("quickstart-results"),
    seed: Annotated[int, typer.Option(min=0, help="The seed of the run.")] = 0,
) -> None:
    """Make a short ListOps, train a small S5-PTD on it and print its table: about a minute on a laptop."""
    from rich.console import Console

    from lra_bench.commands.train import train_all
    from lra_bench.commands.train_plan import estimates, print_plan
    from lra_bench.data.manifest import load_manifest
    from lra_bench.data.prepare import prepare
    from lra_bench.report import report
    from lra_bench.runs.plan import PlannedRun
    from lra_bench.runs.run import make_run

    folder = prepare("listops", size="tiny")
    run = make_run(load_manifest(folder).data_info, "s5_ptd", seed, OVERRIDES, chosen_precision(None))
    planned = [PlannedRun(run, folder)]
    print_plan(planned, results_dir, estimates(planned))
    train_all(planned, results_dir)
    report(results_dir, pictures=False, console=Console())
    print(
        "\nThis was the tiny ListOps. The real one: lra-bench prepare listops, "
        "then lra-bench train --model s5-ptd --task listops, then lra-bench report."
    )
