"""The command `lra-bench validate`: check result records without training anything again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lra_bench.commands.options import Json, chosen_results_dir
from lra_bench.errors import WorkError
from lra_bench.plain_text import one_line


def validate(
    results_dir: Annotated[
        Path | None,
        typer.Argument(help="A folder of result records that somebody sends you. By default that of your own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check records: schema, duplicates, fingerprints, and values too good or too bad to be true."""
    from lra_bench.records.validate import validate as find_problems

    folder = chosen_results_dir(results_dir)
    problems = find_problems(folder)
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], indent=1, default=str))
    else:
        for problem in problems:
            print(one_line(str(problem)))
    unusable = {problem.file for problem in problems if problem.severity == "error"}
    if unusable:
        raise WorkError(f"{len(unusable)} of the records in {folder} cannot be used as they are; see above.")
    if not problems and not as_json:
        print(f"No problems in {folder}.")
