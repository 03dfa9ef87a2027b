"""Precision: its names on each platform, its default, and that results of different precision never meet in a cell."""

import io
import json
import shlex
import subprocess
import sys
from typing import get_args

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import use_abstract_mesh
from rich.console import Console
from typer.main import get_command

from lra_bench.bench.plan import BenchRequest
from lra_bench.bench.ratios import ratios, speeds_of
from lra_bench.bench.run import command_of, make_record
from lra_bench.bench.synthetic import synthetic_run, synthetic_split
from lra_bench.cli import app
from lra_bench.commands.options import PrecisionOption, chosen_precision
from lra_bench.commands.train_plan import recipe_state
from lra_bench.machine import precision
from lra_bench.machine.system import describe_system
from lra_bench.records.files import write_record
from lra_bench.records.validate import validate
from lra_bench.report import report
from lra_bench.report.figures import pictures
from lra_bench.report.select import Loaded, select_records
from lra_bench.report.speed_figures import lines_of
from lra_bench.spec import Precision
from lra_bench.training.functional import initialized
from lra_bench.training.state import Examples, stream_key
from tests.made_records import bench_record, honest_record, robustness_record, train_record
from tests.test_products import GPU, THREE, products

pytestmark = pytest.mark.usefixtures("unproved")

PRECISIONS = get_args(Precision)
SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 2}


def train(model, digit, name, tests=(0.6,), **change):
    """A training record per test accuracy, in a precision and with a digest of its own, as its digest is over it."""
    system = {"system": {"precision": name}}
    return [
        train_record(model, seed=i, test=test, digest=digit * 12, **system, **change) for i, test in enumerate(tests)
    ]


def rows_of(table, block):
    return {row[0].text: row for found in table.blocks if block in found.title for row in found.rows}


# Names


@pytest.mark.parametrize(
    ("platform", "names"),
    [
        ("cpu", ["highest", "tensorfloat32", "tensorfloat32"]),
        ("gpu", ["highest", "tensorfloat32", "tensorfloat32"]),
        ("tpu", ["highest", "high", "high"]),
    ],
)
def test_names_of_each_platform_are_those_of_jax(platform, names):
    assert [precision.jax_precision(name, platform) for name in PRECISIONS] == names
    for name in names:
        with jax.default_matmul_precision(name):
            assert jax.config.jax_default_matmul_precision == name


@pytest.mark.parametrize(
    ("platform", "capability", "names"),
    [
        ("cpu", None, ["highest", "tensorfloat32, emulated", "tensorfloat32, emulated"]),
        ("gpu", "9.0", ["BF16_BF16_F32_X3", "tensorfloat32", "tensorfloat32"]),
        ("gpu", "8.0", ["BF16_BF16_F32_X3", "tensorfloat32", "tensorfloat32"]),
        ("gpu", "12.0", ["BF16_BF16_F32_X3", "tensorfloat32", "tensorfloat32"]),
        ("gpu", "7.5", ["highest", "highest", "highest"]),
        ("gpu", "gfx942", ["highest", "tensorfloat32", "tensorfloat32"]),
        ("gpu", None, ["highest", "tensorfloat32", "tensorfloat32"]),
        ("tpu", None, ["highest", "high", "high"]),
    ],
)
def test_records_name_the_algorithm_of_exact_products_and_what_is_emulated(platform, capability, names):
    assert [precision.recorded_precision(name, platform, capability) for name in PRECISIONS] == names


def test_on_a_cpu_float32_is_the_default_and_accelerators_round_as_the_papers_did(monkeypatch):
    assert [precision.default_precision_on(platform) for platform in ("cpu", "gpu", "tpu")] == [
        "float32",
        "tf32",
        "tf32",
    ]
    monkeypatch.setattr(precision, "target_platform", lambda: "gpu")
    monkeypatch.setattr(precision, "device_capability", lambda: "9.0")
    assert chosen_precision(None) == "tf32"
    assert [chosen_precision(name) for name in PRECISIONS] == list(PRECISIONS)
    assert describe_system("float32").matmul_precision == precision.THREE_PRODUCTS
    with precision.matmul_precision("float32"):
        assert jax.config.jax_default_matmul_precision == "highest"


