"""The shape of the code: who imports whom, what starts fast, what never enters, and that the wheel works elsewhere."""

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"tensorflow", "torch"}
JAX = {"jax", "flax", "optax", "orbax"}
PLOTS = "matplotlib"
"""What is installed with an extra only."""

ORDER = [
    "errors",
    "plain_text",
    "json_files",
    "spec",
    "overrides",
    "published_status",
    "progress",
    "paths",
    "datasource",
    "data.raw",
    "data.generators",
    "tasks",
    "recipes",
    "registry",
    "custom_layer",
    "ssm.hippo",
    "ssm.ptd",
    "ssm.spectrum",
    "ssm.gain",
    "data",
    "runs",
    "records",
    "runs.transfer",
    "report",
    "sweeps",
    "machine",
    "kernels",
    "ssm",
    "models",
    "training",
    "bench",
    "commands",
    "api",
    "cli",
]
"""Rooms from the bottom up. A module imports its own room and those before it in this list, never one after it.
`docs/architecture.md` explains them."""

JAX_FREE = [*ORDER[: ORDER.index("machine")], "commands", "api", "cli"]
"""What must start fast: no module here imports JAX when it is imported itself."""


def modules():
    """(dotted name below lra_bench, path) of every module; tasks/ counts as lra_bench.tasks."""
    for folder, prefix in ((ROOT / "lra_bench", ""), (ROOT / "tasks", "tasks.")):
        for path in sorted(folder.rglob("*.py")):
            name = prefix + ".".join(path.relative_to(folder).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports(name, path, top_level_only=False):
    """Absolute names imported anywhere in a module, or only when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["lra_bench", *name.split(".")][: -node.level] if path.stem != "__init__" else name.split(".")
                base = ".".join([*package, base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(name):
    """The longest name of a room that `name` lies in; None for what is none of ours."""
    found = [room for room in ORDER if name == room or name.startswith(f"{room}.")]
    return max(found, key=len) if found else None


MODULES = list(modules())


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_run_downward_and_nothing_heavy_enters(name, path):
    used = set(imports(name, path))
    assert not {module.split(".")[0] for module in used} & FORBIDDEN
    if name in ("__init__", "__main__", "lra_bench"):
        return
    room = room_of(name)
    assert room is not None, f"{name} has no place in the order of imports"
    if room in JAX_FREE:
        at_start = {module.split(".")[0] for module in imports(name, path, top_level_only=True)}
        assert not at_start & {*JAX, PLOTS}
    for module in used:
        other = room_of(module.removeprefix("lra_bench.")) if module.startswith("lra_bench.") else None
        if other is not None:
            assert ORDER.index(other) <= ORDER.index(room), f"{name} imports {module}, whose room comes after its own"


def test_files_stay_readable():
    long = {name: n for name, path in MODULES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 380}
    assert not long


def test_no_module_is_called_by_what_it_is_not():
    assert not {name.split(".")[-1] for name, _ in MODULES} & {"utils", "util", "common", "helpers", "misc"}


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_docstrings_say_what_the_thing_is(name, path):
    """A docstring that begins with "Of" leaves out its subject, and "§" cites a page that is not here."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, kinds):
            text = ast.get_docstring(node) or ""
            assert not text.startswith("Of "), f"{name}: {text[:60]}"
    assert ".md §" not in path.read_text(encoding="utf-8")


def test_tasks_are_installed_as_a_subpackage():
    assert importlib.util.find_spec("lra_bench.tasks") is not None
    code = "from lra_bench.registry import task_names; print(len(task_names()))"
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert int(elsewhere.stdout) == 6
    claims_tasks = subprocess.run([sys.executable, "-c", "import tasks"], cwd="/", capture_output=True, check=False)
    assert claims_tasks.returncode != 0


@pytest.mark.slow
def test_wheel_holds_everything_and_runs_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for folder, inside in ((ROOT / "lra_bench", "lra_bench"), (ROOT / "tasks", "lra_bench/tasks")):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".json", ".html", ".css", ".js", ".typed", ".npz"):
                assert f"{inside}/{path.relative_to(folder).as_posix()}" in held
    assert not any(name.startswith(("tasks/", "tests/", "results/")) for name in held)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = "import lra_bench; print(lra_bench.__file__); from lra_bench.cli import main; import sys; "
    code += "sys.argv = ['lra-bench', 'ls', 'tasks']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert str(tmp_path) in done.stdout
    assert "listops" in done.stdout
