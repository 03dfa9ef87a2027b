"""Damaged and hostile files in every command: no traceback, no neighbor lost, no escape code on the terminal."""

import json
import os
import sys

import pytest
from typer.main import get_command

from lra_bench import cli
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError
from lra_bench.json_files import LARGEST, parse_json, read_json
from lra_bench.paths import runs_folder
from lra_bench.plain_text import one_line, plain
from lra_bench.records.files import record_text, write_record
from lra_bench.records.finished import load_finished, mend_finished, write_finished
from lra_bench.report.select import load
from lra_bench.runs import transfer
from lra_bench.runs.run import find_run, load_run, write_settings
from lra_bench.training.train import train
from tests.hostile import ESCAPES, LOUD, hostile_files
from tests.made_records import honest_bench, honest_data, honest_record, honest_run, robustness_record

SOUND = {
    "train": honest_record(seed=1),
    "bench": honest_bench(),
    "robustness": robustness_record(data=honest_data("image").model_dump()),
}
RECORDS = {
    f"{kind}: {name}": content
    for kind, record in SOUND.items()
    for name, content in hostile_files(json.loads(record.model_dump_json())).items()
}
RUN = honest_run(SOUND["train"])
COMMAND = get_command(cli.app)
"""The whole command line, which Typer would build again at each call."""


