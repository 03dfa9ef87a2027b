"""Every command as a user types it: what it prints, its exit code, and one useful sentence for each kind of bad
input."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from lra_bench import cli
from lra_bench.commands import train
from lra_bench.commands.options import chosen_results_dir
from lra_bench.paths import locked
from lra_bench.registry import every_task_name, model_names, task_names

COMMAND = get_command(cli.app)
"""The whole command line, which Typer would build again at each call."""


@pytest.fixture
def type_in(monkeypatch, capfd, tmp_path):
    """Runs `lra-bench WORDS` in this process; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "app", COMMAND)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lra-bench", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


def one_sentence(err):
    """What stands behind `Error:`; nothing else may be there, least of all a traceback."""
    assert "Traceback" not in err
    message = err[err.index("Error: ") :].removeprefix("Error: ").strip()
    assert message
    return re.sub(r"\s+", " ", message)


def python(code):
    return subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("words", [["--help"], ["ls", "tasks"], ["ls", "models"], ["ls", "recipes"], ["ls", "runs"]])
def test_fast_commands_import_no_jax(words, type_in, tmp_path):
    code = f"import sys; sys.argv = ['lra-bench', *{words!r}]\nfrom lra_bench.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "slow = {'jax', 'flax', 'optax', 'orbax', 'tensorflow', 'torch', 'scipy', 'numba'}\n"
    code += "assert not slow & set(sys.modules), slow & set(sys.modules)"
    done = python(code)
    assert done.returncode == 0


def test_report_imports_no_jax(tmp_path):
    (tmp_path / "results").mkdir()
    code = "import sys\nfrom pathlib import Path\nfrom lra_bench.report import report\n"
    code += f"report(Path({str(tmp_path / 'results')!r}))\nassert not {{'jax', 'tensorflow'}} & set(sys.modules)"
    assert python(code).returncode == 0


def test_version_and_help(type_in):
    assert type_in("--version")[1].strip() == "0.1.0"
    code, out, _ = type_in("--help")
    assert code == 0
    for command in (
        "quickstart",
        "prepare",
        "train",
        "evaluate",
        "report",
        "validate",
        "bench",
        "export",
        "import",
        "ls",
        "show",
        "rm",
        "doctor",
    ):
        assert command in out
        assert type_in(command, "--help")[0] == 0


def test_ls_lists_everything_as_json(type_in):
    assert [row["task"] for row in json.loads(type_in("ls", "tasks", "--json")[1])] == list(every_task_name())
    models = json.loads(type_in("ls", "models", "--json")[1])
    assert [row["model"] for row in models] == [name.replace("_", "-") for name in model_names()]
    recipes = {row["recipe"]: row for row in json.loads(type_in("ls", "recipes", "--json")[1])}
    assert recipes["s5-ptd/listops"]["published %"] == 62.75
    assert json.loads(type_in("ls", "runs", "--json")[1]) == []
    assert type_in("ls", "runs")[1] == "No runs yet.\n"


def test_show_knows_tasks_models_and_cells(type_in):
    assert json.loads(type_in("show", "listops", "--json")[1])["length"] == 2048
    assert json.loads(type_in("show", "s5-ptd", "--json")[1])["published %"]["listops"] == 62.75
    cell = json.loads(type_in("show", "s5/listops", "--json")[1])
    assert (cell["epochs"], cell["layer"]["d_state"]) == (40.0, 16)
    assert "weight_decay: 0.04" in type_in("show", "s5/listops")[1]
    code, _, err = type_in("show", "listop")
    assert code == 2
    assert "task" in one_sentence(err)


def test_doctor_tells_the_machine_and_never_who_uses_it(type_in):
    facts = json.loads(type_in("doctor", "--json")[1])
    assert facts["findings"]["devices"]["level"] in ("ok", "note")
    assert facts["findings"]["data"]["advice"] == "lra-bench prepare listops"
    code, out, _ = type_in("doctor")
    assert code == 0
    assert "[note] data: no task is prepared → lra-bench prepare listops" in out
    assert os.uname().nodename not in out


