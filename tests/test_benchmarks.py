"""Each script of `benchmarks/` runs, at its smallest, in a process of its own as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from lra_bench import cli
from lra_bench.bench.synthetic import synthetic_run
from lra_bench.overrides import parse_overrides

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "printed"),
    [
        ("train_step.py", ["--task", "pathfinder", "--batch", "1", "--rounds", "1"], "| pathfinder | 1 |"),
        ("recurrence.py", ["--lengths", "64", "--rounds", "1"], "| 64 | 1 | 128 | 128 |"),
        ("kernels.py", ["--length", "64", "--channels", "8", "--states", "4", "--rounds", "1"], "S4D kernel, H=8 N=4"),
        ("full_size_steps.py", ["--model", "s5", "--task", "listops"], "| s5 | listops | 188,490 |"),
        ("ptd_error.py", ["--states", "8"], "| 8 | 0.3 | 3.7 | 9.0 % | 0.15 | 0.39 | 0.11 | 4.8 |"),
        ("pathfinder_statistics.py", ["--help"], "usage:"),
        ("scan_forms_on_tpu.py", ["--help"], "usage:"),
    ],
)
def test_script_runs(script, options, printed):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


STAND_IN = """#!/bin/sh
exec "{python}" - "$@" <<'END'
import json, sys
with open("typed.jsonl", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
if "--status" in sys.argv:
    print(json.dumps([dict(run="scifar/s5/0123456789ab-s0", state="done"), dict(run="other", state="failed")]))
END
"""
"""A command `lra-bench` that trains nothing: it notes what was typed, and says that one of two runs is done."""


@pytest.mark.parametrize(
    ("words", "networks"),
    [
        (["reduced.sh", "results"], 15 * 2 + 2),
        (["reduced.sh", "results", "image"], 16),
        (["fourier_noise.sh", "results", "s4", "full", "--seed", "1"], 2),
        (["fourier_noise.sh", "results", "s5", "reduced"], 2),
        (["precision.sh"], 3),
    ],
)
def test_shell_script_types_legal_commands(words, networks, tmp_path, monkeypatch):
    stand_in = tmp_path / "lra-bench"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", str(BENCHMARKS / words[0]), *words[1:]], check=True)

    trained = []
    for line in (tmp_path / "typed.jsonl").read_text().splitlines():
        typed = json.loads(line)
        with get_command(cli.app).commands[typed[0]].make_context(typed[0], typed[1:]) as context:
            given = context.params
        if typed[0] == "robustness":
            assert given["runs"] == ["scifar/s5/0123456789ab-s0"] * 2, "one that is done, of each of the two arms"
        elif typed[0] in ("sweep", "train") and "--status" not in typed:
            for model in given["model"]:
                for task in given["task"]:
                    settings, precision = parse_overrides(given["settings"]), given["precision"] or "float32"
                    trained.append(synthetic_run(model, task, None, settings, precision)[0].name)
    assert len(trained) == len(set(trained)) == networks
