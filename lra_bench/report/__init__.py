"""The report: tables, pictures and an HTML page, made from the records in `results/` alone, offline and without JAX."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lra_bench.errors import UserError, WorkError
from lra_bench.paths import write_atomically
from lra_bench.records.schema import Record, RobustnessRecord, WindowRecord, schema
from lra_bench.records.validate import doubts_of
from lra_bench.report.accuracy import accuracy_table, reduced_table
from lra_bench.report.compact import compact_table
from lra_bench.report.drawing import Picture, have_matplotlib
from lra_bench.report.figures import drawings
from lra_bench.report.figures import pictures as draw_pictures
from lra_bench.report.formats import markdown, wide_csv
from lra_bench.report.json_file import json_text
from lra_bench.report.latex import COMPACT_PACKAGES, LONG_PACKAGES, compact_latex, long_latex
from lra_bench.report.listings import coverage_table, left_out_table, provenance_table, robustness_table, window_table
from lra_bench.report.page import page, without_pictures
from lra_bench.report.seeds import CellStatistics, cell_statistics, cells_table, differences_table
from lra_bench.report.select import LeftOut, Loaded, SelectedRecords, load, select_records
from lra_bench.report.speed import throughput_table, training_speed_table
from lra_bench.report.stamp import outdated, stamp_of
from lra_bench.report.table import Table, tables_with
from lra_bench.report.terminal import print_report, report_command
from lra_bench.spec import Protocol

__all__ = ["Report", "report", "tables_of"]

GENERATED = "Made by `lra-bench report` from the records in this folder; do not edit."

OLD_FIGURES = (
    "figures/ was not drawn anew: it is of other records or other code. Remove it, or draw it with --pictures."
)


@dataclass(frozen=True)
class Report:
    """The report: the tables that have rows, in reading order, and the content of each file by its name.

    `compact` is the accuracy table of a paper, `refused` the files that could not be taken in, `doubtful` the records
    that were, with the first thing that is not plausible about each.
    """

    tables: tuple[Table, ...]
    compact: Table
    files: dict[str, str | bytes]
    refused: tuple[LeftOut, ...]
    doubtful: tuple[LeftOut, ...]

    def table(self, name: str) -> Table:
        """Return the table of this name. Raises KeyError for a table without rows."""
        return {table.name: table for table in self.tables}[name]


def report(
    results_dir: Path,
    out_dir: Path | None = None,
    *,
    protocol: Protocol = "s4",
    pictures: bool = True,
    check: bool = False,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    console: Console | None = None,
    part: str | None = None,
    verbose: bool = False,
) -> Report:
    """Make the report from the records below `results_dir` and write its files into `out_dir`.

    `out_dir` defaults to `results_dir`. `columns` and `rows` are those of the compact table (`compact_table`). With
    `console` that table is printed, or the tables of `part`, a name in `table.PARTS`, or with `verbose` every main
    table. There are no pictures where matplotlib is not installed. With `check` nothing is drawn or written;
    figures are compared by their stamps (`report/stamp.py`).

    A file that is no record, or a record that contradicts itself, is listed as left out and stops nothing. Raises
    UserError where there is no such folder, and for an unknown column or row. With `check`, raises WorkError with the
    names of the files that differ from what the records give.
    """
    folder = out_dir or results_dir
    loaded, unreadable = load(results_dir)
    drawing = pictures and not check and have_matplotlib()
    made = tables_of(loaded, unreadable, protocol=protocol, pictures=drawing, columns=columns, rows=rows)
    if check:
        wrong = _differences(made.files, folder)
        wrong += _outdated_figures(loaded, protocol, folder) if pictures else []
        _refuse(wrong, folder, report_command(results_dir, out_dir))
    else:
        _refuse_to_replace(folder / "README.md")
        for name, content in made.files.items():
            write_atomically(folder / name, content)
    if console is not None:
        print_report(made.tables, made.compact, console, results_dir, part=part, verbose=verbose)
        if pictures and not check and not have_matplotlib():
            console.print("No pictures: matplotlib is not installed; `pip install matplotlib` brings it.", markup=False)
        left = not drawing and not check and (folder / "figures").is_dir()
        if left and _outdated_figures(loaded, protocol, folder):
            console.print(OLD_FIGURES, markup=False)
    return made


def tables_of(
    loaded: Sequence[Loaded],
    unreadable: Sequence[LeftOut] = (),
    *,
    protocol: Protocol = "s4",
    pictures: bool = False,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Report:
    """Make the report of these records without writing it. `unreadable` files appear in the table left-out.

    Raises UserError for an unknown column or row of the compact table.
    """
    paper = select_records(loaded, protocol=protocol)
    holdout = select_records(loaded, protocol=protocol, selection="holdout")
    chosen = {"paper": paper, "holdout": holdout} if _differs(paper, holdout) else {"paper": paper}
    fitting, others = _of_protocol(loaded, protocol)
    cells: dict[str, Sequence[CellStatistics]] = {
        selection: cell_statistics(found) for selection, found in chosen.items()
    }
    everything = [
        *(accuracy_table(found, cells[selection]) for selection, found in chosen.items()),
        reduced_table(paper),
        throughput_table(loaded),
        robustness_table(fitting),
        window_table(fitting),
        cells_table(cells["paper"]),
        differences_table(cells["paper"]),
        training_speed_table(loaded),
        coverage_table(paper),
        provenance_table(paper),
        left_out_table([*unreadable, *_in_neither(paper, holdout), *others]),
    ]
    tables = tuple(table for table in everything if not table.empty)
    drawn = draw_pictures(paper, fitting) if pictures else []
    compact = compact_table(everything[0], columns, rows)
    files = _files(tables, compact, loaded, drawn)
    files["leaderboard.json"] = json_text(tables, cells, protocol)
    doubts = {item.id: next(doubts_of(item.record), "") for item in loaded if isinstance(item.record, Record)}
    doubtful = tuple(LeftOut(name, doubt) for name, doubt in doubts.items() if doubt)
    return Report(tables, compact, files, tuple(unreadable), doubtful)


def _of_protocol(loaded: Sequence[Loaded], protocol: Protocol) -> tuple[list[Loaded], list[LeftOut]]:
    """Return the records without further tests of runs of another protocol, and these with the reason."""
    other = {
        item.id: item.record.data.protocol
        for item in loaded
        if isinstance(item.record, RobustnessRecord | WindowRecord) and item.record.data.protocol != protocol
    }
    left_out = [LeftOut(name, f"other protocol: {has}, this table is of {protocol}") for name, has in other.items()]
    return [item for item in loaded if item.id not in other], left_out


def _differs(paper: SelectedRecords, holdout: SelectedRecords) -> bool:
    """Whether the holdout table shows a record that the paper table does not show. Otherwise it is left out."""
    shown = {run.id for runs in paper.cells.values() for run in runs}
    return any(run.id not in shown for runs in holdout.cells.values() for run in runs)


def _in_neither(paper: SelectedRecords, holdout: SelectedRecords) -> list[LeftOut]:
    """Return the records that no accuracy table shows, under either selection protocol."""
    shown = {run.id for runs in holdout.cells.values() for run in runs}
    return [item for item in paper.left_out if item.id not in shown]


def _files(
    tables: Sequence[Table], compact: Table, loaded: Sequence[Loaded], drawn: Sequence[Picture]
) -> dict[str, str | bytes]:
    """Return the content of each file by its name relative to the output folder, without leaderboard.json."""
    accuracy = next(table for table in tables if table.name == "accuracy-paper")
    long = [long_latex(table) for table in tables if table.name in tables_with("latex")]
    files: dict[str, str | bytes] = {
        "README.md": _readme(loaded),
        "schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
        "leaderboard.md": f"# Leaderboard\n\n{GENERATED}\n\n" + "\n".join(markdown(table) for table in tables),
        "leaderboard.csv": wide_csv(accuracy),
        "leaderboard.tex": "\n".join([f"% {GENERATED}", COMPACT_PACKAGES, compact_latex(compact)]),
        "appendix.tex": "\n".join([f"% {GENERATED}", LONG_PACKAGES, *long]),
        "report.html": page(tables, loaded, drawn),
    }
    files |= {f"{table.name}.csv": wide_csv(table) for table in tables if table.name in tables_with("csv")}
    for picture in drawn:
        files |= picture.files
    return files


def _readme(loaded: Sequence[Loaded]) -> str:
    """Return the README.md of the results folder."""
    kinds = Counter(item.record.kind for item in loaded)
    counts = ", ".join(
        f"{kinds[kind]} {kind}"
        for kind in ("train", "bench", "robustness", "window")
        if kind != "window" or kinds[kind]
    )
    return (
        f"# Results\n\n{GENERATED}\n\n"
        f"`<task>/<model>/*.json` holds one immutable record per measurement ({counts}), as `schema.json` says. "
        "Everything else here is made from these records:\n\n"
        "| file | what it is |\n| :--- | :--- |\n"
        "| [leaderboard.md](leaderboard.md) | every table, with what was left out and why |\n"
        "| leaderboard.tex | the accuracy table of a paper: measured rows and some quoted ones, 5.5 inches wide |\n"
        "| appendix.tex | the tables in full, breaking across pages |\n"
        "| leaderboard.csv and the other .csv | the tables for spreadsheets |\n"
        "| leaderboard.json | every cell in full precision, for programs |\n"
        "| report.html | one page that sorts, filters and shows the runs behind each number; opens from the file |\n"
        "| figures/ | the pictures: SVG follows light and dark mode, PNG comes in both |\n\n"
        "`lra-bench report --results-dir` with this folder makes them anew, the same with `--check` says whether they "
        "are up to date, and `lra-bench validate` with it checks the records themselves.\n"
    )


def _refuse_to_replace(readme: Path) -> None:
    """Check that a README is not there, or one that the report made. Raises UserError where it is somebody's own."""
    if readme.is_file() and GENERATED not in readme.read_bytes().decode("utf-8", errors="replace"):
        raise UserError(
            f"{readme} was not made by `lra-bench report`, which would replace it. Name another folder with --out."
        )


