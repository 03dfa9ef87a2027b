"""`bench --target`: what it plans, how it refuses, and, where JAX can compile for GPUs, what it predicts."""

import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from lra_bench import cli
from lra_bench.bench import prediction
from lra_bench.bench.plan import BenchRequest, plan
from lra_bench.bench.prediction import PLUGINS
from lra_bench.errors import UserError

HAS_PLUGIN = any(importlib.util.find_spec(name) for name in PLUGINS)


def test_the_default_batch_is_the_published_one_even_on_a_cpu():
    for target, batch in (("h200", 50), (None, 8)):
        ((run, *_),) = plan(BenchRequest(precision="float32", models=["s5"], tasks=["listops"], target=target))
        assert run.recipe.batch_size == batch


def test_without_the_plugin_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(prediction.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="works without a GPU") as refused:
        prediction.run_predictions(BenchRequest(precision="float32", models=["s5"], tasks=["listops"], target="h200"))
    assert f'pip install "jax[cuda13]=={jax.__version__}"' in str(refused.value)


REFUSED = {
    "unknown target": (["--target", "b200"], "--target takes h200 or a100"),
    "both": (["--target", "h200", "--profile"], "--target and --profile are two things"),
    "measured data": (["--target", "h200", "--data"], "--target measures no speed; leave out --data"),
    "comparison": (["--profile", "--against", "x", "--again"], "leave out --against and --again"),
    "top of nothing": (["--top", "3"], "--top goes with --target or --profile"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_do_not_belong_together_are_one_sentence(name, monkeypatch, capsys):
    words, expected = REFUSED[name]
    monkeypatch.setattr(sys, "argv", ["lra-bench", "bench", "--task", "listops", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    assert leaving.value.code == 2
    assert expected in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.skipif(not HAS_PLUGIN, reason="JAX cannot compile for NVIDIA GPUs here: no jax-cuda plugin")
@pytest.mark.parametrize("target", ["h200", "a100"])
def test_a_training_step_is_predicted_and_no_record_written(target, tmp_path):
    words = ["--model", "s5", "--task", "listops", "--lengths", "256", "--batch", "2", "--set", "n_layers=1"]
    command = [sys.executable, "-m", "lra_bench", "bench", *words, "--target", target]
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)["predictions"]
    assert "compiling S5 on listops" in done.stderr
    assert not list(tmp_path.iterdir())
    everything = found["total"]
    for sums in (found["by_kind"], found["by_module"]):
        for name, whole in everything.items():
            assert sum(cost[name] for cost in sums.values()) == pytest.approx(whole)
    # Forward and backward, the two products of the gate's dense layer alone: 3 × 2 × tokens × features².
    assert everything["flops"] > 3 * 2 * 2 * 256 * 128**2
    assert {"encoder", "blocks/gate", "blocks/norm", "head", "optimizer"} <= {
        name if name in found["by_module"] else name.split("/")[0] for name in found["by_module"]
    }
    assert found["temporary_bytes"] > 0
    # The forward pass, and not much more of a step: no gradients, no update, no dropout.
    assert 0.02 < found["evaluation_seconds"] / everything["seconds"] < 0.6
    table = subprocess.run([*command, "--top", "3"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "A prediction, not a measurement" in table
