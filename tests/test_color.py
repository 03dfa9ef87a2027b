"""The tasks of CIFAR-10 in color: what their positions hold, and how networks read three channels."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lra_bench.data.examples import show_examples
from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import open_split
from lra_bench.data.prepare import prepare
from lra_bench.data.raw import cifar
from lra_bench.data.raw.splits import torch_permutation
from lra_bench.datasource import Rows, bytes_per_example
from lra_bench.errors import UserError
from lra_bench.models.classifier import PIXEL_SCALES, InputEncoder, count_parameters, pool
from lra_bench.models.layers import TORCH, DataShape
from lra_bench.models.network import build
from lra_bench.overrides import apply_overrides
from lra_bench.registry import recipes_of, task_module, task_names
from lra_bench.tasks.pscifar import bit_reversal
from tests.test_tasks import CIFAR, COLORS, everything, pack, request, small

ORDER = [*torch_permutation(50), *range(50, 60)]
"""The raw indices of the 60 small examples of `tests/test_tasks.py` in the order of the s4 protocol."""


@pytest.fixture
def archive(tmp_path):
    """The small files in an archive."""
    return pack(tmp_path / "x", CIFAR, "tar.gz")


def rows_of(task, archive, monkeypatch):
    """The rows that a task reads from the small files."""
    data = task_module(task).DATA
    monkeypatch.setattr(data, "task", data.task.model_copy(update={"splits": {"train": 45, "val": 5, "test": 10}}))
    return everything(data.read(archive, request()))


def test_every_position_has_the_colors_of_its_pixel(archive, monkeypatch):
    rows = rows_of("scifar", archive, monkeypatch)
    pictures = [
        np.asarray(Image.merge("RGB", list(map(Image.fromarray, colors.reshape(3, 32, 32))))) for colors in COLORS
    ]
    np.testing.assert_array_equal(rows.inputs, np.stack(pictures)[ORDER].reshape(60, 1024, 3))
    gray = everything(small(monkeypatch, "image", 45, 5, 10).read(archive, request()))
    np.testing.assert_array_equal(rows.labels, gray.labels)


def test_pixels_are_permuted_by_bit_reversal(archive, monkeypatch):
    order = bit_reversal(1024)
    assert [order[n] for n in (0, 1, 2, 3, 1022, 1023)] == [0, 512, 256, 768, 511, 1023]
    assert all(order[n] == int(f"{n:010b}"[::-1], 2) for n in range(1024))
    plain, permuted = rows_of("scifar", archive, monkeypatch), rows_of("pscifar", archive, monkeypatch)
    np.testing.assert_array_equal(permuted.inputs, plain.inputs[:, order])
    np.testing.assert_array_equal(task_module("pscifar").DATA.images(permuted.inputs), plain.inputs)
    np.testing.assert_array_equal(permuted.labels, plain.labels)


def test_noise_follows_the_image_and_is_uniform_on_the_networks_scale(archive, monkeypatch):
    plain, padded = rows_of("scifar", archive, monkeypatch), rows_of("noisycifar", archive, monkeypatch)
    np.testing.assert_array_equal(padded.inputs[:, :1024], plain.inputs)
    assert (padded.lengths == 2048).all()
    mean, deviation = PIXEL_SCALES["color"]
    noise = (padded.inputs[:, 1024:] - mean) / deviation
    assert np.abs(np.quantile(noise, np.linspace(0, 1, 11), axis=(0, 1)) - np.linspace(0, 1, 11)[:, None]).max() < 0.02
    assert len(np.unique(noise, axis=0)) == 60, "no two images have the same noise"
    data = task_module("noisycifar").DATA
    layout = data.generator(request(size="tiny")).layout
    swapped = Rows(np.roll(padded.inputs[:2], 1024, axis=1), padded.lengths[:2], padded.labels[:2])
    assert data.problems(replace(layout, length=2048), swapped, "generated")[0] == (
        "row 0 ends with something that is no noise"
    )


def test_only_the_noise_is_pooled():
    assert {recipe.pooling for recipe in recipes_of("noisycifar").values()} == {"last_half"}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 3)), jnp.float32)
    np.testing.assert_allclose(pool(x, None, "last_half"), x[3:].mean(0), rtol=1e-6)
    by_length = pool(x, jnp.array([6, 3]), "last_half")
    np.testing.assert_allclose(by_length, jnp.stack([x[3:, 0].mean(0), x[1:3, 1].mean(0)]), rtol=1e-6)


def test_a_set_in_color_is_prepared_verified_and_shown(tmp_path, capsys):
    folder = prepare("scifar", size="tiny", jobs=1, verify=True)
    manifest, rows = load_manifest(folder), open_split(folder, "train")
    assert (manifest.channels, rows.inputs.shape) == (3, (1_000, 256, 3))
    assert bytes_per_example(manifest.layout) == rows.inputs[0].nbytes + 8
    out = tmp_path / "sheet.png"
    show_examples("scifar", 1, out)
    page = np.asarray(Image.open(out))
    assert np.array_equal(page[12 : 12 + 256 : 16, 12 : 12 + 256 : 16], rows.inputs[0].reshape(16, 16, 3))


@pytest.mark.parametrize("change", ["channels", "order", "side"])
def test_files_of_other_pictures_are_found(change):
    """Half a thousand flat pictures with CIFAR-10's means, and a little more contrast along columns, are accepted."""
    data, rng = task_module("scifar").DATA, np.random.default_rng(0)
    walk = np.cumsum(rng.choice([-12, 12], (500, 32, 1, 1)), axis=1) + np.cumsum(
        rng.choice([-9, 9], (500, 1, 32, 1)), axis=2
    )
    walk = walk - walk.mean(axis=(1, 2, 3), keepdims=True)
    pictures = np.clip(np.array(cifar.MEANS) + walk, 0, 255).astype(np.uint8)
    changed = {
        "channels": pictures[..., ::-1],
        "order": rng.permuted(pictures.reshape(500, 1024, 3), axis=1),
        "side": pictures.swapaxes(1, 2),
    }[change]
    found = []
    for images in (pictures, changed):
        inputs = np.ascontiguousarray(images.reshape(500, 1024, 3))
        rows = Rows(inputs, np.full(500, 1024, np.int32), np.zeros(500, np.int32))
        found.append(data.problems(None, rows, "user"))
    expected = {"channels": "red, green and blue", "order": "in another order", "side": "lie on their side"}[change]
    assert found[0] == []
    assert expected in found[1][0]


