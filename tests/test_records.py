"""Result records: written once, atomically, path-safe; read back equal; other schemas refused or lifted."""

import json
from pathlib import Path

import pytest

from lra_bench.errors import UserError
from lra_bench.records import files, schema
from lra_bench.records.files import (
    load_any,
    load_record,
    parse_record,
    path_of,
    record_files,
    write_record,
)
from lra_bench.records.validate import validate
from lra_bench.report import report
from tests.made_records import bench_record, load_records, robustness_record, train_record, window_record

pytestmark = pytest.mark.usefixtures("unproved")

KINDS = {"train": train_record, "bench": bench_record, "robustness": robustness_record, "window": window_record}


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_comes_back_equal_and_is_written_once(tmp_path, kind):
    record = KINDS[kind]()
    path = write_record(tmp_path, record)
    assert path == path_of(tmp_path, record)
    assert load_any(path) == record
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert write_record(tmp_path, record) == path
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    with pytest.raises(UserError, match="already holds another result"):
        write_record(tmp_path, record.model_copy(update={"note": "edited"}))
    assert path.read_bytes() == before[1]
    assert [found.name for found in path.parent.iterdir()] == [path.name], "no temporary file stays behind"


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_an_earlier_version_wrote_with_fewer_fields_is_the_same(tmp_path, kind):
    record = KINDS[kind]()
    path = write_record(tmp_path, record)
    fields = json.loads(path.read_text())
    del fields["note"]
    path.write_text(json.dumps(fields))
    assert write_record(tmp_path, record) == path
    assert json.loads(path.read_text()) == fields


def test_kinds_do_not_collide_and_only_training_records_are_training_records(tmp_path):
    paths = [write_record(tmp_path, make()) for make in KINDS.values()]
    assert len(set(paths)) == len(KINDS)
    assert set(record_files(tmp_path)) == set(paths)
    assert load_records(tmp_path) == [train_record()]
    bench = path_of(tmp_path, bench_record())
    with pytest.raises(UserError, match="bench record"):
        load_record(bench)


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a\\b", "a\x00b", "-s5"])
def test_a_name_that_leaves_its_folder_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="cannot name a results folder"):
        write_record(tmp_path / "results", train_record(model=name))
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_model_is_a_legal_name(tmp_path):
    record = train_record(model="my_pkg.my_layer:MyLayer")
    assert load_any(write_record(tmp_path, record)) == record


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": true}', "schema version True"),
        ('{"schema_version": 1, "kind": "other"}', "is not a result record"),
    ],
)
def test_a_file_that_is_no_record_of_this_schema_is_named(tmp_path, text, message):
    path = tmp_path / "listops" / "s5" / "abc-s0.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_records(tmp_path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_any(path)


def test_an_unknown_key_and_a_wrong_type_are_named():
    fields = train_record().model_dump(mode="json")
    with pytest.raises(UserError, match="surprise"):
        parse_record(json.dumps({**fields, "surprise": 1}), "it")
    with pytest.raises(UserError, match="seed"):
        parse_record(json.dumps({**fields, "seed": "zero"}), "it")


def test_older_schema_versions_are_lifted_step_by_step(monkeypatch):
    fields = train_record().model_dump(mode="json")
    old = {**fields, "schema_version": -1, "remark": fields["note"]}
    del old["note"]

    def to_0(data):
        return {
            **{key: value for key, value in data.items() if key != "remark"},
            "note": data["remark"],
            "schema_version": 0,
        }

    monkeypatch.setattr(files, "MIGRATIONS", {-1: to_0, 0: lambda data: {**data, "schema_version": 1}})
    assert parse_record(json.dumps(old), "old") == train_record()


RESULTS = Path(__file__).parents[1] / "results"


def test_the_committed_schema_is_the_models():
    """`lra-bench report` writes it anew."""
    assert json.loads((RESULTS / "schema.json").read_text(encoding="utf-8")) == schema.schema()


def test_the_schema_and_the_models_accept_and_refuse_the_same():
    made = schema.schema()
    assert set(made["discriminator"]["mapping"]) == set(KINDS)
    for kind, make in KINDS.items():
        part = made["$defs"][made["discriminator"]["mapping"][kind].rsplit("/", 1)[1]]
        fields = make().model_dump(mode="json")
        assert set(part["required"]) <= set(fields) == set(part["properties"])
        assert part["additionalProperties"] is False


def test_the_committed_tables_are_what_the_committed_records_give():
    report(RESULTS, check=True)


def test_the_committed_records_have_no_errors():
    assert [str(problem) for problem in validate(RESULTS) if problem.severity == "error"] == []
