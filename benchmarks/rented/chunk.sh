#!/usr/bin/env bash
# On a bare machine: one chunk of training. State comes from the folder BUNDLE and goes to the folder OUT, which is the BUNDLE of the
# next chunk. Records of finished runs are in OUT/results.tar.
#   benchmarks/rented/chunk.sh MINUTES BUNDLE OUT "listops pathx" --model s5 --task listops ...
# Everything after the tasks is handed to `lra-bench train`. Data is made by the machine's own cores unless $LRA_BENCH_HOME has it.
set -euo pipefail
cd "$(dirname "$0")/../.."
minutes=$1 bundle=$(realpath -m "$2") out=$(realpath -m "$3") tasks=$4
shift 4
python=${PYTHON:-python3}
site=$(mktemp -d)
export LRA_BENCH_HOME=${LRA_BENCH_HOME:-$(mktemp -d)} PYTHONUNBUFFERED=1
started=$SECONDS
if compgen -G ".whl/*.whl" >/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl
  export PYTHONPATH=$site
fi
cd "$(mktemp -d)"  # outside the checkout, so that the installed package is what runs
lra() { "$python" -m lra_bench "$@"; }

lra doctor
for task in $tasks; do lra prepare "$task" --source generated ${SIZE:+--size "$SIZE"}; done
if compgen -G "$bundle/runs.tar.xz.*" >/dev/null; then
  cat "$bundle"/runs.tar.xz.* >runs.tar.xz
  lra import runs.tar.xz
fi
spent=$(((SECONDS - started + 59) / 60))
lra train --time-limit $((minutes > spent ? minutes - spent : 1)) --results-dir results "$@"
mkdir -p "$out"
lra export runs.tar.xz
rm -f "$out"/runs.tar.xz.*
split --bytes=15M --numeric-suffixes --suffix-length=3 runs.tar.xz "$out/runs.tar.xz."  # ways out of such machines are narrow
if [ -d results ]; then tar -cf "$out/results.tar" results; fi
