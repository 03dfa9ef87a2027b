"""What ends training early: a signal, a time limit, another process on the same run, a device without memory."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

from lra_bench.errors import STOPPING, Interrupted, OutOfTime, WorkError
from lra_bench.machine.processes import gather, is_first, on_first, wait_for_the_cause
from lra_bench.runs.locking import run_locked
from lra_bench.runs.run import Run, refuse_a_file


class StopRequest:
    """Whether to stop between two dispatches, because of a signal or because time is up.

    A second signal acts as if this were not here. A signal that the process ignores, as under nohup, stays ignored.
    Python gives signals to the main thread only, so in another thread they are not watched.
    """

    def __init__(self, deadline: float | None):
        self.deadline = deadline
        """On the clock of `time.monotonic`."""
        self.received: int | None = None

    def __enter__(self) -> StopRequest:
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            watched = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in watched}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python

    def _note(self, signum: int, _: FrameType | None) -> None:
        self.received = signum
        before = self._before[signal.Signals(signum)]
        signal.signal(signum, signal.SIG_DFL if before is None else before)

    @property
    def wanted(self) -> bool:
        """Whether a signal came or the deadline has passed."""
        return self.received is not None or (self.deadline is not None and time.monotonic() >= self.deadline)

    def agree(self) -> bool:
        """Whether any of the processes that train the run is to stop. Then each is. All must call this."""
        told = gather((self.received, self.wanted))
        signals = [number for number, _ in told if number is not None]
        wanted = any(wanted for _, wanted in told)
        if signals:
            self.received = signals[0]
        elif wanted:
            self.deadline = time.monotonic()
        return wanted

    def raise_if_wanted(self, run: Run) -> None:
        """Leave, now that everything is saved, if any process is to stop. All must call this.

        Raises Interrupted for a signal, OutOfTime for the deadline.
        """
        if not self.agree():  # asked again, because in one of them the time may have run out during the save
            return
        continues = f"all is saved. The same command continues: {run.command}"
        self.raise_if_signaled(continues)
        raise OutOfTime(f"the time limit is reached; {continues}")

    def raise_if_signaled(self, state: str) -> None:
        """Raises Interrupted with `state` as its message where a signal came."""
        if self.received is not None:
            raise Interrupted(self.received, f"stopped by {signal.Signals(self.received).name}; {state}")


@contextlib.contextmanager
def only_process_of(run: Run) -> Iterator[None]:
    """Hold the run's lock. Two processes would write each other's checkpoints. Of several that train the run together
    the first one holds it for all.

    Raises WorkError while another process trains the same run, and UserError where a file is in its folder's place.
    """

    def refuse() -> None:
        raise WorkError(f"another process is training {run.name}. Wait for it, or stop it and type the same again.")

    with run_locked(run.folder, refuse) if is_first() else contextlib.nullcontext():
        on_first(lambda: refuse_a_file(run.folder))
        yield


@contextlib.contextmanager
def out_of_memory_in_words(run: Run) -> Iterator[None]:
    """Turn a device or host that runs out of memory into a WorkError that says what needs less."""
    try:
        yield
    except MemoryError:
        raise WorkError(f"this machine has too little memory for the initial values of {run.name}.") from None
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            wait_for_the_cause()
            raise
        raise WorkError(
            f"the device has too little memory for {run.name}. Training takes less with --remat, with --microbatch "
            "where there is no BatchNorm, with the examples on the host (--data-on host), or with fewer at once, as in "
            f"--set batch_size={max(1, run.recipe.batch_size // 2)}."
        ) from None
    except ValueError as error:
        if re.search("gloo|nccl", str(error), re.IGNORECASE):  # what adds up over processes failed
            wait_for_the_cause()
        raise
