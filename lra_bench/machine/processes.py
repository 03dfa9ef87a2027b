"""Several processes that train one run: joining them, agreeing on what each must decide alike, and ending together.

All run the same program on the same global arrays. What follows from a clock, a signal, a file or the memory of a host
could differ, so one process decides it or all are asked: `from_first`, `gather`. Only process 0 writes files. In a
single process all of this does nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lra_bench.errors import STOPPING, WorkError
from lra_bench.machine.environment import start_jax
from lra_bench.machine.launch import Launch, end_with_parent, own_devices

LOST_SECONDS = 30
"""The seconds without a sign of life after which a process is taken for lost."""

START_SECONDS = 300
"""How long the processes wait for each other at the start."""

ITSELF_SECONDS = 2
"""How long a process may take to end by itself, with the same error, where another one has ended with one."""

HEARD_SECONDS = 10
"""The longest that a process that ends with an error waits until the others have heard of it."""

T = TypeVar("T")
_END, _HEARD = "lra-bench/end", "lra-bench/heard"
_FOREVER = 2**31 - 1  # milliseconds
_rounds = itertools.count()
_ending = threading.Event()


def connect(launch: Launch) -> None:
    """Join the processes of this launch. Call it before anything uses a device.

    A signal that asks to stop takes effect when they are joined, or the others would wait for this one. Raises
    WorkError where they do not find each other.
    """
    end_with_parent()
    noted: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, signal.SIG_DFL)

    watched = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in watched}
    try:
        _initialize(launch)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    threading.Thread(target=_end_with_others, daemon=True).start()
    if noted:
        os.kill(os.getpid(), noted[0])


def _initialize(launch: Launch) -> None:
    """Start JAX with the devices of all processes. Raises as `connect`."""
    start_jax(find_devices=False)
    import jax

    devices = own_devices(os.environ)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    if launch.launcher == "slurm" and "SLURM_STEP_ID" in os.environ:
        # JAX takes the port from the job alone, and two steps of a job would find each other's processes.
        step = int(os.environ["SLURM_JOB_ID"]) + 7 * int(os.environ["SLURM_STEP_ID"])
        os.environ.setdefault("JAX_COORDINATOR_PORT", str(61_440 + step % 4_096))
    try:
        jax.distributed.initialize(
            num_processes=launch.processes,
            process_id=launch.number,
            local_device_ids=devices,
            cluster_detection_method=launch.launcher or "deactivate",
            initialization_timeout=START_SECONDS,
            shutdown_timeout_seconds=LOST_SECONDS,
            heartbeat_timeout_seconds=LOST_SECONDS,
        )
    except Exception as error:  # each launcher has its own
        raise WorkError(
            f"the processes of this run do not find each other: {str(error).splitlines()[0]}. docs/many_hosts.md says "
            "what each launcher needs; --processes one trains in this process alone."
        ) from None
    if devices is None and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):  # JAX took one per process
            jax.config.update(name, os.environ.get(name.upper(), "all"))


def _client() -> Any:
    """The connection to process 0, which keeps values by key for all; None in a single process."""
    if "jax" not in sys.modules:
        return None
    from jax._src import distributed

    return distributed.global_state.client


def index() -> int:
    """Which of the processes this one is, from 0."""
    if _client() is None:
        return 0
    from jax._src import distributed

    return distributed.global_state.process_id


def alone() -> bool:
    """Whether no other process trains the run with this one."""
    return _client() is None


def is_first() -> bool:
    """Whether this is process 0, which alone writes files, or a single process."""
    return index() == 0


def gather(value: T) -> list[T]:
    """The values of all processes, which are JSON, in their order. All must call this."""
    client = _client()
    if client is None:
        return [value]
    from jax._src import distributed

    number, me = next(_rounds), index()
    place = f"lra-bench/{number}"
    client.key_value_set(f"{place}/{me}", json.dumps(value))
    if me == 0:
        every = range(distributed.global_state.num_processes)
        found = [client.blocking_key_value_get(f"{place}/{each}", _FOREVER) for each in every]
        client.key_value_delete(f"lra-bench/{number - 1}/")  # all have read it, or they would not be here
        client.key_value_set(f"{place}/all", f"[{','.join(found)}]")
    return json.loads(client.blocking_key_value_get(f"{place}/all", _FOREVER))


def from_first(value: T) -> T:
    """The value of process 0, which is JSON, in all of them. All must call this."""
    return gather(value if is_first() else None)[0]  # type: ignore[return-value]


def on_first(work: Callable[[], object]) -> None:
    """Do some work in process 0, while the others wait. Where it raises an error, they end with it."""
    if is_first():
        work()
    gather(None)


@contextlib.contextmanager
def quiet_unless_first() -> Iterator[None]:
    """Let only process 0 print during the context. An error that leaves it can be printed by each."""
    if is_first():
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


def leave(code: int, why: str) -> None:
    """End this process, and with an error the others too. In a single process nothing happens.

    Without an error all end together, however long process 0 takes to send its curve to a tracker.
    """
    client = _client()
    if client is None:
        return
    with contextlib.suppress(Exception):  # the others may be gone
        if code == 0:
            import jax

            gather(None)  # without a time limit, which JAX's own waiting below has
            _ending.set()
            jax.distributed.shutdown()
        else:
            _ending.set()
            client.key_value_set(_END, json.dumps([code, why, index()]), allow_overwrite=True)
            _wait_until_heard(client)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not through JAX, which would wait for those who are gone


def _wait_until_heard(client: Any) -> None:
    """Wait until every process is about to end. Process 0 ends last, because JAX ends the others with it."""
    from jax._src import distributed

    until = time.monotonic() + HEARD_SECONDS
    with contextlib.suppress(Exception):  # the others may be gone
        for each in range(distributed.global_state.num_processes):
            left = max(0.0, until - time.monotonic())
            client.blocking_key_value_get(f"{_HEARD}/{each}", int(1000 * left))
    if is_first():
        time.sleep(0.5)


def wait_for_the_cause() -> None:
    """Wait, after an error of a device, whether it comes of the loss of another process, which then ends this one."""
    if not alone():
        time.sleep(1.5 * LOST_SECONDS)


def _end_with_others() -> None:
    """End this process when another one has ended with an error, with its code and its words."""
    client = _client()
    with contextlib.suppress(Exception):  # of a process that ends, or of JAX, which then ends it
        code, why, number = json.loads(client.blocking_key_value_get(_END, _FOREVER))
        by_itself = _ending.wait(ITSELF_SECONDS)
        client.key_value_set(f"{_HEARD}/{index()}", "")
        if not by_itself:
            os.write(2, f"Error: process {number} of this run ended, and so does this one: {why}\n".encode())
            if is_first():
                _wait_until_heard(client)
            os._exit(code)
