#!/usr/bin/env bash
# Every model on the tiny ListOps and the tiny Pathfinder, on a CPU in minutes: does each learn above chance?
#   benchmarks/reduced.sh [RESULTS_DIR]     then: lra-bench report --results-dir RESULTS_DIR
set -euo pipefail
results=${1:-reduced-results}
small=(--size tiny --set n_layers=2 --set d_model=32 --set batch_size=50 --set dropout=0
  --set epochs=8 --set decay_epochs=9 --set warmup_epochs=1 --set schedule=cosine --results-dir "$results")
lra-bench prepare listops pathfinder --size tiny
for model in s4 s4d s4-ptd s5 s5-ptd lru; do
  lra-bench train --model "$model" --task listops --task pathfinder "${small[@]}"
done
# The LRA recipe's rate of 0.05 belongs to its rsqrt schedule.
lra-bench train --model transformer --task listops "${small[@]}" --set lr=0.002
# With the settings above it stood at chance after 271 of 640 steps; dropout for 626² weights takes most of the time.
lra-bench train --model transformer --task pathfinder --size tiny --results-dir "$results" \
  --set n_layers=1 --set d_model=64 --set heads=2 --set qkv_dim=64 --set mlp_dim=128 --set batch_size=20 \
  --set dropout=0 --set attention_dropout=0 --set epochs=8 --set decay_epochs=9
