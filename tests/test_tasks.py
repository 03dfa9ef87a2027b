"""The contract over every task, and the readers of official files on tiny real ones, byte for byte."""

import functools
import gzip
import http.server
import io
import pickle
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from lra_bench.data.download import sha256_of
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.data.raw.splits import holdout, tfds_order, torch_permutation
from lra_bench.data.raw.tokenizers import ByteTokenizer, CharacterTokenizer
from lra_bench.datasource import Request, Rows
from lra_bench.errors import UserError
from lra_bench.registry import every_task_name, task_module
from lra_bench.spec import SPLITS


def request(protocol="s4", size="full", val_fraction=None):
    return Request(protocol, size, 0, val_fraction)


def everything(reading) -> Rows:
    """All rows in global order; every index that the layout promises must have come exactly once."""
    batches = list(reading.batches())
    indices = np.concatenate([batch.indices for batch in batches])
    layout = reading.layout
    promised = np.arange(layout.total)
    if layout.validation_is_test:
        promised = np.delete(promised, np.s_[layout.starts["val"] : layout.starts["test"]])
    assert sorted(indices.tolist()) == promised.tolist()
    again = np.concatenate([batch.indices for batch in reading.batches()])
    assert np.array_equal(again, indices)
    order = np.argsort(indices)
    rows = Rows(*(np.concatenate(parts)[order] for parts in zip(*(batch.rows for batch in batches), strict=True)))
    assert [array.dtype for array in rows] == [np.uint8, np.int32, np.int32]
    assert rows.inputs.shape[1:] == layout.row_shape
    return rows


def pack(path, tree, kind, prefix=""):
    """The files `tree` (name → bytes) as a folder, or an archive of one of the kinds people have."""
    if kind == "folder":
        for name, data in tree.items():
            (path / prefix / name).parent.mkdir(parents=True, exist_ok=True)
            (path / prefix / name).write_bytes(data)
        return path
    path.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(path / "x.zip", "w") as archive:
            for name, data in tree.items():
                archive.writestr(prefix + name, data)
        return path / "x.zip"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in tree.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (path / "lra_release.gz").write_bytes(gzip.compress(buffer.getvalue(), 1))
    return path / "lra_release.gz"


# --- every task ---


@pytest.mark.parametrize("name", every_task_name())
def test_task_describes_itself(name):
    task = task_module(name).TASK
    assert task.name == name
    assert list(task.splits) == list(SPLITS)
    assert 1 / task.classes <= task.majority < 0.2 + 1 / task.classes
    assert {origin.kind for origin in task_module(name).DATA.origins} <= {"official", "mirror"}
    assert all(file.url.startswith("http") for origin in task_module(name).DATA.origins for file in origin.files)


@pytest.mark.parametrize("protocol", ["s4", "lra"])
@pytest.mark.parametrize("name", every_task_name())
def test_tiny_set(name, protocol):
    module = task_module(name)
    generator = module.DATA.generator(request(protocol, "tiny"))
    layout, task = generator.layout, module.TASK
    assert (layout.documents, layout.classes) == (task.documents, task.classes)
    assert (layout.vocabulary is None) == (task.inputs == "pixels")
    rows = generator.generate(7, 0, 24)
    copy = pickle.loads(pickle.dumps(generator))
    pieces = [copy.generate(7, start, stop) for start, stop in ((0, 5), (5, 6), (6, 24))]
    for whole, parts in zip(rows, zip(*pieces, strict=True), strict=True):
        assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(rows.inputs, generator.generate(8, 0, 24).inputs)
    assert rows.inputs.shape == (24, *layout.row_shape)
    assert set(rows.labels.tolist()) <= set(range(task.classes))
    assert (rows.lengths == layout.length).all() or task.variable_length
    assert module.DATA.problems(layout, rows, "generated") == []
    assert module.DATA.decode(layout, rows.inputs[0], rows.lengths[0]).strip()