def test_the_encoder_scales_each_color_by_its_own_mean():
    recipe = recipes_of("scifar")["s4"].model_copy(update={"d_model": 4})
    encoder = InputEncoder(recipe, TORCH, 3, rngs=nnx.Rngs(0))
    inputs = np.random.default_rng(0).integers(0, 256, (5, 2, 3), np.uint8)
    expected = (inputs / 255 - [0.4914, 0.4822, 0.4465]) / [0.247, 0.243, 0.261] @ np.asarray(encoder.dense.kernel[...])
    np.testing.assert_allclose(encoder(jnp.asarray(inputs)), expected + np.asarray(encoder.dense.bias[...]), atol=1e-5)
    np.testing.assert_allclose(encoder(jnp.asarray(inputs[0])), encoder(jnp.asarray(inputs))[0], atol=1e-6)
    assert set(PIXEL_SCALES) == {"unit", "signed", "standard", "color"}


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("scifar", {"pixels": None, "embedding": 256}, "--set embedding=null --set pixels=color"),
        ("image", {"pixels": "color"}, "take unit, signed or standard"),
    ],
)
def test_a_form_of_inputs_for_other_channels_is_refused(task, changes, message):
    from lra_bench.recipes.s4 import Config

    recipe = apply_overrides(recipes_of(task)["s4"], {**changes, "n_layers": 1, "d_model": 4}, Config)
    shape = DataShape(16, 10, 1, False, task_module(task).TASK.channels)
    with pytest.raises(UserError, match=message):
        nnx.eval_shape(lambda: build("s4", recipe, shape, rngs=nnx.Rngs(0)))


def test_a_network_reads_colors_whole_and_step_by_step():
    """As shapes, at full size; that a step equals the whole is in tests/test_contract.py."""

    def network_of():
        network = build("lru", recipes_of("scifar")["lru"], DataShape(8, 10, 1, False, 3), rngs=nnx.Rngs(0))
        network.eval()
        return network

    def read(inputs):
        network = network_of()
        stepped = network.step(network.initial_state(2), inputs[:, 0])
        return network(inputs, jnp.full(2, 8), train=False, key=None), stepped

    whole, (_, stepped) = jax.eval_shape(read, jnp.zeros((2, 8, 3), jnp.uint8))
    assert whole.shape == stepped.shape == (2, 10)
    assert round(count_parameters(nnx.eval_shape(network_of)) / 1e6, 1) == 7.9, "as the LRU paper rounds it"


def test_tasks_in_color_are_none_of_the_six():
    assert not {"scifar", "pscifar", "noisycifar"} & set(task_names())
    assert {recipe.published for task in ("pscifar", "noisycifar") for recipe in recipes_of(task).values()} == {None}
    published = {model for model, recipe in recipes_of("scifar").items() if recipe.published is not None}
    assert published <= {"s4", "s4d_dfout", "lru"}
