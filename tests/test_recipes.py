"""The published recipes: parameter counts, who gets which learning rate, schedules as the reference codes step them."""

from functools import cache
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lra_bench.models.classifier import count_parameters
from lra_bench.models.layers import DataShape
from lra_bench.models.network import build
from lra_bench.overrides import apply_overrides
from lra_bench.registry import model_names, recipe_module, recipes_of, task_module, task_names
from lra_bench.ssm import ptd
from lra_bench.training.optimizer import group_of, make_schedule

GOLDEN = Path(__file__).parent / "golden"
CELLS = [(model, task) for task in task_names() for model in recipes_of(task)]

COUNTS = {
    "hope": (796_170, 2_012_162, 478_850, 596_746, 595_714, 594_178),
    "s6": (322_058, 906_242, 317_570, 3_320_842, 872_450, 239_618),
    "b2s6": (355_082, 955_586, 342_338, 3_419_338, 921_794, 264_386),
    "rtf": (815_162, 843_314, 1_096_498, 3_564_298, 1_190_402, 13_380_098),
    "linoss": (369_802, 1_715_330, 870_402, 6_708_490, 1_335_170, 792_322),
    "s4": (815_186, 843_338, 1_096_522, 3_564_682, 1_288_706, 1_288_706),
    "s4d": (534_026, 1_224_194, 1_477_378, 3_565_066, 1_190_402, 1_190_402),
    "s4d_dfout": (1_208_330, 1_236_482, 1_489_666, 3_981_322, 1_595_906, 1_595_906),
    "s4d_ft": (403_210, 1_226_498, 478_082, 4_353_034, 1_192_706, 497_666),
    "s4_ptd": (1_593_354, 1_224_962, 477_314, 400_138, 1_191_170, 399_362),
    "mega": (602_650, 975_108, 1_464_326, 2_839_096, 1_386_874, 381_948),
    "mega_chunk": (579_610, 943_364, 1_417_862, 2_824_760, 1_376_122, 283_644),
    "s5": (188_490, 1_321_154, 772_098, 5_133_706, 1_113_602, 694_018),
    "s5_ptd": (237_834, 2_207_618, 1_364_226, 8_676_106, 2_000_642, 1_286_146),
}
"""For the six tasks in the order of the table: S5's instantiated from the reference, those of
S4's family, HOPE, RTF, LinOSS, MEGA, S6 and B²S6 from their shapes.

On Text, S4's family has one row of the table per id, 134, and S5 the 135 of its own code.
"""

MILLIONS = {("lru", "listops"): 1.0, ("lru", "text"): 2.0}
"""As the LRU paper rounds them."""


def shape_of(task):
    return DataShape(task.length, task.classes, task.documents, task.variable_length)


def unsolved(n, gamma):
    """PTD's shapes without its solver, which takes seconds for the largest block."""
    return ptd.Ptd(np.zeros(n, complex), np.zeros((n, n), complex), np.zeros((n, n), complex), np.zeros((n, n)), 1, 1)


