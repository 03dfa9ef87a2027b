"""A layer of one's own: the example trains, is reported and resumes; mistakes in it are one sentence."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench import registry
from lra_bench.data.manifest import load_manifest
from lra_bench.errors import Interrupted, UserError
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.runs.run import load_run, make_run
from lra_bench.training import state, train
from lra_bench.training.epoch import DispatchSize
from lra_bench.training.functional import initialized
from tests.made_records import load_records

SMALL = {"n_layers": 2, "d_model": 8, "batch_size": 40, "epochs": 1.0, "warmup_epochs": 0.25, "decay_epochs": 1.0}

EXAMPLE = (Path(__file__).parent.parent / "examples" / "moving_average.py").read_text(encoding="utf-8")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that writes a module of the user's into the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    made = []

    def write(text, name="my_layer"):
        (tmp_path / f"{name}.py").write_text(text)
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def own_run(data, path, seed=0, **changes):
    return make_run(load_manifest(data).data_info, path, seed, {**SMALL, **changes}, "float32")


@pytest.mark.slow
def test_trains_from_the_command_line_and_is_reported(data, tmp_path):
    """In a fresh process in the user's folder: train with a setting of the layer's own, then report."""
    (tmp_path / "my_layer.py").write_text(EXAMPLE)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "data").symlink_to(data.parent.parent)
    environment = {**os.environ, "LRA_BENCH_HOME": str(tmp_path / "home")}

    def lra_bench(*arguments):
        command = [sys.executable, "-P", "-m", "lra_bench", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    settings = [f"--set={key}={value}" for key, value in {**SMALL, "slowest": 50.0}.items()]
    trained = lra_bench("train", "--model", "my_layer:MovingAverage", "--task", "listops", "--size", "tiny", *settings)
    assert trained.returncode == 0, trained.stderr
    (record,) = load_records(tmp_path / "results")
    assert record.model == "my_layer:MovingAverage"
    assert record.recipe.layer == {"slowest": 50.0, "dropout_rate": 0.1}
    assert record.recipe.reference.startswith("lra-bench's default for a layer of your own")
    assert not record.published_recipe
    assert record.accuracy.test is not None
    reported = lra_bench("report")
    assert reported.returncode == 0, reported.stderr
    tables = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "results").glob("*.csv"))
    assert "my_layer:MovingAverage" in tables
    (run,) = (tmp_path / "home" / "runs").glob("listops/*/*/run.json")
    again = lra_bench("evaluate", str(run.parent), "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_accuracy"] == record.accuracy.test
    assert load_run(run.parent).command.startswith("lra-bench train --model my_layer:MovingAverage --task listops")


def numbers(record):
    return record.model_dump(mode="json", exclude={"throughput", "provenance", "system"})


@pytest.mark.slow
def test_resumed_run_with_dropout_and_batchnorm_equals_uninterrupted(data, tmp_path, module, monkeypatch):
    path = f"{module(EXAMPLE)}:MovingAverage"
    results = []
    for name in ("whole", "stopped"):
        monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / name))
        run = own_run(data, path)
        if name == "stopped":
            monkeypatch.setattr("lra_bench.training.epoch.DISPATCH_SECONDS", 0.0)
            with monkeypatch.context() as patch:
                took, taken = DispatchSize.took, []

                def stop_at_seven(self, seconds, n, took=took, taken=taken):
                    took(self, seconds, n)
                    taken.append(n)
                    if len(taken) == 7:
                        os.kill(os.getpid(), signal.SIGTERM)

                patch.setattr(DispatchSize, "took", stop_at_seven)
                with pytest.raises(Interrupted):
                    train.train(run, data, tmp_path / "never")
        results.append(numbers(train.train(run, data, tmp_path / f"results-{name}")))
    assert results[0] == results[1]


class Dropping(nnx.Module):
    """Leaves behind, as a statistic, the mask that its dropout drew."""

    def __init__(self, features, *, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(features, momentum=0.0, rngs=rngs)
        self.seen = nnx.BatchStat(jnp.zeros((7, features)))

    def __call__(self, u):
        self.seen[...] = self.dropout(jnp.ones_like(u[0]))
        return self.norm(u)


@pytest.fixture
def network(data):
    run = own_run(data, "tests.test_custom_layer:Dropping")
    return initialized(run, DataShape(7, 10, 1, False))


def batch_of(n=3):
    rng = np.random.default_rng(0)
    return state.Examples(
        jnp.asarray(rng.integers(0, 18, (n, 7)), jnp.uint8), jnp.full(n, 7), jnp.asarray(rng.integers(0, 10, n))
    )


def masks(stats):
    return [np.asarray(value) for path, value in nnx.to_flat_state(stats) if path[-1] == "seen"]


def test_dropout_of_the_users_layers_is_new_at_each_step_and_in_each_layer(network):
    net, params, stats = network
    apply = jax.jit(net.apply_train)
    _, first = apply(params, stats, batch_of(), jax.random.key(1))
    _, again = apply(params, stats, batch_of(), jax.random.key(1))
    _, second = apply(params, first, batch_of(), jax.random.key(2))
    for mask in masks(first):
        assert set(np.unique(mask)) == {0.0, 2.0}
    assert (masks(first)[0] != masks(first)[1]).any()
    for a, b, c in zip(masks(first), masks(again), masks(second), strict=True):
        assert (a == b).all()
        assert (a != c).any()


def test_evaluation_uses_running_statistics_and_no_dropout(network):
    """An example's logits depend on nothing but itself, and in training they do."""
    net, params, stats = network
    half = state.Examples(*(column[:2] for column in batch_of()))
    whole, part = (jax.jit(net.apply_eval)(params, stats, batch) for batch in (batch_of(), half))
    np.testing.assert_allclose(part, whole[:2], rtol=1e-5, atol=1e-6)
    key = jax.random.key(1)
    whole, part = (jax.jit(net.apply_train)(params, stats, batch, key)[0] for batch in (batch_of(), half))
    assert not np.allclose(part, whole[:2], rtol=1e-3)


