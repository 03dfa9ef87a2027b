"""The folders of lra-bench, atomic file writing, and locks. This module does not import JAX."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

VARIABLE = "LRA_BENCH_HOME"
"""The environment variable that names the folder for data, runs and caches."""


def home() -> Path:
    """Return the folder named by LRA_BENCH_HOME, or `lra-bench` in the platform's user cache folder.

    `~` is expanded and the path is absolute. The variable is read at each call. The folder is not created here; code
    that writes creates the folder that it needs.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(platformdirs.user_cache_dir("lra-bench", appauthor=False))


def data_folder() -> Path:
    """Return the folder of prepared sets, each in `<task>/<name>/`."""
    return home() / "data"


def runs_folder() -> Path:
    """Return the folder of training runs, each in `<task>/<model>/<digest>-s<seed>/`."""
    return home() / "runs"


def cache_folder() -> Path:
    """Return the folder of files that can be computed again at any time. A user may empty it."""
    return home() / "cache"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path` so that the file is there whole or not at all, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())  # the bytes must be on the disk before the name is
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` during the context. The operating system releases it when the process dies.

    `on_busy` is called if another process holds the lock. It raises to give up, or returns to wait for the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_busy()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
