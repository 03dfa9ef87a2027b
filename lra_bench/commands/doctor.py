"""The command `lra-bench doctor`: what this machine has, what is missing, and what to type about it."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lra_bench import __version__
from lra_bench.commands.options import Json, ResultsDir, chosen_results_dir
from lra_bench.errors import WorkError
from lra_bench.paths import home
from lra_bench.plain_text import one_line

SPACE_NEEDED = 20 * 2**30
"""The bytes that all six tasks take, with room for downloads."""

MOST_LISTED = 10
"""The most things that one finding lists."""


class Finding(NamedTuple):
    """The result of one check, and the advice where something is wrong."""

    level: Literal["ok", "note", "problem"]
    what: str
    advice: str


def doctor(as_json: Json = False, results_dir: ResultsDir = None) -> None:
    """Check devices, versions, disk, prepared data, runs and records; say what to do about what is wrong.

    A problem is exit code 1.
    """
    facts = examine(chosen_results_dir(results_dir))
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print_facts(facts)
    problems = [name for name, finding in facts["findings"].items() if finding["level"] == "problem"]
    if problems:
        raise WorkError(f"there is something to mend: {', '.join(problems)}; see above.")


def print_facts(facts: dict[str, Any]) -> None:
    """Print the facts, then the findings with their advice."""
    for key, value in facts.items():
        if key == "packages":
            print("packages: " + ", ".join(f"{name} {version}" for name, version in value.items()))
        elif key != "findings":
            print(one_line(f"{key}: {value}"))
    for name, finding in facts["findings"].items():
        advice = f" → {finding['advice']}" if finding["advice"] else ""
        print(one_line(f"[{finding['level']}] {name}: {finding['what']}{advice}"))


def _devices() -> Finding:
    from lra_bench.machine.environment import NoDevice, start_jax

    try:
        start_jax()
    except NoDevice as error:
        return Finding("problem", error.what, error.advice)
    import jax

    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    what = f"{len(devices)} × {', '.join(kinds)} ({devices[0].platform})"
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        return Finding(
            "problem", what, "There is an NVIDIA driver but JAX uses the CPU: in the clone, pip install -e '.[cuda13]'."
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
    from lra_bench.data.manifest import scan_sets

    found, damaged = scan_sets()
    sets = [f"{m.task} ({m.protocol}, {m.source}, {m.size})" for _, m in found]
    prepared = "prepared: " + ", ".join(sets) if sets else "no task is prepared"
    if damaged:
        return Finding("problem", f"{prepared}; {_listed(damaged.values())}", "The other sets can be used.")
    return Finding("ok", prepared, "") if sets else Finding("note", prepared, "lra-bench prepare listops")


def _runs() -> Finding:
    from lra_bench.errors import UserError
    from lra_bench.records.finished import is_finished, load_finished
    from lra_bench.runs.checksums import has_checksums
    from lra_bench.runs.run import all_runs, load_run

    folders, damaged = all_runs(), []
    for folder in folders:
        try:
            load_run(folder)
            if is_finished(folder):
                load_finished(folder)
        except UserError as error:
            damaged.append(str(error))
    if damaged:
        what = f"{len(damaged)} of {len(folders)} cannot be used: {_listed(damaged)}"
        return Finding("problem", what, "The other runs can be used.")
    unchecked = sum(not has_checksums(folder) for folder in folders)
    earlier = f", {unchecked} of an earlier lra-bench, without checksums" if unchecked else ""
    return Finding("ok", f"{len(folders)} on this machine{earlier}", "")


def _records(results_dir: Path) -> Finding:
    from lra_bench.report.select import load

    if not results_dir.is_dir():
        return Finding("note", f"there is no results folder {results_dir}", "--results-dir names another.")
    loaded, refused = load(results_dir)
    if refused:
        what = f"{len(refused)} of {len(loaded) + len(refused)} in {results_dir} cannot be used: "
        what += _listed(f"{item.id}.json: {item.reason}" for item in refused)
        return Finding("problem", what, f"lra-bench validate {results_dir}")
    return Finding("ok", f"{len(loaded)} in {results_dir}", "")


def _listed(reasons: Iterable[str]) -> str:
    """The first reasons, and how many more there are."""
    every = list(reasons)
    more = f" … and {len(every) - MOST_LISTED} more" if len(every) > MOST_LISTED else ""
    return " ".join(every[:MOST_LISTED]) + more


def examine(results_dir: Path = Path("results")) -> dict[str, Any]:
    """The findings and the facts behind them, as JSON values."""
    import psutil

    from lra_bench.machine.system import cpu_name, installed_versions

    findings = {"devices": _devices(), "disk": _disk(), "data": _data()}
    findings |= {"runs": _runs(), "records": _records(results_dir)}
    return {
        "lra-bench": __version__,
        "python": platform.python_version(),
        "os": f"{platform.system()} {platform.machine()}",
        "cpu": f"{cpu_name()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "packages": installed_versions(),
        "findings": {name: finding._asdict() for name, finding in findings.items()},
    }
