"""The readers on the genuine files of Text and Image: published counts and statistics, split orders, provenance.

The files are not part of the project. The tests skip where they are not beside the checkout, or where GENUINE_DATA does
not name their folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lra_bench.commands.ls import tasks
from lra_bench.data.manifest import load_manifest
from lra_bench.data.packed import open_split
from lra_bench.data.prepare import prepare
from lra_bench.data.raw.cifar import DEVIATIONS, MEANS
from lra_bench.data.raw.splits import torch_permutation
from lra_bench.data.verify import verify
from lra_bench.errors import UserError
from lra_bench.tasks.image import gray_pil
from tests.manifests import write_fields

GENUINE = Path(os.environ.get("GENUINE_DATA", Path(__file__).parents[2] / "shared" / "data"))
IMDB = GENUINE / "imdb" / "aclImdb_v1-reviews.tar.xz"
CIFAR = GENUINE / "cifar10" / "cifar-10-batches.xz"
IMDB_SHA256 = "b718084f760da5660c7b1ddb3443b8364f9e43ba2ced5b76ff75b6fad7344e4d"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (IMDB.exists() and CIFAR.exists()), reason=f"the genuine files are not in {GENUINE}"),
]


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """The six binary batches of CIFAR-10; the script that writes them checks their SHA-256."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    command = [sys.executable, str(CIFAR.with_name("pack.py")), "unpack", str(CIFAR), str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, batches):
    """A function from task and protocol to the prepared folder, each made once."""
    home, done = tmp_path_factory.mktemp("home"), {}

    def get(task, protocol):
        if (task, protocol) not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LRA_BENCH_HOME", str(home))
                source = IMDB if task == "text" else batches
                done[task, protocol] = prepare(task, source_path=source, protocol=protocol, jobs=1, tfds=False)
        return done[task, protocol]

    return get


FINGERPRINTS = {
    ("text", "s4"): "2ee2250e11f78c73",
    ("text", "lra"): "63c9f1d54301b414",
    ("image", "s4"): "53b6601bed287557",
    ("image", "lra"): "aee21e8020a119a8",
    ("scifar", "s4"): "161204911dcf6d12",
}


@pytest.mark.parametrize(("task", "protocol"), FINGERPRINTS)
def test_fingerprint_and_provenance(prepared, monkeypatch, task, protocol):
    folder = prepared(task, protocol)
    manifest = load_manifest(folder)
    assert manifest.fingerprint == FINGERPRINTS[task, protocol]
    assert (manifest.source, manifest.official_contents) == ("user", True)
    assert all(len(file.sha256) == 64 and file.url is None for file in manifest.raw)
    if task == "text":
        assert [file.sha256 for file in manifest.raw] == [IMDB_SHA256]
    lines = verify(folder)
    assert lines[0].endswith("; official contents")
    monkeypatch.setenv("LRA_BENCH_HOME", str(folder.parents[2]))
    (row,) = (row for row in tasks() if row["task"] == task)
    assert f"{protocol} user full (official contents)" in row["prepared"]


def test_text_has_the_published_vocabulary_and_lengths(prepared):
    folder = prepared("text", "s4")
    manifest = load_manifest(folder)
    assert manifest.counts == {"train": 25_000, "val": 25_000, "test": 25_000}
    assert manifest.validation_is_test
    assert len(manifest.vocabulary) == 134
    assert manifest.vocabulary[:3] == ["<pad>", "<unk>", "<eos>"]
    train, test = open_split(folder, "train"), open_split(folder, "test")
    assert [np.bincount(split.labels).tolist() for split in (train, test)] == [[12_500, 12_500]] * 2
    # A review of 4,095 characters has 4,096 ids with <eos>; longer ones are cut to as many, without it being said.
    longest = [int((split.lengths == 4_096).sum()) for split in (train, test)]
    assert longest[0] >= 727
    assert longest[1] >= 668
    assert len(load_manifest(prepared("text", "lra")).vocabulary) == 257


