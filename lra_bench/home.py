"""Where lra-bench keeps what it makes: prepared data, runs, and matrices solved once. No JAX."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

VARIABLE = "LRA_BENCH_HOME"


def home() -> Path:
    """The folder named by LRA_BENCH_HOME (`~` is expanded), or `lra-bench` in the platform's user cache folder.

    Read anew at each call, absolute, and not created: whoever writes makes its own folder.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("lra-bench", appauthor=False))


def data_folder() -> Path:
    """Prepared tasks, as `<task>/<name>/`."""
    return home() / "data"


def runs_folder() -> Path:
    """Training runs, as `<task>/<model>/<digest>-s<seed>/`."""
    return home() / "runs"


def cache_folder() -> Path:
    """What can be computed again at any time, so that a user may empty it."""
    return home() / "cache"
