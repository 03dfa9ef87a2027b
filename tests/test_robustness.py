"""Noise on layers and pixels: the paper's wave, drawn by row; what is measured, recorded and reported of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.commands.robustness import PAPER, checked, command_of
from lra_bench.errors import UserError
from lra_bench.machine.mesh import data_mesh
from lra_bench.models.classifier import PIXEL_SCALES, InputEncoder
from lra_bench.models.disturbance import DisturbedEncoder, DisturbedLayer, Noise, drawn, mode
from lra_bench.models.layers import FLAX, DataShape
from lra_bench.models.network import build
from lra_bench.models.response import input_steps
from lra_bench.records.agreement import disagreements
from lra_bench.records.files import load_any, path_of, write_record
from lra_bench.records.schema import NoisePoint
from lra_bench.report import report
from lra_bench.report.listings import robustness_table
from lra_bench.report.select import Loaded
from lra_bench.training import robustness
from lra_bench.training.functional import initialized
from lra_bench.training.input_pipeline import ResidentPipeline
from lra_bench.training.setup import EvaluationSetup
from lra_bench.training.state import stream_key
from tests.made_records import robustness_record
from tests.recipes import s5_recipe


def noise(amplitude=0.1, frequency=PAPER, seed=0):
    return Noise(jnp.float32(amplitude), jnp.float32(frequency), stream_key(seed, 7))


def test_a_mode_of_many_turns_is_exact():
    """The last angle is half a million radians, of which float32 alone keeps none of the digits after the point."""
    omega_dt, L = 325.4 * 0.1, 16384
    turns = np.float32(omega_dt / (2 * math.pi))
    expected = np.cos(2 * math.pi * np.arange(L) * float(turns))
    np.testing.assert_allclose(np.asarray(mode(jnp.full(1, turns), L))[:, 0], expected, atol=0.01)


def test_the_papers_wave_follows_each_features_own_step():
    dt, rows, L = jnp.array([0.001, 0.05]), jnp.arange(5), 40
    found = np.asarray(drawn("cosine", noise(), rows, 0, dt, L))
    wave = np.cos(PAPER * np.arange(L)[:, None] * np.asarray(dt))
    r = found[0] / 0.1  # the wave is one at t = 0
    assert np.all((r >= 0) & (r <= 1))
    assert len(np.unique(r)) == r.size
    np.testing.assert_allclose(found, 0.1 * r * wave[:, None], atol=2e-5)


@pytest.mark.parametrize("kind", ["cosine", "gaussian"])
def test_what_is_drawn_depends_on_row_layer_and_seed_alone(kind):
    dt, rows = jnp.array([0.01, 0.1, 0.02]), jnp.array([0, 1, 2, 3])
    whole = np.asarray(drawn(kind, noise(), rows, 2, dt, 6))
    assert whole.shape == (6, 4, 3)
    assert np.array_equal(np.asarray(drawn(kind, noise(), rows[::-1][:2], 2, dt, 6)), whole[:, :1:-1])
    for other in (drawn(kind, noise(), rows, 1, dt, 6), drawn(kind, noise(seed=1), rows, 2, dt, 6)):
        assert not np.any(np.asarray(other) == whole)


def test_noise_is_added_to_what_the_layer_reads():
    u, rows = jnp.ones((6, 2, 4)), jnp.array([3, 4])
    y = DisturbedLayer(lambda u: 3 * u, "cosine", noise(), rows, 1)(u)
    np.testing.assert_allclose(y / 3 - u, drawn("cosine", noise(), rows, 1, jnp.ones(4), 6), atol=1e-6)


@pytest.mark.parametrize(("scale", "channels"), [("signed", 1), ("color", 3)])
def test_noise_on_pixels_is_on_their_own_scale(scale, channels):
    encoder = InputEncoder(s5_recipe(embedding=None, pixels=scale), FLAX, channels, rngs=nnx.Rngs(0))
    pixels, rows = jnp.arange(12 * channels, dtype=jnp.uint8).reshape(6, 2, channels), jnp.array([0, 5])
    asked, (mean, deviation) = noise(0.5, 0.7), PIXEL_SCALES[scale]
    found = DisturbedEncoder(encoder, "cosine", asked, rows)(pixels if channels == 3 else pixels[..., 0])
    moved = (pixels - mean) / deviation + drawn("cosine", asked, rows, 1 << 20, jnp.ones(channels), 6)
    np.testing.assert_allclose(found, encoder.dense(moved), atol=1e-5)


def test_steps_of_two_directions_and_of_an_input_of_zero():
    def layer(model):
        recipe = synthetic_run(model, "listops", 16, {"n_layers": 1, "d_model": 8}, "float32")[0].recipe
        return nnx.eval_shape(
            lambda: build(model, recipe, DataShape(16, 10, 1, True), rngs=nnx.Rngs(0)).blocks[0].layer
        )

    hope, selective = layer("hope"), layer("b2s6")
    hope.inv_dt = nnx.Param(jnp.log(jnp.expm1(jnp.array([[0.01] * 8, [0.04] * 8]))))
    np.testing.assert_allclose(input_steps(hope, 8), 0.02, rtol=1e-5)
    selective.b = nnx.Param(jnp.log(jnp.expm1(0.03 * jnp.ones(8))))
    np.testing.assert_allclose(input_steps(selective, 8), 0.03, rtol=1e-5)


def test_a_run_is_scored_under_noise():
    """The program itself: without amplitude it is the plain network, and a seed repeats its numbers."""
    run, shape = synthetic_run("s5", "listops", 16, {"n_layers": 1, "d_model": 4, "batch_size": 8}, "float32")
    split = synthetic_split(run.recipe, shape, 12)
    network, params, stats = initialized(run, shape)
    pipeline = ResidentPipeline(split, stream_key(0, 1), data_mesh())
    setup = EvaluationSetup(run, data_mesh(), network, None, {"test": pipeline})
    logits = jax.jit(network.apply_eval)(params, stats, pipeline.examples)
    expected = float(np.mean(np.argmax(np.asarray(logits), axis=-1) == np.asarray(split.labels)))
    asked = robustness.NoiseTest("layers", "cosine", [PAPER], 0.1, 1)
    test = robustness._Tester(setup, params, stats, asked)
    assert test.accuracy(0.0, 0.0, 0) == expected
    loud = [test.accuracy(1e4, 3.0, seed) for seed in (0, 0, 1, 2)]
    assert loud[0] == loud[1]
    assert len({*loud, expected}) > 1


def points(place="layers", kind="cosine", frequency=PAPER, accuracies=(0.2, 0.3, 0.4)):
    fixed = {"amplitude": 0.1, "place": place, "noise": kind}
    return [
        NoisePoint(**fixed, frequency=frequency, accuracy=found, noise_seed=seed)
        for seed, found in enumerate(accuracies)
    ]


def test_a_record_of_before_is_read_and_keeps_its_place(tmp_path):
    old = robustness_record()
    assert path_of(tmp_path, old).name == "robustness-aaaaaaaaaaaa-s0.json"
    values = old.model_dump(mode="json")
    for point in values["points"]:
        for new in ("place", "noise", "noise_seed"):
            del point[new]
    assert type(old).model_validate(values) == old
    assert old.noises[0] == ("layers", "cosine", 1.0, 0.1, 0)


def test_each_noise_has_a_record_of_its_own(tmp_path, made_up):
    made = [robustness_record().model_copy(update={"points": points(place)}) for place in ("layers", "input")]
    places = {path_of(tmp_path, record).name for record in [*made, robustness_record()]}
    assert len(places) == 3
    with made_up():
        assert load_any(write_record(tmp_path, made[1])) == made[1]
    wrong = robustness_record().model_copy(update={"points": points(kind="gaussian")})
    assert any("Gaussian noise" in found for found in disagreements(wrong))


@pytest.mark.usefixtures("unproved")
def test_the_report_gives_mean_and_deviation_over_runs_and_noise_seeds(tmp_path):
    for seed in (0, 1):
        every = [*points(), *points("input", frequency=0.5), *points(kind="gaussian", frequency=None)]
        write_record(tmp_path, robustness_record(seed=seed).model_copy(update={"points": every}))
    # Another record of the first run, with two noises that are measured, and one that is new.
    again = [*points()[:2], *points(frequency=9.0, accuracies=[0.5])]
    write_record(tmp_path, robustness_record(clean=0.88).model_copy(update={"points": again}))
    made = report(tmp_path)
    table = made.table("robustness")
    titles = [column.title for column in table.columns]
    assert titles[6:] == ["ω = 9", "ω = 325.4", "Gaussian", "pixels, ω = 0.5"]
    (row,) = table.blocks[0].rows
    assert [cell.text for cell in row[3:]] == ["2", "0.1", "88.00", "50.00 (1 of 2 seeds)", *["30.00 ± 8.94"] * 3]
    drawn_picture = made.files["figures/robustness.svg"]
    assert "on the pixels" in drawn_picture
    assert "on layers" in drawn_picture
    assert "Gaussian on layers, amplitude 0.1, noise seed 2" in made.files["report.html"]


def test_a_long_sweep_has_eight_columns_and_a_note():
    every = [point for i in range(20) for point in points(frequency=1.0 + i, accuracies=[0.5])]
    long = robustness_record().model_copy(update={"points": [*every, *points("input", frequency=0.5)]})
    table = robustness_table([Loaded("a", long)])
    titles = [column.title for column in table.columns][6:]
    assert len(titles) <= 9
    assert titles[-2:] == ["ω = 20", "pixels, ω = 0.5"]
    assert "8 frequencies are shown" in table.notes[1]


def test_default_frequencies():
    assert checked("layers", "cosine", [], None, False, 0.1) == [PAPER]
    assert checked("layers", "cosine", [], None, True, 0.1) is None
    found = checked("input", "cosine", [], None, False, 0.1)
    assert len(found) == 8
    assert found[-1] == pytest.approx(math.pi)
    assert checked("layers", "cosine", [3.0, 1.0, 3.0], None, False, 0.1) == [1.0, 3.0]
    assert np.diff(np.log(checked("layers", "cosine", [], 4, False, 0.1))) == pytest.approx(math.log(10))
    asked = robustness.NoiseTest("layers", "cosine", [PAPER], 0.1, 3)
    said = "lra-bench robustness x/y/z --where layers --noise cosine --frequency 325.4 --amplitude 0.1 --seeds 3"
    assert command_of("x/y/z", asked) == said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("layers", "cosine", [1.0], 4, False, 0.1), "--frequency and --sweep each say the frequencies"),
        (("layers", "gaussian", [1.0], None, False, 0.1), "Gaussian noise has no frequency; leave --frequency out"),
        (("input", "cosine", [], None, True, 0.1), "--own-frequency is of the layers"),
        (("input", "cosine", [4.0], None, False, 0.1), "at most 3.14159 with --where input, got 4"),
        (("layers", "cosine", [0.0], None, False, 0.1), "--frequency must be positive"),
        (("layers", "cosine", [], None, False, -1.0), "--amplitude must be positive"),
    ],
)
def test_noise_that_makes_no_sense_is_the_users_mistake(arguments, message):
    with pytest.raises(UserError, match=message):
        checked(*arguments)


def test_a_network_without_a_place_for_the_noise_is_refused():
    run, _ = synthetic_run("transformer", "listops", 16, {}, "float32")
    network = type("Network", (), {"blocks": [object()]})()
    for place in ("layers", "input"):
        with pytest.raises(UserError, match=r"to a model of sequence layers, and .* is of transformer, which has none"):
            robustness.refuse_no_place(run, network, place)
    with pytest.raises(UserError, match=r"needs pixels, and .* reads tokens"):
        robustness.refuse_no_place(run, type("Network", (), {"blocks": []})(), "input")
    with pytest.raises(UserError, match="those of transformer are not known"):
        robustness.own_frequency(run, type("N", (), {"blocks": [type("B", (), {"layer": None})()]})())
