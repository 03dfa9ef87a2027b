"""`report` and `validate` as commands: what they print, and when they fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from lra_bench import UserError, WorkError
from lra_bench.report import report
from lra_bench.report.bundle import bundle
from lra_bench.spec import Protocol
from lra_bench.validation import validate


def make_report(
    results_dir: Path,
    out_dir: Path | None,
    protocol: Protocol,
    skip_unreadable: bool,
    pictures: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Make and print the report; the last lines are its files. Raises WorkError where `check` finds old tables."""
    console = None if as_json or check else Console()
    made = report(
        results_dir,
        out_dir,
        protocol=protocol,
        skip_unreadable=skip_unreadable,
        pictures=pictures,
        check=check,
        console=console,
    )
    if as_json:
        print(made.files["leaderboard.json"], end="")
    elif check:
        print(f"The tables in {out_dir or results_dir} are what its records give.")
    else:
        for name in made.files:
            print((out_dir or results_dir) / name)


def make_bundle(results_dir: Path, out: Path, models: Sequence[str], tasks: Sequence[str]) -> None:
    """Pack the chosen records; the last line is the file."""
    print(bundle(results_dir, out, models=models, tasks=tasks))


def print_problems(results_dir: Path, as_json: bool) -> None:
    """List what is wrong, errors first. Raises UserError for no such folder, WorkError when there is an error among
    it."""
    if not results_dir.is_dir():
        raise UserError(
            f"{results_dir} is no folder. Give the folder that holds result records, as in `validate results`."
        )
    problems = validate(results_dir)
    if as_json:
        print(json.dumps([asdict(problem) for problem in problems], indent=1, default=str))
    else:
        for problem in problems:
            print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        raise WorkError(f"{errors} of the records in {results_dir} cannot be used as they are; see above.")
    if not problems and not as_json:
        print(f"No problems in {results_dir}.")
