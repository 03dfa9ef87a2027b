"""The command `lra-bench curves`: the learning curves of runs, in the terminal, as a picture or as CSV."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lra_bench.commands.options import Json
from lra_bench.errors import UserError


def curves(
    runs: Annotated[
        list[str], typer.Argument(help="Runs by folder or name. `lra-bench ls runs` lists them.", metavar="RUN...")
    ],
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the curves into this .svg or .png file.")] = None,
    as_csv: Annotated[Path | None, typer.Option("--csv", help="Write the curves to this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the learning curves of runs, also of runs that are still training."""
    from lra_bench.paths import write_atomically
    from lra_bench.records.curves import read_curve
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.report.curves import bars_for, csv_of, picture_of, text_of
    from lra_bench.report.drawing import refuse_if_not_drawable, write_picture
    from lra_bench.runs.run import find_run, load_run

    if plot is not None:
        refuse_if_not_drawable(plot)
    found = {}
    for run in dict.fromkeys(runs):
        folder = find_run(run)
        name = load_run(folder).name
        points = load_finished(folder).curve if is_finished(folder) else read_curve(folder)
        if not points:
            raise UserError(f"{name} has no evaluation yet: the first one comes at the end of its first epoch.")
        found[name] = points
    if as_json:
        print(json.dumps({name: [point.model_dump(mode="json") for point in points] for name, points in found.items()}))
    else:
        print(text_of(found, bars_for(sys.stdout.encoding)))
    if as_csv is not None:
        write_atomically(as_csv, csv_of(found))
    if plot is not None:
        write_picture(picture_of(found), plot)
