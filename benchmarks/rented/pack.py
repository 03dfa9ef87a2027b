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
import tempfile
from pathlib import Path

import carried

from lra_bench.data.manifest import find_prepared
from lra_bench.data.sources import folder_name, request_for
from lra_bench.errors import UserError
from lra_bench.machine.system import EDITED, git_state
from lra_bench.registry import task_module
from lra_bench.runs.transfer import check

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

OPTIONS = "train.options"
"""The file of a kit, and of what a stretch leaves, with the options of its `lra-bench train`."""

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
    """Put the data into the kit where it cannot be made there: the full set, unless another is asked for.

    Returns the options of `lra-bench prepare` there, none where the data is in the kit, and those of `train`.
    """
    size = options.size or (None if options.data else "full")
    try:
        folder, manifest = find_prepared(options.task, options.protocol, size, options.data)
    except UserError:
        request = request_for(options.protocol or "s4", size or "full", 0, None)
        if options.data or task_module(options.task).DATA.generator(request) is None:
            raise
        made = ["--protocol", request.protocol, "--size", str(request.size)]
        chosen = ["--data", folder_name(request, "generated")]
        return [options.task, "--no-tfds", "--source", "generated", *made], chosen
    chosen = ["--data", folder.name]
    if manifest.source == "generated":
        made = ["--protocol", manifest.protocol, "--size", manifest.size, "--seed", str(manifest.seed)]
        return [options.task, "--no-tfds", "--source", "generated", *made], chosen
    carried.pack(folder, kit / "data.tar")
    return [], chosen


def state_of(out: Path) -> list[Path]:
    """Return the files in which a stretch left its state and its compiled programs.

    Raises UserError where the state is missing or not whole.
    """
    files = sorted(out.glob("*.tar.xz.*"))
    runs = [file for file in files if file.name.startswith("runs.")]
    if not runs or not (out / OPTIONS).is_file():
        raise UserError(
            f"{out} has no runs.tar.xz.000 or no {OPTIONS}. Give the OUT that `stretch.sh MINUTES OUT` filled."
        )
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "runs.tar.xz"
        whole.write_bytes(b"".join(file.read_bytes() for file in runs))
        try:
            check(whole)
        except UserError:
            told = f"the files runs.tar.xz.* in {out} are not whole. Copy them from the machine again."
            raise UserError(told) from None
    return files


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
    carry_on = state_of(options.state) if options.state else []
    (options.kit / "state").mkdir(parents=True)
    prepare, chosen = data(options.kit, options)
    command = shlex.join(["--model", options.model, "--task", options.task, *chosen, *train])
    if options.state and (options.state / OPTIONS).read_text().strip() != command:
        before = (options.state / OPTIONS).read_text().strip()
        shutil.rmtree(options.kit)
        raise UserError(
            f"{options.state} is of another run. Its stretch trained with\n  {before}\nand this kit would with\n"
            f"  {command}\nGive the model, the task and the options of the stretch before."
        )
    wheels(options.kit / "wheels", options.python, options.also)
    for file in carry_on:
        if not (options.no_cache and file.name.startswith("cache.")):
            shutil.copy(file, options.kit / "state")
    for name in ("stretch.sh", "carried.py"):
        shutil.copy(HERE / name, options.kit)
    (options.kit / "prepare.options").write_text(f"{shlex.join(prepare)}\n" if prepare else "")
    (options.kit / OPTIONS).write_text(f"{command}\n")
    commit, edited = git_state()
    (options.kit / "commit").write_text(f"{commit or ''}{EDITED if edited else ''}\n")
    size = sum(file.stat().st_size for file in options.kit.rglob("*") if file.is_file())
    print(
        f"{options.kit}: {size / 2**20:.1f} MiB, to train with {command}\n"
        f"There: bash {options.kit}/stretch.sh MINUTES OUT"
    )
    if size > LIMIT:
        print(
            f"This is more than {LIMIT >> 20} MiB. Where no more can be carried, take a machine that keeps its disk "
            "from stretch to stretch, and type lra-bench train --time-limit MINUTES there.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"pack.py: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"pack.py: pip failed, see above ({error.returncode}).") from None