MISTAKES = {
    "no_such:Layer": r"there is no module 'no_such', neither in .* nor installed\.",
    "my layer:X": r"a layer of your own is named package\.module:Class, as in my_layer:MyLayer; got 'my layer:X'\.",
    "fine:Missing": r"unknown layer of fine 'Missing'\. .*Legal: .*Fine",
    "broken:Layer": r"broken cannot be imported: SyntaxError: ",
    "needs:Layer": r"needs cannot be imported: No module named 'not_there'\.",
    "fine:NoFeatures": r"fine:NoFeatures must be built as NoFeatures\(features, rngs=rngs\): ",
    "fine:Taken": r"fine:Taken: these are settings of the recipe, name yours differently: dropout\.",
    "fine:BadConfig": r"fine:BadConfig: Config must be a pydantic model",
    "s7": r"unknown model 's7'\. .*or your own package\.module:Class",
}
FINE = """
from flax import nnx
from pydantic import BaseModel
class Fine(nnx.Module):
    def __init__(self, features, *, rngs): pass
class NoFeatures(nnx.Module):
    def __init__(self, *, rngs): pass
class Taken(Fine):
    class Config(BaseModel):
        dropout: float = 0.0
class BadConfig(Fine):
    Config = 3
class Shorter(Fine):
    def __call__(self, u): return u[:, 1:]
class Complex(Fine):
    def __call__(self, u): return u + 1j
class BadRole(Fine):
    def __init__(self, features, *, rngs): self.a = nnx.Param(1.0, role="eigenvalue")
    def __call__(self, u): return u
"""


@pytest.mark.parametrize("path", MISTAKES)
def test_mistakes_in_the_path_or_the_class_are_one_sentence(data, module, path):
    module(FINE, "fine")
    module("def (", "broken")
    module("import not_there", "needs")
    with pytest.raises(UserError, match=MISTAKES[path]):
        own_run(data, path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Shorter", r"must return what it is given, float32 \(3, 7, 8\) as \(b, L, H\); got float32 \(3, 6, 8\)"),
        ("Complex", r"got complex64 \(3, 7, 8\)"),
        ("BadRole", r"unknown role of fine:BadRole's parameter a 'eigenvalue'. Did you mean 'eigenvalues'"),
    ],
)
def test_what_the_layer_returns_is_checked(data, module, name, message):
    path = f"{module(FINE, 'fine')}:{name}"
    run, shape = own_run(data, path), DataShape(7, 10, 1, False)

    def score(inputs):
        network = build(run.model, run.recipe, shape, rngs=nnx.Rngs(0))
        return network(inputs, jnp.full(3, 7), train=False, key=None)

    with pytest.raises(UserError, match=message):
        jax.eval_shape(score, batch_of().inputs)


def test_wrong_path_exits_with_2(tmp_path, data):
    environment = {**os.environ, "LRA_BENCH_HOME": str(data.parent.parent.parent)}
    command = [
        sys.executable,
        "-m",
        "lra_bench",
        "train",
        "--model",
        "nope:Layer",
        "--task",
        "listops",
        "--size",
        "tiny",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"Error: there is no module 'nope', neither in \S+ nor installed\.\n", done.stderr)


def test_editing_the_file_makes_another_run(data, module):
    path = f"{module(EXAMPLE)}:MovingAverage"
    before = own_run(data, path)
    sys.modules.pop("my_layer")
    module(EXAMPLE.replace("1.0, config", "2.0, config"))
    assert own_run(data, path).digest != before.digest
    assert own_run(data, path).model_copy(update={"code": before.code}).digest == before.digest


def test_installed_package_names_its_layer_by_an_entry_point(data, module, monkeypatch):
    path = f"{module(EXAMPLE)}:MovingAverage"
    point = EntryPoint("moving-average", path, registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.ENTRY_POINTS else [])
    run = own_run(data, "moving-average")
    assert run.model == "moving_average"
    assert "--model moving-average" in run.command
    assert run.recipe == own_run(data, path).recipe


def test_roles_reach_the_recipes_groups(data, module):
    """The example's time constants learn at the ssm rate, everything else at the regular one."""
    from lra_bench.training.optimizer import group_of

    run = own_run(data, f"{module(EXAMPLE)}:MovingAverage")
    network = nnx.eval_shape(lambda: build(run.model, run.recipe, DataShape(7, 10, 1, False), rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(network, nnx.Param))
    assert {path[-1] for path, leaf in leaves if group_of(leaf, run.recipe) == "ssm"} == {"log_rate"}