def test_only_bfloat16_stores_activations_in_16_bits():
    assert [jnp.dtype(precision.activation_dtype(name)).itemsize for name in PRECISIONS] == [4, 4, 2]


def test_the_default_precision_starts_jax_on_the_calling_thread():
    """Started otherwise, JAX ignores the setting, and a step of ListOps on a CPU takes 1.4 times as long."""
    code = """
import jax
from lra_bench.commands.options import chosen_precision
started = jax.default_backend
settings = []
jax.default_backend = lambda: settings.append(jax.config.read("jax_cpu_enable_async_dispatch")) or started()
chosen_precision(None)
print(settings)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["[False]"]


@pytest.mark.parametrize("command", ["train", "bench"])
def test_the_option_takes_every_precision_and_no_default_is_written_into_it(command):
    option = next(found for found in get_command(app).commands[command].params if found.name == "precision")
    assert get_args(get_args(get_args(PrecisionOption)[0])[0]) == PRECISIONS
    assert option.default is None


# Products of complex numbers, which three products of bfloat16 parts would spoil


@pytest.mark.parametrize("model", ["s4", "s4d", "s5", "lru", "transformer"])
def test_models_multiply_complex_matrices_exactly_and_real_ones_in_three_products(model):
    run, shape = synthetic_run(model, "listops", 32, SMALL, "float32")
    network, params, stats = initialized(run, shape)
    batch = Examples(*map(jnp.asarray, synthetic_split(run.recipe, shape, 2)))

    def gradient(params):
        return jax.grad(lambda p: network.apply_train(p, stats, batch, stream_key(0, 2))[0].sum())(params)

    exact = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    with use_abstract_mesh(GPU), jax.default_matmul_precision("highest"):
        programs = [
            jax.make_jaxpr(function)(params).jaxpr for function in (gradient, forward_of(network, stats, batch))
        ]
    for program in programs:
        found = {(p.invars[0].aval.dtype.kind, p.params["precision"]) for p in products(program)}
        assert ("f", THREE) in found or model == "transformer"
        assert {precision for kind, precision in found if kind != "f"} <= {exact}


def forward_of(network, stats, batch):
    return lambda params: network.apply_eval(params, stats, batch)


@pytest.mark.parametrize("model", ["s5", "s4"])
def test_a_run_starts_from_the_same_numbers_whatever_jax_is_set_to(model):
    run, shape = synthetic_run(model, "listops", 32, SMALL, "float32")
    _, params, _ = initialized(run, shape)
    with jax.default_matmul_precision(precision.THREE_PRODUCTS):
        _, again, _ = initialized(run, shape)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, params, again))


# What repeats a run


@pytest.mark.parametrize("name", PRECISIONS)
def test_commands_say_the_precision_because_its_default_is_the_machines(name):
    run, _ = synthetic_run("s5", "listops", 32, SMALL, name)
    for command in (run.command, command_of(BenchRequest(precision=name), run)):
        words = shlex.split(command)
        assert words[words.index("--precision") + 1] == name
    assert recipe_state(run.model_copy(update={"overrides": {}})) == ("changed" if name == "bfloat16" else "published")


def test_a_recipe_without_a_published_accuracy_is_not_called_published():
    """LinOSS's authors published nothing on these tasks."""
    run, _ = synthetic_run("linoss", "listops", 32, SMALL, "float32")
    assert recipe_state(run.model_copy(update={"overrides": {}})) == "unpublished"


def test_each_precision_has_its_own_digest():
    runs = [synthetic_run("s5", "listops", 32, SMALL, name)[0] for name in PRECISIONS]
    assert len({run.digest for run in runs}) == 3
    assert len({make_record(BenchRequest(precision=run.precision), run, 0, [], "").digest for run in runs}) == 3


# The report


