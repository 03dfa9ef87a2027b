"""Folders of lra-bench, writing a file whole or not at all, and locks. No JAX."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

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
    """The folder of prepared tasks, each in `<task>/<name>/`."""
    return home() / "data"


def runs_folder() -> Path:
    """The folder of training runs, each in `<task>/<model>/<digest>-s<seed>/`."""
    return home() / "runs"


def cache_folder() -> Path:
    """The folder of what can be computed again at any time. A user may empty it."""
    return home() / "cache"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) so that a reader, or a crash, sees the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`. The operating system releases it when the process dies.

    `on_busy` is called while another process holds it: it raises, or returns to wait for the other process.
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
