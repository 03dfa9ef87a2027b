"""The command `lra-bench export`: pack runs into one file, to continue or evaluate them on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    file: Annotated[
        Path,
        typer.Argument(help="The file to write, named .tar.xz or .txz, as in runs.tar.xz; with --per-example, .csv."),
    ],
    run: Annotated[
        list[str] | None, typer.Option(help="Pack this run only. May be repeated. By default all runs.")
    ] = None,
    per_example: Annotated[
        bool,
        typer.Option(
            "--per-example",
            help="Write a CSV file instead: which test examples finished runs classify correctly, a column per run.",
        ),
    ] = False,
) -> None:
    """Pack runs into one file. `lra-bench import` unpacks it on the next machine, where they continue."""
    from lra_bench.progress import print_line
    from lra_bench.records.per_example import write_per_example
    from lra_bench.runs.transfer import export_runs

    write = write_per_example if per_example else export_runs
    for folder in write(file, run or []):
        print_line("/".join(folder.parts[-3:]))
    typer.echo(file)
