"""The command `lra-bench report`: tables, pictures and a page from the result records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lra_bench.commands.options import Json, ResultsDir, chosen_results_dir
from lra_bench.errors import UserError
from lra_bench.spec import Protocol

if TYPE_CHECKING:
    from lra_bench.report.select import LeftOut

SHOWN = 5
"""The most runs that are named where there may be many."""


Part = Literal[
    "accuracy",
    "reduced",
    "cells",
    "differences",
    "speed",
    "robustness",
    "windows",
    "coverage",
    "provenance",
    "left-out",
]


def report(
    part: Annotated[
        Part | None,
        typer.Argument(help="Print these tables in full. By default a compact accuracy table is printed."),
    ] = None,
    results_dir: ResultsDir = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write the tables to this folder. By default the results folder.")
    ] = None,
    protocol: Annotated[
        Literal["s4", "lra"], typer.Option(help="Show the records of this protocol in the tables.")
    ] = "s4",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="NAME",
            help="A column of the compact accuracy table, here and in leaderboard.tex: a task, difference, avg5, avg6, "
            "wins, parameters or speed. May be repeated.",
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--rows",
            metavar="NAME",
            help="A row of the compact accuracy table, measured or quoted, by the name it has there, as in --rows "
            "S5-PTD. May be repeated. Rows with other settings are shown only where they are named.",
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every main table in full.")] = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Do not warn of files that cannot be used; the tables list them.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the figures. This needs the extra `plots`.")
    ] = True,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Write nothing, and fail if the tables or the figures are out of date. Where they were made with "
            "--columns or --rows, give the same ones.",
        ),
    ] = False,
    site: Annotated[
        Path | None,
        typer.Option(
            "--site",
            metavar="FOLDER",
            help="Also write a folder that is ready for static hosting: index.html, a results card, and the tables.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make tables, pictures and a page from the result records alone, and print a compact accuracy table."""
    from rich.console import Console

    from lra_bench.progress import print_line
    from lra_bench.report import report as make_report

    results = chosen_results_dir(results_dir)
    if site is not None:
        prepare_site(site, out_dir or results, check)
    if not results.is_dir():
        note_runs_elsewhere(results)  # before it is an error
    made = make_report(
        results,
        out_dir,
        protocol=protocol,
        pictures=pictures,
        check=check,
        columns=columns or (),
        rows=rows or (),
        part=part,
        verbose=verbose,
        console=None if as_json or check else Console(),
    )
    if not skip_unreadable:
        for item in made.refused:
            print_line(f"Left out: {item.id}.json: {item.reason}")
    if as_json:
        print(made.files["leaderboard.json"], end="")
    elif check:
        print(f"The files in {out_dir or results} are what its records give.")
    else:
        print_files(out_dir or results, list(made.files))
    if site is not None:
        make_site(site, results, made.files, protocol)
    note_doubtful(results, made.doubtful)
    if not check:
        note_runs_elsewhere(results)


def prepare_site(site: Path, out_dir: Path, check: bool) -> None:
    """Raise UserError, before work begins, where the folder of `--site` cannot be written or is that of the tables."""
    from lra_bench.report.site import refuse_if_not_own

    if check:
        raise UserError("--check writes nothing. Type it without --site.")
    if site.resolve() == out_dir.resolve():
        raise UserError(f"--site needs a folder of its own, and the tables are written to {out_dir}.")
    refuse_if_not_own(site)


def make_site(site: Path, results: Path, files: Mapping[str, str | bytes], protocol: Protocol) -> None:
    """Write the folder of `--site` and say where it is on stderr."""
    from lra_bench.progress import print_line
    from lra_bench.report.card import card
    from lra_bench.report.select import load
    from lra_bench.report.site import write_site

    loaded, _ = load(results)
    write_site(site, files, card(loaded, protocol))
    print_line(f"{site} is ready for static hosting.")


def print_files(folder: Path, names: list[str]) -> None:
    """Print the files that were written, with the pictures as one."""
    pictures = [name for name in names if "/" in name]
    others = [name for name in names if "/" not in name]
    figures = [f"{len(pictures)} files in figures/"] if pictures else []
    print(f"Written to {folder}: {', '.join([*others, *figures])}")


def shown(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def note_doubtful(results_dir: Path, doubtful: Sequence[LeftOut]) -> None:
    """Say on stderr which records the tables show although they may have been edited."""
    from lra_bench.progress import print_line
    from lra_bench.records.finished import changed_records

    changed = [path.relative_to(results_dir).as_posix() for path in changed_records(results_dir)]
    if changed:
        print_line(
            f"Not as the runs of this machine wrote them: {shown(changed)}. They were edited, or the same was trained "
            "elsewhere, too. Remove those that are wrong; the commands of their runs write them again."
        )
    if doubtful:
        first = f"{doubtful[0].id}.json: {doubtful[0].reason}"
        print_line(
            f"Records that look wrong: {len(doubtful)}, the first {first}. All: lra-bench validate {results_dir}"
        )


def note_runs_elsewhere(results_dir: Path) -> None:
    """Say on stderr which finished runs of this machine have no record in the folder."""
    from lra_bench.progress import print_line
    from lra_bench.records.finished import finished_here

    missing = [name for name, _, place in finished_here(results_dir) if not place.exists()]
    if missing:
        print_line(
            f"Without a record in {results_dir}: {shown(missing)}. The command that trained a run writes its record "
            "here, without training again (`lra-bench show RUN` has it), or name the folder with --results-dir."
        )
