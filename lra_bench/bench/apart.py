"""Measuring each case in a process of its own: a device's count of its peak memory never falls within a process.

JAX cannot reset that count. On a GPU the process that starts the others holds no memory of the device beside them. A
TPU belongs to one process, and a CPU does not count, so there all cases share one process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from lra_bench.errors import WorkError

T = TypeVar("T")

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
"""The variable that tells JAX whether to take most of a GPU's memory at once. It is read when the devices are found."""


@contextmanager
def memory_left_free() -> Iterator[None]:
    """Find the devices in this context without taking their memory, so that other processes can."""
    if PREALLOCATE in os.environ:
        yield
        return
    os.environ[PREALLOCATE] = "false"
    try:
        yield
    finally:
        del os.environ[PREALLOCATE]


def in_own_process(function: Callable[..., T], *arguments: object) -> T:
    """Call the function in a new process and return its value. What it raises is raised here.

    Raises WorkError where the process ends without a value. A signal that stops this process ends the other one.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        raised, value = ours.recv()
    except EOFError:
        raise WorkError("the process that measures ended in the middle; the machine may lack memory.") from None
    finally:
        process.terminate()
        process.join()
    if raised:
        raise value
    return value


def _send(connection: Connection, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    """Send whether the function raises, and what it raises or returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes, and the other one ends this one
    try:
        found = False, function(*arguments)
    except Exception as error:
        found = True, error
    connection.send(found)
