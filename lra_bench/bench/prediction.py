"""Predicting what a training step, and a batch of evaluation, cost on a GPU that is not here.

XLA compiles ahead of time for a described device, with the fusions and the Triton kernels that it would choose there,
and without a GPU or its driver. Each kernel then takes as long as its bytes or its flops (`bench/targets.py`). Not
known are caches, occupancy, and the algorithms that XLA would choose for products by trying them on the device.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, SingleDeviceSharding

from lra_bench.bench.case import NetworkCase, case_optimizer
from lra_bench.bench.costs import KernelCost, alike
from lra_bench.bench.hlo import parse
from lra_bench.bench.kernels import Kernel, step_kernels
from lra_bench.bench.plan import BenchRequest, plan
from lra_bench.bench.synthetic import synthetic_split
from lra_bench.bench.targets import Target, find_target
from lra_bench.errors import UserError
from lra_bench.machine.xla import Cost, compile_program
from lra_bench.progress import Progress
from lra_bench.registry import model_title
from lra_bench.runs.run import Run
from lra_bench.training.state import Batches, EvalRows, Examples, Totals, stream_key
from lra_bench.training.steps import eval_loop, initial_state, train_loop

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
"""The packages that compile for a GPU of NVIDIA."""

DATA_BATCHES = 4
"""The batches of the examples that the program is compiled for. Their number does not change a step."""


@dataclass(frozen=True)
class Prediction:
    """The predicted cost of one training step."""

    run: Run
    target: Target
    kernels: list[KernelCost]
    """Kernels that are alike, the most expensive first."""
    evaluation_seconds: float
    """The predicted time of evaluating one batch."""
    temporary_bytes: int
    peak_bytes: int
    """The bytes of arguments, results and temporaries."""
    compile_seconds: float
    notes: list[str]


def run_predictions(request: BenchRequest) -> list[Prediction]:
    """Predict a training step of every planned model and task on the request's target. No record is written.

    Raises UserError for an unknown name or target, and where what compiles for a GPU is not installed.
    """
    assert request.target is not None
    target = find_target(request.target)
    prepare_to_compile()
    planned = plan(request)
    predictions = []
    with Progress(f"bench --target {target.name}", total=len(planned), unit="programs") as progress:
        for run, shape, _ in planned:
            length, batch = run.data.length, run.recipe.batch_size
            progress.note = f"{model_title(run.model)} on {run.data.task}"
            progress.log(f"compiling {progress.note}, L = {length:,}, batch {batch}")
            predictions.append(predict(NetworkCase(run, shape, None, request.remat), target))
            progress.advance(1)
    return predictions


def prepare_to_compile() -> None:
    """Let JAX compile for GPUs while it runs on the CPU. Raises UserError where the plugin for that is missing.

    Call it before JAX starts a device.
    """
    if not any(importlib.util.find_spec(name) for name in PLUGINS):
        raise UserError(
            f"--target needs JAX's compiler for NVIDIA GPUs, which works without a GPU. "
            f'Type: pip install "jax[cuda13]=={jax.__version__}"'
        )
    # Without this, the plugin asks a driver for its version, and there may be none.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)


def predict(case: NetworkCase, target: Target) -> Prediction:
    """Predict one training step of a case, and the evaluation of one batch."""
    (compiled, cost), (evaluation, evaluation_cost) = compile_for(case, target)
    program = parse(compiled.as_text())
    kernels, notes = step_kernels(program)
    if cost.peak_bytes > target.memory:
        needed, there = cost.peak_bytes / 1e9, target.memory / 1e9
        notes.append(f"It needs {needed:.0f} GB, and the device has {there:.0f} GB: it would not run.")
    network, params, stats = case.network
    priced = [(kernel, kernel_seconds(kernel, target)) for kernel in kernels]
    evaluating = step_kernels(parse(evaluation.as_text())).kernels
    return Prediction(
        run=case.run,
        target=target,
        kernels=alike(program, network.merged(params, stats), priced),
        evaluation_seconds=sum(kernel_seconds(kernel, target) for kernel in evaluating),
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        peak_bytes=cost.peak_bytes,
        compile_seconds=cost.compile_seconds + evaluation_cost.compile_seconds,
        notes=notes,
    )


def kernel_seconds(kernel: Kernel, target: Target) -> float:
    """The predicted seconds of all launches of a kernel."""
    return kernel.times * target.seconds(kernel.bytes_moved, kernel.work)


def compile_for(case: NetworkCase, target: Target) -> tuple[tuple[Any, Cost], tuple[Any, Cost]]:
    """Compile the training and the evaluation program of a case for a target.

    Returns each program, which cannot run here, with its cost.
    """
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(
        topology_name="", platform="cuda", target_config=target.description, topology="1x1x1"
    )
    network, params, stats = case.network
    optimizer = case_optimizer(case)
    mesh = Mesh(np.array(topology.devices[:1]), ("data",), axis_types=(AxisType.Auto,))
    state = jax.eval_shape(lambda: initial_state(params, stats, optimizer, case.mesh))
    rows = DATA_BATCHES * case.batch_size
    order, number = jax.ShapeDtypeStruct((rows,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
    split = synthetic_split(case.run.recipe, case.shape, rows)
    examples = Examples(split.inputs, split.lengths, split.labels)  # type: ignore[arg-type]
    batches = Batches(examples, order, number, number)  # type: ignore[arg-type]
    there = SingleDeviceSharding(topology.devices[0])

    def described(arguments: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), arguments)

    # Pallas' kernels ask for which GPU they are lowered.
    kind = jax.sharding.AbstractDevice(device_kind=target.device_kind, num_cores=None, platform="gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=kind)):
        training = train_loop(network, optimizer, case.batch_size, mesh)
        evaluation = eval_loop(network, case.batch_size, mesh)
        to_train = described((state, batches, stream_key(0, 2)))
        to_evaluate = described((params, stats, Totals.zero(), EvalRows(examples, number)))  # type: ignore[arg-type]
        return (
            compile_program(training, to_train, case.run.precision, {}, donate=0),
            compile_program(evaluation, to_evaluate, case.run.precision, {}),
        )
