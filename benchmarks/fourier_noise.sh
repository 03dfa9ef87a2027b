#!/usr/bin/env bash
# The PTD paper's test under noise: S4D and S4-PTD, 4 layers x 128, 32 states, frozen eigenvalues, B and dt, no residual
# and no D, trained on CIFAR-10 in color, which must be prepared (`lra-bench prepare scifar`). Typed again, it continues.
#   benchmarks/fourier_noise.sh RESULTS_DIR [OPTION...]     options are those of `lra-bench sweep`, as in --seed 0 --seed 1
# The paper's figure has S4D near 10 % and S4-PTD near 75 %. Then: lra-bench report --results-dir RESULTS_DIR
set -euo pipefail
results=$1
shift

perturbed=(--model s4-ptd --task scifar "$@")  # its recipe is the paper's
diagonal=(--model s4d --task scifar
  --set n_layers=4 --set d_model=128 --set d_state=32 --set n_ssm=1 --set discretization=zoh --set bidirectional=false
  --set residual=false --set skip=false --set batch_size=64 --set epochs=100 --set decay_epochs=100
  --set warmup_epochs=0 --set 'groups={"eigenvalues": "frozen", "input": "frozen", "dt": "frozen"}'
  --set 'role_lr={"output": 0.004}' "$@")

runs=()
for arm in perturbed diagonal; do
  declare -n options=$arm
  lra-bench sweep "${options[@]}" --results-dir "$results"
  mapfile -t done < <(lra-bench sweep "${options[@]}" --status --json |
    python3 -c 'import json, sys; [print(row["run"]) for row in json.load(sys.stdin) if row["state"] == "done"]')
  runs+=("${done[@]}")
done
lra-bench robustness "${runs[@]}" --results-dir "$results"