@pytest.fixture
def type_in(capsys, monkeypatch):
    """Run a command as `main` does, and return its exit code and everything it printed."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(cli, "app", COMMAND)
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["lra-bench", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        printed = "".join(capsys.readouterr())
        assert not [character for character in LOUD if character in printed]
        return code, printed

    return typed


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_record_is_listed_and_its_neighbor_kept(tmp_path, type_in, name):
    write_record(tmp_path, honest_record(seed=0))
    path = tmp_path / "listops" / "s5" / "bad-s1.json"
    path.write_bytes(RECORDS[name])
    code, printed = type_in("validate", tmp_path)
    assert code == 1
    assert "bad-s1.json" in printed
    loaded, refused = load(tmp_path)
    assert len(loaded) == 1
    assert [item.id for item in refused] == ["listops/s5/bad-s1"]
    code, printed = type_in("show", path)
    assert code == 2
    assert len(printed) < 2000


@pytest.mark.parametrize("name", ["deep lists", "all numbers NaN", "escapes raw", "large file", "surrogate"])
def test_a_report_and_doctor_list_it(tmp_path, type_in, name):
    write_record(tmp_path, honest_record(seed=0))
    (tmp_path / "listops" / "s5" / "bad-s1.json").write_bytes(RECORDS[f"train: {name}"])
    code, printed = type_in("report", "--results-dir", tmp_path, "--no-pictures")
    assert code == 0
    assert "Left out: listops/s5/bad-s1.json: the file " in printed
    assert "62.0" in printed
    assert "Left out:" not in type_in("report", "--results-dir", tmp_path, "--no-pictures", "--skip-unreadable")[1]
    code, printed = type_in("doctor", "--results-dir", tmp_path)
    assert code == 1
    assert "[problem] records: 1 of 2" in printed


HOSTILE_RUNS = hostile_files(json.loads(RUN.model_dump_json()))


@pytest.mark.parametrize("name", HOSTILE_RUNS)
def test_a_hostile_run_is_listed_and_its_neighbor_kept(type_in, tmp_path, name):
    neighbor = honest_run(honest_record(seed=0))
    for run in (neighbor, RUN):
        run.folder.mkdir(parents=True)
        (run.folder / "run.json").write_text(run.model_dump_json())
    (RUN.folder / "run.json").write_bytes(HOSTILE_RUNS[name])
    rows = {row["run"]: row["status"] for row in json.loads(type_in("ls", "runs", "--json")[1])}
    assert rows == {neighbor.name: "unfinished", RUN.name: "unreadable"}
    assert type_in("show", RUN.name)[0] == 2
    assert type_in("show", neighbor.name)[0] == 0
    code, printed = type_in("export", tmp_path / "runs.tar.xz")
    assert code == 0
    assert printed.count("describes no run of this lra-bench") == 1
    assert type_in("export", tmp_path / "runs.tar.xz", "--run", RUN.name)[0] == 2
    assert "[problem] runs: 1 of 2 cannot be used" in type_in("doctor")[1]


def test_a_run_with_the_description_of_another_is_not_read(type_in):
    RUN.folder.mkdir(parents=True)
    changed = RUN.model_copy(update={"seed": 7})
    (RUN.folder / "run.json").write_text(changed.model_dump_json())
    assert "holds the settings of another run" in type_in("show", RUN.name)[1]


def test_a_damaged_result_is_listed(type_in):
    for seed in (0, 1):
        record = honest_record(seed=seed)
        folder = honest_run(record).folder
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(honest_run(record).model_dump_json())
        (folder / "result.json").write_text(record_text(record) if seed else record_text(record)[:-100])
    statuses = [row["status"] for row in json.loads(type_in("ls", "runs", "--json")[1])]
    assert statuses == ["unreadable", "completed"]
    assert "[problem] runs: 1 of 2" in type_in("doctor")[1]


@pytest.mark.slow
def test_a_damaged_set_stops_nothing_but_itself(type_in):
    folder = prepare("listops", size="tiny", jobs=1)
    sound = json.loads((folder / "manifest.json").read_text())
    other = folder.with_name("old")
    other.mkdir()
    train = ("train", "--model", "s5", "--task", "listops", "--dry-run", "--precision", "float32", "--data")
    for number, content in enumerate(hostile_files(sound).values()):
        (other / "manifest.json").write_bytes(content)
        code, printed = type_in("ls", "tasks")
        assert code == 0
        assert "generated tiny" in printed
        with pytest.raises(UserError):
            load_manifest(other)
        if number == 0:  # these start JAX
            assert type_in(*train, folder.name)[0] == 0
            assert type_in(*train, "old")[0] == 2
            code, printed = type_in("doctor")
            assert code == 1
            assert "[problem] data: prepared: listops (s4, generated, tiny); " in printed
            assert str(other) in printed
    (other / "manifest.json").write_text(json.dumps({**sound, "task": "text"}))
    assert "was changed after it was written" in type_in("doctor")[1]


def test_what_is_no_file_is_not_waited_for(tmp_path, type_in):
    write_record(tmp_path, honest_record(seed=0))
    folder = tmp_path / "listops" / "s5"
    os.mkfifo(folder / "pipe-s1.json")
    (folder / "nowhere-s2.json").symlink_to(tmp_path / "nowhere")
    (folder / "loop-s3.json").symlink_to(folder / "loop-s3.json")
    (folder / "\x1b[31mname-s4.json").write_text("{")
    os.close(os.open(os.fsencode(folder) + b"/\xff-s5.json", os.O_CREAT))
    loaded, refused = load(tmp_path)
    assert (len(loaded), len(refused)) == (1, 5)
    assert type_in("validate", tmp_path)[0] == 1
    assert type_in("report", "--results-dir", tmp_path, "--no-pictures")[0] == 0
    assert type_in("show", "x" * 300)[0] in (1, 2)


def test_a_terminal_gets_text_only():
    assert not [character for character in LOUD if character in one_line(ESCAPES) + plain(ESCAPES)]
    assert plain("two\nlines\tand ÄЖ漢") == "two\nlines\tand ÄЖ漢"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[1e999]", "too large to be finite"),
        (b"[9223372036854775808]", "more than 64 bits"),
        (b'{"a": 1, "a": 2}', "the key 'a' twice"),
        (b"[" * 33 + b"]" * 33, "deeper than 32"),
        (b'["\\u001b"]', "control characters"),
        (b'{"\\u202e": 1}', "control characters"),
        (b'["\\ud800"]', "half a character"),
        (b'"' + b"x" * 70_000 + b'"', "70,000 characters"),
    ],
)
def test_each_limit_of_json(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        parse_json(content, "it")
    (tmp_path / "it.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "it.json")


def test_within_the_limits_json_is_what_it_is(tmp_path):
    value = {"a": [1, -(2**63), 2**63 - 1, 1e308, "x" * 1000, None, True], "tab\tand\nline": {}}
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json('["\\u0085"]', "it", control_characters=True) == ["\x85"]
    (tmp_path / "it.json").write_bytes(b" " * LARGEST + b"1")
    with pytest.raises(UserError, match="at most"):
        read_json(tmp_path / "it.json")
    assert not runs_folder().exists()


def test_an_edited_result_is_found_by_its_checksum_and_not_imported(type_in, tmp_path, monkeypatch):
    """The edit contradicts no other number of the record."""
    record = honest_record(seed=0)
    run = honest_run(record)
    write_settings(run)
    write_finished(run.folder, record)
    assert "[ok] runs: 1" in type_in("doctor")[1]
    result = run.folder / "result.json"
    result.write_text(result.read_text().replace(record.provenance.finished, "2020-01-01T00:00:00Z"))
    assert "result.json has another SHA-256" in type_in("doctor")[1]
    assert "result.json has another SHA-256" in type_in("export", tmp_path / "runs.tar.xz")[1]
    monkeypatch.setattr(transfer, "_dropped", lambda folder: ())  # as an earlier version packed it
    type_in("export", tmp_path / "runs.tar.xz")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "elsewhere"))
    assert "result.json has another SHA-256" in type_in("import", tmp_path / "runs.tar.xz")[1]
    assert json.loads(type_in("ls", "runs", "--json")[1]) == []


def test_an_edited_record_is_said_where_its_run_is_here(type_in, tmp_path):
    """The edit contradicts no other number of the record, but what the run wrote."""
    record = honest_record(seed=0)
    write_settings(honest_run(record))
    write_finished(honest_run(record).folder, record)
    path = write_record(tmp_path / "results", record)
    told = "Not as the runs of this machine wrote them: listops/s5/"
    report = ("report", "--results-dir", tmp_path / "results", "--no-pictures")
    assert told not in type_in(*report)[1]
    path.write_text(path.read_text().replace(record.provenance.finished, "2020-01-01T00:00:00Z"))
    assert told in type_in(*report)[1]
    assert "not what its run on this machine wrote" in type_in("validate", tmp_path / "results")[1]
    path.write_text(record_text(record).replace(record.provenance.command, "lra-bench train"))
    assert "Records that look wrong: 1, the first listops/s5/" in type_in(*report)[1]


def test_a_report_of_no_folder_names_the_runs_that_have_results(type_in, tmp_path):
    record = honest_record(seed=0)
    write_settings(honest_run(record))
    write_finished(honest_run(record).folder, record)
    code, printed = type_in("report", "--results-dir", tmp_path / "nothing")
    assert code == 2
    assert f"Without a record in {tmp_path / 'nothing'}: {honest_run(record).name}. The command" in printed


@pytest.mark.parametrize("damaged", ["run.json", "result.json", "SHA256SUMS"])
def test_a_damaged_finished_run_is_mended_by_its_command(type_in, tmp_path, damaged):
    record = honest_record(seed=0)
    run = honest_run(record)
    write_settings(run)
    write_finished(run.folder, record)
    path = write_record(tmp_path, record)
    before = {file.name: file.read_bytes() for file in run.folder.iterdir()}
    if damaged == "SHA256SUMS":
        (run.folder / damaged).unlink()
    else:
        (run.folder / damaged).write_bytes(before[damaged].replace(b"1", b"2"))
    assert "cannot be used" in type_in("doctor")[1]
    if damaged == "result.json":
        path.rename(tmp_path / "elsewhere")
        mend_finished(run, tmp_path)
        with pytest.raises(UserError, match=r"result\.json before: then the last checkpoint is tested again"):
            load_finished(run.folder)
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere").rename(path)
    mend_finished(run, tmp_path)
    assert {file.name: file.read_bytes() for file in run.folder.iterdir()} == before
    assert load_run(run.folder) == run


def test_the_same_edit_here_and_in_the_results_proves_nothing(type_in, tmp_path):
    """The checksum of what the run wrote is still there."""
    record = honest_record(seed=0)
    run = honest_run(record)
    write_settings(run)
    write_finished(run.folder, record)
    for path in (run.folder / "result.json", write_record(tmp_path / "results", record)):
        path.write_text(path.read_text().replace(record.provenance.finished, "2020-01-01T00:00:00Z"))
    assert "not what its run on this machine wrote" in type_in("validate", tmp_path / "results")[1]
    mend_finished(run, tmp_path / "results")
    with pytest.raises(UserError, match="is damaged"):
        load_finished(run.folder)


def test_an_exact_name_means_one_run(type_in):
    for seed in (1, 10):
        write_settings(honest_run(honest_record(seed=seed)))
    one = honest_run(honest_record(seed=1)).folder
    assert find_run(one.name) == find_run("/".join(one.parts[-3:])) == one
    with pytest.raises(UserError, match="means 2 runs"):
        find_run(one.name[:-3])
    with pytest.raises(UserError, match="unknown run ''"):
        find_run("")


def test_no_file_of_the_users_own_is_replaced_by_a_report(type_in, tmp_path):
    write_record(tmp_path / "results", honest_record(seed=0))
    for folder, name in (("out", "README.md"), ("site", "index.html")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("mine")
        code, told = type_in(
            "report", "--results-dir", tmp_path / "results", "--no-pictures", f"--{folder}", tmp_path / folder
        )
        assert (code, (tmp_path / folder / name).read_text()) == (2, "mine"), told


def test_what_is_no_run_where_runs_lie_is_listed_and_can_be_removed(type_in, tmp_path):
    lost = honest_run(honest_record(seed=0)).folder
    (lost / "checkpoints").mkdir(parents=True)
    stray = honest_run(honest_record(seed=1)).folder
    stray.write_text("")
    rows = {row["run"].rpartition("-s")[2]: row["status"] for row in json.loads(type_in("ls", "runs", "--json")[1])}
    assert rows == {"0": "unreadable", "1": "unreadable"}
    assert "2 of the runs cannot be read: lra-bench doctor says why" in type_in("ls", "runs")[1]
    told = type_in("doctor")[1]
    assert (
        "it has no run.json. Type the `lra-bench train` of this run again, which writes its settings anew, or" in told
    )
    assert f"is a file, where the folder of a run belongs. To remove it: lra-bench rm {stray.name}" in told
    with pytest.raises(UserError, match="is a file, where the folder of a run belongs"):
        train(honest_run(honest_record(seed=1)), tmp_path, tmp_path)
    for folder in (lost, stray):
        assert type_in("rm", folder.name)[0] == 0
        assert not folder.exists()


def test_settings_typed_in_any_order_are_one_command():
    record = honest_record(overrides={"n_layers": 2, "d_model": 64})
    again = honest_record(overrides={"d_model": 64, "n_layers": 2})
    assert honest_run(record).command == honest_run(again).command
