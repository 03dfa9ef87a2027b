"""Examples of prepared sets, as pictures and as text."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lra_bench.cli import app
from lra_bench.commands.show import show
from lra_bench.data.examples import examples_of, sheet, show_examples
from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import open_split
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError
from lra_bench.registry import every_task_name, task_module


@pytest.mark.parametrize("task", every_task_name())
def test_every_class_has_a_name(task):
    module = task_module(task)
    assert len(module.CLASSES) == module.TASK.classes


def test_sheet_shows_the_pixels(tmp_path, capsys):
    folder = prepare("image", size="tiny", jobs=1)
    rows = open_split(folder, "train")
    out = tmp_path / "new" / "sheet.png"
    show_examples("image", 6, out)
    page = np.asarray(Image.open(out))
    assert page.shape == (2 * (256 + 28 + 12) + 12, 3 * (256 + 12) + 12)
    for number in range(6):
        x, y = 12 + number % 3 * 268, 12 + number // 3 * 296
        cell = page[y : y + 256, x : x + 256]
        assert np.array_equal(cell, np.kron(rows.inputs[number].reshape(16, 16), np.ones((16, 16), np.uint8)))
        assert page[y + 256 + 5 : y + 256 + 28, x : x + 256].min() < 128, "a caption is below"
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(out)
    assert printed[1].endswith(f"(made-up class {rows.labels[0]}), length 256")


@pytest.mark.parametrize("task", ["text", "listops", "retrieval"])
def test_texts(task, capsys):
    folder = prepare(task, size="tiny", jobs=1)
    show_examples(task, 3, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    rows = open_split(folder, "train")
    assert [example["label"] for example in shown] == rows.labels[:3].tolist()
    assert [example["lengths"] for example in shown] == rows.lengths[:3].reshape(3, -1).tolist()
    layout, data = load_manifest(folder).layout, task_module(task).DATA
    assert shown[2]["text"] == data.decode(layout, rows.inputs[2], rows.lengths[2])
    show_examples(task, 1)
    assert shown[0]["text"] in capsys.readouterr().out


@pytest.mark.slow
def test_one_column_for_one_example():
    folder = prepare("pathfinder", size="10", jobs=1)
    (example,) = examples_of(folder, load_manifest(folder), "test", 1)
    assert sheet([example]).size == (256 + 24, 256 + 28 + 24)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="lra-bench prepare text"):
        show_examples("text", 2)
    prepare("text", size="tiny", jobs=1)
    with pytest.raises(UserError, match="from 1 to 100; got 0"):
        show_examples("text", 0)
    with pytest.raises(UserError, match="only for tasks of pixels"):
        show_examples("text", 1, tmp_path / "x.png")
    prepare("image", size="tiny", jobs=1)
    with pytest.raises(UserError, match=r"takes a \.png file"):
        show_examples("image", 1, tmp_path / "x.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        show_examples("image", 1, tmp_path / "file" / "x.png")


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare("image", size="tiny", jobs=1)
    result = CliRunner().invoke(app, ["show", "image", "--examples", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "image-examples.png"
    assert (tmp_path / "image-examples.png").exists()


def test_damaged_examples_are_refused_and_not_shown_as_others():
    folder = prepare("image", size="tiny", jobs=1)
    labels = folder / "packed" / "train" / "labels.npy"
    values = np.load(labels)
    values[0] = -1
    np.save(labels, values)
    with pytest.raises(UserError, match="labels"):
        show_examples("image", 1)


@pytest.mark.parametrize("options", [{"out": Path("a.png")}, {"protocol": "s4"}])
def test_options_of_examples_are_refused_without_them(options):
    with pytest.raises(UserError, match="is for --examples, as in show image --examples 8"):
        show("image", **options)
