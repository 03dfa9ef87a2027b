"""Packed arrays: rows land where their index says, and a folder whose manifest disagrees with its arrays is refused."""

import numpy as np
import pytest

from lra_bench.data.manifest import FILE, find_prepared, load_manifest, prepared_sets
from lra_bench.data.packed import ARRAYS, PackedWriter, describe, open_split, relative_path
from lra_bench.data.prepare import prepare
from lra_bench.datasource import Layout, PlacedRows, Rows, counts_for, pad_rows, parse_size
from lra_bench.errors import UserError
from lra_bench.spec import SPLITS
from tests.manifests import rewrite_manifest


def layout(documents):
    return Layout({"train": 50, "val": 7, "test": 13}, documents, 11, 3, None)


def random_rows(layout, rng):
    n, documents = layout.total, () if layout.documents == 1 else (layout.documents,)
    return Rows(
        rng.integers(0, 256, (n, *layout.row_shape), np.uint8),
        rng.integers(1, layout.length, (n, *documents), np.int32),
        rng.integers(0, layout.classes, n, np.int32),
    )


@pytest.mark.parametrize("documents", [1, 2])
def test_rows_written_in_any_order_land_at_their_index(tmp_path, documents):
    rng = np.random.default_rng(0)
    shape = layout(documents)
    rows = random_rows(shape, rng)
    writer = PackedWriter(tmp_path, shape)
    for indices in np.array_split(rng.permutation(shape.total), 9):
        writer.write(PlacedRows(indices, Rows(*(column[indices] for column in rows))))
    again = PackedWriter(tmp_path, shape)  # opening it again, as after a kill, loses nothing
    np.testing.assert_array_equal(again.read(45, 60), rows.inputs[45:60].reshape(15, -1))
    for open_writer in (writer, again):
        open_writer.sync()
        open_writer.close()
    for split in SPLITS:
        part = slice(shape.starts[split], shape.starts[split] + shape.counts[split])
        for array, column in zip(ARRAYS, rows, strict=True):
            stored = np.load(tmp_path / relative_path(split, array))
            assert stored.dtype == ARRAYS[array]
            np.testing.assert_array_equal(stored, column[part])


def test_hash_of_the_data_does_not_depend_on_the_header(tmp_path):
    shape = layout(1)
    writer = PackedWriter(tmp_path, shape)
    writer.write(PlacedRows(np.arange(shape.total), random_rows(shape, np.random.default_rng(0))))
    writer.close()
    before = describe(tmp_path)
    path = tmp_path / relative_path("train", "inputs")
    values = np.load(path)
    with path.open("wb") as file:  # the same array under a longer header
        header = str({"descr": "|u1", "fortran_order": False, "shape": values.shape}).ljust(502 - len("\n")) + "\n"
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + values.tobytes())
    np.testing.assert_array_equal(np.load(path), values)
    after = describe(tmp_path)
    assert [file.data_sha256 for file in after] == [file.data_sha256 for file in before]
    assert after[0].sha256 != before[0].sha256


def test_pad_rows():
    a, b = np.array([1, 2, 3], np.uint8), np.array([4], np.uint8)
    rows = pad_rows([(a, b), (b, a)], [0, 1], 4)
    assert rows.inputs.tolist() == [[[1, 2, 3, 0], [4, 0, 0, 0]], [[4, 0, 0, 0], [1, 2, 3, 0]]]
    assert rows.lengths.tolist() == [[3, 1], [1, 3]]
    assert pad_rows([(a,)], [2], 3).inputs.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="3 steps does not fit in 2"):
        pad_rows([(a,)], [2], 2)


def test_sizes():
    full, tiny = {"train": 96_000, "val": 2_000, "test": 2_000}, {"train": 20, "val": 5, "test": 5}
    assert parse_size("full") == "full"
    assert counts_for(parse_size("1000"), full, tiny) == {"train": 960, "val": 20, "test": 20}
    assert counts_for(10, full, tiny) == {"train": 8, "val": 1, "test": 1}
    assert counts_for("tiny", full, tiny) == tiny
    for wrong in ("9", "-5", "huge", "1.5"):
        with pytest.raises(UserError, match="--size takes full, tiny or a number"):
            parse_size(wrong)


@pytest.fixture
def folder():
    return prepare("listops", size=40)


def test_split_is_mapped_and_read_only(folder):
    split = open_split(folder, "train")
    assert split.inputs.shape == (40 - 2, 2048)
    assert isinstance(split.inputs, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        split.inputs[0, 0] = 1
    assert [start for start, _ in split.batches()] == [0]


def truncate(folder):
    path = folder / relative_path("train", "labels")
    path.write_bytes(path.read_bytes()[:-4])


def retype(folder):
    path = folder / relative_path("train", "labels")
    np.save(path, np.load(path).astype(np.float32))


def swap_rows(folder):
    path = folder / relative_path("train", "labels")
    np.save(path, np.load(path)[::-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: rewrite_manifest(folder, counts={"train": 37, "val": 2, "test": 1}),
            r"int32 \(38,\)|uint8 \(38, 2048\)",
        ),
        (lambda folder: rewrite_manifest(folder, length=1024), r"is uint8 \(38, 2048\), not uint8 \(38, 1024\)"),
        (truncate, "labels.npy cannot be read"),
        (retype, "float32"),
        (lambda folder: (folder / relative_path("train", "lengths")).unlink(), "lengths.npy cannot be read"),
    ],
)
def test_arrays_that_disagree_with_the_manifest_are_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        open_split(folder, "train")
    assert "type: lra-bench prepare listops" in str(error.value)


def test_equal_shapes_with_other_content_are_found_by_verify(folder):
    swap_rows(folder)
    open_split(folder, "train")
    with pytest.raises(UserError, match=r"labels\.npy has another SHA-256"):
        prepare("listops", size=40, verify=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "manifest version None"),
        ('{"manifest_version": 7}', "manifest version 7"),
        ('{"manifest_version": 1, "color": 1}', "color"),
    ],
)
def test_damaged_manifests(folder, text, message):
    (folder / FILE).write_text(text)
    with pytest.raises(UserError, match=message):
        load_manifest(folder)


def test_a_folder_without_manifest_is_not_prepared(folder):
    (folder / FILE).unlink()
    with pytest.raises(UserError, match="not a prepared task"):
        load_manifest(folder)
    assert prepared_sets() == []


def test_choice_of_the_set_to_train_on(folder):
    with pytest.raises(UserError, match=r"text is not prepared\. Type: lra-bench prepare text"):
        find_prepared("text")
    with pytest.raises(UserError, match=r"prepared: s4 40.*Type: lra-bench prepare listops --protocol lra"):
        find_prepared("listops", protocol="lra")
    assert find_prepared("listops")[0] == folder
    tiny, larger = prepare("listops", size="tiny"), prepare("listops", size=50)
    lra = prepare("listops", size=60, protocol="lra")
    assert [found for found, _ in prepared_sets("listops")] == [larger, folder, lra, tiny]
    assert find_prepared("listops")[0] == larger
    assert find_prepared("listops", size="40")[0] == folder
    assert find_prepared("listops", protocol="lra")[0] == lra
    assert find_prepared("listops", size="tiny")[1].data_info.size == "tiny"