@pytest.mark.parametrize("name", every_task_name())
def test_problems_are_found(name):
    module = task_module(name)
    generator = module.DATA.generator(request(size="tiny"))
    rows = generator.generate(0, 0, 4)
    damaged = rows.inputs.copy()
    damaged[2] = 0
    (problem, *_) = module.DATA.problems(generator.layout, Rows(damaged, rows.lengths, rows.labels), "generated")
    assert problem.startswith("row 2 ")


@pytest.mark.parametrize("name", ["listops", "retrieval", "image", "pathfinder", "pathx"])
def test_val_fraction_where_there_is_a_validation_split(name):
    with pytest.raises(UserError, match="validation split of its own"):
        task_module(name).DATA.generator(request(size="tiny", val_fraction=0.1))


@pytest.mark.parametrize("name", every_task_name())
def test_path_without_the_task(name, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="holds n"):
        task_module(name).DATA.locate(tmp_path)


@pytest.mark.parametrize("name", ["text", "retrieval", "image"])
def test_no_generator_but_for_tiny(name):
    assert task_module(name).DATA.generator(request()) is None
    assert task_module(name).DATA.generator(request(size=100)) is None


@pytest.mark.parametrize(
    ("name", "side"), [("pathfinder", 32), ("pathfinder64", 64), ("pathx", 128), ("pathfinder256", 256)]
)
def test_images_of_full_size(name, side):
    data = task_module(name).DATA
    generator = data.generator(request(size=100))
    assert generator.layout.length == task_module(name).TASK.length == side * side
    assert generator.layout.counts == {"train": 80, "val": 10, "test": 10}
    assert generator.parameters["window"] == side
    rows = generator.generate(0, 0, 4)
    assert data.problems(generator.layout, rows, "generated") == []
    blurred = Rows(np.maximum(rows.inputs, 1)[:, ::-1].copy() // 2, rows.lengths, rows.labels)
    assert len(data.problems(generator.layout, blurred, "generated")) == 4


# --- Text ---

REVIEWS = {
    "aclImdb/README": b"not a review",
    "aclImdb/train/unsup/0_0.txt": b"never read: zzzzzzzzzzzzzzzzzzzzzzzzz",
    "aclImdb/train/urls_pos.txt": b"http://",
    "aclImdb/train/pos/10_9.txt": b"b" * 20,
    "aclImdb/train/pos/9_7.txt": "aé".encode() * 14,
    "aclImdb/train/neg/3_1.txt": b" ba\n",
    "aclImdb/train/neg/0_4.txt": b"a" * 5000 + b"c" * 99,
    "aclImdb/test/neg/7_2.txt": b"abX",
    "aclImdb/test/pos/0_10.txt": b"<br />",
    "aclImdb/test/pos/1_8.txt": "é".encode(),
    "aclImdb/test/neg/0_1.txt": b"",
}


def small(monkeypatch, name, train, val, test):
    """Let these numbers of examples be a whole set, so that `size="full"` fits the tiny files."""
    module = task_module(name)
    monkeypatch.setattr(
        module, "TASK", module.TASK.model_copy(update={"splits": dict(zip(SPLITS, (train, val, test), strict=True))})
    )
    return module.DATA


@pytest.fixture
def text(monkeypatch):
    return small(monkeypatch, "text", 4, 4, 4)


@pytest.mark.parametrize(("kind", "within"), [("folder", ""), ("folder", "aclImdb"), ("tar.gz", ""), ("zip", "")])
def test_text_s4(text, tmp_path, kind, within):
    path = pack(tmp_path / "x", REVIEWS, kind) / within
    reading = text.read(path, request())
    layout = reading.layout
    # a: 14 + 1 + 4,095 (the rest of that review is cut off), b: 20 + 1; é has 14, c none within the cut: no ids.
    assert layout.vocabulary == ("<pad>", "<unk>", "<eos>", "a", "b")
    assert (layout.counts, layout.validation_is_test) == ({"train": 4, "val": 4, "test": 4}, True)
    rows = everything(reading)
    expected = [[3] * 4095 + [2], [1, 4, 3, 1, 2], [3, 1] * 14 + [2], [4] * 20 + [2]]
    expected += [[2], [3, 4, 1, 2], [1, 4, 1, 1, 1, 1, 2], [1, 2]]
    assert rows.lengths.tolist() == [len(row) for row in expected]
    assert [row[:n].tolist() for row, n in zip(rows.inputs, rows.lengths, strict=True)] == expected
    assert not any(row[n:].any() for row, n in zip(rows.inputs, rows.lengths, strict=True))
    assert rows.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert text.problems(layout, rows, "generated") == []
    assert text.decode(layout, rows.inputs[5], rows.lengths[5]) == "ab⁇"


def test_text_lra(text, tmp_path):
    reading = text.read(pack(tmp_path / "x", REVIEWS, "tar.gz"), request("lra"))
    rows = everything(reading)
    assert reading.layout.length == 4000
    assert len(reading.layout.vocabulary) == 257
    expected = [
        [98] * 4000,
        [99, 98],
        [98, 0xC3 + 1, 0xA9 + 1] * 14,
        [99] * 20,
    ]  # stripped, no end mark; an empty review is one step of padding
    expected += [[0], [98, 99, 89], [61, 99, 115, 33, 48, 63], [0xC3 + 1, 0xA9 + 1]]
    assert [row[:n].tolist() for row, n in zip(rows.inputs, rows.lengths, strict=True)] == expected


def test_text_of_lra_keeps_white_space_beyond_ascii_at_its_ends(text, tmp_path):
    """TFDS strips bytes. A next line, as in a review of the genuine data, is no white space there."""
    reviews = REVIEWS | {"aclImdb/test/pos/1_8.txt": " é\x85\x1c\n".encode()}
    rows = everything(text.read(pack(tmp_path / "x", reviews, "zip"), request("lra")))
    kept = [byte + 1 for byte in "é\x85\x1c".encode()]
    assert kept in [row[:n].tolist() for row, n in zip(rows.inputs, rows.lengths, strict=True)]


def test_text_with_a_validation_split(text, tmp_path):
    path = pack(tmp_path / "x", REVIEWS, "folder")
    reading = text.read(path, request(val_fraction=0.25))
    assert (reading.layout.counts, reading.layout.validation_is_test) == ({"train": 3, "val": 1, "test": 4}, False)
    ordered = everything(text.read(path, request()))
    train, val = holdout(4, 0.25)
    expected = ordered.inputs[[*train, *val, 4, 5, 6, 7]]
    assert np.array_equal(everything(reading).inputs, expected)


def test_text_incomplete(text, tmp_path):
    tree = {name: data for name, data in REVIEWS.items() if "/0_10" not in name}
    with pytest.raises(UserError, match="3 val examples where 4 are expected"):
        text.read(pack(tmp_path / "x", tree, "tar.gz"), request())
    with pytest.raises(UserError, match="holds no test reviews"):
        text.read(pack(tmp_path / "y", {k: v for k, v in REVIEWS.items() if "/test/" not in k}, "zip"), request())


def test_text_twice_in_one_archive(text, tmp_path):
    tree = REVIEWS | {f"copy/{name}": data for name, data in REVIEWS.items()}
    with pytest.raises(UserError, match="twice"):
        text.read(pack(tmp_path / "x", tree, "tar.gz"), request())


def test_text_not_utf8(text, tmp_path):
    with pytest.raises(UserError, match=r"neg/0_4.txt is not UTF-8"):
        text.read(pack(tmp_path / "x", REVIEWS | {"aclImdb/train/neg/0_4.txt": b"\xff"}, "zip"), request())


# --- Retrieval ---

LONG = "n" * 200_000
AAN = {
    "tsv_data/new_aan_pairs.train.tsv": (
        "1.0\tP01-0001\tP02-0002\taab\tb\n"  # no header
        '0.0\tP01-0001\tP03-0003\t"aab said\ta "quoted" word\n'
        f"1.0\tP01-0001\tP03-0003\t{LONG}\tb\r\n"
    ).encode(),
    "tsv_data/new_aan_pairs.eval.tsv": b"0\tA\tB\tbz\t\n",
    "tsv_data/new_aan_pairs.test.tsv": b"1\tA\tB\ta\tb\n0.0\tA\tC\tb\ta",
}
OUTER = {name: data.replace(b"aab", b"xxx") for name, data in AAN.items()}


@pytest.fixture
def retrieval(monkeypatch):
    return small(monkeypatch, "retrieval", 3, 1, 2)


LAYOUTS = [
    ("folder", "lra_release/lra_release/", ""),
    ("folder", "lra_release/lra_release/", "lra_release"),
    ("folder", "lra_release/", ""),
    ("folder", "", ""),
    ("folder", "", "tsv_data"),
    ("tar.gz", "lra_release/lra_release/", ""),
    ("tar.gz", "", ""),
    ("zip", "./", ""),
]


@pytest.mark.parametrize(("kind", "prefix", "within"), LAYOUTS)
def test_retrieval_s4(retrieval, tmp_path, kind, prefix, within):
    reading = retrieval.read(pack(tmp_path / "x", AAN, kind, prefix) / within, request())
    vocabulary = reading.layout.vocabulary
    # By falling count, n 3,999 after the cut, a 6, b 4, three of 3, o 2, the rest 1; equals by code point.
    assert vocabulary == ("<pad>", "<unk>", "<eos>", *'nab "doeiqrstuw')
    rows = everything(reading)
    one = CharacterTokenizer(vocabulary)
    texts = [("aab", "b"), ('"aab said', 'a "quoted" word'), ("n" * 3999, "b"), ("bz", ""), ("a", "b"), ("b", "a")]
    for row, pair in enumerate(texts):
        for which, text in enumerate(pair):
            n = rows.lengths[row, which]
            assert n == len(text) + 1
            assert rows.inputs[row, which, :n].tolist() == one.encode(text, 4000).tolist()
            assert not rows.inputs[row, which, n:].any()
    assert rows.inputs[3, 0, :3].tolist() == [vocabulary.index("b"), 1, 2]  # z is unknown to train
    assert rows.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert retrieval.problems(reading.layout, rows, "generated") == []
    assert retrieval.decode(reading.layout, rows.inputs[1], rows.lengths[1]) == '"aab said\n\na "quoted" word'


def test_retrieval_lra(retrieval, tmp_path):
    rows = everything(retrieval.read(pack(tmp_path / "x", AAN, "tar.gz"), request("lra")))
    assert rows.lengths.tolist() == [[3, 1], [9, 15], [4000, 1], [2, 1], [1, 1], [1, 1]]
    assert rows.inputs[0, 0, :4].tolist() == [98, 98, 99, 0]


def test_retrieval_takes_the_inner_copy(retrieval, tmp_path):
    tree = {f"lra_release/{name}": data for name, data in OUTER.items()}
    tree |= {f"lra_release/lra_release/{name}": data for name, data in AAN.items()}
    for kind in ("folder", "tar.gz"):
        reading = retrieval.read(pack(tmp_path / kind, tree, kind), request())
        assert "x" not in reading.layout.vocabulary


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"1.0\tA\tB\tone", r"train.tsv, row 2, has 4 columns instead of 5"),
        (b"1.0\tA\tB\tone\ttwo\tthree\n", "6 columns"),
        (b"0.5\tA\tB\tone\ttwo\n", "label b'0.5'"),
        (b"label\tid1\tid2\ttext1\ttext2\n", "label b'label'"),
        (b"1.0\tA\tB\tone\t\xff\n", "row 2, is not UTF-8"),
    ],
)
def test_retrieval_bad_row(retrieval, tmp_path, bad, message):
    tree = AAN | {"tsv_data/new_aan_pairs.train.tsv": b"1.0\tA\tB\ta\tb\n" + bad}
    with pytest.raises(UserError, match=message):
        retrieval.read(pack(tmp_path / "x", tree, "folder"), request())


