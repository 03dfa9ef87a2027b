"""The command `lra-bench report`: tables, pictures and a page from the result records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lra_bench.commands.options import Json, ResultsDir, chosen_results_dir

SHOWN = 5
"""The most runs that are named where there may be many."""


def report(
    results_dir: ResultsDir = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write the tables to this folder. By default the results folder.")
    ] = None,
    protocol: Annotated[
        Literal["s4", "lra"], typer.Option(help="Show the records of this protocol in the tables.")
    ] = "s4",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Do not warn of files that cannot be used; the tables list them.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the figures. This needs the extra `plots`.")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail if the tables or the figures are out of date.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make tables, pictures and a page from the result records alone, and print the tables."""
    from rich.console import Console

    from lra_bench.progress import print_line
    from lra_bench.report import report as make_report

    results = chosen_results_dir(results_dir)
    made = make_report(
        results,
        out_dir,
        protocol=protocol,
        pictures=pictures,
        check=check,
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
        for name in made.files:
            print((out_dir or results) / name)
    if not check:
        note_runs_elsewhere(results)


def note_runs_elsewhere(results_dir: Path) -> None:
    """Say on stderr which finished runs of this machine have no record in the folder."""
    from lra_bench.progress import print_line
    from lra_bench.records.files import record_path
    from lra_bench.runs.run import all_runs

    missing = []
    for folder in all_runs():
        task, model, name = folder.parts[-3:]
        digest, _, seed = name.rpartition("-s")
        finished = (folder / "result.json").exists() and seed.isdecimal()
        if finished and not record_path(results_dir, task, model, digest, int(seed)).exists():
            missing.append(f"{task}/{model}/{name}")
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        print_line(
            f"Without a record in {results_dir}: {shown}. The command that trained a run writes its record here, "
            "without training again (`lra-bench show RUN` has it), or name the folder with --results-dir."
        )
