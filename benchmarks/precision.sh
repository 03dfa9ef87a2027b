#!/usr/bin/env bash
# S5 on the tiny ListOps in each precision, three seeds, on a CPU in minutes: does a precision cost accuracy?
#   benchmarks/precision.sh [RESULTS_DIR]     then: lra-bench report --results-dir RESULTS_DIR
set -euo pipefail
results=${1:-precision-results}
lra-bench prepare listops --size tiny
for precision in float32 tf32 bfloat16; do
  lra-bench train --model s5 --task listops --size tiny --precision "$precision" --seed 0 --seed 1 --seed 2 \
    --set n_layers=2 --set d_model=32 --set batch_size=50 --set epochs=8 --set decay_epochs=9 --set warmup_epochs=1 \
    --set schedule=cosine --results-dir "$results"
done