def _outdated_figures(loaded: Sequence[Loaded], protocol: Protocol, folder: Path) -> list[str]:
    """Return what is wrong with the figures in `folder`, by the stamps in them."""
    chosen, (fitting, _) = select_records(loaded, protocol=protocol), _of_protocol(loaded, protocol)
    return outdated(drawings(chosen, fitting), stamp_of(chosen, fitting), folder)


def _differences(files: dict[str, str | bytes], folder: Path) -> list[str]:
    """Return the names of the files in `folder` that differ from `files`, are missing, or are of a table without rows,
    and what is wrong with each."""
    wrong = []
    for name, content in files.items():
        path = folder / name
        found = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else None
        if name == "report.html" and isinstance(content, str):
            # The page may be absent, and the bytes of its pictures depend on the version of matplotlib.
            if found is not None and without_pictures(found) != without_pictures(content):
                wrong.append(f"{name} differs")
        elif found is None:
            wrong.append(f"{name} is missing")
        elif found != content:
            wrong.append(f"{name} differs")
    without_rows = [f"{name}.csv" for name in tables_with("csv") if f"{name}.csv" not in files]
    return wrong + [f"{name} has no records, so remove it" for name in without_rows if (folder / name).exists()]


def _refuse(wrong: Sequence[str], folder: Path, command: str) -> None:
    """Raise WorkError with what is wrong with the files in `folder` and the command that makes them, if anything is."""
    if not wrong:
        return
    advice = f"Run `{command}`."
    if list(wrong) == ["leaderboard.tex differs"]:
        advice = f"Give --check the --columns and --rows that it was made with, or run `{command}`."
    raise WorkError(f"The files in {folder} are not what its records give: {'; '.join(wrong)}. {advice}")
