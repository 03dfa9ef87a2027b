"""Several devices train as one does: the same examples in the same order, statistics over the whole batch."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.machine.mesh import data_mesh
from lra_bench.training import steps
from lra_bench.training.functional import initialized
from lra_bench.training.input_pipeline import ResidentPipeline
from lra_bench.training.mesh import replicate
from lra_bench.training.optimizer import make_optimizer
from lra_bench.training.state import Totals, stream_key

BATCH, STEPS = 5, 3
A_FEW = {"n_layers": 1, "d_model": 4, "batch_size": BATCH, "dropout": 0.2}

MANY_DEVICES = """
import json, sys
import jax
from tests.test_mesh import a_few_steps
for model, devices in (("s5", 2), ("s5", 3), ("s5", 4), ("s4", 4)):
    jax.device_count = lambda: devices
    print(json.dumps([model, devices, a_few_steps(model)]))
"""


def a_few_steps(model):
    """Losses, correct answers, statistics and the divided program's text, on documents of several lengths.

    Four devices have shares of 2, 2, 1 and 0 of the five examples.
    """
    run, shape = synthetic_run(model, "text", 16, A_FEW, "float32")
    split = synthetic_split(run.recipe, shape, STEPS * BATCH + 2)
    split = split._replace(lengths=np.random.default_rng(1).integers(1, 17, len(split.labels), np.int32))
    mesh, (network, params, stats) = data_mesh(), initialized(run, shape)
    pipeline, optimizer = ResidentPipeline(split, stream_key(0, 1), mesh), make_optimizer(params, run.recipe, STEPS)
    state = steps.initial_state(params, stats, optimizer, mesh)
    batches, _ = pipeline.take(0, 0, STEPS)
    ((rows, count),) = pipeline.in_order()
    options = {"xla_backend_optimization_level": 0}
    arguments = state, batches, replicate(stream_key(0, 2), mesh)
    loop = jax.jit(steps.train_loop(network, optimizer, BATCH, mesh)).lower(*arguments).compile(options)
    state = loop(*arguments)
    score = jax.jit(steps.eval_loop(network, BATCH, mesh), compiler_options=options)
    scored, _ = score(state.params, state.stats, replicate(Totals.zero(), mesh), rows)
    return {
        "losses": [float(state.totals.loss) / (STEPS * BATCH), float(scored.loss) / count],
        "correct": [int(state.totals.correct), int(scored.correct)],
        "statistics": np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.stats)]).tolist(),
        "gathered": re.findall(r"f32\S* all-gather|c64\S* all-gather", loop.as_text()),
    }


@pytest.mark.slow
def test_any_number_of_devices_trains_and_scores_as_one_does():
    """S5, and S4 with padded documents and torch's BatchNorm, on batches that cannot be divided evenly."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", MANY_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    one = {model: a_few_steps(model) for model in ("s5", "s4")}
    counts = []
    for line in done.stdout.splitlines():
        model, devices, found = json.loads(line)
        counts.append(devices)
        assert not found["gathered"], f"{devices} devices each compute the whole batch of {model}"
        assert found["correct"] == one[model]["correct"]
        np.testing.assert_allclose(found["losses"], one[model]["losses"], rtol=1e-5)
        np.testing.assert_allclose(found["statistics"], one[model]["statistics"], rtol=1e-4, atol=1e-6)
    assert counts == [2, 3, 4, 4]
