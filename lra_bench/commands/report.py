"""The command `lra-bench report`: tables, pictures and a page from the result records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lra_bench.commands.options import Json, ResultsDir


def report(
    results_dir: ResultsDir = Path("results"),
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write the tables to this folder. By default the results folder.")
    ] = None,
    protocol: Annotated[
        Literal["s4", "lra"], typer.Option(help="Show the records of this protocol in the tables.")
    ] = "s4",
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="List damaged records as left out, instead of stopping.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Draw the figures. This needs the extra `plots`.")
    ] = True,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, and fail if the tables are out of date.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make tables, pictures and a page from the result records alone, and print the tables."""
    from rich.console import Console

    from lra_bench.report import report as make_report

    made = make_report(
        results_dir,
        out_dir,
        protocol=protocol,
        skip_unreadable=skip_unreadable,
        pictures=pictures,
        check=check,
        console=None if as_json or check else Console(),
    )
    if as_json:
        print(made.files["leaderboard.json"], end="")
    elif check:
        print(f"The tables in {out_dir or results_dir} are what its records give.")
    else:
        for name in made.files:
            print((out_dir or results_dir) / name)
