"""What training reads is what was prepared: changed arrays and edited manifests are refused; what is not touched is
hashed once.
"""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lra_bench import progress
from lra_bench.commands.evaluate import evaluate
from lra_bench.data import integrity
from lra_bench.data.integrity import open_checked
from lra_bench.data.manifest import FILE, Manifest, load_manifest, manifest_text
from lra_bench.data.packed import ARRAYS, PackedFile, describe, relative_path
from lra_bench.errors import UserError
from lra_bench.paths import cache_folder, data_folder
from lra_bench.runs.run import make_run
from lra_bench.spec import SPLITS
from lra_bench.training.train import train
from tests.manifests import rewrite_manifest

NAMES = [relative_path(split, array) for split in SPLITS for array in ARRAYS]


@pytest.fixture
def folder(data):
    """A copy of the prepared set in this test's own home."""
    return shutil.copytree(data, data_folder() / "listops" / data.name)


def opened(folder):
    return open_checked(folder, load_manifest(folder).fingerprint)


def edit(folder, **changes):
    """Edit the manifest as a person would."""
    values = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(values | changes))


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_of_any_array_is_refused(folder, name):
    """In its data, and in its header, where only a bit that means nothing passes, such as one of the padding."""
    path, rng = folder / name, random.Random(name)
    split, array = name.split("/")[1], Path(name).stem
    whole = np.array(getattr(opened(folder)[split], array))
    content, refused = path.read_bytes(), []
    in_header = range(0, 8 * 128, 5)
    for bit in [*in_header, *(rng.randrange(8 * 128, 8 * len(content)) for _ in range(20))]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            np.testing.assert_array_equal(getattr(opened(folder)[split], array), whole)
            assert bit in in_header
        except UserError as error:
            refused.append(str(error))
    assert len(refused) >= len(in_header) + 20 - 5
    for told in refused:
        assert re.search(f"{re.escape(name)} (has another SHA-256|cannot be read|is )", told)
        assert told.endswith("type: lra-bench prepare listops --protocol s4 --size tiny")
    path.write_bytes(content)
    opened(folder)


@pytest.mark.slow
def test_changed_labels_train_and_evaluate_nothing(folder, tmp_path):
    """200 test labels, the same shape and size, changed in place with the time of the file set back."""
    settings = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 0.1, "warmup_epochs": 0.0, "decay_epochs": 1.0}
    run = make_run(load_manifest(folder).data_info, "s5", 0, settings, "float32")
    train(run, folder, tmp_path)
    path = folder / relative_path("test", "labels")
    before = path.stat()
    labels = np.load(path, mmap_mode="r+")
    labels[:200] = (labels[:200] + 1) % 10
    labels.flush()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused = r"disagrees with its manifest: packed/test/labels\.npy has another SHA-256"
    with pytest.raises(UserError, match=refused):
        evaluate(run.name)
    (run.folder / "result.json").unlink()
    with pytest.raises(UserError, match=refused):
        train(run, folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


EDITS = {
    "source": "official",
    "size": "full",
    "seed": 7,
    "distinct": False,
    "origin": "the official server",
    "version": "9.9.9",
    "length": 1024,
    "classes": 2,
    "counts": {"train": 1, "val": 1, "test": 1},
    "fingerprint": "0123456789abcdef",
    "majority": {"train": 0.1, "val": 0.1, "test": 0.1},
    "lra_bench_version": "99",
    "manifest_sha256": "0" * 64,
}


@pytest.mark.parametrize("field", EDITS)
def test_an_edited_manifest_is_refused(folder, field):
    edit(folder, **{field: EDITS[field]})
    size = EDITS["size"] if field == "size" else "tiny"
    seed = f" --seed {EDITS['seed']}" if field == "seed" else ""
    with pytest.raises(UserError, match="was changed after it was written: its fields have another SHA-256") as error:
        opened(folder)
    assert str(error.value).endswith(f"type: lra-bench prepare listops --protocol s4 --size {size}{seed}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "official"}, "it calls its source official, and it has the seed of a generator"),
        ({"source": "official", "seed": None}, "it calls its source official, and it was read from no file"),
        ({"seed": None}, "it calls its source generated, and it has no seed of a generator"),
        ({"fingerprint": "0123456789abcdef"}, "its fingerprint is not that of the examples"),
        ({"counts": {"train": 2000}}, "it counts the examples of train, not of train, val, test"),
    ],
)
def test_a_manifest_of_an_earlier_version_is_held_to_what_it_says_itself(folder, changes, message, capfd):
    """Without a SHA-256 of its own, what can be computed again still is."""
    edit(folder, manifest_sha256=None)
    with pytest.raises(UserError, match="it has lost its SHA-256"):
        opened(folder)
    edit(folder, manifest_version=1)
    capfd.readouterr()
    opened(folder)
    assert "was prepared by an earlier lra-bench, whose manifest has no SHA-256" in capfd.readouterr().err
    edit(folder, **changes)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_hashes_that_were_edited_with_the_arrays_are_another_set(folder):
    """Whoever computes all hashes anew has another fingerprint, so the run that was planned is not this one."""
    planned = load_manifest(folder).fingerprint
    path = folder / relative_path("test", "labels")
    labels = np.load(path)
    np.save(path, (labels + 1) % 10)
    rewrite_manifest(folder, packed=[file.model_dump(mode="json") for file in describe(folder)])
    assert load_manifest(folder).fingerprint != planned
    with pytest.raises(UserError, match="the run was planned for"):
        open_checked(folder, planned)


def test_arrays_are_hashed_once_and_again_only_when_touched(folder, monkeypatch):
    hashed = []

    def counted(*arguments):
        hashed.append(arguments[0].relative_to(folder).as_posix())
        return hash_data(*arguments)

    hash_data = integrity.hash_data
    monkeypatch.setattr(integrity, "hash_data", counted)
    opened(folder)
    assert sorted(hashed) == sorted(NAMES)
    opened(folder)
    assert len(hashed) == 9
    path = folder / relative_path("val", "lengths")
    path.write_bytes(path.read_bytes())
    opened(folder)
    assert hashed[9:] == [relative_path("val", "lengths")]


@pytest.mark.parametrize("damage", ["not JSON", "other hashes", "not writable"])
def test_a_damaged_cache_refuses_no_good_data(folder, damage):
    opened(folder)
    (file,) = (cache_folder() / "packed-hashes").rglob("*.json")
    if damage == "not JSON":
        file.write_text("{")
    elif damage == "other hashes":
        file.write_text(re.sub(r"[0-9a-f]{64}", "0" * 64, file.read_text()))
    else:
        file.unlink()
        file.parent.rmdir()
        file.parent.write_text("")
    opened(folder)


def test_hashing_is_said_while_it_takes_longer_than_a_second(folder, monkeypatch, capfd):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    hash_data = integrity.hash_data

    def slow(*arguments):
        now[0] += 0.7
        return hash_data(*arguments)

    monkeypatch.setattr(integrity, "hash_data", slow)
    capfd.readouterr()
    opened(folder)
    (line,) = capfd.readouterr().err.splitlines()
    assert re.match(r"listops: checking the prepared data: \d+\.\d kB of \d+\.\d kB", line)
    opened(folder)
    assert capfd.readouterr().err == ""


def test_the_text_of_a_manifest_is_read_back_as_it_was(folder):
    manifest = load_manifest(folder)
    assert (folder / FILE).read_text() == manifest_text(manifest)
    assert Manifest.model_validate_json(manifest_text(manifest)) == manifest
    assert all(isinstance(file, PackedFile) for file in manifest.packed)
