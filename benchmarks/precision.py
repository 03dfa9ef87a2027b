"""The error that each precision makes in a training step's gradients, against the same network in float64.

    python benchmarks/precision.py --model s5 --task listops [--batch 2]

TF32 is emulated: factors of products are rounded as a GPU rounds them (`lra_bench/machine/emulation.py`), and bfloat16
stores what a GPU would. The network has its published size and its initial parameters; nothing is dropped. An error is
the norm of the difference over the norm of the float64 gradient.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.data.packed import PackedSplit
from lra_bench.machine.emulation import emulated
from lra_bench.machine.precision import activation_dtype, matmul_precision
from lra_bench.models.network import build
from lra_bench.spec import Precision


def gradients(network: Any, split: PackedSplit, precision: Precision | None) -> tuple[float, Any]:
    """The loss and the gradients of one step; None means float64."""
    network.activations = None if precision is None else activation_dtype(precision)
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    if precision is None:
        params, rest = (jax.tree.map(as_float64, tree) for tree in (params, rest))

    def loss_of(params: Any) -> Any:
        merged = nnx.merge(graph, params, rest, copy=True)
        logits = merged(jnp.asarray(split.inputs), jnp.asarray(split.lengths), train=True, key=None)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(split.labels)).mean()

    with matmul_precision(precision or "float32"):
        loss, found = jax.jit(emulated(jax.value_and_grad(loss_of)))(params)
    return float(loss), jax.tree_util.tree_leaves_with_path(found)


def as_float64(x: jax.Array) -> jax.Array:
    """Convert an array of real numbers to float64, and leave others."""
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def main() -> None:
    """Print a table of errors by parameter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="s5")
    parser.add_argument("--task", default="listops")
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    run, shape = synthetic_run(options.model, options.task, None, {"batch_size": options.batch}, "float32")
    network: Any = build(run.model, run.recipe, shape, rngs=nnx.Rngs(0))
    network.train()
    split = synthetic_split(run.recipe, shape, options.batch)
    with jax.enable_x64(True):
        exact_loss, exact = gradients(network, split, None)
    rows: dict[str, list[str]] = defaultdict(list)
    losses = []
    for precision in get_args(Precision):
        loss, found = gradients(network, split, precision)
        losses.append(f"{abs(loss - exact_loss) / exact_loss:.1e}")
        errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (path, value), (_, true) in zip(found, exact, strict=True):
            difference = np.asarray(value, np.float64) - np.asarray(true)
            name = ".".join(str(part.key) for part in path if isinstance(getattr(part, "key", None), str))
            for key in (name.removeprefix("blocks."), "all"):
                errors[key].append((float(np.sum(difference**2)), float(np.sum(np.square(true)))))
        for key, parts in errors.items():
            error, norm = np.sqrt(np.sum(parts, axis=0))
            rows[key].append(f"{error / norm:.1e}")
    print(f"{options.model} on {options.task}, batch {options.batch}: relative error against float64\n")
    print("| gradient of | " + " | ".join(get_args(Precision)) + " |\n|---|---|---|---|")
    for key, cells in [("the loss itself", losses), ("all", rows.pop("all")), *rows.items()]:
        print(f"| {key} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