@pytest.mark.slow
def test_smoke_goes_from_data_to_table(type_in, monkeypatch, tmp_path):
    """prepare, train, evaluate, report, show and ls on one small run; again: nothing is done twice."""
    smoke = ["train", "--model", "s5-ptd", "--task", "listops", "--smoke", "--set", "epochs=1"]
    code, out, err = type_in(*smoke)
    assert code == 0, err
    assert "Plan" in err
    path = out.strip().splitlines()[-1]
    assert re.search(r"test accuracy \d+\.\d\d% \(n = 500; majority class \d+\.\d\d%", out)
    record = json.loads((tmp_path / path).read_text())
    assert record["published_recipe"] is False
    assert record["data"]["size"] == "tiny"
    assert os.uname().nodename not in json.dumps(record)
    assert type_in(*smoke)[1] == out

    runs = json.loads(type_in("ls", "runs", "--json")[1])
    assert [run["status"] for run in runs] == ["completed"]
    name = runs[0]["run"]
    assert runs[0]["epochs"] == "1 of 1"
    (row,) = [line for line in type_in("ls", "runs")[1].splitlines() if "completed" in line]
    assert name in row, "a pipe gets it in full"
    assert "batch_size=20, d_model=32, decay_epochs=2.0, epochs=1.0, n_layers=2; float32" in row
    short = name.rsplit("/", 1)[1]
    code, _, err = type_in("show", short.replace("-s0", "-s1"))
    assert code == 2
    assert f"Did you mean '{short}'?" in one_sentence(err)
    assert f"Did you mean '{short}'?" in one_sentence(type_in("evaluate", "x" + short)[2])
    assert "lr: 0.003  # the peak learning rate of the regular groups" in type_in("show", short)[1]
    err = type_in(*smoke, "--dry-run", "--seed", "1")[2]
    assert "compiling" not in err, "an earlier run tells what it takes"
    code, out, err = type_in("evaluate", name, "--window", "9999", "--json")
    assert code == 0, err
    scored = json.loads(out)
    assert scored["windows"] == {"9999": scored["test_accuracy"]} == {"9999": record["accuracy"]["test"]}
    (window,) = (tmp_path / "results").glob("listops/s5_ptd/window-9999-*-s0.json")
    assert json.loads(window.read_text())["whole"] == record["accuracy"]["test"]
    assert json.loads(type_in("show", path, "--json")[1]) == record
    assert json.loads(type_in("show", name.rsplit("/", 1)[1][:8], "--json")[1])["seed"] == 0
    code, out, _ = type_in("report")
    assert code == 0
    assert "Reduced data (not the benchmark)" in out
    for file in ("leaderboard.md", "leaderboard.csv", "leaderboard.tex"):
        assert (tmp_path / "results" / file).exists()

    assert type_in("report", "--check")[0] == 0
    (tmp_path / "results" / "leaderboard.md").write_text("by hand")
    code, _, err = type_in("report", "--check")
    assert code == 1
    assert "leaderboard.md" in one_sentence(err)
    assert json.loads(type_in("report", "--json", "--no-pictures")[1])
    assert type_in("validate")[0] == 0
    theirs = tmp_path / "theirs" / path.removeprefix("results/")
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    assert type_in("validate", "theirs")[0] == 1
    assert type_in("export", "runs.tar.xz")[1].strip().endswith("runs.tar.xz")
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "elsewhere"))
    assert name in type_in("import", "runs.tar.xz")[1]
    assert json.loads(type_in("ls", "runs", "--json")[1])[0]["run"] == name

    type_in("report", "--results-dir", "results")
    (tmp_path / "elsewhere-results").mkdir()
    _, _, err = type_in("report", "--results-dir", "elsewhere-results", "--no-pictures")
    assert f"Without a record in elsewhere-results: {name}. The command" in err
    assert "Without a record" not in type_in("report", "--no-pictures")[2]

    edited = {**record, "schema_version": 99}
    (tmp_path / path).write_text(json.dumps(edited))
    code, _, err = type_in("show", path)
    assert code == 2
    assert "schema version 99" in one_sentence(err)
    code, _, err = type_in("report")
    assert code == 0
    assert "schema version 99" in err


