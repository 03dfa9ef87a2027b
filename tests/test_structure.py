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

LAYERS = [
    ["spec"],
    ["results", "home", "progress"],
    ["statistics"],
    ["data", "registry", "tasks"],
    ["validation"],
    ["report"],
    ["ssm", "allocator", "remat"],
    ["layers"],
    ["classifier"],
    ["models"],
    ["run", "optim", "distributed", "checkpoint", "system"],
    ["steps"],
    ["account", "synthetic", "measure", "feed", "bench_cell", "bench_ratios"],
    ["train"],
    ["evaluate", "plan", "catalogue", "doctor", "bench", "carry"],
    ["quickstart"],
    ["cli"],
]
"""From the bottom up: a module imports its own row and those above it in this list, never one below. Only `cli` is
imported by none."""

JAX_FREE = {
    "spec",
    "results",
    "home",
    "progress",
    "statistics",
    "data",
    "registry",
    "tasks",
    "report",
    "run",
    "catalogue",
    "cli",
}


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


def rank(part):
    return next((i for i, row in enumerate(LAYERS) if part in row), None)


MODULES = list(modules())


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_run_downward_and_nothing_heavy_enters(name, path):
    used = set(imports(name, path))
    assert not {module.split(".")[0] for module in used} & FORBIDDEN
    own = name.split(".")[0]
    if own in JAX_FREE:
        at_start = {module.split(".")[0] for module in imports(name, path, top_level_only=True)}
        assert not at_start & JAX
    if own in ("__init__", "__main__", "lra_bench"):
        return
    assert rank(own) is not None, f"{own} has no place in the order of imports"
    for module in used:
        parts = module.split(".")
        if parts[0] != "lra_bench" or len(parts) < 2 or rank(parts[1]) is None:
            continue
        assert rank(parts[1]) <= rank(own), f"{name} imports {module}, which stands above it"


def test_files_stay_readable():
    long = {name: n for name, path in MODULES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 380}
    assert not long


def test_no_module_is_called_by_what_it_is_not():
    assert not {name.split(".")[-1] for name, _ in MODULES} & {"utils", "util", "common", "helpers", "misc"}


def test_tasks_are_installed_as_a_subpackage():
    assert importlib.util.find_spec("lra_bench.tasks") is not None
    elsewhere = subprocess.run(
        [sys.executable, "-c", "import lra_bench.tasks as t; print(len(t.TASK_MODULES))"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(elsewhere.stdout) == 6
    claims_tasks = subprocess.run([sys.executable, "-c", "import tasks"], cwd="/", capture_output=True, check=False)
    assert claims_tasks.returncode != 0


@pytest.mark.slow
def test_wheel_holds_everything_and_runs_outside_the_checkout(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for folder, inside in ((ROOT / "lra_bench", "lra_bench"), (ROOT / "tasks", "lra_bench/tasks")):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in (".py", ".json", ".html", ".css", ".js"):
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
