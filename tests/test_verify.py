"""What `--verify` knows of a full set without its raw files: published counts, balance of the classes, split orders."""

import numpy as np
import pytest

from lra_bench.data import verify as module
from lra_bench.data.manifest import _size_problem, load_manifest
from lra_bench.data.packed import PackedSplit
from lra_bench.data.prepare import prepare
from lra_bench.data.verify import verify
from lra_bench.errors import UserError
from lra_bench.registry import task_module
from tests.manifests import rewrite_manifest


@pytest.fixture
def image():
    folder = prepare("image", size="tiny", jobs=1)
    return folder, load_manifest(folder), task_module("image").TASK


def test_counts_are_those_of_the_size(image):
    folder, manifest, task = image
    total = str(sum(manifest.counts.values()))
    for fine in ({}, {"size": total}, {"size": "full", "counts": task.splits}, {"size": "full", "version": "0.1"}):
        assert _size_problem(manifest.model_copy(update=fine)) is None
    text = {"task": "text", "size": "full", "val_fraction": 0.1}
    moved = manifest.model_copy(update=text | {"counts": {"train": 22_500, "val": 2_500, "test": 25_000}})
    assert _size_problem(moved) is None
    assert _size_problem(manifest.model_copy(update=text)) is not None
    for size in ("full", "1000", "synthetic"):
        rewrite_manifest(folder, size=size)
        with pytest.raises(UserError, match=f"is called {size} and holds 1,000 / 250 / 250 examples of train, val"):
            load_manifest(folder)
    rewrite_manifest(folder, size="tiny", counts=task.splits)
    with pytest.raises(UserError, match=r"those of this size are 1,000 / 250 / 250\. Remove .*--size tiny"):
        load_manifest(folder)


@pytest.mark.parametrize(("labels", "fine"), [(np.arange(10_000) % 10, True), (np.arange(10_000) % 7, False)])
def test_balance_of_a_full_set(image, labels, fine):
    _, manifest, task = image
    share = float(np.bincount(labels).max() / len(labels))
    full = manifest.model_copy(update={"size": "full", "majority": {"train": share}})
    split = PackedSplit(np.zeros(0, np.uint8), np.zeros(0, np.int32), labels.astype(np.int32))
    problems = module._label_problems(full, task, "train", split)
    assert problems == [] if fine else "about 10.0% are expected" in problems[0]
    assert module._label_problems(full.model_copy(update={"size": "tiny"}), task, "train", split) == []


def test_wrong_split_orders_are_told(image, monkeypatch):
    folder, _, _ = image
    assert any("agree" in line for line in verify(folder))
    monkeypatch.setattr(module, "order_problems", lambda: ["the seed-42 order of 50,000 examples is not PyTorch's"])
    with pytest.raises(UserError, match="seed-42 order"):
        verify(folder)