def test_retrieval_counts(retrieval, tmp_path):
    path = pack(tmp_path / "x", AAN | {"tsv_data/new_aan_pairs.eval.tsv": b""}, "folder")
    with pytest.raises(UserError, match="0 val examples where 1 are expected"):
        retrieval.read(path, request())
    (path / "tsv_data/new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(UserError, match=r"holds no new_aan_pairs.eval.tsv"):
        retrieval.read(path, request())


def test_too_many_characters(retrieval, tmp_path):
    wild = "".join(chr(0x4E00 + i) for i in range(300))
    tree = AAN | {"tsv_data/new_aan_pairs.train.tsv": f"1.0\tA\tB\t{wild}\tb\n".encode() * 3}
    with pytest.raises(UserError, match="301 different characters"):
        retrieval.read(pack(tmp_path / "x", tree, "folder"), request())
    assert len(ByteTokenizer.vocabulary) == 257


def test_retrieval_from_its_mirror(retrieval, tmp_path, monkeypatch, capfd):
    """The official archive is not there; the three files of the mirror are, in one folder after the download."""
    pack(tmp_path / "served", AAN, "folder")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served" / "tsv_data")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(
            type(retrieval),
            "origins",
            [
                replace(origin, files=tuple(replace(file, url=f"{here}/{file.name}") for file in origin.files))
                for origin in retrieval.origins
            ],
        )
        folder = prepare("retrieval", jobs=1, verify=True)
        server.shutdown()
    manifest = load_manifest(folder)
    assert (manifest.source, manifest.counts) == ("mirror", {"train": 3, "val": 1, "test": 2})
    assert [file.name for file in manifest.raw] == [f"new_aan_pairs.{part}.tsv" for part in ("train", "eval", "test")]
    assert "answered 404 File not found. Next: OpenNLPLab/lra" in " ".join(capfd.readouterr().err.split())


