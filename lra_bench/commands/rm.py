"""The command `lra-bench rm`: remove runs, with their checkpoints, from this machine."""

from __future__ import annotations

from typing import Annotated

import typer


def rm(
    run: Annotated[
        list[str],
        typer.Argument(
            help="Runs by name, or by the start of the digest. `lra-bench ls runs` lists them.", metavar="RUN..."
        ),
    ],
) -> None:
    """Remove runs with their checkpoints. Their records in results folders stay."""
    from lra_bench.runs.run import find_run, remove_run

    for folder in dict.fromkeys(find_run(name) for name in run):
        remove_run(folder)
        typer.echo(f"removed {folder}")