def test_raw_lengths_of_text_are_the_published_ones():
    from lra_bench.tasks.text import reviews

    lengths = {"train": [], "test": []}
    for split, _, text in reviews(IMDB):
        lengths[split].append(len(text))
    train, test = np.array(lengths["train"]), np.array(lengths["test"])
    assert (round(train.mean(), 1), np.median(train), train.max()) == (1_325.1, 979, 13_704)
    assert round(test.mean(), 1) == 1_293.8
    assert [int((n > 4_095).sum()) for n in (train, test)] == [727, 668]


def test_image_has_the_published_shades_and_split(prepared, batches):
    folder = prepared("image", "s4")
    train, val, test = (open_split(folder, split) for split in ("train", "val", "test"))
    assert [len(split.labels) for split in (train, val, test)] == [45_000, 5_000, 10_000]
    pixels = np.concatenate([train.inputs, val.inputs]).astype(np.float64)
    assert (round(pixels.mean(), 2), round(pixels.std(), 2)) == (122.62, 60.99)
    assert np.bincount(val.labels).tolist() == [488, 512, 532, 471, 471, 514, 507, 500, 504, 501]
    raw = np.concatenate([np.fromfile(batches / f"data_batch_{n}.bin", np.uint8)[::3_073] for n in range(1, 6)])
    order = torch_permutation(50_000)
    assert order[:3].tolist() == [37_542, 44_491, 216]
    np.testing.assert_array_equal(train.labels, raw[order[:45_000]])
    np.testing.assert_array_equal(val.labels, raw[order[45_000:]])


def test_colors_have_the_published_means_deviations_and_split(prepared):
    """Those by which state-spaces/s4 scales them, to its three digits, two of which it cuts down."""
    splits = [open_split(prepared("scifar", "s4"), split) for split in ("train", "val")]
    gray = [open_split(prepared("image", "s4"), split) for split in ("train", "val")]
    # Sums of whole numbers are exact, and 50,000 images as floats would take a gigabyte.
    n, total, squares = 0, np.zeros(3), np.zeros(3)
    for split in splits:
        for _, rows in split.batches():
            values = rows.inputs.reshape(-1, 3).astype(np.int64)
            n, total, squares = n + len(values), total + values.sum(0), squares + (values**2).sum(0)
    mean = total / n
    np.testing.assert_array_equal(np.round(mean / 255, 4), [0.4914, 0.4822, 0.4465])
    np.testing.assert_array_equal(np.round(np.sqrt(squares / n - mean**2) / 255, 4), [0.247, 0.2435, 0.2616])
    np.testing.assert_allclose(mean, MEANS, atol=0.02)
    np.testing.assert_allclose(np.sqrt(squares / n - mean**2), DEVIATIONS, atol=0.2)
    for color, same in zip(splits, gray, strict=True):
        np.testing.assert_array_equal(color.labels, same.labels)
        np.testing.assert_array_equal(gray_pil(color.inputs[:500].swapaxes(1, 2)), same.inputs[:500])


def test_a_changed_copy_is_not_called_official(batches, tmp_path):
    changed = tmp_path / "changed"
    changed.mkdir()
    for file in batches.glob("*.bin"):
        content = bytearray(file.read_bytes())
        if file.name == "test_batch.bin":
            content[-1] ^= 128
        (changed / file.name).write_bytes(content)
    folder = prepare("image", source_path=changed, jobs=1, tfds=False)
    assert not load_manifest(folder).official_contents
    write_fields(folder, official_contents=True)
    with pytest.raises(UserError, match="claims official contents"):
        load_manifest(folder)
    write_fields(folder, official_contents=True, fingerprint=FINGERPRINTS["image", "s4"])
    with pytest.raises(UserError, match="its fingerprint is not that of the examples"):
        verify(folder)
