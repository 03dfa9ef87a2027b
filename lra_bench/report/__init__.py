"""The leaderboard: tables and pictures made from the records in `results/` alone, offline and without JAX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lra_bench.report.accuracy import accuracy_table, reduced_table
from lra_bench.report.choose import Chosen, LeftOut, choose, load
from lra_bench.report.formats import PACKAGES, latex, markdown, wide_csv
from lra_bench.report.listings import coverage_table, left_out_table, provenance_table, robustness_table
from lra_bench.report.published import published
from lra_bench.report.speed import throughput_table, training_speed_table
from lra_bench.report.table import Table
from lra_bench.report.terminal import show
from lra_bench.results import write_atomically
from lra_bench.spec import Protocol

__all__ = ["Report", "report"]

GENERATED = "Made by `lra-bench report` from the records in this folder; do not edit."
ON_TERMINAL = (
    "accuracy-paper",
    "accuracy-holdout",
    "reduced",
    "throughput",
    "training-speed",
    "robustness",
    "left-out",
)


@dataclass(frozen=True)
class Report:
    """The tables, in reading order, and the text of each file by its name."""

    tables: tuple[Table, ...]
    files: dict[str, str]

    def table(self, name: str) -> Table:
        """The table of this name. Raises KeyError where it has no rows."""
        return {table.name: table for table in self.tables}[name]


def report(
    results_dir: Path,
    out_dir: Path | None = None,
    *,
    protocol: Protocol = "s4",
    skip_unreadable: bool = False,
    console: Console | None = None,
) -> Report:
    """Make every table from the records below `results_dir`, write the files to `out_dir` (default: there), print them.

    Raises UserError where there is no such folder and, unless `skip_unreadable`, for a file that is no record of
    this schema.
    """
    loaded, unreadable = load(results_dir, skip_unreadable=skip_unreadable)
    paper = choose(loaded, protocol=protocol)
    holdout = choose(loaded, protocol=protocol, selection="holdout")
    tables = [accuracy_table(paper)]
    if _differs(paper, holdout):
        tables.append(accuracy_table(holdout))
    tables += [reduced_table(paper), throughput_table(loaded), training_speed_table(loaded), robustness_table(loaded)]
    tables += [
        coverage_table(paper),
        provenance_table(paper),
        left_out_table([*unreadable, *_in_neither(paper, holdout)]),
    ]
    kept = tuple(table for table in tables if not table.empty)
    made = Report(kept, _files(kept))
    for name, text in made.files.items():
        write_atomically((out_dir or results_dir) / name, text)
    if console is not None:
        measured = {key.model for key, _ in paper.cells} | {key.model for key, _ in holdout.cells}
        quoted = frozenset(row.name for row in published().rows if row.model in measured)
        for table in kept:
            if table.name in ON_TERMINAL:
                show(table, console, models=quoted)
    return made


def _differs(paper: Chosen, holdout: Chosen) -> bool:
    """Whether the holdout table shows a record that the paper table does not: else it would say nothing new."""
    shown = {run.id for runs in paper.cells.values() for run in runs}
    return any(run.id not in shown for runs in holdout.cells.values() for run in runs)


def _in_neither(paper: Chosen, holdout: Chosen) -> list[LeftOut]:
    """The records that are in no table of either selection."""
    shown = {run.id for runs in holdout.cells.values() for run in runs}
    return [item for item in paper.left_out if item.id not in shown]


def _files(tables: tuple[Table, ...]) -> dict[str, str]:
    accuracy = next(table for table in tables if table.name == "accuracy-paper")
    files = {
        "leaderboard.md": f"# Leaderboard\n\n{GENERATED}\n\n" + "\n".join(markdown(table) for table in tables),
        "leaderboard.csv": wide_csv(accuracy),
        "leaderboard.tex": f"% {GENERATED}\n{PACKAGES}\n"
        + "\n".join(latex(table) for table in tables if table.name not in ("provenance", "left-out", "coverage")),
    }
    for table in tables:
        if table.name in ("accuracy-holdout", "reduced", "throughput", "training-speed", "robustness"):
            files[f"{table.name}.csv"] = wide_csv(table)
    return files
