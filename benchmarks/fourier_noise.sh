#!/usr/bin/env bash
# The PTD paper's test under noise on CIFAR-10 in color: S4D and S4-PTD with frozen eigenvalues, B and dt, no residual and
# no D. Prepare the data first (`lra-bench prepare scifar`). Typed again, it continues.
#   benchmarks/fourier_noise.sh RESULTS_DIR full [OPTION...]      the paper's size: 4 layers of 128 features, 100 epochs
#   benchmarks/fourier_noise.sh RESULTS_DIR reduced [OPTION...]   for a CPU: 2 layers of 32 features, 10 epochs, --size 10000
# Options are those of `lra-bench sweep`, as in --seed 0 --seed 1 --seed 2. The paper's figure has S4D near 10 % and S4-PTD
# near 75 %. Then: lra-bench report --results-dir RESULTS_DIR
set -euo pipefail
results=$1 size=$2
shift 2

frozen=(--set d_state=32 --set n_ssm=1 --set discretization=zoh --set bidirectional=false --set residual=false
  --set skip=false --set batch_size=64 --set warmup_epochs=0 --set 'role_lr={"output": 0.004}'
  --set 'groups={"eigenvalues": "frozen", "input": "frozen", "dt": "frozen"}')
paper=(--set n_layers=4 --set d_model=128 --set epochs=100 --set decay_epochs=100)
small=(--set n_layers=2 --set d_model=32 --set epochs=10 --set decay_epochs=10 --size 10000)

perturbed=(--model s4-ptd --task scifar) diagonal=(--model s4d --task scifar "${frozen[@]}")
case $size in
  full) diagonal+=("${paper[@]}") ;;  # S4-PTD's recipe has the paper's size already
  reduced) perturbed+=("${small[@]}") diagonal+=("${small[@]}") ;;
  *) echo "the size must be full or reduced, got $size" >&2; exit 2 ;;
esac

runs=()
for arm in perturbed diagonal; do
  declare -n options=$arm
  lra-bench sweep "${options[@]}" "$@" --results-dir "$results"
  mapfile -t done < <(lra-bench sweep "${options[@]}" "$@" --status --json |
    python3 -c 'import json, sys; [print(row["run"]) for row in json.load(sys.stdin) if row["state"] == "done"]')
  runs+=("${done[@]}")
done
lra-bench robustness "${runs[@]}" --results-dir "$results"
