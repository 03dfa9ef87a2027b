"""The saved steps of a run, below `checkpoints/last` and `checkpoints/best`: a folder each, called by its number.

Orbax writes and reads them (`training/checkpoint.py`). Here they are found and checked without JAX.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lra_bench.runs.checksums import damage_of

PRETRAINING = "pretraining"
"""The folder below `checkpoints` in which a self-pretraining has its own `last` and `best`."""


def saved_steps(kind: Path) -> list[int]:
    """The numbers of the steps saved below `checkpoints/last` or `checkpoints/best`, ascending."""
    if not kind.is_dir():
        return []
    return sorted(int(path.name) for path in kind.iterdir() if path.name.isdecimal() and path.is_dir())


def whole_steps(kind: Path, before: int | None = None) -> Iterator[int]:
    """Those of `saved_steps`, and of them those before a step, that are as they were saved. The newest comes first."""
    for step in reversed(saved_steps(kind)):
        if (before is None or step < before) and not damage_of(kind / str(step)):
            yield step


def damage_of_step(folder: Path) -> str | None:
    """What is not as it was saved in the folder of a step, or that there is none; None where all is."""
    return damage_of(folder) if folder.is_dir() else "it is missing"
