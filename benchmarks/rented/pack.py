"""Here: put all that a stretch of one run needs on a bare machine with JAX into one folder, the kit.

    python benchmarks/rented/pack.py KIT --model s5 --task listops [--state OUT] [-- OPTIONS OF lra-bench train]

KIT gets the wheels of lra-bench and of what such a machine lacks, the data where it cannot be made there, the state and
the compiled programs that the stretch before left in OUT, and the script that runs there:

    bash KIT/stretch.sh MINUTES OUT
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import carried

from lra_bench.data.manifest import find_prepared
from lra_bench.data.sources import request_for
from lra_bench.errors import UserError
from lra_bench.registry import task_module

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

LACKING = [
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "platformdirs", "filelock", "threadpoolctl"),
    *("typer", "shellingham", "annotated-doc", "jaxtyping", "wadler-lindig", "jinja2", "markupsafe"),
    *("requests", "urllib3", "idna", "certifi", "charset-normalizer"),
]
"""What lra-bench imports and an environment of JAX, Flax, Optax and Orbax does not have, but for Pillow and Numba."""

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 27, 28, 31, 34, 35)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]

LIMIT = 64 << 20
"""The bytes that a kit should not exceed."""


def wheels(folder: Path, python: str, more: list[str]) -> None:
    """Download the wheels for another machine's Python and build that of this checkout."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    only = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python, *platforms]
    subprocess.run([*pip, "download", *only, "-d", str(folder), *LACKING, *more], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)


def data(kit: Path, options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Put the data into the kit where it cannot be made there.

    Returns the options of `lra-bench prepare` there, none where the data is in the kit, and those of `train`.
    """
    try:
        folder, manifest = find_prepared(options.task, options.protocol, options.size, options.data)
    except UserError:
        request = request_for(options.protocol or "s4", options.size or "full", 0, None)
        if options.data or task_module(options.task).DATA.generator(request) is None:
            raise
        made = ["--source", "generated", "--protocol", request.protocol, "--size", str(request.size)]
        return [options.task, "--no-tfds", *made], made[2:]
    if manifest.source == "generated":
        made = ["--protocol", manifest.protocol, "--size", manifest.size, "--seed", str(manifest.seed)]
        return [options.task, "--no-tfds", "--source", "generated", *made], ["--data", folder.name]
    carried.pack(folder, kit / "data.tar")
    return [], ["--data", folder.name]


def main() -> None:
    own, train = sys.argv[1:], []
    if "--" in own:
        own, train = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--state", type=Path, help="what the stretch before left: its OUT")
    parser.add_argument("--no-cache", action="store_true", help="leave the compiled programs of that stretch out")
    parser.add_argument("--protocol", help="as of `lra-bench train`")
    parser.add_argument("--size", help="as of `lra-bench train`")
    parser.add_argument("--data", help="the name of the prepared set's folder")
    parser.add_argument("--python", default="3.12", help="the other machine's Python")
    parser.add_argument("--also", nargs="*", default=[], help="more that it lacks, as in numba llvmlite pillow")
    options = parser.parse_args(own)
    if options.kit.exists():
        raise UserError(f"{options.kit} exists already. Name another folder, or remove it: rm -r {options.kit}")
    carry_on = sorted(options.state.glob("*.tar.xz.*")) if options.state else []
    if options.state and not any(file.name.startswith("runs.") for file in carry_on):
        raise UserError(f"{options.state} has no runs.tar.xz.000. Give the OUT that `stretch.sh MINUTES OUT` filled.")
    (options.kit / "state").mkdir(parents=True)
    prepare, chosen = data(options.kit, options)
    wheels(options.kit / "wheels", options.python, options.also)
    for file in carry_on:
        if not (options.no_cache and file.name.startswith("cache.")):
            shutil.copy(file, options.kit / "state")
    for name in ("stretch.sh", "carried.py"):
        shutil.copy(HERE / name, options.kit)
    words = {"prepare": prepare, "train": ["--model", options.model, "--task", options.task, *chosen, *train]}
    for name, line in words.items():
        (options.kit / f"{name}.options").write_text(f"{shlex.join(line)}\n" if line else "")
    size = sum(file.stat().st_size for file in options.kit.rglob("*") if file.is_file())
    print(f"{options.kit}: {size / 2**20:.1f} MiB. There: bash {options.kit}/stretch.sh MINUTES OUT")
    if size > LIMIT:
        print(f"This is more than {LIMIT >> 20} MiB.", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"pack.py: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"pack.py: pip failed, see above ({error.returncode}).") from None