# --- Image ---

COLORS = np.random.default_rng(0).integers(0, 256, (60, 3, 1024), np.uint8)
CIFAR_LABELS = np.arange(60) % 10
CIFAR = {
    f"cifar-10-batches-bin/{name}": b"".join(
        bytes([CIFAR_LABELS[i]]) + COLORS[i].tobytes() for i in range(10 * number, 10 * number + 10)
    )
    for number, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"])
} | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}
CIFAR = dict(sorted(CIFAR.items(), reverse=True))  # the order inside an archive must not matter


@pytest.fixture
def image(monkeypatch):
    return small(monkeypatch, "image", 45, 5, 10)


@pytest.mark.parametrize(
    ("kind", "within"), [("folder", ""), ("folder", "cifar-10-batches-bin"), ("tar.gz", ""), ("zip", "")]
)
@pytest.mark.parametrize("protocol", ["s4", "lra"])
def test_image(image, tmp_path, kind, within, protocol):
    rows = everything(image.read(pack(tmp_path / "x", CIFAR, kind) / within, request(protocol)))
    order = torch_permutation(50) if protocol == "s4" else tfds_order(range(50), "train")
    order = [*order, *range(50, 60)]
    assert rows.labels.tolist() == CIFAR_LABELS[order].tolist()
    pictures = [Image.fromarray(colors.reshape(3, 32, 32).transpose(1, 2, 0)) for colors in COLORS[order]]
    pil = np.stack([np.asarray(picture.convert("L")).ravel() for picture in pictures])
    difference = rows.inputs.astype(int) - pil
    assert not difference.any() if protocol == "s4" else 0.05 < np.abs(difference).mean() < 0.5
    assert np.abs(difference).max() <= 1


