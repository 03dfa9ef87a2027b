"""Two processes with two CPU devices each, started with the variables of SLURM, that train a small run together."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil

SETTINGS = {"n_layers": 1, "d_model": 8, "batch_size": 42, "dropout": 0.1, "epochs": 1.2, "decay_epochs": 2.0}


def free_port():
    """A port that nobody listens at. JAX's own choice depends on the number of the job only."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class TwoProcesses:
    """The two processes, as `srun` would start them. Each trains in a process of its own, which is its child."""

    def __init__(self, home, results, seed=0):
        chosen = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        words = [
            "train",
            "--model",
            "s5",
            "--task",
            "listops",
            "--size",
            "tiny",
            "--precision",
            "float32",
            "--seed",
            str(seed),
            *chosen,
        ]
        port, self.home = free_port(), home
        self.processes = []
        for number in range(2):
            slurm = {"JOB_ID": 1, "STEP_NODELIST": "localhost", "NTASKS": 2, "PROCID": number, "LOCALID": number}
            environment = {
                **os.environ,
                **{f"SLURM_{name}": str(value) for name, value in slurm.items()},
                "JAX_COORDINATOR_PORT": str(port),
                "LRA_BENCH_HOME": str(home),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            }
            command = [sys.executable, "-m", "lra_bench", *words, "--results-dir", str(results)]
            pipe = subprocess.PIPE
            self.processes.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))

    @property
    def running(self):
        return any(process.poll() is None for process in self.processes)

    def wait_for_steps(self, seconds=300):
        """Wait until the first steps of this session are taken."""
        started, until = time.time() - 0.01, time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            if any(path.stat().st_mtime > started for path in self.home.glob("runs/*/*/*/position.json")):
                return
            time.sleep(0.02)
        raise AssertionError(f"no step was taken: {self.end()}")

    def send(self, signum, number, to_child=False):
        """Send a signal to one of the two, or to its child."""
        process = psutil.Process(self.processes[number].pid)
        children = process.children() if to_child else []
        os.kill(children[0].pid if children else process.pid, signum)

    def end(self, seconds=300):
        """Wait for the end of both. Returns their exit codes and what they printed on stderr."""
        try:
            printed = [process.communicate(timeout=seconds)[1] for process in self.processes]
        except subprocess.TimeoutExpired:
            for number in range(2):
                self.send(signal.SIGKILL, number)
            raise
        return [process.returncode for process in self.processes], printed