def test_rows_of_a_model_in_two_precisions_are_two_and_named(tmp_path):
    for record in (
        *train("s5", "a", "tf32", (0.6, 0.62)),
        *train("s5", "b", "float32", (0.5,)),
        *train("s4", "c", "tf32"),
    ):
        write_record(tmp_path, record)
    made = report(tmp_path, pictures=False)
    rows = rows_of(made.table("accuracy-paper"), "published recipes")
    assert {name: row[1].text for name, row in rows.items()} == {
        "S4 [tf32]": "60.00 (1/1)",
        "S5 [float32]": "50.00 (1/1)",
        "S5 [tf32]": "61.00 ± 1.41 (2/2)",
    }
    assert rows["S5 [tf32]"][1].rank == "best"
    cells = json.loads(made.files["leaderboard.json"])["cells"]["paper"]
    assert {(cell["model"], cell["settings"]): cell["precision"] for cell in cells} == {
        ("s4", "tf32"): "tf32",
        ("s5", "float32"): "float32",
        ("s5", "tf32"): "tf32",
    }
    with pytest.raises(KeyError):
        made.table("left-out")


def test_tasks_in_different_precisions_share_no_row_and_so_no_average(tmp_path):
    write_record(tmp_path, train("s5", "a", "tf32")[0])
    write_record(tmp_path, train("s5", "b", "float32", task="image")[0])
    rows = rows_of(report(tmp_path, pictures=False).table("accuracy-paper"), "published recipes")
    assert set(rows) == {"S5 [float32]", "S5 [tf32]"}


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_a_single_published_precision_needs_no_name(tmp_path, name):
    write_record(tmp_path, train("s5", "a", name)[0])
    assert set(rows_of(report(tmp_path, pictures=False).table("accuracy-paper"), "published recipes")) == {"S5"}


def test_bfloat16_is_a_changed_run_and_always_named(tmp_path):
    changed = {"published_recipe": False}
    for record in (
        *train("s5", "a", "bfloat16", **changed),
        *train("s5", "b", "tf32", (0.5,)),
        *train("s5", "c", "bfloat16", **changed, overrides={"lr": 0.1}),
        *train("s5", "d", "bfloat16", **changed, data={"size": "tiny"}),
    ):
        write_record(tmp_path, record)
    made = report(tmp_path, pictures=False)
    assert set(rows_of(made.table("accuracy-paper"), "published recipes")) == {"S5"}
    assert set(rows_of(made.table("accuracy-paper"), "other settings")) == {"S5 [bfloat16]", "S5 [lr=0.1; bfloat16]"}
    assert set(rows_of(made.table("reduced"), "reduced")) == {"S5 [data tiny; bfloat16]"}


def test_differences_across_precisions_are_between_rows_that_name_them(tmp_path):
    seeds = (0.6, 0.61, 0.62)
    for record in (
        *train("s5", "a", "tf32", seeds),
        *train("s4", "b", "float32", tuple(test - 0.01 for test in seeds)),
        *train("lru", "c", "float32", tuple(test - 0.02 for test in seeds)),
    ):
        write_record(tmp_path, record)
    (block,) = report(tmp_path, pictures=False).table("differences").blocks
    assert [(row[1].text, row[2].text) for row in block.rows] == [
        ("LRU [float32]", "S5 [tf32]"),
        ("S4 [float32]", "S5 [tf32]"),
    ]


def test_speeds_of_two_precisions_have_rows_and_ranks_of_their_own(tmp_path):
    for i, name in enumerate(PRECISIONS):
        for model in ("s5", "s4"):
            system = {"precision": name}
            seconds = 0.01 * (i + 1) + (0.001 if model == "s4" else 0)
            write_record(tmp_path, bench_record(model, seconds=seconds, digest=f"{i}" * 12, system=system))
        write_record(tmp_path, train("s5", "abc"[i], name, published_recipe=name != "bfloat16")[0])
    made = report(tmp_path, pictures=False)
    steps = [row for row in made.table("throughput").blocks[0].rows if row[5].text == "training step"]
    assert sorted((row[6].text, row[0].text, row[7].rank) for row in steps) == sorted(
        (name, model, rank) for name in PRECISIONS for model, rank in (("S5", "best"), ("S4", "second"))
    )
    training = made.table("training-speed").blocks[0].rows
    assert sorted(row[6].text for row in training) == sorted(PRECISIONS)
    assert all(row[7].value == 1 for row in training)


