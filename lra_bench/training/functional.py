"""The network as pure functions of its parameters and statistics, which is what compiled programs are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lra_bench.machine.precision import activation_dtype
from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.models.pretraining import Predictor
from lra_bench.models.window import set_window
from lra_bench.runs.pretraining import Pretraining
from lra_bench.runs.run import Run
from lra_bench.training.state import Examples, stream_key


@dataclass(frozen=True)
class FunctionalNetwork:
    """The static structure of a network, and how to call it on parameters and statistics inside jit."""

    training: Any
    """Structure in training mode, as `nnx.graphdef` gives it."""
    evaluation: Any
    """Structure in evaluation mode."""
    fixed: nnx.State
    """Neither trained nor carried: random streams of layers, reseeded at every step."""
    parameters: int
    batched_products: bool

    def apply_train(self, params: Any, stats: Any, batch: Examples, key: Array) -> tuple[Array, Any]:
        """Logits (b, classes) in training mode, and the new statistics."""
        model = nnx.merge(self.training, params, stats, self.fixed, copy=True)
        dropout_key, layer_key = jax.random.split(key)
        reseed(model, layer_key)
        logits = model(batch.inputs, batch.lengths, train=True, key=dropout_key)
        return logits, nnx.state(model, nnx.BatchStat)

    def apply_eval(self, params: Any, stats: Any, batch: Examples) -> Array:
        """Logits (b, classes) in evaluation mode."""
        model = self.merged(params, stats)
        return model(batch.inputs, batch.lengths, train=False, key=None)

    def merged(self, params: Any, stats: Any) -> Any:
        """The network as a module in evaluation mode, with these parameters and statistics."""
        return nnx.merge(self.evaluation, params, stats, self.fixed, copy=True)

    def within(self, params: Any, stats: Any, window: int, model: str) -> FunctionalNetwork:
        """The network with every layer cut to a window in evaluation; its training is that of the whole network.

        Raises UserError where a layer of the model, named as typed, cannot be cut.
        """
        cut = self.merged(params, stats)
        set_window(cut, window, model)
        return replace(self, evaluation=nnx.graphdef(cut))


def reseed(model: nnx.Module, key: Array) -> None:
    """Start each random stream in the model anew from `key`, no two alike. `nnx.reseed` would give all layers' dropout
    one mask."""
    streams = [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.RngStream)]
    for index, stream in enumerate(streams):
        stream.key[...] = jax.random.fold_in(key, index)
        stream.count[...] = jnp.zeros_like(stream.count[...])


def initialized(
    run: Run, shape: DataShape, remat: bool = False, pretraining: Pretraining | None = None
) -> tuple[FunctionalNetwork, nnx.State, nnx.State]:
    """The network of a run, its initial parameters and its initial statistics, all from one compiled program.

    remat: blocks keep their input only while training (`models/remat.py`). pretraining: the network is a `Predictor`
    around the run's, which begins with the run's own initial parameters.
    """

    def initial(key: Array) -> tuple[Any, Any, Any]:
        rngs = nnx.Rngs(params=key, default=jax.random.fold_in(key, 1))
        model: Any = build(run.model, run.recipe, shape, rngs=rngs)
        model.remat = remat
        model.activations = activation_dtype(run.precision)
        if pretraining is not None:
            model = Predictor(model, run.recipe, pretraining, rngs=rngs)
        model.train()
        training, states = nnx.graphdef(model), nnx.state(model, nnx.Param, nnx.BatchStat, ...)
        model.eval()
        return training, nnx.graphdef(model), states  # a graphdef is static: jit hands it through as it is

    with jax.default_matmul_precision("highest"):  # a run starts from the same numbers in every precision
        training, evaluation, (params, stats, fixed) = jax.jit(initial)(stream_key(run.seed, 0))
    model = nnx.merge(evaluation, params, stats, fixed)
    network = FunctionalNetwork(training, evaluation, fixed, count_parameters(model), model.batched_products)
    return network, params, stats
