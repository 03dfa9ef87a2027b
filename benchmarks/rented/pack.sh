#!/usr/bin/env bash
# On a machine with a network: put lra-bench and the packages a bare accelerator machine lacks into .whl/, as wheels.
#   benchmarks/rented/pack.sh [PYTHON_VERSION] [MORE_PACKAGES...]
# The other machine is taken to have JAX with its accelerator, Flax, Optax, Orbax, SciPy, Numba, Pillow, Typer and rich.
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:-3.12}
shift || true
rm -rf .whl build
mkdir .whl
lacking=(tensorflow-datasets array_record importlib_resources platformdirs dm-tree immutabledict simple-parsing
  docstring-parser tensorflow-metadata googleapis-common-protos termcolor toml six filelock threadpoolctl
  pydantic pydantic-core annotated-types typing-inspection jaxtyping wadler-lindig "$@")
platforms=()
for glibc in 2_17 2_24 2_27 2_28 2_31 2_34 2_35; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
  "${platforms[@]}" --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .whl "${lacking[@]}"
python3 -m pip wheel --quiet --no-deps -w .whl promise .
rm -rf build
du -sh .whl
