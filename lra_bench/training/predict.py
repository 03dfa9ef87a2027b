"""A trained network read back from its best checkpoint, and its predictions, example by example."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import ArrayLike, NDArray

from lra_bench.data.integrity import open_checked
from lra_bench.data.packed import PackedSplit
from lra_bench.machine.emulation import emulated
from lra_bench.machine.precision import matmul_precision
from lra_bench.machine.xla import compiler_options
from lra_bench.records.schema import Record
from lra_bench.runs.run import Run
from lra_bench.spec import SplitName
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.evaluate import best_history, prepared_folder
from lra_bench.training.functional import initialized
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.setup import data_shape
from lra_bench.training.state import Totals, TrainState
from lra_bench.training.stopping import out_of_memory_in_words


class Predictions(NamedTuple):
    """The predictions of a split, in the order of its rows: labels (n,), predictions (n,), logits (n, classes)."""

    labels: NDArray[np.int32]
    predictions: NDArray[np.int32]
    logits: NDArray[np.float32]


class TrainedModel:
    """A trained network. Called on inputs and lengths, it gives logits (b, classes).

    Inputs are (b, L), (b, 2, L) or (b, L, 3), and lengths (b,) or (b, 2).

    `network` is the module itself, in evaluation mode, with the parameters of the best checkpoint.
    """

    def __init__(self, run: Run, network: nnx.Module, batched_products: bool):
        """Take a run and its network."""
        self.run, self.network = run, network
        structure, self._state = nnx.split(network)

        def logits(state: Any, inputs: Any, lengths: Any) -> Any:
            model: Any = nnx.merge(structure, state)
            return model(inputs, lengths, train=False, key=None)

        self._logits = jax.jit(emulated(logits), compiler_options=compiler_options(batched_products, training=False))

    def __call__(self, inputs: ArrayLike, lengths: ArrayLike) -> NDArray[np.float32]:
        """The logits (b, classes) of inputs as `load` gives them: uint8 tokens or pixels, and int32 lengths."""
        with matmul_precision(self.run.precision), out_of_memory_in_words(self.run):
            arrays = jnp.asarray(inputs, jnp.uint8), jnp.asarray(lengths, jnp.int32)
            return np.asarray(self._logits(self._state, *arrays), np.float32)

    def predict(self, split: PackedSplit) -> Predictions:
        """The predictions of all rows of a split, in batches as large as in training."""
        n, batch = len(split.labels), self.run.recipe.batch_size
        pieces = []
        for start in range(0, n, batch):
            rows = np.minimum(np.arange(start, start + batch), n - 1)  # the last batch repeats the last row
            pieces.append(self(split.inputs[rows], split.lengths[rows])[: n - start])
        logits = np.concatenate(pieces)
        return Predictions(np.asarray(split.labels), logits.argmax(axis=-1).astype(np.int32), logits)


def trained_model(run: Run, folder: Path, record: Record | None) -> tuple[TrainedModel, dict[SplitName, PackedSplit]]:
    """The network of the run's best checkpoint, on one device, and the data that it was trained on.

    `record` is that of the run if it has ended. Raises as `score_best`.
    """
    checkpoints = Checkpoints(folder / "checkpoints")
    history = best_history(run, checkpoints, record)
    assert history.best_step is not None
    with out_of_memory_in_words(run):
        packed = open_checked(prepared_folder(run), run.data.fingerprint)
        network, params, stats = initialized(run, data_shape(run))
        optimizer = make_optimizer(params, run.recipe, max(1, run.steps_per_epoch))
        zero = jnp.zeros((), jnp.int32)
        like = TrainState(params, stats, optimizer.init(params), zero, Totals.zero(), zero)
        restored = checkpoints.restore_best(history.best_step, like)
        checkpoints.close()
        return TrainedModel(run, network.merged(*restored), network.batched_products), packed


def predictions_text(found: Predictions, ending: str) -> str:
    """The content of a file of predictions: row, label, prediction and logits of each example.

    With the ending .csv the logits are columns logit_0, logit_1, …, else each line is a JSON object.
    """
    columns = found.labels.tolist(), found.predictions.tolist(), found.logits.tolist()
    named = list(zip(range(len(found.labels)), *columns, strict=True))
    if ending == ".jsonl":
        keys = ("row", "label", "prediction", "logits")
        return "".join(json.dumps(dict(zip(keys, values, strict=True))) + "\n" for values in named)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "label", "prediction", *(f"logit_{k}" for k in range(found.logits.shape[1]))])
    writer.writerows([*values, *logits] for *values, logits in named)
    return text.getvalue()
