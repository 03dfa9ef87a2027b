"""`lra-bench generate`: Transformers of equal size, the batch that fits, what is printed; the steps themselves are in
the contract and in test_transformer.py."""

import json

import pytest

from lra_bench.bench import generation
from lra_bench.bench.case import DoesNotFit
from lra_bench.bench.generation import GenerationOutcome, GenerationRequest, Program, largest, transformer_parameters
from lra_bench.bench.run import Skipped
from lra_bench.commands.generate import as_values, generate, print_outcome
from lra_bench.errors import UserError
from lra_bench.records.schema import Timing
from lra_bench.registry import model_names
from lra_bench.report.generation import Generation, generation_picture, generation_ratios

SMALL = {"n_layers": 1, "d_model": 64}


def request(**changes):
    fields = {"models": ["s5"], "task": "image", "lengths": [8], "overrides": SMALL, "smoke": True}
    return GenerationRequest(precision="float32", **{**fields, **changes})


def test_the_transformer_is_as_large_as_the_model():
    settings = generation.transformer_settings("image", 1, 256, 200_000)
    assert transformer_parameters("image", settings) == pytest.approx(200_000, rel=0.01)
    assert settings["mlp_dim"] >= 4 * settings["d_model"]
    assert settings["d_model"] % settings["heads"] == 0


def test_no_transformer_is_small_enough():
    with pytest.raises(UserError, match="as few as 100 parameters"):
        generation.transformer_settings("image", 1, 256, 100)


class Sized:
    """A network of which each sequence takes 10 bytes of state, beside 50 of parameters."""

    @staticmethod
    def bytes_at(batch):
        return 50 + 10 * batch


@pytest.mark.parametrize(("memory", "batch"), [(80, 1), (500, 16), (10**9, generation.MOST_SEQUENCES)])
def test_the_largest_batch_is_the_largest_that_compiles_into_the_memory(memory, batch, monkeypatch):
    """As compiled, a sequence takes twice its state."""

    def compiled(one, batch, memory):
        if 50 + 20 * batch > memory:
            raise DoesNotFit("too large")
        return Program(one, batch, None, 50 + 20 * batch)

    monkeypatch.setattr(generation, "compiled", compiled)
    assert largest(Sized(), memory).batch == batch
    with pytest.raises(DoesNotFit):
        largest(Sized(), 60)


def made(transformer, length, choice, milliseconds, batch=1):
    seconds = milliseconds / 1e3
    timing = Timing(median=seconds, q1=seconds, q3=2 * seconds, windows=5, calls=3, warmup=2)
    return Generation("s5", transformer, length, choice, batch, 1000, timing, 2**20 * batch)


OUTCOME = GenerationOutcome(
    [
        *(made(False, length, "equal", 1) for length in (1024, 4096)),
        *(made(True, length, "equal", length / 256) for length in (1024, 4096)),
        made(False, 1024, "largest", 2, 64),
        made(False, 4096, "largest", 2, 64),
        made(True, 1024, "largest", 16, 8),
    ],
    [Skipped("transformer", "image", 4096, "a batch of 1 needs too much")],
)


def test_ratios_are_of_tokens_per_second_where_both_were_measured():
    ratios = {ratio[1:3]: ratio.tokens_per_second for ratio in generation_ratios(OUTCOME.measured)}
    assert ratios == pytest.approx({(1024, "equal"): 4, (4096, "equal"): 16, (1024, "largest"): 64})


def test_the_table_and_the_json_say_what_was_measured_and_what_did_not_fit(capsys):
    print_outcome(request(), OUTCOME)
    printed = capsys.readouterr().out
    assert printed.count("Transformer like S5") == 3
    assert "64, largest" in printed
    assert "Skipped: Transformer, 4,096 steps: a batch of 1 needs too much." in printed
    values = json.loads(json.dumps(as_values(request(), OUTCOME)))
    assert len(values["measured"]) == 7
    assert values["measured"][4]["tokens_per_second"] == 32_000
    assert values["skipped"][0]["length"] == 4096
    assert "--lengths 8 --batch 1 --set d_model=64" in values["provenance"]["command"]
    assert values["system"]["precision"] == "float32"


def test_the_picture_has_a_line_for_each_network():
    picture = generation_picture(OUTCOME.measured)
    assert picture.svg.count("Transformer like S5") == 1
    assert "largest batch that fits" in picture.svg


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "scifar"}, "no colors"),
        ({"models": ["transformer"]}, "measured against"),
        ({"models": ["mega"]}, "bidirectional"),
        ({"memory": 2**60}, "are free"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        generation.run_generation(request(**changes))


def test_with_all_models_those_without_a_step_are_skipped_once_each(monkeypatch):
    def refuse(request, model, length, outcome):
        if model != "s5":
            raise UserError(f"{model} has no step.")
        outcome.measured.append(made(False, length, "equal", 1))

    monkeypatch.setattr(generation, "measure_length", refuse)
    outcome = generation.run_generation(request(models=["all"], lengths=[8, 16]))
    assert [one.length for one in outcome.measured] == [8, 16]
    assert len(outcome.skipped) == len({one.model for one in outcome.skipped}) == len(model_names()) - 1
    assert outcome.skipped[0].reason.endswith("no step")


def test_options_are_checked_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="--memory must be a positive number"):
        generate(memory=-1.0)
    with pytest.raises(UserError, match="--plot writes"):
        generate(plot=tmp_path / "a.pdf")


@pytest.mark.slow
def test_both_networks_are_measured_at_equal_and_at_their_largest_batches(monkeypatch):
    monkeypatch.setattr(generation, "MOST_SEQUENCES", 4)
    outcome = generation.run_generation(request(models=["s4d"], memory=2**26))
    assert [(one.transformer, one.choice, one.batch) for one in outcome.measured] == [
        (False, "equal", 1),
        (True, "equal", 1),
        (False, "largest", 4),
        (True, "largest", 4),
    ]
    assert not outcome.skipped
    assert all(one.seconds.median > 0 and one.memory_bytes > 4 * one.parameters for one in outcome.measured)