def test_gray_of_every_shade_is_exact():
    from lra_bench.tasks.image import gray_pil, gray_tf

    shades = np.repeat(np.arange(256, dtype=np.uint8)[None, None], 3, axis=1)
    assert np.array_equal(gray_pil(shades)[0], np.arange(256))
    assert np.abs(gray_tf(shades)[0].astype(int) - np.arange(256)).max() <= 1
    colors = COLORS.astype(np.float64)
    exact = 255.5 * (0.2989 * colors[:, 0] + 0.587 * colors[:, 1] + 0.114 * colors[:, 2]) / 255
    sure = np.abs(exact - np.rint(exact)) > 1e-4  # elsewhere float32 may fall on either side of the whole number
    assert np.array_equal(gray_tf(COLORS)[sure], np.floor(exact)[sure])
    assert sure.mean() > 0.999


def test_image_subset_is_the_beginning_of_the_whole(image, tmp_path):
    path = pack(tmp_path / "x", CIFAR, "folder")
    whole, part = everything(image.read(path, request())), image.read(path, request(size=30))
    assert part.layout.counts == {"train": 23, "val": 2, "test": 5}
    assert np.array_equal(everything(part).inputs, whole.inputs[[*range(23), 45, 46, *range(50, 55)]])


def test_image_bad_files(image, tmp_path):
    name = "cifar-10-batches-bin/data_batch_3.bin"
    for number, (change, message) in enumerate(
        [
            ({name: CIFAR[name][:-1]}, "no multiple of 3,073"),
            ({name: b"\x0a" + CIFAR[name][1:]}, "does not hold the labels"),
            ({name: CIFAR[name][:3073]}, "examples where 45 are expected"),
            ({f"copy/{name}": CIFAR[name]}, "twice"),
        ]
    ):
        with pytest.raises(UserError, match=message):
            image.read(pack(tmp_path / str(number), CIFAR | change, "tar.gz"), request())
    path = pack(tmp_path / "missing", {k: v for k, v in CIFAR.items() if k != name}, "tar.gz")
    with pytest.raises(UserError, match="lacks"):
        image.read(path, request())
    with pytest.raises(UserError, match="binary version"):
        image.locate(pack(tmp_path / "python", {"cifar-10-batches-py/data_batch_1": b""}, "folder"))


