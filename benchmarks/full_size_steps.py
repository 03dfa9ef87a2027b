"""Time one training step of every model at every task's full length and published sizes, on JAX's default device.

    python benchmarks/full_size_steps.py [--batch 1] [--model s5] [--task pathx]

It prints a Markdown table: parameters, compile seconds, the compiler's estimate of memory, and the seconds of the
fastest of three steps. An untimed step precedes them, because the first use of memory is slow. A step that needs more
than the free memory is not run, and its row says "does not fit".
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.machine.allocator import keep_freed_memory
from lra_bench.machine.mesh import data_mesh
from lra_bench.machine.xla import compile_program, compiler_options, run_on_calling_thread
from lra_bench.registry import model_names, task_names
from lra_bench.report.speed import GIB
from lra_bench.training import steps
from lra_bench.training.functional import initialized
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.state import Examples, stream_key


def row(model: str, task: str, batch: int) -> str:
    """Return one line of the table. Raises FloatingPointError when the loss or a gradient is not finite."""
    run, shape = synthetic_run(model, task, None, {"batch_size": batch}, "float32")
    network, params, stats = initialized(run, shape)
    optimizer = make_optimizer(params, run.recipe, 1000)
    state = steps.initial_state(params, stats, optimizer, data_mesh())
    examples = Examples(*(jnp.asarray(column) for column in synthetic_split(run.recipe, shape, batch)))
    key = stream_key(0, 2)
    arguments, options = (state, examples, key), compiler_options(network.batched_products, training=True)
    step, cost = compile_program(steps.train_step(network, optimizer), arguments, "float32", options)
    cells = [
        model.replace("_", "-"),
        task,
        f"{network.parameters:,}",
        f"{batch} × {shape.documents} × {shape.length:,}",
    ]
    cells += [f"{cost.compile_seconds:.1f}", f"{cost.peak_bytes / GIB:.2f}"]
    if cost.peak_bytes > psutil.virtual_memory().available:
        return f"| {' | '.join([*cells, 'does not fit'])} |"
    state = jax.block_until_ready(step(state, examples, key))
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        state = jax.block_until_ready(step(state, examples, key))
        seconds.append(time.perf_counter() - started)
    if int(state.first_bad) >= 0 or not np.isfinite(float(state.totals.loss)):
        raise FloatingPointError(f"{model} on {task}: the loss or a gradient is not finite")
    return f"| {' | '.join([*cells, f'{min(seconds):.2f}'])} |"


def main() -> None:
    """Print the table for the models and tasks of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--model", choices=model_names(), action="append")
    parser.add_argument("--task", choices=task_names(), action="append")
    asked = parser.parse_args()
    keep_freed_memory()
    run_on_calling_thread()
    print("| model | task | parameters | batch × documents × L | compile s | peak GiB | step s |")
    print("|---|---|---|---|---|---|---|")
    for task in asked.task or task_names():
        for model in asked.model or model_names():
            print(row(model, task, asked.batch), flush=True)
            jax.clear_caches()


if __name__ == "__main__":
    main()