@cache
def abstract(model, task):
    """The full-size network as shapes."""
    module = task_module(task)
    with mock.patch.object(ptd, "ptd", unsolved):
        return nnx.eval_shape(lambda: build(model, recipes_of(task)[model], shape_of(module.TASK), rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("model", "task"),
    [pytest.param(*cell, marks=[] if cell[1] == "listops" else pytest.mark.slow) for cell in CELLS],
)
def test_recipe_is_valid_and_builds_at_full_size(model, task):
    recipe = recipes_of(task)[model]
    assert apply_overrides(recipe, {}, recipe_module(model).Config) == recipe
    inputs, pixels = task_module(task).TASK.inputs, recipe.pixels is not None
    assert inputs == "pixels" or not pixels
    count = count_parameters(abstract(model, task))
    if model in COUNTS:
        assert count == COUNTS[model][task_names().index(task)]
    if (model, task) in MILLIONS:
        assert round(count / 1e6, 1) == MILLIONS[model, task]


def test_every_model_has_every_task():
    assert {(model, task) for model in model_names() for task in task_names()} <= set(CELLS)


STANDARD = {"Lambda_re": "ssm", "Lambda_im": "ssm", "B": "ssm", "log_dt": "ssm"}
S5_GROUPS = {
    "listops": {**STANDARD, "B": "regular"},
    "text": {**STANDARD, "log_dt": "regular"},
    "retrieval": {**STANDARD, "log_dt": "regular"},
    "image": {**STANDARD, "B": "regular"},
    "pathfinder": STANDARD,
    "pathx": {**STANDARD, "B": "ssm_decay"},
}
"""Leaf name → group under each task's --opt_config; every leaf not named is regular, norms, C and D included."""


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("model", ["s5", "s5_ptd"])
def test_s5_leaves_are_in_the_groups_of_opt_config(model, task):
    recipe = recipes_of(task)[model]
    leaves = nnx.to_flat_state(nnx.state(abstract(model, task), nnx.Param))
    names = {path[-1] for path, _ in leaves}
    assert {*STANDARD, "C", "C_reverse", "D", "scale", "bias", "kernel"} == names
    for path, leaf in leaves:
        assert group_of(leaf, recipe) == S5_GROUPS[task].get(path[-1], "regular"), path


S4_LEAVES = {"A_real": "ssm", "A_imag": "ssm", "B": "ssm", "P": "ssm", "inv_dt": "ssm"}
DT_GLOBAL = {
    "s4": {"listops", "text", "retrieval"},
    "s4d": {"listops", "text", "retrieval", "image"},
    "s4_ptd": {"text", "retrieval"},
}
"""Tasks whose `lr.dt` is null: Δ learns at the global rate, still without weight decay."""


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("model", ["s4", "s4d", "s4_ptd"])
def test_s4_leaves_are_in_the_references_groups(model, task):
    recipe = recipes_of(task)[model]
    leaves = nnx.to_flat_state(nnx.state(abstract(model, task), nnx.Param))
    missing = {"s4": set(), "s4d": {"P"}, "s4_ptd": {"P", "B"}}[model]
    assert {path[-1] for path, _ in leaves} >= set(S4_LEAVES) - missing | {"C", "D", "kernel", "bias"}
    expected = {**S4_LEAVES, **({"inv_dt": "regular_no_decay"} if task in DT_GLOBAL[model] else {})}
    if model == "s4" and task not in DT_GLOBAL[model]:
        expected["C"] = "ssm_decay"  # one `lr` for the whole kernel is C's too, from v4.1.0 on
    for path, leaf in leaves:
        inside = path[0] in ("blocks", "final_norm")
        free = model == "s4" and inside and path[-1] in ("bias", "scale")
        assert group_of(leaf, recipe) == ("regular_no_decay" if free else expected.get(path[-1], "regular")), path


def test_s4_layer_norms_do_not_decay_either():
    recipe = recipes_of("image")["s4"].model_copy(update={"norm": "layer", "prenorm": True})
    model = nnx.eval_shape(lambda: build("s4", recipe, shape_of(task_module("image").TASK), rngs=nnx.Rngs(0)))
    for norm in (model.final_norm, model.blocks[0].norm):
        groups = {group_of(leaf, recipe) for _, leaf in nnx.to_flat_state(nnx.state(norm, nnx.Param))}
        assert groups == {"regular_no_decay"}


@pytest.mark.parametrize("task", task_names())
def test_s4d_recipes_are_of_version_3(task):
    recipe = recipes_of(task)["s4d"]
    layer = recipe.layer
    assert (layer["version"], layer["init"]) == ("v3.0.0", "diag-legs")
    assert (layer["discretization"], layer["dt_transform"]) == ("bilinear", "exp")
    assert "output" not in recipe.groups
    assert recipe.pixels == {"image": "standard", "pathfinder": "signed", "pathx": "signed"}.get(task)


@pytest.mark.parametrize("model", ["s4d", "s4d_ft", "s4_ptd", "hope", "rtf"])
def test_norms_and_biases_decay_where_the_reference_groups_none(model):
    """Only state-spaces/s4 @ e757cef5 has `optimizer_param_grouping` in its `config.yaml`; its forks have none."""
    for recipe in (recipes[model] for task in task_names() if model in (recipes := recipes_of(task))):
        assert not {"norm", "bias"} & set(recipe.groups)


def test_rtf_drops_after_gelu_where_the_configurations_give_the_layer_a_dropout():
    rates = {task: recipes_of(task)["rtf"].layer["layer_dropout"] for task in task_names()}
    assert {task for task, rate in rates.items() if rate} == {"text", "image", "pathfinder"}
    assert {rates[task] for task in ("text", "image", "pathfinder")} == {recipes_of("pathx")["rtf"].dropout} == {0.1}


def test_the_transformer_reads_out_what_each_configuration_of_the_lra_code_does():
    expected = {
        "listops": "cls",
        "text": "cls",
        "retrieval": "first",
        "image": "cls",
        "pathfinder": "mean",
        "pathx": "mean",
    }
    assert {task: recipes_of(task)["transformer"].pooling for task in task_names()} == expected


def test_on_scifar_C_of_s4_is_regular():
    """Its configuration has no `lr` of the layer, and the layer's own is that of dt, A and B."""
    assert recipes_of("scifar")["s4"].groups == {
        **dict.fromkeys(("eigenvalues", "input", "low_rank", "dt"), "ssm"),
        **dict.fromkeys(("norm", "bias"), "regular_no_decay"),
    }


def test_s4d_ft_takes_the_last_position_on_listops_alone():
    last = {task for task in task_names() if recipes_of(task)["s4d_ft"].pooling == "last"}
    assert last == {"listops"}


def test_s4_schedules_count_steps_as_the_configurations_do():
    recipe = recipes_of("image")["s4"]
    assert (recipe.warmup_epochs * 900, recipe.decay_epochs * 900) == (18_000, 180_000)
    rate = jax.vmap(make_schedule(recipe, 900))(jnp.asarray([18_000.0, 99_000.0, 180_000.0]))
    np.testing.assert_allclose(rate, [1, 0.5, 0], atol=1e-4)


def test_rtf_has_a_rate_of_its_own_just_where_the_configurations_name_one():
    groups = {task: recipes_of(task)["rtf"].groups for task in task_names()}
    for role in ("eigenvalues", "output", "skip"):
        named = {task: groups[task][role] for task in task_names() if role in groups[task]}
        assert named == {"text": "ssm", "retrieval": "ssm", "image": "ssm_decay", "pathx": "ssm"}


def test_lru_leaves_are_in_the_references_groups():
    recipe = recipes_of("pathx")["lru"]
    leaves = nnx.to_flat_state(nnx.state(abstract("lru", "pathx"), nnx.Param))
    slow = {path[-1] for path, leaf in leaves if group_of(leaf, recipe) == "ssm"}
    assert slow == {"nu_log", "theta_log", "gamma_log", "B"}
    assert recipe.ssm_lr == 0.25 * recipe.lr


def rate_of(leaf, recipe):
    """The learning rate of a parameter, 0 where it is frozen, and whether it decays."""
    role, group = leaf.get_metadata().get("role"), group_of(leaf, recipe)
    rate = {"frozen": 0.0, "ssm": recipe.ssm_lr, "ssm_decay": recipe.ssm_lr}.get(group, recipe.lr)
    return recipe.role_lr.get(role, rate), group in ("regular", "ssm_decay")


DECAYS = True
RATES = {
    # Λ, dt and the filter, each without decay.
    "s4d_ft": {
        "listops": {"A_real": 0.004, "A_imag": 0.004, "inv_dt": 0.008, "s": 0.01, "C": (0.008, DECAYS)},
        "text": {"A_real": 0.001, "A_imag": 0.001, "inv_dt": 0.01, "s": 0.01, "C": (0.01, DECAYS)},
        "retrieval": {"A_real": 0.001, "A_imag": 0.001, "inv_dt": 0.004, "s": 0.01, "C": (0.004, DECAYS)},
        "image": {"A_real": 0.001, "A_imag": 0.001, "inv_dt": 0.001, "s": 0.01, "C": (0.01, DECAYS)},
        "pathfinder": {"A_real": 0.001, "A_imag": 0.001, "inv_dt": 0.001, "s": 0.01, "C": (0.004, DECAYS)},
        "pathx": {"A_real": 0.001, "A_imag": 0.001, "inv_dt": 0.001, "s": 0.01, "C": (0.001, DECAYS)},
    },
    "hope": {
        "listops": {"h": 0.001, "inv_dt": 0.0},
        "text": {"h": 0.001, "inv_dt": 0.01},
        "retrieval": {"h": 0.004, "inv_dt": 0.008},
        "image": {"h": (0.001, DECAYS), "inv_dt": 0.001},
        "pathfinder": {"h": 0.0005, "inv_dt": 0.001},
        "pathx": {"h": 0.0005, "inv_dt": 0.0},
    },
    "b2s6": {
        task: {"A_real": 0.001, "A_imag": 0.001, "w": lr / 10, "b": lr / 10, "B": (lr, DECAYS), "C": (lr, DECAYS)}
        for task, lr in zip(task_names(), (0.008, 0.01, 0.004, 0.01, 0.004, 0.001), strict=True)
    },
    "s6": {
        task: {"a": lr, "D": lr, "w": lr, "b": lr, "B": (lr, DECAYS), "C": (lr, DECAYS)}
        for task, lr in zip(task_names(), (0.008, 0.01, 0.004, 0.01, 0.004, 0.001), strict=True)
    },
}
"""The rate of each parameter of a layer, by the sources that the recipes name; a pair where it decays, too."""


@pytest.mark.parametrize(("model", "task"), [(model, task) for model in RATES for task in task_names()])
def test_layers_learn_at_the_rates_of_their_sources(model, task):
    recipe = recipes_of(task)[model]
    found = {}
    for path, leaf in nnx.to_flat_state(nnx.state(abstract(model, task).blocks[0].layer, nnx.Param)):
        found[path[-1]] = rate_of(leaf, recipe)
    for name, expected in RATES[model][task].items():
        rate, decays = expected if isinstance(expected, tuple) else (expected, not DECAYS)
        # What is frozen may be no parameter at all.
        assert found.get(name, (0.0, not DECAYS)) == (pytest.approx(rate), decays), name


@pytest.mark.parametrize("model", ["mega", "mega_chunk"])
def test_all_of_mega_has_one_rate_and_one_decay_and_is_clipped(model):
    for task in task_names():
        recipe = recipes_of(task)[model]
        assert (recipe.groups, recipe.role_lr, recipe.adam_b2, recipe.clip_norm) == ({}, {}, 0.98, 1.0)


@pytest.mark.parametrize(("epochs", "warmup"), [(20, 1), (40, 5), (35, 0)])
def test_s5_schedule_equals_what_its_loop_used(epochs, warmup):
    recipe = recipes_of("listops")["s5"]
    recipe = recipe.model_copy(update={"decay_epochs": float(epochs), "warmup_epochs": float(warmup)})
    expected = np.load(GOLDEN / "s5_lr_schedule.npz")[f"lr_n10_T{epochs}_w{warmup}"]
    used = jax.vmap(make_schedule(recipe, 10))(jnp.arange(len(expected)))
    np.testing.assert_allclose(used, expected, atol=1e-6)


def test_transformer_schedules_count_steps_as_the_lra_code_does():
    """ListOps: 0.05 · min(1, t/1000) / √max(t, 1000) for 5,000 steps. Image: a cosine over 200 epochs after one of
    warm-up, so the last of 200 epochs still learns."""
    recipe = recipes_of("listops")["transformer"]
    per_epoch = 96_000 // 32
    assert round(recipe.epochs * per_epoch) == 5_000
    steps = jnp.asarray([0, 500, 1_000, 4_000])
    rate = recipe.lr * jax.vmap(make_schedule(recipe, per_epoch))(steps)
    np.testing.assert_allclose(rate, 0.05 * np.array([0, 0.5, 1, 1]) / np.sqrt([1e3, 1e3, 1e3, 4e3]), rtol=1e-5)
    recipe = recipes_of("image")["transformer"]
    per_epoch = 45_000 // 256
    last = jax.vmap(make_schedule(recipe, per_epoch))(jnp.asarray([per_epoch, 101 * per_epoch, 200 * per_epoch]))
    np.testing.assert_allclose(last, [1, 0.5, 0.5 * (1 + np.cos(np.pi * 199 / 200))], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("task", task_names())
def test_ptd_recipes_use_our_gamma_for_their_block(task):
    layer = recipes_of(task)["s5_ptd"].layer
    block = layer["d_state"] // layer["blocks"]
    assert block == dict(zip(task_names(), (2, 16, 16, 128, 32, 16), strict=True))[task]
    assert block == 2 or layer["gamma"] == pytest.approx(ptd.default_gamma(block))


@pytest.mark.parametrize("task", [*task_names(), "scifar"])
def test_s4_ptd_recipes_use_our_gamma_for_their_states(task):
    layer = recipes_of(task)["s4_ptd"].layer
    assert layer["gamma"] == ptd.default_gamma(layer["d_state"])


def test_blocks_of_two_are_not_perturbed():
    """The published matrix for ListOps is HiPPO's own: λ = −1, −2."""
    layer = abstract("s5_ptd", "listops").blocks[0].layer
    np.testing.assert_allclose(layer.initial_modes(layer.config).Lambda, np.tile([-2.0, -1.0], 8), atol=1e-12)


@pytest.mark.parametrize(("model", "task"), CELLS)
def test_adam_epsilon_is_the_libraries_except_in_the_lra_code(model, task):
    assert recipes_of(task)[model].adam_eps == (1e-9 if model == "transformer" else 1e-8)
