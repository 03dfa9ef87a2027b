"""The README: its commands exist as written, its example is the tested file, and CI runs its two main commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from lra_bench.cli import app
from lra_bench.registry import model_names, task_names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [
    command.split("#")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    for command in line.split("&&")
    if command.strip().startswith("lra-bench ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_legal_as_written(command):
    """Parsed as the command line would, without being run: an unknown command, option or value raises."""
    _, name, *words = shlex.split(command)
    found = get_command(app).commands[name]
    with found.make_context(name, words) as context:
        values = context.params
    tasks, models = values.get("tasks") or values.get("task") or [], values.get("model") or []
    for task in [tasks] if isinstance(tasks, str) else tasks:
        assert task in ("all", *task_names())
    for model in [models] if isinstance(models, str) else models:
        assert model == "all" or ":" in model or model.replace("-", "_") in model_names()


def test_there_are_commands_for_every_step():
    named = {shlex.split(command)[1] for command in COMMANDS}
    assert {"prepare", "train", "evaluate", "bench", "report", "validate", "export", "import", "ls", "show"} <= named


def test_the_layer_shown_is_the_tested_file():
    (shown,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert shown == (ROOT / "examples" / "moving_average.py").read_text(encoding="utf-8")


def test_ci_does_what_the_two_commands_do():
    run, test = BLOCKS[0].strip().splitlines()
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert run.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e . && ")
    assert run.endswith(".venv/bin/lra-bench quickstart")
    assert test == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest"
    for step in ("python3 -m venv", "-e '.[test]'", "lra-bench quickstart", "pytest"):
        assert step in ci


def test_the_tree_and_the_command_reference_are_what_the_code_gives():
    """`python docs/generate.py` writes them anew."""
    check = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
