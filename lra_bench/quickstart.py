"""`quickstart`: the whole road, data to table, in minutes on a laptop."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.plan import Planned, print_plan, run_all
from lra_bench.report import report
from lra_bench.run import make_run

OVERRIDES = {
    "n_layers": 3,
    "d_model": 64,
    "batch_size": 32,
    "epochs": 10.0,
    "warmup_epochs": 1.0,
    "decay_epochs": 11.0,
}
"""Sizes that train in well under a minute on two CPU cores."""


def run_quickstart(results_dir: Path, seed: int) -> None:
    """Make the tiny ListOps, train a small S5-PTD on it, print its test accuracy, and write the tables."""
    folder = prepare("listops", size="tiny")
    run = make_run(load_manifest(folder).data_info, "s5_ptd", seed, OVERRIDES, "float32")
    planned = [Planned(run, folder)]
    print_plan(planned)
    run_all(planned, results_dir)
    report(results_dir, pictures=False, console=Console())
    print(
        "\nThis was the tiny ListOps. The real one: lra-bench prepare listops, "
        "then lra-bench train --model s5-ptd --task listops, then lra-bench report."
    )
