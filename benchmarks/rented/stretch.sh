#!/usr/bin/env bash
# There: one stretch of the run that `pack.py` put into this folder, in MINUTES from start to end. The folder OUT then holds what the
# next stretch continues from and, where the run is finished, its record, as files of at most 15 MiB.
#   bash KIT/stretch.sh MINUTES OUT
# $PYTHON is the Python that has JAX (default: python3). A GPU is demanded unless $JAX_PLATFORMS says otherwise.
set -euo pipefail
if [ $# -ne 2 ] || ! [[ $1 =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  echo "stretch.sh: type: bash KIT/stretch.sh MINUTES OUT, as in bash KIT/stretch.sh 8 out" >&2
  exit 2
fi
kit=$(cd "$(dirname "$0")" && pwd)
minutes=$1 out=$(realpath -m "$2") python=${PYTHON:-python3}
# A fixed folder, which a machine that is still warm finds again.
export LRA_BENCH_HOME=${LRA_BENCH_HOME:-/tmp/lra-bench} JAX_PLATFORMS=${JAX_PLATFORMS:-cuda} PYTHONUNBUFFERED=1
LRA_BENCH_COMMIT=$(cat "$kit/commit")
export LRA_BENCH_COMMIT
mkdir -p "$out" "$LRA_BENCH_HOME"
began=$(date +%s.%N)
seconds() { awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'; }
stage() { echo "$(seconds) s: $*" | tee -a "$out/stages.txt" >&2; }
words() { [ ! -s "$1" ] || xargs -n 1 printf '%s\0' <"$1"; }
# All pieces are written before one has its name. What a killed stretch leaves, `pack.py` checks.
in_pieces() {
  rm -rf "$out/$1".* "$out/.pieces" && mkdir "$out/.pieces"
  split --bytes=15M --numeric-suffixes --suffix-length=3 - "$out/.pieces/$1." && mv "$out/.pieces/$1".* "$out" && rmdir "$out/.pieces"
}
lra() { "$python" -m lra_bench "$@"; }
# Passes lines on, and notes when the first of them tells of training steps: at most 15 s after they were done.
first_steps() {
  trap '' INT TERM HUP  # training says what it saved
  local line seen=
  while IFS= read -r line; do
    printf '%s\n' "$line" >&2
    if [[ -z $seen && $line =~ [0-9]\ of\ [0-9,]+\ steps|epoch\ [0-9]+: ]]; then stage "first training steps are done" && seen=1; fi
  done
}

rm -rf "$out"/runs.tar.xz.* "$out"/cache.tar.xz.* "$out/train.options" "$out/results.tar"  # of an earlier stretch
: >"$out/stages.txt"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --disable-pip-version-check --target "$site" \
  "$kit"/wheels/*.whl
export PYTHONPATH=$site
cd "$site"
stage "wheels installed"
if compgen -G "$kit/state/cache.tar.xz.*" >/dev/null; then
  if cat "$kit"/state/cache.tar.xz.* | tar -xJ -C "$LRA_BENCH_HOME"; then
    stage "compiled programs of the last stretch unpacked"
  else
    rm -rf "$LRA_BENCH_HOME/cache"
    stage "compiled programs of the last stretch are damaged; compiling again"
  fi
fi
if [ -e "$kit/data.tar" ]; then
  "$python" "$kit/carried.py" unpack "$kit/data.tar" >&2
  stage "data unpacked"
else
  mapfile -d '' -t prepare < <(words "$kit/prepare.options")
  lra prepare "${prepare[@]}"
  stage "data made"
fi
if compgen -G "$kit/state/runs.tar.xz.*" >/dev/null; then
  cat "$kit"/state/runs.tar.xz.* >"$site/runs.tar.xz"
  lra import "$site/runs.tar.xz" >&2
  stage "state unpacked"
fi
mapfile -d '' -t train < <(words "$kit/train.options")
left=$(awk -v m="$minutes" -v s="$(seconds)" 'BEGIN { l = m - (s + 15) / 60; print (l > 0.05 ? l : 0.05) }')  # 15 s to save and pack
code=0  # whatever it is, what is saved goes home
lra train --time-limit "$left" --results-dir "$out/results" "${train[@]}" 2>&1 | first_steps || code=$?
stage "training over"
lra export "$site/runs.tar.xz" >/dev/null
in_pieces runs.tar.xz <"$site/runs.tar.xz"
cp "$kit/train.options" "$out"
if [ -d "$LRA_BENCH_HOME/cache" ]; then tar -c -C "$LRA_BENCH_HOME" cache | xz -1 -T 0 | in_pieces cache.tar.xz; fi
if [ -n "$(ls -A "$out/results" 2>/dev/null)" ]; then tar -cf "$out/results.tar" -C "$out" results; fi
rm -rf "$out/results"
stage "state packed"
exit "$code"