def test_robustness_is_never_a_mean_over_two_precisions(tmp_path):
    for i, name in enumerate(("float32", "tf32")):
        for seed in (0, 1):
            record = robustness_record(seed=seed, digest=f"{i}" * 12, system={**robustness_system(), "precision": name})
            write_record(tmp_path, record)
    write_record(tmp_path, train("s5", "a", "tf32")[0])
    rows = rows_of(report(tmp_path, pictures=False).table("robustness"), "Test accuracy")
    assert {name: row[3].text for name, row in rows.items()} == {"S5 [float32]": "2", "S5 [tf32]": "2"}


def robustness_system():
    return robustness_record().system.model_dump()


def test_pictures_draw_a_line_and_a_point_per_precision():
    """Colliding names would draw the last record of both precisions as one line."""
    records = []
    for i, name in enumerate(("float32", "tf32")):
        lengths = [
            bench_record(
                length=length, seconds=length / (1e5 * (i + 1)), digest=f"{i}{length}", system={"precision": name}
            )
            for length in (1024, 2048, 4096)
        ]
        noise = robustness_record(digest=f"{i}" * 12, system={**robustness_system(), "precision": name})
        records += [*lengths, *train("s5", "ab"[i], name), noise]
    loaded = [Loaded(f"r{i}", record) for i, record in enumerate(records)]
    assert {name: len(lines) for name, lines in lines_of(loaded).items()} == {"S5 [float32]": 3, "S5 [tf32]": 3}
    drawn = {picture.name: picture.svg for picture in pictures(select_records(loaded), loaded)}
    for picture in ("accuracy-throughput-nvidia-h200", "seeds", "published", "curves", "scaling", "robustness"):
        assert "S5 [float32]" in drawn[picture], picture
        assert "S5 [tf32]" in drawn[picture], picture


# Ratios of speeds, and checks of records


def test_a_ratio_prefers_the_same_precision_and_names_another():
    def benched(name, seconds):
        return bench_record(seconds=seconds, system={"precision": name})

    slow, fast = benched("float32", 0.02), benched("tf32", 0.01)
    now = benched("tf32", 0.005)
    (same, *_) = ratios([now], speeds_of(slow) | speeds_of(fast))
    assert (same.times_as_fast, same.earlier_precision) == (pytest.approx(2), "tf32")
    assert "before in" not in same.sentence()
    (other, *_) = ratios([now], speeds_of(slow))
    assert other.times_as_fast == pytest.approx(4)
    assert other.sentence().endswith("4.00 times as fast; in tf32, before in float32.")


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"overrides": {"lr": 0.1}},
        {"data": {"size": "2000", "counts": {"train": 1000, "val": 500, "test": 500}}},
    ],
)
def test_validate_says_that_a_recipe_is_not_the_published_one(tmp_path, change):
    write_record(tmp_path, honest_record(test=0.62, **change, published_recipe=True))
    assert [problem.message for problem in validate(tmp_path) if problem.severity == "error"] == [
        "called a published recipe, which by its data, settings and precision it is not"
    ]


def test_validate_finds_a_digest_of_two_precisions(tmp_path):
    one, other = honest_record(seed=0), honest_record(seed=1, precision="tf32")
    for record in (one, other.model_copy(update={"digest": one.digest})):
        write_record(tmp_path, record)
    messages = [problem.message for problem in validate(tmp_path) if problem.severity == "error"]
    assert [message[:17] for message in messages] == [f"digest {one.digest[:10]}", "its digest is " + one.digest[:3]]


def test_a_table_on_the_terminal_names_the_rows_too(tmp_path):
    for record in (*train("s5", "a", "tf32"), *train("s5", "b", "float32")):
        write_record(tmp_path, record)
    console = Console(width=160, record=True, file=io.StringIO())
    report(tmp_path, pictures=False, console=console)
    assert "S5 [tf32]" in console.export_text()
