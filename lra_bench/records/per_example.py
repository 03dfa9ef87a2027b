"""The table of which test examples finished runs classify correctly, a row per example and a column per run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.progress import warn
from lra_bench.records.finished import is_finished, load_correct, load_finished
from lra_bench.runs.run import all_runs, find_run, load_run


def write_per_example(file: Path, names: Sequence[str] = ()) -> list[Path]:
    """Write a CSV file: the number of each test example in the order of the split, and 1 or 0 for each run.

    `names` are the runs, by default all finished ones of this machine that keep it. Returns their folders. Raises
    UserError where `file` has another ending, a named run does not keep it, there is none, or test sets differ.
    """
    if file.suffix != ".csv":
        raise UserError(f"--per-example writes a CSV file: name it .csv, not {file.name}.")
    folders = list(dict.fromkeys(map(find_run, names))) if names else [each for each in all_runs() if is_finished(each)]
    columns, sets = {}, set()
    for folder in folders:
        try:
            correct = load_correct(folder, load_finished(folder)) if is_finished(folder) else None
            fingerprint = load_run(folder).data.fingerprint
        except UserError as error:
            if names:
                raise
            warn(f"{folder.name} is left out: {error}")
            continue
        if correct is not None:
            columns[folder] = correct.astype(np.uint8)
            sets.add(fingerprint)
        elif names:
            raise UserError(
                f"{folder.name} does not keep which test examples are right. `lra-bench evaluate {folder.name}` writes "
                "it once the run has ended."
            )
    if len(sets) != 1:
        why = "the runs have different test sets; name runs of one with --run" if sets else "no run here keeps it"
        raise UserError(f"nothing to export example by example: {why}.")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["example", *(load_run(folder).name for folder in columns)])
    rows.writerows(np.column_stack([np.arange(len(next(iter(columns.values())))), *columns.values()]).tolist())
    write_atomically(file, text.getvalue())
    return list(columns)
