"""Raw files whose shape is right and whose meaning is wrong: refused, or said by `--verify`."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lra_bench.data.manifest import find_prepared, load_manifest
from lra_bench.data.meaning import Inputs, contents_notes, contents_problems, label_problems
from lra_bench.data.packed import open_split
from lra_bench.data.prepare import prepare
from lra_bench.data.raw.reading import balanced
from lra_bench.data.verify import verify
from lra_bench.datasource import Rows
from lra_bench.errors import UserError
from lra_bench.registry import task_module
from lra_bench.spec import SPLITS
from lra_bench.tasks import text
from tests.manifests import rewrite_manifest

# --- one batch of examples ---


def rows_of(inputs, labels=None):
    inputs = np.asarray(inputs, np.uint8)
    n = len(inputs)
    return Rows(inputs, np.full(n, inputs.shape[1], np.int32), np.asarray(labels if labels is not None else [0] * n))


@pytest.fixture
def tiny():
    return load_manifest(prepare("image", size="tiny", jobs=1, tfds=False))


def test_inputs_that_occur_twice(tiny):
    counts = tiny.model_copy(update={"counts": {"train": 20, "val": 3, "test": 22}})
    inputs = Inputs(counts)
    one, other = np.arange(20)[:, None], np.arange(15, 35)[:, None]
    assert inputs.add("train", rows_of(one)) == 0
    assert inputs.add("val", rows_of(one[:3])) == 3
    assert inputs.add("test", rows_of([*other, *other[:2]])) == 5 + 2
    assert inputs.common == {("val", "train"): 3, ("test", "train"): 5}
    assert inputs.repeats == {"test": 2}
    assert inputs.problems() == ["test: 5 of 22 inputs also occur in train"]
    assert inputs.notes() == ["equal inputs: 3 of val also in train, 5 of test also in train, 2 of test twice"]
    inputs._manifest = tiny
    assert inputs.problems() == [], "five of hundreds are as many as the published sets have"


def test_a_validation_split_that_is_the_test_split_is_no_overlap(tiny):
    for same, problems in ((False, ["test: 20 of 20 inputs also occur in val"]), (True, [])):
        inputs = Inputs(tiny.model_copy(update={"counts": dict.fromkeys(SPLITS, 20), "validation_is_test": same}))
        for split, start in (("train", 0), ("val", 20), ("test", 20)):
            inputs.add(split, rows_of(np.arange(start, start + 20)[:, None]))
        assert inputs.problems() == problems


def test_texts_with_unknown_characters_may_differ(tiny):
    inputs = Inputs(tiny.model_copy(update={"vocabulary": ["<pad>", "<unk>", "<eos>", "a"]}))
    inputs.add("train", rows_of([[1, 2], [3, 2]]))
    assert inputs.add("test", rows_of([[1, 2], [3, 2], [3, 1]])) == 1
    assert inputs.common == {("test", "train"): 1}


@pytest.mark.parametrize(
    ("task", "labels", "fine"),
    [
        ("text", [0] * 100, False),
        ("text", [0] * 10, True),
        ("text", [0, 1] * 50, True),
        ("text", [0] * 60 + [1] * 40, True),
        ("text", [0] * 900 + [1] * 100, False),
        ("image", [3] * 100, False),
        ("image", [3, 3], True),
        ("image", [*range(9)] * 40, False),  # none is a truck
        ("image", [*range(10)] * 3, True),
        ("listops", [9] * 12, False),
        ("listops", [9] * 4, True),
    ],
)
def test_classes_of_a_part(tiny, task, labels, fine):
    module = task_module(task)
    part = tiny.model_copy(update={"task": task, "source": "user", "size": "100", "classes": module.TASK.classes})
    found = label_problems(part, module.TASK, "test", np.array(labels, np.int32))
    assert (found == []) == fine, found


def test_chance_is_allowed_for():
    """A hundred splits of every size, drawn with the published shares: none is refused."""
    rng = np.random.default_rng(0)
    shares = [0.168, 0.090, 0.079, 0.081, 0.090, 0.087, 0.077, 0.072, 0.086, 0.170]
    manifest = load_manifest(prepare("listops", size="tiny", jobs=1, tfds=False))
    manifest = manifest.model_copy(update={"size": "100", "source": "user"})
    for n in (1, 2, 3, 5, 10, 20, 50, 200, 1_000):
        for _ in range(100):
            labels = rng.choice(10, n, p=shares).astype(np.int32)
            assert label_problems(manifest, task_module("listops").TASK, "test", labels) == []


def test_official_contents(tiny):
    task = task_module("image").TASK
    for source, problems, notes in (("official", 1, 0), ("mirror", 1, 0), ("user", 0, 1), ("generated", 0, 0)):
        whole = tiny.model_copy(update={"source": source, "size": "full"})
        assert (len(contents_problems(whole, task)), len(contents_notes(whole, task))) == (problems, notes)
        same = whole.model_copy(update={"official_contents": True})
        assert contents_problems(same, task) == contents_notes(same, task) == []
        cut = whole.model_copy(update={"val_fraction": 0.1})
        assert contents_problems(cut, task) == contents_notes(cut, task) == []


def smooth(n, seed=0):
    """Pictures like photographs: neighbors alike, a little less so along columns, mean 122."""
    rng = np.random.default_rng(seed)
    across = rng.normal(0, 8, (n, 1, 32)).cumsum(axis=2)
    down = rng.normal(0, 12, (n, 32, 1)).cumsum(axis=1)
    return np.clip(across + down + 122, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pictures: pictures, None),
        (lambda pictures: pictures // 4, "mean shade"),
        (lambda pictures: 255 - pictures // 4, "mean shade"),
        (lambda pictures: pictures.swapaxes(1, 2), "on their side"),
        (lambda pictures: pictures.reshape(-1, 1024)[:, np.random.default_rng(0).permutation(1024)], "another order"),
    ],
)
def test_averages_of_image(tiny, change, message):
    pictures = change(smooth(600)).reshape(600, -1)
    found = task_module("image").DATA.problems(tiny.layout, rows_of(pictures), "user")
    assert (found == []) if message is None else any(message in problem for problem in found)
    assert task_module("image").DATA.problems(tiny.layout, rows_of(pictures[:100]), "user") == [], "too few to say"


@pytest.mark.parametrize(("name", "message"), [("text", "600 reviews have 60"), ("listops", "tokens; LRA's have 501")])
def test_averages_of_tokens(name, message):
    module = task_module(name)
    folder = prepare(name, size="tiny", jobs=1, tfds=False)
    layout, split = load_manifest(folder).layout, open_split(folder, "train")
    rows = Rows(*(np.asarray(array)[:600] for array in split))
    if name == "text":
        rows = rows._replace(lengths=np.full(600, 60, np.int32))
    assert any(message in problem for problem in module.DATA.problems(layout, rows, "user"))
    assert not any(message in problem for problem in module.DATA.problems(layout, rows, "generated"))


# --- Text: classes, stars, folders that are copies ---


def in_letters(number):
    """A number in few different characters, so that all of them are in the vocabulary."""
    return f"{number:08b}".translate(str.maketrans("01", "no"))


def reviews(root, n=60, stars=(1, 9), change=lambda split, label, number: f"{split}, {label}, {in_letters(number)}"):
    for split in ("train", "test"):
        for label, star in zip(("neg", "pos"), stars, strict=True):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number in range(n):
                (root / split / label / f"{number}_{star}.txt").write_text(change(split, label, number))
    return root


@pytest.mark.parametrize("size", [10, 30, 90, 300])
@pytest.mark.parametrize("val_fraction", [None, 0.2])
@pytest.mark.parametrize("protocol", ["s4", "lra"])
def test_a_part_of_text_has_both_classes(tmp_path, size, val_fraction, protocol):
    path = reviews(tmp_path / "x", 150)
    options = {"source_path": path, "size": size, "val_fraction": val_fraction, "protocol": protocol, "tfds": False}
    folder = prepare("text", verify=True, **options)
    for split in SPLITS:
        labels = open_split(folder, split).labels
        assert abs(labels.mean() - 0.5) <= 0.5 / len(labels) + 1e-9
    first = load_manifest(folder).fingerprint
    shutil.rmtree(folder)
    assert load_manifest(prepare("text", **options)).fingerprint == first, "the same at every call"


def test_a_part_of_text_is_spread_over_the_files(tmp_path):
    """Reviews of one film stand side by side, so the first hundred would be of a few films."""
    folder = prepare("text", source_path=reviews(tmp_path, 150), size=90, protocol="lra", tfds=False)
    layout, split = load_manifest(folder).layout, open_split(folder, "test")
    shown = [text.DATA.decode(layout, *row) for row in zip(split.inputs, split.lengths, strict=True)]
    numbers = [int(line.split(", ")[2].translate(str.maketrans("no", "01")), 2) for line in shown]
    assert max(numbers) > 100


def test_balanced():
    labels = np.array([0] * 6 + [1] * 3)
    assert balanced(np.arange(9)[::-1], labels).tolist() == [5, 8, 4, 7, 3, 6, 2, 1, 0]
    assert balanced(np.arange(0), labels).tolist() == []


def test_a_whole_text_keeps_the_order_of_the_files(tmp_path, monkeypatch):
    splits = dict.fromkeys(SPLITS, 120)
    monkeypatch.setattr(text, "TASK", text.TASK.model_copy(update={"splits": splits}))
    folder = prepare("text", source_path=reviews(tmp_path), tfds=False, verify=True)
    assert open_split(folder, "train").labels.tolist() == [0] * 60 + [1] * 60


def test_a_part_of_one_class_from_earlier_versions_is_not_used(tmp_path):
    path = reviews(tmp_path / "x")
    folder = prepare("text", source_path=path, size=90, tfds=False)
    rewrite_manifest(folder, majority=dict.fromkeys(SPLITS, 1.0))
    with pytest.raises(
        UserError, match=r"a split of one class only, as earlier versions made it\. Remove .*--from PATH"
    ):
        prepare("text", source_path=path, size=90, tfds=False)
    with pytest.raises(UserError, match=r"text is not prepared\. Type: lra-bench prepare text"):
        find_prepared("text")


def test_stars_that_contradict_the_folder(tmp_path):
    for number, stars in enumerate([(9, 9), (1, 1), (5, 9), (1, 6), (9, 1)]):
        with pytest.raises(UserError, match=r"_\d\.txt has \d stars, which no review in the folder (neg|pos) has"):
            prepare("text", source_path=reviews(tmp_path / str(number), stars=stars), size=90, tfds=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split, label, number: f"{label}, {in_letters(number)}", "test: 30 of 30 inputs also occur in train"),
        (lambda split, label, number: f"{split}, {label}", "train: 28 of 30 inputs repeat another one"),
    ],
)
def test_copies_of_texts(tmp_path, change, message):
    with pytest.raises(UserError, match=f"text: your copy, x is not what it should be: .*{message}"):
        prepare("text", source_path=reviews(tmp_path / "x", change=change), size=90, tfds=False)
    assert list((tmp_path / "home" / "data" / "text").glob("*.partial")) == [], "what was read is of no use"


def test_the_lack_of_a_class_is_told(tmp_path):
    """Enough reviews of one class, none of the other, in folders of the right names."""
    path = reviews(tmp_path / "x", 60)
    for split in ("train", "test"):
        shutil.rmtree(path / split / "pos")
        (path / split / "pos").mkdir()
    with pytest.raises(UserError, match=r"train: the majority class has 100\.0%"):
        prepare("text", source_path=path, size=90, tfds=False)


# --- Pathfinder: difficulty, shades ---

HARD = "pathfinder32/curv_contour_length_14"


def drawings(root, kind="L", factor=1, contour=14, first=0, invert=False, label=None):
    rng = np.random.default_rng(1)
    (root / HARD / "metadata").mkdir(parents=True)
    (root / HARD / "imgs" / "0").mkdir(parents=True)
    told = ""
    for number in range(60):
        pixels = np.where(rng.random((32, 32)) < 0.2, rng.integers(0, 256, (32, 32)), 0)
        pixels[0, 0] = 255
        pixels = 255 - pixels if invert else pixels
        stored = (pixels * factor).astype(np.uint16 if factor > 1 else np.uint8)
        Image.fromarray(stored).convert(kind or None).save(root / HARD / "imgs" / "0" / f"sample_{number}.png")
        shown = number % 2 if label is None else label
        told += f"imgs/0 sample_{number}.png {number} {shown} 1.0 {contour} 4 2 0.5 1 1\n"
    (root / HARD / "metadata" / "0.npy").write_text(told)
    return root


def test_sixteen_bits_are_the_same_shades(tmp_path):
    plain = prepare("pathfinder", source_path=drawings(tmp_path / "plain"), size=50, tfds=False, verify=True)
    deep = drawings(tmp_path / "deep", "", 257)
    with Image.open(deep / HARD / "imgs/0/sample_0.png") as image:
        assert image.mode.startswith("I")
    folder = prepare("pathfinder", source_path=deep, size=50, tfds=False, verify=True)
    assert load_manifest(folder).fingerprint == load_manifest(plain).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "", "factor": 256}, r"sample_\d+\.png is an image of 16 bits, mode I.*times 257"),
        ({"kind": "1"}, r"sample_\d+\.png is an image of 1 bits, mode 1"),
        ({"contour": 6}, r"0\.npy, line 1, has curves of 6 paddles; those of curv_contour_length_14 have 14"),
        ({"contour": "nan"}, "has curves of nan paddles"),
        ({"invert": True}, "row 0 is mostly white"),
        ({"label": 1}, r"the majority class has 100\.0%"),
    ],
)
def test_images_of_another_meaning(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        prepare("pathfinder", source_path=drawings(tmp_path / "x", **options), size=50, tfds=False, verify=True)


def test_byte_order_mark_of_the_metadata(tmp_path):
    path = drawings(tmp_path / "x")
    plain = load_manifest(prepare("pathfinder", source_path=path, size=50, tfds=False)).fingerprint
    file = path / HARD / "metadata" / "0.npy"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_manifest(prepare("pathfinder", source_path=path, size=50, tfds=False)).fingerprint == plain


def test_images_made_here_say_where_they_differ(capfd):
    from lra_bench.commands.ls import described

    folder = prepare("pathfinder64", size=10, jobs=1, tfds=False, verify=True)
    assert "brighter curves" in capfd.readouterr().err
    manifest = load_manifest(folder)
    assert "brighter curves" in manifest.origin
    assert described(manifest) == "s4 generated 10 (differs from the released images)"
    assert "differs" not in described(load_manifest(prepare("pathfinder", size=10, jobs=1, tfds=False)))


# --- what --verify says, and finds ---


def test_verify_says_ranges_and_common_inputs(tmp_path):
    path = reviews(tmp_path / "x")
    (path / "test" / "neg" / "0_1.txt").write_text((path / "train" / "neg" / "0_1.txt").read_text())
    folder = prepare("text", source_path=path, size=300, tfds=False)
    told = verify(folder)
    assert any(line.startswith("lengths: ") for line in told)
    assert "equal inputs: 1 of val also in train, 1 of test also in train" in told
    shades = verify(prepare("pathfinder", source_path=drawings(tmp_path / "y"), size=50, tfds=False))
    assert any(line.startswith("shades of gray: 0 … 255, mean ") for line in shades)


def test_verify_finds_what_was_prepared_from_a_copy(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("lra_bench.data.sources.fetch", lambda *arguments: pytest.fail("it was downloaded"))
    path = reviews(tmp_path / "x")
    folder = prepare("text", source_path=path, size=90, tfds=False)
    other = prepare("text", source_path=reviews(tmp_path / "y", 61), size=90, tfds=False)
    capfd.readouterr()
    assert prepare("text", size=90, verify=True) in (folder, other)
    told = capfd.readouterr().err
    assert "your copy, x" in told
    assert "your copy, y" in told
    array = folder / "packed" / "test" / "labels.npy"
    data = bytearray(array.read_bytes())
    data[-4] ^= 1
    array.write_bytes(data)
    with pytest.raises(UserError, match="another SHA-256"):
        prepare("text", size=90, verify=True)


def test_verify_without_a_copy_prepares_as_before():
    folder = prepare("listops", size=30, jobs=1, tfds=False, verify=True)
    assert load_manifest(folder).source == "generated"