@pytest.fixture
def without_estimates(monkeypatch):
    """A dry run takes no steps to tell the time of a run."""
    monkeypatch.setattr(train, "estimates", lambda *_: {})


@pytest.mark.usefixtures("without_estimates")
def test_train_without_task_trains_what_is_prepared(type_in):
    code, _, err = type_in("train", "--model", "s5-ptd")
    assert code == 2
    assert "no task is prepared" in one_sentence(err)
    folder = type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")[1].strip().splitlines()[-1]
    assert folder.endswith("listops/s4-generated-tiny-0")
    small = ["--set", "n_layers=1", "--set", "d_model=8"]
    code, _, err = type_in("train", "--model", "s5-ptd", "--seed", "0", "--seed", "1", *small, "--dry-run")
    assert code == 0
    assert err.count("listops │ generated, s4, tiny") == 2
    assert "listops: only the tiny set of it is prepared here, so this is no result of the benchmark" in err
    assert "lra-bench prepare listops" in err


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_dry_run_writes_nothing_and_shows_what_a_run_takes(type_in, tmp_path):
    """With data and without; a layer whose perturbation must be solved for included."""
    type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")
    before = files_below(tmp_path)
    settings = {"n_layers": 1, "d_model": 8, "gamma": 0.4, "d_state": 32, "blocks": 2}
    small = [f"--set={key}={value}" for key, value in settings.items()]
    code, _, err = type_in("train", "--model", "s5-ptd", "--task", "listops", *small, "--dry-run")
    assert code == 0, err
    assert "compiling" in err
    (row,) = [line for line in err.splitlines() if "│ S5-PTD" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[5:8] == ["1,400", "50", "1,986"]  # steps, batch, parameters
    assert re.fullmatch(r"\d+ MiB", cells[8])
    assert re.fullmatch(r"\d+ (s|min)", cells[9])
    assert f"Results: {tmp_path / 'results'}" in err
    code, _, err = type_in("train", "--model", "s5", "--task", "image", "--smoke", "--dry-run")
    assert code == 0, err
    assert "image" in err
    assert files_below(tmp_path) == before


def test_a_run_that_cannot_train_is_refused_by_the_plan(type_in, tmp_path):
    type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")
    words = ["train", "--model", "s5", "--task", "listops", "--set", "batch_size=100000"]
    for more in ([], ["--dry-run"]):
        code, _, err = type_in(*words, *more)
        assert code == 2
        assert "batch_size must not exceed the 2000 training examples of listops, got 100000" in one_sentence(err)
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("without_estimates")
def test_only_epochs_says_that_the_schedule_stays(type_in):
    type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")
    words = ["train", "--model", "s5", "--task", "listops", "--set", "n_layers=1", "--set", "d_model=8", "--dry-run"]
    moved = "s5 on listops: --set epochs=2 does not move the schedule"
    assert moved in type_in(*words, "--set", "epochs=2")[2]
    assert moved not in type_in(*words, "--set", "epochs=2", "--set", "decay_epochs=2")[2]
    assert moved not in type_in(*words, "--set", "epochs=40")[2]
    assert moved not in type_in(*words, "--set", "epochs=2", "--set", "schedule=constant")[2]


def test_show_names_the_nearest_and_says_what_settings_mean(type_in):
    for typed, meant in [("listop", "listops"), ("s5-pdt", "s5-ptd"), ("S5/listops2", "s5/listops"), ("S4d", "s4d")]:
        code, _, err = type_in("show", typed)
        assert (code, f"Did you mean '{meant}'?" in one_sentence(err)) == (2, True)
    out = type_in("show", "s5/listops")[1]
    assert "epochs: 40.0" in out
    assert "decay_epochs: 40.0  # the duration of the whole schedule, warm-up included" in out
    assert "  d_state: 16  # the number P of states" in out
    assert "length: 2048  # the length L of a padded document" in type_in("show", "listops")[1]


@pytest.mark.slow
def test_rm_removes_runs_and_nothing_else(type_in, tmp_path, monkeypatch):
    smoke = ["train", "--model", "s5", "--task", "listops", "--smoke", "--set", "epochs=0.1", "--set", "n_layers=1"]
    type_in(*smoke, "--seed", "0", "--seed", "1")
    first, second = (run["run"] for run in json.loads(type_in("ls", "runs", "--json")[1]))
    folder = tmp_path / "home" / "runs" / first
    with locked(folder.with_name(f".{folder.name}.lock"), lambda: None):
        code, _, err = type_in("rm", first)
        assert code == 1
        assert "in use by another process" in one_sentence(err)
    code, out, _ = type_in("rm", first.rsplit("/", 1)[1])
    assert (code, out) == (0, f"removed {folder}\n")
    left = [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")]
    assert left == [second.rsplit("/", 1)[1]]
    assert len(list((tmp_path / "results").glob("*/*/*.json"))) == 2
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "home" / "runs" / second, copy)
    code, _, err = type_in("rm", copy)
    assert code == 2
    assert copy.exists()
    assert "not among the runs of this machine" in one_sentence(err)


def test_in_the_clone_records_do_not_enter_the_committed_ones(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert chosen_results_dir(None) == Path("results")
    clone = Path(cli.__file__).parent.parent
    for folder in (clone, clone / "examples", clone / "results"):
        monkeypatch.chdir(folder)
        assert chosen_results_dir(None) == tmp_path / "home" / "results"
    assert chosen_results_dir(Path("results")) == Path("results")


BAD = [
    (["train", "--model", "s44"], "unknown model 's44'"),
    (["train", "--model", "s5", "--task", "listop"], "unknown task 'listop'. Did you mean 'listops'?"),
    (["train", "--model", "s5", "--task", "listops"], "Type: lra-bench prepare listops"),
    (["train", "--model", "s5", "--seed", "1", "--seed", "1"], "each seed once"),
    (["train", "--model", "s5", "--model", "s5"], "each model once"),
    (["train", "--model", "s5", "--task", "listops", "--task", "listops"], "each task once"),
    (["train", "--task", "listops"], "no model is named. Type --model s5-ptd"),
    (["train", "--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    (["sweep", "--model", "s44", "--precision", "tf32"], "unknown model 's44'"),
    (["sweep", "--task", "listops"], "no model is named"),
    (["sweep", "--config", "nowhere.toml"], "nowhere.toml cannot be read"),
    (["sweep", "--model", "s5", "--set", "lr"], "--set takes KEY=VALUE"),
    (["sweep", "--model", "s5", "--json"], "--json is for --status"),
    (["sweep", "--model", "s5", "--seed", "1", "--seed", "1", "--precision", "tf32"], "each seed once"),
    (["sweep", "--model", "s5", "--task", "listops", "--precision", "tf32"], "Type: lra-bench prepare listops"),
    (["rm", "nothing"], "there is no run 'nothing'"),
    (["train", "--model", "s5", "--task", "listops", "--smoke", "--seed", str(2**32)], "--seed takes a number from 0"),
    (["train", "--model", "s5", "--task", "listops", "--set", "n_layers"], "--set takes KEY=VALUE"),
    (["prepare", "listop"], "unknown task 'listop'"),
    (["prepare", "listops", "textt", "--size", "tiny"], "unknown task 'textt'. Did you mean 'text'?"),
    (["prepare", "listops", "--size", "huge"], "--size takes full, tiny or a number"),
    (["prepare", "listops", "--from", "nowhere"], "nowhere"),
    (["evaluate", "nothing"], "there is no run 'nothing'"),
    (["report", "--results-dir", "nowhere"], "nowhere"),
    (["validate", "nowhere"], "nowhere"),
    (["import", "nowhere.tar.xz"], "nowhere.tar.xz is no file"),
    (["show", "nothing"], "`show` takes a task"),
    (["show", "s5/nothing"], "unknown task 'nothing'"),
    (["export", "."], "is a folder"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_sentence_and_exit_2(type_in, words, says):
    code, _, err = type_in(*words)
    assert code == 2
    assert says in one_sentence(err)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which the kernel makes no others")
def test_a_folder_that_cannot_be_made_is_one_sentence(type_in, tmp_path):
    (tmp_path / "results").mkdir()
    code, _, err = type_in("report", "--out", "/proc/nothing", "--no-pictures")
    assert code == 1
    assert "cannot be used" in one_sentence(err)


SETTINGS = [
    ("n_layer=4", "unknown setting 'n_layer'. Did you mean 'n_layers'? Legal: n_layers, d_model"),
    ("n_layers=four", "n_layers must be a whole number, got 'four'"),
    ("n_layers=0", "n_layers must be at least 1, got 0"),
    ("dropout=1.5", "dropout must be less than 1.0, got 1.5"),
    ("epochs=Infinity", "--set epochs takes finite numbers; got Infinity"),
    ("lr=1e999", "--set lr takes finite numbers; got 1e999"),
    ("groups=null", "groups must be a dictionary, got None"),
    ('groups={"steps": "ssm"}', "groups.steps must be 'eigenvalues', 'input'"),
    ("layer={}", "unknown setting 'layer'"),
    ("schedule=triangle", "schedule must be 'reference', 'cosine'"),
    ("d_state=15", "d_state must be a multiple of 2·blocks = 16"),
    ("d_state=1000000000", "d_state must be at most 65536"),
    ("n_layers=2000", "n_layers must be at most 1000"),
    ("activation=relu", "activation must be 'full_glu'"),
    ("pixels=unit", "exactly one of embedding and pixels must be set"),
]


@pytest.mark.parametrize(("setting", "says"), SETTINGS)
def test_bad_settings_name_what_is_legal(type_in, setting, says):
    code, _, err = type_in("train", "--model", "s5", "--task", "listops", "--smoke", "--dry-run", "--set", setting)
    assert code == 2
    assert says in one_sentence(err)


def test_arrays_that_disagree_with_the_manifest_are_refused(type_in):
    folder = type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")[1].strip().splitlines()[-1]
    labels = f"{folder}/packed/train/labels.npy"
    np.save(labels, np.load(labels)[:-1])
    code, _, err = type_in("train", "--model", "s5", "--task", "listops", "--set", "epochs=0.1")
    assert code == 2
    assert "labels" in one_sentence(err)


def test_what_the_disk_refuses_is_one_sentence(type_in, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = type_in("train", "--model", "s5", "--task", "listops", "--smoke", "--results-dir", "file")
    assert code == 2
    assert "no record can be written to file" in one_sentence(err)
    folder = type_in("prepare", "listops", "--size", "tiny", "--jobs", "1")[1].strip().splitlines()[-1]
    runs = tmp_path / "home" / "runs"
    runs.write_text("")
    code, _, err = type_in("train", "--model", "s5", "--task", "listops")
    assert code == 1
    assert one_sentence(err).startswith(f"{runs}/listops/s5")
    assert folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_smoke_trains_every_task(type_in, tmp_path):
    """Retrieval with its two documents included: six plans, six results, six records."""
    code, out, err = type_in("train", "--model", "s5-ptd", "--smoke", "--set", "epochs=0.3", "--set", "n_layers=1")
    assert code == 0, err
    printed = re.findall(r"^(\w+) S5-PTD seed 0: test accuracy", out, re.MULTILINE)
    assert printed == list(task_names())
    records = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/s5_ptd/*.json")]
    assert {record["data"]["task"] for record in records} == set(task_names())
    assert {record["status"] for record in records} == {"completed"}


@pytest.mark.slow
def test_quickstart_learns_and_prints_its_table(type_in, tmp_path):
    """At least ten points above the majority class of the same test set, both printed."""
    code, out, err = type_in("quickstart")
    assert code == 0, err
    accuracy, majority = map(float, re.search(r"test accuracy (\d+\.\d+)% .*majority class (\d+\.\d+)%", out).groups())
    assert accuracy >= majority + 10
    assert (tmp_path / "quickstart-results" / "leaderboard.md").exists()
    assert "lra-bench prepare listops" in out
