"""The folders of lra-bench, atomic file writing, and locks. This module does not import JAX."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import BaseFileLock, FileLock, Timeout

from lra_bench.errors import FULL, REFUSED, UserError, WorkError

VARIABLE = "LRA_BENCH_HOME"
"""The environment variable that names the folder for data, runs and caches."""


def expanded(path: Path) -> Path:
    """Return the path absolute, with `~` and `~user` expanded. Raises UserError for a user that there is not."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{path}: there is no home folder of that name here. Type the path in full.") from None


def home() -> Path:
    """Return the folder named by LRA_BENCH_HOME, or `lra-bench` in the platform's user cache folder.

    `~` is expanded and the path is absolute. The variable is read at each call. The folder is not created here; code
    that writes creates the folder that it needs.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return expanded(Path(chosen))
    return Path(platformdirs.user_cache_dir("lra-bench", appauthor=False))


def data_folder() -> Path:
    """Return the folder of prepared sets, each in `<task>/<name>/`."""
    return home() / "data"


def runs_folder() -> Path:
    """Return the folder of training runs, each in `<task>/<model>/<digest>-s<seed>/`."""
    return home() / "runs"


def default_results_dir() -> Path:
    """Return the folder of result records where no command line names another.

    It is `results` in the working directory, but `results` in `home()` anywhere in the clone of lra-bench: runs of a
    user there never enter the records that are committed.
    """
    clone = Path(__file__).resolve().parent.parent
    in_clone = (clone / "results" / "README.md").exists() and Path.cwd().resolve().is_relative_to(clone)
    return home() / "results" if in_clone else Path("results")


_temporary_cache: list[Path] = []


def cache_folder() -> Path:
    """Return the folder of files that can be computed again at any time. A user may empty it."""
    return _temporary_cache[-1] if _temporary_cache else home() / "cache"


@contextmanager
def temporary_cache() -> Iterator[None]:
    """Use another cache folder during the context, which is removed at its end, so that nothing stays written."""
    with tempfile.TemporaryDirectory(prefix="lra-bench-", ignore_cleanup_errors=True) as folder:
        _temporary_cache.append(Path(folder))
        try:
            yield
        finally:
            _temporary_cache.pop()


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


LOOK_SECONDS = 0.2
"""The seconds that a lock is tried for. Who only looks whether a run is training holds its lock for much less."""


@contextmanager
def locked(path: Path, on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` during the context. The operating system releases it when the process dies.

    `on_busy` is called if another process holds the lock. It raises to give up, or returns to wait for the lock.
    Raises WorkError where the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        _acquire(lock, seconds=LOOK_SECONDS)
    except Timeout:
        on_busy()
        _acquire(lock, seconds=-1)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: BaseFileLock, seconds: float) -> None:
    """Acquire the lock within so many seconds, or in any time if negative. Raises as `locked`, and Timeout."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # filelock warns where it would take a weaker lock
            lock.acquire(timeout=seconds)
    except Timeout:
        raise
    except (OSError, NotImplementedError, UserWarning) as error:  # filelock raises each where there are no locks
        if isinstance(error, OSError) and error.errno in (*FULL, *REFUSED):
            raise  # of the file, not of its lock
        raise WorkError(
            f"{lock.lock_file} cannot be locked ({error}): its file system has no locks. Set {VARIABLE} to a folder on "
            "another one."
        ) from None
