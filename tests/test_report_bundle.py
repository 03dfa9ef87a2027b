"""Bundles: chosen records and their tables; what comes in is checked before any of it is written."""

import io
import json
import zipfile
from hashlib import sha256

import pytest

from lra_bench import UserError
from lra_bench.report.bundle import bundle, receive
from lra_bench.results import load_records, path_of, record_files, write_record
from tests.made_records import bench_record, robustness_record, train_record


def sound(model, **change):
    return train_record(model, epochs=40, **change)


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    trained = [sound("s5"), sound("s5", seed=1), sound("s4", task="image"), sound("s5_ptd", task="image")]
    for record in (*trained, bench_record("s5"), robustness_record("s4")):
        write_record(folder, record)
    return folder


def rewritten(source, out, change):
    """The bundle with its files changed by `change(name, bytes)` and the manifest's sums made to fit."""
    with zipfile.ZipFile(source) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if name != "MANIFEST.json"}
    content = {name: change(name, data) for name, data in content.items()}
    sums = {name: sha256(data).hexdigest() for name, data in content.items()}
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr("MANIFEST.json", json.dumps({"format": 1, "sha256": sums}))
    return out


def test_there_and_back(results, tmp_path):
    made = bundle(results, tmp_path / "all.zip")
    target = tmp_path / "other"
    taken = receive(made, target)
    assert len(taken) == 6
    assert {p.relative_to(target): p.read_bytes() for p in record_files(target)} == {
        p.relative_to(results): p.read_bytes() for p in record_files(results)
    }
    assert receive(made, target) == [], "a second time there is nothing new"


def test_the_same_bytes_again(results, tmp_path):
    assert bundle(results, tmp_path / "a.zip").read_bytes() == bundle(results, tmp_path / "b.zip").read_bytes()


def test_only_what_was_chosen_with_tables_of_it_alone(results, tmp_path):
    made = bundle(results, tmp_path / "some.zip", models=["s5-ptd", "s4"], tasks=["image"])
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        table = archive.read("tables/leaderboard.md").decode()
    records = [name for name in names if name.startswith("records/")]
    assert len(records) == 3
    assert all("/image/" in name for name in records)
    assert sorted(name for name in names if name.startswith("recipes/")) == [
        "recipes/image-s4-aaaaaaaaaaaa.json",
        "recipes/image-s5-ptd-aaaaaaaaaaaa.json",
    ]
    assert "| s5-ptd |" in table
    assert "| s5 |" not in table
    with pytest.raises(UserError, match="No record"):
        bundle(results, tmp_path / "none.zip", models=["lru"])


def test_an_unsound_record_is_not_shared(results, tmp_path):
    write_record(results, sound("lru", note="/home/somebody/x"))
    with pytest.raises(UserError, match="somebody's machine"):
        bundle(results, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
    bundle(results, tmp_path / "x.zip", models=["s5"])


def _edited(name, data):
    if not name.startswith("records/image/s4/a"):
        return data
    fields = json.loads(data)
    fields["accuracy"]["test"] = 1.7
    return json.dumps(fields).encode()


def _moved(name, data):
    return sound("lru").model_dump_json().encode() if name.startswith("records/image/s4/a") else data


def _escaping(name, data):
    record = sound("s5").model_copy(update={"model": "../../../outside"})
    return record.model_dump_json().encode() if name.startswith("records/image/s4/a") else data


def _no_record(name, data):
    return b'{"schema_version": 1, "kind": "train"}' if name.startswith("records/image/s4/a") else data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_edited, "outside"),
        (_moved, "belongs into"),
        (_escaping, "cannot name a results folder"),
        (_no_record, "not a result record"),
    ],
)
def test_what_is_not_sound_is_refused_whole(results, tmp_path, change, message):
    bad = rewritten(bundle(results, tmp_path / "good.zip"), tmp_path / "bad.zip", change)
    target = tmp_path / "target"
    with pytest.raises(UserError, match=message):
        receive(bad, target)
    assert not target.exists()
    assert not (tmp_path / "outside").exists()


def test_a_checksum_that_does_not_match(results, tmp_path):
    good = bundle(results, tmp_path / "good.zip")
    with zipfile.ZipFile(good) as archive:
        manifest = archive.read("MANIFEST.json")
        content = {name: archive.read(name) for name in archive.namelist() if name != "MANIFEST.json"}
    out = tmp_path / "bad.zip"
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("MANIFEST.json", manifest)
        for name, data in content.items():
            archive.writestr(name, data.replace(b"NVIDIA", b"nvidia") if name.startswith("records/") else data)
    with pytest.raises(UserError, match="checksum"):
        receive(out, tmp_path / "target")


def test_another_result_of_the_same_run_is_never_overwritten(results, tmp_path):
    made = bundle(results, tmp_path / "all.zip")
    target = tmp_path / "target"
    mine = sound("s5", seed=1, test=0.5)
    write_record(target, mine)
    with pytest.raises(UserError, match="already holds another result"):
        receive(made, target)
    assert load_records(target) == [mine]
    assert record_files(target) == [path_of(target, mine)]


def test_a_file_that_is_no_bundle(tmp_path):
    text = tmp_path / "x.zip"
    text.write_text("no zip")
    with pytest.raises(UserError, match="no bundle"):
        receive(text, tmp_path / "target")
    with pytest.raises(UserError, match="no bundle"):
        receive(tmp_path / "missing.zip", tmp_path / "target")
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("MANIFEST.json", "[]")
    text.write_bytes(empty.getvalue())
    with pytest.raises(UserError, match="not of format"):
        receive(text, tmp_path / "target")