def as_parquet(folder, parts, labels):
    """Two parquet files as on Hugging Face, the training batches in the order `parts`."""
    rows = [i for part in parts for i in range(10 * part, 10 * part + 10)]
    for name, chosen in (("train", rows), ("test", range(50, 60))):
        images = []
        for i in chosen:
            buffer = io.BytesIO()
            Image.fromarray(COLORS[i].reshape(3, 32, 32).transpose(1, 2, 0)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": None})
        table = pyarrow.table({"img": images, "label": labels[list(chosen)].tolist()})
        pyarrow.parquet.write_table(table, folder / f"{name}-00000-of-00001.parquet", row_group_size=7)


def test_image_mirror_is_put_in_order(image, tmp_path, monkeypatch):
    from lra_bench.data.raw import cifar

    labels = np.random.default_rng(1).integers(0, 10, 60)
    tree = {name: bytearray(data) for name, data in CIFAR.items()}
    for number, name in enumerate(cifar.BINARY):
        tree[f"{cifar.FOLDER}/{name}"][:: cifar.RECORD] = bytes(labels[10 * number : 10 * number + 10].tolist())
    monkeypatch.setattr(cifar, "FILE_ROWS", 10)
    with pytest.raises(UserError, match=r"data_batch_\d.bin does not hold the labels of that file"):
        image.read(pack(tmp_path / "binary", tree, "folder"), request())
    monkeypatch.setattr(cifar, "FIRST_LABELS", tuple(map(tuple, labels.reshape(6, 10).tolist())))
    as_parquet(tmp_path, [3, 2, 1, 4, 0], labels)
    expected = everything(image.read(tmp_path / "binary", request()))
    rows = everything(image.read(tmp_path, request()))
    assert all(np.array_equal(*pair) for pair in zip(rows, expected, strict=True))
    # Where both are, what is read is what was found, and whose checksums the manifest has.
    both = tmp_path / "both"
    pack(both, tree, "folder")
    as_parquet(both, [3, 2, 1, 4], labels)
    assert image.locate(both)[0].name == cifar.BINARY[0]
    rows = everything(image.read(both, request()))
    assert all(np.array_equal(*pair) for pair in zip(rows, expected, strict=True))
    as_parquet(tmp_path, [3, 2, 1, 4], labels)
    with pytest.raises(UserError, match="has 40 rows; 50 are expected"):
        image.read(tmp_path, request())
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read"):
        image.read(tmp_path, request())


# --- Pathfinder ---

DRAWINGS = [(b, i) for b in (0, 1, 2, 10) for i in range(5)]
"""Metadata files 0, 1, 2, 10: in this order, not 0, 1, 10, 2."""


def png(number, side=32):
    pixels = np.zeros((side, side), np.uint8)
    pixels[number, :] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pathfinder_tree(root, first=0):
    """Image n of the metadata has its row `first + n` white and the label n % 2."""
    tree = {f"{root}/imgs/._sample_0.png": b"a Mac's", f"{root}/metadata/notes.txt": b""}
    for number, (b, i) in enumerate(DRAWINGS):
        tree[f"{root}/imgs/{b}/sample_{i}.png"] = png(first + number)
        line = f"imgs/{b} sample_{i}.png {i} {number % 2} 1.8 14 2.0 5 1.5 2 1\n"
        name = f"{root}/metadata/{b}.npy"
        tree[name] = tree.get(name, b"") + line.encode()
    return tree


HARD = "pathfinder32/curv_contour_length_14"
PATHFINDER = pathfinder_tree(HARD) | {"pathfinder32/curv_baseline/imgs/0/sample_172.png": b""}


@pytest.fixture
def pathfinder(monkeypatch):
    return small(monkeypatch, "pathfinder", 16, 2, 2)


def white_rows(rows):
    pictures = rows.inputs.reshape(-1, 32, 32)
    assert (pictures.sum(axis=(1, 2)) == 32 * 255).all()
    return pictures[:, :, 0].argmax(axis=1).tolist()


@pytest.mark.parametrize(
    ("kind", "prefix", "within"),
    [*LAYOUTS[:4], ("folder", "", "pathfinder32"), ("folder", "", HARD), *LAYOUTS[5:]],
)
@pytest.mark.parametrize("protocol", ["s4", "lra"])
def test_pathfinder(pathfinder, tmp_path, kind, prefix, within, protocol):
    rows = everything(pathfinder.read(pack(tmp_path / "x", PATHFINDER, kind, prefix) / within, request(protocol)))
    keys = [f"imgs/{b}_sample_{i}.png_{i + 1}" for b, i in DRAWINGS]
    order = (torch_permutation(20) if protocol == "s4" else tfds_order(keys, "hard")).tolist()
    assert white_rows(rows) == order
    assert rows.labels.tolist() == [number % 2 for number in order]
    assert (rows.lengths == 1024).all()


def test_empty_image_keeps_the_places_of_the_others(pathfinder, tmp_path, monkeypatch):
    victim = torch_permutation(20).tolist()[3]
    b, i = DRAWINGS[victim]
    tree = PATHFINDER | {f"{HARD}/imgs/{b}/sample_{i}.png": b""}
    data = small(monkeypatch, "pathfinder", 15, 2, 2)
    for kind in ("folder", "tar.gz"):
        reading = data.read(pack(tmp_path / kind, tree, kind), request())
        assert white_rows(everything(reading)) == [n for n in torch_permutation(20).tolist() if n != victim]
        assert reading.parameters == {"empty_images_left_out": 1}


@pytest.mark.parametrize("kind", ["folder", "tar.gz"])
def test_inner_pathfinder_is_taken(pathfinder, tmp_path, kind):
    tree = pathfinder_tree(f"lra_release/{HARD}", first=12)
    tree |= pathfinder_tree(f"lra_release/lra_release/{HARD}")
    rows = everything(pathfinder.read(pack(tmp_path / "x", tree, kind), request()))
    assert sorted(white_rows(rows)) == list(range(20))


def test_outer_pathfinder_is_refused(pathfinder, tmp_path):
    tree = pathfinder_tree(f"lra_release/{HARD}") | {"lra_release/lra_release/tsv_data/x.tsv": b""}
    path = pack(tmp_path / "x", tree, "folder")
    for within in ("", "lra_release", "lra_release/pathfinder32", f"lra_release/{HARD}"):
        with pytest.raises(UserError, match="outer copy"):
            pathfinder.locate(path / within)


def test_folder_that_holds_the_archive(pathfinder, tmp_path):
    archive = pack(tmp_path / "x", PATHFINDER, "tar.gz", "lra_release/lra_release/")
    assert pathfinder.locate(tmp_path / "x") == [archive]
    assert len(everything(pathfinder.read(tmp_path / "x", request())).labels) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{HARD}/imgs/2/sample_1.png": None}, r"lacks 1 of 20 images, .*imgs/2/sample_1.png"),
        ({f"{HARD}/imgs/2/sample_1.png": b"\x89PNG cut"}, r"sample_1.png is no readable image"),
        ({f"{HARD}/imgs/2/sample_1.png": png(0, 64)}, "64 × 64 pixels; 32 × 32"),
        ({f"{HARD}/metadata/2.npy": b"imgs/2 sample_1.png 1\n"}, r"2.npy, line 1, is not of the form"),
        ({f"{HARD}/metadata/2.npy": b"\x93NUMPY"}, r"2.npy, line 1, is not of the form"),
        ({f"{HARD}/metadata/2.npy": None}, "13 train examples where 16"),
    ],
)
def test_pathfinder_bad_files(pathfinder, tmp_path, change, message):
    tree = {name: data for name, data in (PATHFINDER | change).items() if data is not None}
    with pytest.raises(UserError, match=message):
        everything(pathfinder.read(pack(tmp_path / "x", tree, "tar.gz"), request()))


