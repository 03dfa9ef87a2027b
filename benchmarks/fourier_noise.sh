#!/usr/bin/env bash
# The PTD paper's test under noise: a diagonal model beside its perturbed twin, with frozen eigenvalues, B and dt, no
# residual, and in S4's family no D. Prepare the data first. Typed again, it continues.
#   benchmarks/fourier_noise.sh RESULTS_DIR s4 full [OPTION...]      S4D and S4-PTD on CIFAR-10 in color (`prepare scifar`),
#                                                                    the paper's size: 4 layers of 128 features, 100 epochs
#   benchmarks/fourier_noise.sh RESULTS_DIR s4 reduced [OPTION...]   for a CPU: 2 layers of 32 features, 10 epochs, and
#                                                                    the data of `prepare scifar --size 10000`
#   benchmarks/fourier_noise.sh RESULTS_DIR s5 full|reduced [...]    S5 and S5-PTD, on CIFAR-10 in gray (`prepare image`)
# Options are those of `lra-bench sweep`, as in --seed 0 --seed 1 --seed 2. The paper's figure has S4D near 10 % and S4-PTD
# near 75 %; of S5 it has nothing. Then: lra-bench report --results-dir RESULTS_DIR
set -euo pipefail
: "${3:?usage: fourier_noise.sh RESULTS_DIR s4|s5 full|reduced [OPTION...]}"
results=$1 family=$2 size=$3
shift 3

frozen='groups={"eigenvalues": "frozen", "input": "frozen", "dt": "frozen"}'
alike=(--set bidirectional=false --set residual=false --set batch_size=64 --set warmup_epochs=0)
case $size in
  full) alike+=(--set n_layers=4 --set d_model=128 --set epochs=100 --set decay_epochs=100) ;;
  reduced) alike+=(--set n_layers=2 --set d_model=32 --set epochs=10 --set decay_epochs=10 --size 10000) ;;
  *) echo "the size must be full or reduced, got $size" >&2; exit 2 ;;
esac
case $family in
  s4)  # S4-PTD's recipe for scifar is the paper's network
    perturbed=(--model s4-ptd --task scifar "${alike[@]}")
    diagonal=(--model s4d --task scifar "${alike[@]}" --set d_state=32 --set n_ssm=1 --set init=legs
      --set discretization=zoh --set skip=false --set 'role_lr={"output": 0.004}' --set "$frozen")
    ;;
  s5)  # both draw B; they differ in Λ and in the basis of the states
    alike+=(--task image --set d_state=32 --set blocks=1 --set schedule=torch-cosine --set lr=0.01 --set "$frozen")
    perturbed=(--model s5-ptd "${alike[@]}" --set gamma=0.1 --set b_init=lecun_normal)
    diagonal=(--model s5 "${alike[@]}")
    ;;
  *) echo "the family must be s4 or s5, got $family" >&2; exit 2 ;;
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
