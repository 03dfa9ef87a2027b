"""`doctor`: what this machine has, what is missing, and what to type about it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from typing import Any, Literal, NamedTuple

import psutil

from lra_bench import __version__
from lra_bench.data.manifest import prepared
from lra_bench.home import home
from lra_bench.system import PACKAGES, cpu_name

SPACE_NEEDED = 20 * 2**30
"""Bytes for all six tasks with room for downloads."""


class Finding(NamedTuple):
    level: Literal["ok", "note", "problem"]
    what: str
    advice: str


def _devices() -> Finding:
    try:
        import jax

        devices = jax.devices()
    except RuntimeError as error:
        return Finding("problem", f"JAX finds no device: {error}", "Reinstall with the extra for your accelerator.")
    kinds = sorted({device.device_kind for device in devices})
    what = f"{len(devices)} × {', '.join(kinds)} ({devices[0].platform})"
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        return Finding(
            "problem", what, "There is an NVIDIA driver but JAX uses the CPU: pip install 'lra-bench[cuda13]'."
        )
    if devices[0].platform == "cpu":
        return Finding("note", what, "Full LRA runs want an accelerator; tiny data and short runs are fine here.")
    return Finding("ok", what, "")


def _disk() -> Finding:
    folder = home()
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    what = f"{free / 2**30:.0f} GiB free at {folder}"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding(
            "problem", f"{folder} is not a folder that can be written to", "Set LRA_BENCH_HOME to a folder of yours."
        )
    if free < SPACE_NEEDED:
        return Finding("note", what, "All six tasks take about 20 GiB; set LRA_BENCH_HOME to a larger disk.")
    return Finding("ok", what, "")


def _data() -> Finding:
    sets = [f"{m.task} ({m.protocol}, {m.source}, {m.size})" for _, m in prepared()]
    if not sets:
        return Finding("note", "no task is prepared", "lra-bench prepare listops")
    return Finding("ok", "prepared: " + ", ".join(sets), "")


def examine() -> dict[str, Any]:
    """Findings and the facts behind them, as JSON values."""
    findings = {"devices": _devices(), "disk": _disk(), "data": _data()}
    return {
        "lra-bench": __version__,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "findings": {name: finding._asdict() for name, finding in findings.items()},
    }


def print_findings(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        if key == "packages":
            print("packages: " + ", ".join(f"{name} {version}" for name, version in value.items()))
        elif key != "findings":
            print(f"{key}: {value}")
    for name, finding in facts["findings"].items():
        advice = f" → {finding['advice']}" if finding["advice"] else ""
        print(f"[{finding['level']}] {name}: {finding['what']}{advice}")
