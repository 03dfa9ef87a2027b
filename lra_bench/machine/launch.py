"""Processes that train one run together: whether a launcher started this one as one of several, and the process that
watches over each.

JAX ends a process at once, with a C++ stack trace, when another one is lost. So what a launcher starts does not train
itself. It starts the process that does, passes signals on to it, and says in a sentence how it ended. This module
imports no JAX.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NamedTuple

from lra_bench.errors import STOPPING, UserError

WATCHED = "LRA_BENCH_WATCHED"
"""The environment variable of a process that another one watches over."""

ADDRESS, PROCESSES, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
"""The variables by which a user says what no launcher says: host:port of process 0, how many, and which one this is."""

LAUNCHERS = {
    "slurm": ("SLURM_STEP_NODELIST", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), "SLURM_PROCID"),
    "ompi": ("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), "OMPI_COMM_WORLD_RANK"),
}
"""By JAX's name of a launcher: a variable that only its processes have, those with how many there are, and that with
which one this is."""

_DEATH = re.compile(rb"[EF]\d{4} .*(coordination_service|client\.h:\d+\] Terminating process)")
"""The first line that JAX prints when another process is lost."""

_SAID = (b"Error: ", b"\nStopped by", b"Stopped by")
"""How a line begins that is ours."""


class Launch(NamedTuple):
    """How this process was started: JAX's name of the launcher, or "" where the user says all; how many processes
    there are, None where only JAX can find out; and which of them this one is, from 0."""

    launcher: str
    processes: int | None
    number: int


def launch_of(environ: Mapping[str, str]) -> Launch | None:
    """How a launcher started this process as one of several, by its environment; None where it is alone.

    A job or a shell of one task is alone, also on a cluster. Raises UserError where the variables do not suffice.
    """
    found = _found(environ)
    processes = _number(environ, PROCESSES, found.processes if found else None)
    index = _number(environ, INDEX, found.number if found else None)
    if ADDRESS in environ:
        if processes is None or index is None:
            raise UserError(
                f"{ADDRESS} is set, so this is one of several processes, and {PROCESSES} or {INDEX} is missing. Set "
                "both, or type --processes one."
            )
        if index >= processes:
            raise UserError(f"{INDEX} counts from 0 and must be below {processes}, the processes; got {index}.")
        return Launch("", processes, index) if processes > 1 else None
    if found is None or found.processes == 1:
        return None
    if found.launcher == "ompi" and "OMPI_MCA_orte_hnp_uri" not in environ:
        raise UserError(
            f"this version of Open MPI does not tell the address of process 0. Set it, as in mpirun -x {ADDRESS}="
            "HOST:PORT, with any free port of that host, or type --processes one."
        )
    return found


def _found(environ: Mapping[str, str]) -> Launch | None:
    """What a launcher says."""
    for launcher, (mark, counts, index) in LAUNCHERS.items():
        count = next((int(environ[name]) for name in counts if environ.get(name, "").isdecimal()), None)
        if mark in environ and index in environ and count is not None:
            return Launch(launcher, count, int(environ[index]))
    # The pods of a job have an index each. How many there are is asked of the cluster, which needs this package.
    if "KUBERNETES_SERVICE_HOST" in environ and environ.get("JOB_COMPLETION_INDEX", "").isdecimal():
        asked = None if importlib.util.find_spec("kubernetes") else _number(environ, PROCESSES, 1)
        return Launch("k8s", asked, int(environ["JOB_COMPLETION_INDEX"]))
    return None


def _number(environ: Mapping[str, str], name: str, otherwise: int | None) -> int | None:
    if name not in environ:
        return otherwise
    if not environ[name].isdecimal():
        raise UserError(f"{name} must be a whole number, got {environ[name]!r}.")
    return int(environ[name])


def own_devices(environ: Mapping[str, str]) -> list[int] | None:
    """The numbers of the GPUs that this process takes of those it sees; None means all of them.

    The processes that a launcher started on a host share its GPUs out, also where the user says the address of process
    0. So one per GPU takes one and one per host takes all. Where a process sees fewer GPUs than there are processes, or
    than the host gave the job, the launcher gave it its own.
    """
    names = {
        "slurm": ("SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
        "ompi": ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    }
    found = _found(environ)
    if found is None or found.launcher not in names or "JAX_LOCAL_DEVICE_IDS" in environ:
        return None
    local, many = (environ.get(name, "") for name in names[found.launcher])
    if found.launcher == "slurm":
        many = _tasks_on_node(many, environ.get("SLURM_NODEID", ""))
    if not (local.isdecimal() and many.isdecimal()) or int(many) == 1:
        return None
    visible = [part for part in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    if not visible:
        return [int(local)]
    on_host = environ.get("SLURM_GPUS_ON_NODE", "")
    if on_host.isdecimal() and int(on_host) > len(visible):
        return None
    each = len(visible) // int(many)
    return list(range(int(local) * each, (int(local) + 1) * each)) or None


def _tasks_on_node(tasks: str, node: str) -> str:
    """The number of tasks on a node, from SLURM's list for all nodes such as `4(x2),3`; "" where it says none."""
    each: list[str] = []
    for part in tasks.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        each += [match[1]] * int(match[2] or 1) if match else []
    return each[int(node)] if node.isdecimal() and int(node) < len(each) else ""


def watch_over(words: Sequence[str]) -> int:
    """Run `lra-bench` with these words in a process of its own, and return the exit code of both.

    A signal is passed on, and a third one kills. Where the process was ended by a signal of its own, one sentence says
    what happened.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "lra_bench", *words],
        env={**os.environ, WATCHED: "1"},
        stdin=subprocess.PIPE,  # it ends when this process does, however that is
        stderr=subprocess.PIPE,
        start_new_session=True,  # or a key typed in the terminal would reach both
    )

    signals = itertools.count(1)

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(signal.SIGKILL if next(signals) > 2 else number)

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    assert child.stderr is not None
    held: list[bytes] = []
    for line in child.stderr:
        if held or _DEATH.match(line):
            held.append(line)
        else:
            _print(line)
    code = child.wait()
    lost = code == -signal.SIGABRT and bool(held)
    _print(*(line for line in held if line.startswith(_SAID) or (code < 0 and not lost)))
    if code >= 0:
        return code
    what = (
        "another process of this run was lost: it was killed, or its host or the network failed; what it printed last "
        "may say more"
        if lost
        else f"the process that trained was ended by {signal.Signals(-code).name}"
    )
    advice = "What was saved is kept. To continue, start all processes again with the same command."
    _print(f"Error: {what}. {advice}\n".encode())
    return 1 if lost else 128 - code


def _print(*lines: bytes) -> None:
    sys.stderr.flush()
    sys.stderr.buffer.writelines(lines)
    sys.stderr.buffer.flush()


def end_with_parent() -> None:
    """End this process as soon as the one that watches over it has ended."""

    def wait() -> None:
        os.read(0, 1)  # nothing is ever written
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
