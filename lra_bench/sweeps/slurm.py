"""The engine `slurm`: the runs of a sweep as an array of SLURM jobs, through submitit (the extra `slurm`).

A job trains one run in a process of its own. Before its time limit the run is saved and the job is queued again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lra_bench.errors import UserError

MOST_REQUEUES = 1_000
"""How often a job is queued again. A run of days on a queue of hours needs some tens."""

SAVE_SECONDS = 120
"""The seconds before the time limit at which a run is told to save itself."""


class TrainJob:
    """A job of the array: it trains one run, given by the words of its command.

    submitit calls `checkpoint` when SLURM says that the time is up or another job takes the place.
    """

    def __init__(self, words: Sequence[str]):
        """Take the words behind `lra-bench`."""
        self.words = list(words)
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Train until the run has ended. Raises RuntimeError where it fails, so that SLURM calls the job failed."""
        # Another session: the signals of SLURM come to this process alone, which gives the run one to save itself.
        self.process = subprocess.Popen([sys.executable, "-m", "lra_bench", *self.words], start_new_session=True)
        while self.process.poll() is None:
            time.sleep(0.2)
        if self.process.returncode:
            raise RuntimeError(f"lra-bench {' '.join(self.words)} ended with exit code {self.process.returncode}")

    def checkpoint(self) -> Any:
        """Save the run, and return the job to queue again."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.process.pid, signal.SIGTERM)
                # Not wait: this may have interrupted poll, which holds its lock.
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(TrainJob(self.words))


def refuse_if_not_usable() -> None:
    """Check that jobs can be given to SLURM. Raises UserError where submitit or sbatch is not here."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--engine slurm needs submitit, which is not installed. Type: pip install 'lra-bench[slurm]'")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "--engine slurm needs SLURM, and there is no sbatch on this machine. Type it where jobs are submitted, "
            "or use --engine local or --engine print."
        )


def submit(
    commands: Sequence[Sequence[str]],
    folder: Path,
    minutes: int,
    sbatch: Mapping[str, str],
    at_once: int | None,
    cluster: Literal["slurm", "local"] = "slurm",
) -> list[Any]:
    """Submit one job per command, given by its words, as one array; return submitit's jobs.

    folder: of submitit's scripts and of what the jobs print. `minutes` is the time limit of a job, `sbatch` further
    options of `sbatch` by name, `at_once` the most jobs that run at the same time. Another `cluster` is for tests.
    Raises UserError where SLURM refuses the jobs.
    """
    import submitit

    limits = {"slurm_max_num_timeout": MOST_REQUEUES} if cluster == "slurm" else {}
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, **limits)
    executor.update_parameters(timeout_min=minutes, name="lra-bench")
    if cluster == "slurm":
        executor.update_parameters(
            slurm_array_parallelism=at_once or len(commands),
            slurm_signal_delay_s=SAVE_SECONDS,
            slurm_additional_parameters={**sbatch, "requeue": True},
        )
    try:
        return list(executor.submit_array([TrainJob(words) for words in commands]))
    except submitit.core.utils.FailedJobError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
        raise UserError(f"SLURM refuses the jobs: {lines[-1] if lines else 'see above'}") from None
