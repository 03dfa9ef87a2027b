"""The machine and the software that a number was measured on. There is no name of a host, a user or a path."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

from lra_bench import __version__
from lra_bench.records.schema import Provenance, System
from lra_bench.spec import Precision

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "scipy")


def installed_versions() -> dict[str, str]:
    """The versions of `PACKAGES` by name. TFDS may be missing where prepared data was brought along."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def cpu_name() -> str:
    """The name of the processor, from Linux or else from Python."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_system(precision: Precision) -> System:
    """Describe the devices and the software of this process, and the precision of a run on it. It starts JAX."""
    import jax

    from lra_bench.machine.precision import product_precision

    device = jax.devices()[0]
    return System(
        platform=device.platform,
        device_kind=cpu_name() if device.platform == "cpu" else device.device_kind,
        devices=jax.device_count(),
        processes=jax.process_count(),
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        os=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=installed_versions(),
        precision=precision,
        matmul_precision=product_precision(precision),
    )


COMMIT = "LRA_BENCH_COMMIT"
"""The environment variable with the commit of code that was installed from a wheel: its 40 hex digits, and "+edited"
where the checkout that the wheel was built from was edited. `benchmarks/rented` sets it."""

EDITED = "+edited"


def git_state() -> tuple[str | None, bool | None]:
    """The commit of the checkout that this code runs from, and whether it is edited.

    Outside a checkout `LRA_BENCH_COMMIT` tells both; without it, both are None.
    """
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", __file__) is None:
        told = re.fullmatch(rf"([0-9a-f]{{40}})({re.escape(EDITED)})?", os.environ.get(COMMIT, ""))
        return (told[1], told[2] is not None) if told else (None, None)
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ":/*.py", ":/pyproject.toml")
    return commit, bool(changes)


def describe_provenance(command: str) -> Provenance:
    """Describe the origin of a record: version, commit, present time, and the command that repeats it."""
    commit, dirty = git_state()
    return Provenance(
        lra_bench_version=__version__,
        git_commit=commit,
        git_dirty=dirty,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
    )
