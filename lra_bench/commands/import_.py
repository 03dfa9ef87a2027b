"""The command `lra-bench import`: unpack runs that `lra-bench export` packed elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    file: Annotated[Path, typer.Argument(help="A file that `lra-bench export` wrote, as in runs.tar.xz.")],
) -> None:
    """Unpack runs that were exported elsewhere. A run that is finished or further here already is left alone."""
    from lra_bench.runs.transfer import import_runs

    folders = import_runs(file)
    for folder in folders:
        typer.echo(folder)
    if not folders:
        typer.echo("Nothing new: every run of this file is left as it is here.", err=True)
