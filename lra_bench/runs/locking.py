"""The lock of a run, and the folder that holds it while an import replaces it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lra_bench.paths import locked
from lra_bench.runs.checksums import SETTINGS

ASIDE = ".aside"
"""The ending of a hidden folder that holds a run while an import replaces it."""


class Busy(Exception):
    """Another process holds the lock of a run."""


def leave() -> None:
    """Give up where another process holds the lock. Raises Busy."""
    raise Busy


def aside_of(folder: Path) -> Path:
    """The folder that holds the run of `folder` while an import replaces it."""
    return folder.with_name(f".{folder.name}{ASIDE}")


def original_of(aside: Path) -> Path:
    """The folder of the run that `aside` holds; the inverse of `aside_of`."""
    return aside.with_name(aside.name.removeprefix(".").removesuffix(ASIDE))


@contextmanager
def run_locked(folder: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the run in `folder` during the context. It lies beside the folder, which may be replaced whole.

    What an import that was killed left is mended first: the run that it had moved aside is put back, unless the new one
    is in its place. `on_busy` is called if another process holds the lock; see `paths.locked`.
    """
    with locked(_lock_of(folder), on_busy):
        aside = aside_of(folder)
        shutil.rmtree(_discarded(aside), ignore_errors=True)
        if aside.exists() and (folder / SETTINGS).exists():
            discard(aside)
        elif aside.exists():
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        yield


def is_training(folder: Path) -> bool:
    """Whether a process holds the lock of the run in `folder`, which is there."""
    try:
        with locked(_lock_of(folder), leave):
            return False
    except Busy:
        return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def discard(aside: Path) -> None:
    """Remove a run that was moved aside. It has another name first, so that no half of it is ever put back."""
    aside.rename(_discarded(aside))
    shutil.rmtree(_discarded(aside))


def _discarded(aside: Path) -> Path:
    return aside.with_name(f"{aside.name}.discarded")