@pytest.mark.parametrize(
    ("name", "counts", "tree"),
    [
        ("text", (4, 4, 4), REVIEWS),
        ("retrieval", (3, 1, 2), AAN),
        ("image", (45, 5, 10), CIFAR),
        ("pathfinder", (16, 2, 2), PATHFINDER),
    ],
)
def test_prepared_from_official_files(name, counts, tree, tmp_path, monkeypatch):
    """The same set from the archive and from the folder, verified, with what it was read from."""
    small(monkeypatch, name, *counts)
    fingerprints = set()
    for kind in ("tar.gz", "folder"):
        path = pack(tmp_path / kind, tree, kind)
        folder = prepare(name, source_path=path, jobs=1, verify=True)
        manifest = load_manifest(folder)
        fingerprints.add(manifest.fingerprint)
        assert (manifest.source, manifest.size) == ("user", "full")
        read = [file for file in tree if name in ("text", "pathfinder") or not file.endswith(".txt")]
        within = {"text": "aclImdb/", "pathfinder": HARD}.get(name, "")
        sizes = [len(tree[file]) for file in read if file.startswith(within)]
        assert sum(raw.bytes for raw in manifest.raw) == (path.stat().st_size if kind == "tar.gz" else sum(sizes))
        assert prepare(name, source_path=path, jobs=1) == folder
    assert len(fingerprints) == 1
    changed = next(iter(tmp_path.glob("folder/**/*" + next(iter(tree)).rpartition("/")[2])))
    changed.write_bytes(changed.read_bytes() + b" ")
    assert {file.sha256 for file in manifest.raw} != {sha256_of(file) for file in task_module(name).DATA.locate(path)}


def test_pathx_reads_its_own_folder(tmp_path):
    data = task_module("pathx").DATA
    tree = pathfinder_tree(HARD) | pathfinder_tree("pathfinder128/curv_contour_length_14")
    path = pack(tmp_path / "x", tree, "folder")
    assert data.locate(path) == [path / "pathfinder128/curv_contour_length_14"]
    with pytest.raises(UserError, match="32 × 32 pixels; 128 × 128"):
        everything(data.read(path, request(size=10)))
    shutil.rmtree(path / "pathfinder128")
    with pytest.raises(UserError, match="holds no pathfinder128"):
        data.locate(path)
