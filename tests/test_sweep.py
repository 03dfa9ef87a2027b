"""Sweeps: which runs they are, how far each is, and that the engines train each once and lose none."""

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from typer.main import get_command

from lra_bench import cli
from lra_bench.data.manifest import load_manifest
from lra_bench.errors import UserError, WorkError
from lra_bench.runs.locking import is_training, run_locked
from lra_bench.runs.plan import PlannedRun
from lra_bench.runs.run import make_run, write_settings
from lra_bench.runs.standing import PositionWriter, failure_noted, note_failure, read_position
from lra_bench.sweeps import local, slurm
from lra_bench.sweeps.cells import cells_of, command_words, standing_of
from lra_bench.sweeps.config import choices, sweep_of
from lra_bench.sweeps.view import LiveView, clock, counts, one_view, rows_of

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 0.4, "decay_epochs": 1.0}

FILE = """
model = "s5"
task = ["listops"]
seed = [0, 1]
size = "tiny"

[set]
n_layers = [1, 2]
d_model = 8

[range.lr]
low = 1e-4
high = 1e-2
scale = "log"

[range.batch_size]
low = 10
high = 12

[random]
draws = 50
seed = 3
"""


@pytest.fixture
def home(data, tmp_path, monkeypatch):
    """A home of this test's own with the module's prepared data."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").symlink_to(data.parent.parent)
    monkeypatch.setenv("LRA_BENCH_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


def cells(data, seeds=(0, 1), **changes):
    info = load_manifest(data).data_info
    return [PlannedRun(make_run(info, "s5", seed, {**SMALL, **changes}, "float32"), data) for seed in seeds]


def described(tmp_path, text, **typed):
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    return sweep_of(file, typed)


def test_settings_that_are_typed_twice_are_two_runs_each():
    given = choices(["lr=0.1", "norm=layer", "lr=0.2"])
    assert given == {"lr": [0.1, 0.2], "norm": ["layer"]}
    sweep = sweep_of(None, {"model": ["s5"], "set": given | {"n_layers": [1, 2]}})
    found = [(each["lr"], each["norm"], each["n_layers"]) for each in sweep.combinations()]
    assert found == [(lr, "layer", n) for lr in (0.1, 0.2) for n in (1, 2)]
    assert sweep_of(None, {"model": ["s5"]}).combinations() == [{}]


def test_random_search_draws_the_same_everywhere_and_within_its_ranges(tmp_path):
    drawn = described(tmp_path, FILE).combinations()
    assert drawn == described(tmp_path, FILE).combinations()
    assert drawn[0] == {"n_layers": 1, "d_model": 8, "lr": 0.0005494, "batch_size": 11}
    assert {each["n_layers"] for each in drawn} == {1, 2}
    assert {each["batch_size"] for each in drawn} == {10, 11, 12}
    assert all(1e-4 <= each["lr"] <= 1e-2 for each in drawn)
    assert 15 <= sum(each["lr"] < 1e-3 for each in drawn) <= 35, "on a log scale half lie below the middle"
    other = described(tmp_path, FILE, random={"seed": 4}).combinations()
    assert len(other) == len(drawn)
    assert other != drawn


def test_what_is_typed_replaces_what_the_file_says(tmp_path):
    sweep = described(tmp_path, FILE, seed=[7], set={"d_model": [16]}, size=None, model=None)
    assert (sweep.model, sweep.seed, sweep.size) == (["s5"], [7], "tiny")
    assert sweep.set == {"n_layers": [1, 2], "d_model": [16]}


BAD_FILES = [
    ("model = ", "is not TOML: Invalid value"),
    ('task = "listops"', "no model is named"),
    ('model = "s5"\nmodels = "s5"', "unknown key 'models'. Did you mean 'model'? Legal: model, task, seed, set, range"),
    ('model = "s5"\nseed = "0"', "seed.0 must be a whole number, got '0'"),
    ("model = []", "model: List should have at least 1 item"),
    ('model = "s5"\nprecision = "fp8"', "precision must be 'float32', 'tf32' or 'bfloat16', got 'fp8'"),
    ('model = "s5"\nset = 3', "set must be a dictionary, got 3"),
    ('model = "s5"\n[set]\nlr = []', "set.lr lists no value"),
    ('model = "s5"\n[range]\nlr = 3', "range.lr"),
    ('model = "s5"\n[range.lr]\nlow = 1\nhi = 2', "unknown key 'hi'. Did you mean 'high'?"),
    ('model = "s5"\n[range.lr]\nlow = 1\nhigh = 2', "say how often, as in --random 20"),
    ('model = "s5"\n[range.lr]\nlow = 2\nhigh = 1', "low must be less than high, got 2 and 1"),
    ('model = "s5"\n[range.lr]\nlow = 0.0\nhigh = 1\nscale = "log"', "a range on a log scale begins above 0"),
    ('model = "s5"\n[range.lr]\nlow = nan\nhigh = 1', "range.lr"),
    ('model = "s5"\nseed = ' + "1" * 5_000, "is not TOML"),
    ('model = "s5"\n[range.lr]\nlow = 1\nhigh = 1' + "0" * 400, "range.lr"),
    ('model = "s5"\n[random]\ndraws = 0', "random.draws must be at least 1, got 0"),
    ('model = "s5"\n[random]\ncount = 3', "unknown key 'count'. Legal: draws, seed"),
    ('model = "s5"\n[set]\nlr = 1\n[range.lr]\nlow=1\nhigh=2\n[random]\ndraws=1', "lr is both in set and in range"),
]


@pytest.mark.parametrize(("text", "says"), BAD_FILES)
def test_a_mistake_in_a_file_is_one_sentence(tmp_path, text, says):
    with pytest.raises(UserError) as told:
        described(tmp_path, text)
    assert says in str(told.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "latin").write_bytes(b"model = '\xe4'")
    (tmp_path / "large").write_bytes(b"#" * (2 << 20))
    for name, says in [
        ("none", "none cannot be read"),
        (".", "cannot be read"),
        ("latin", "not UTF-8"),
        ("large", "more"),
    ]:
        with pytest.raises(UserError, match=says):
            sweep_of(tmp_path / name, {})
    many = {"model": ["s5"], "set": {key: list(range(30)) for key in ("lr", "ssm_lr", "epochs")}}
    with pytest.raises(UserError, match="27,000 combinations; at most 10,000"):
        sweep_of(None, many).combinations()


def test_every_printed_command_trains_its_cell(home, data, tmp_path, capsys):
    """Read by a shell and by `train`, it is the same run; settings that mean the same are one run."""
    typed = {"model": ["s5", "s4d"], "task": ["listops"], "seed": [0, 1], "set": {"lr": [0.003, 3e-3, 0.01]}}
    found = cells_of(sweep_of(None, typed), "float32")
    assert len(found) == len({cell.run.name for cell in found}) == 2 * 2 * 2
    train = get_command(cli.app).commands["train"]
    for cell in found:
        words = command_words(cell, tmp_path / "re sults", ["--remat"])
        assert shlex.split(shlex.join(words)) == words
        with train.make_context(words[0], words[1:]) as context:
            given = context.params
        (again,) = cells_of(
            sweep_of(
                None,
                {key: given[key] for key in ("model", "task", "seed", "size")} | {"set": choices(given["settings"])},
            ),
            given["precision"],
        )
        assert again.run == cell.run
        assert given["remat"]
        assert given["results_dir"] == tmp_path / "re sults"


def test_the_state_of_a_cell_is_read_from_its_folder(home, data):
    (cell,) = cells(data, [0], epochs=4.0)
    folder, total = cell.run.folder, cell.steps
    assert standing_of(cell).state == "missing"
    write_settings(cell.run)
    assert standing_of(cell).state == "missing"
    writer = PositionWriter(folder)
    writer.at(50, 2.0)
    writer.at(60, 2.0)
    assert read_position(folder).step == 50, "not more often than every few seconds"
    assert standing_of(cell)[1:4] == ("stopped", 50, None)
    with run_locked(folder, lambda: pytest.fail("it is free")):
        assert is_training(folder)
        assert standing_of(cell)[1:4] == ("running", 50, (total - 50) * 2.0)
    with pytest.raises(WorkError), failure_noted(cell.run):
        raise WorkError("the device\nhas \x1b[31mtoo little memory.")
    assert standing_of(cell)[1:] == ("failed", 50, None, None, "the device has [31mtoo little memory.")
    (folder / "position.json").write_text("{")
    assert standing_of(cell).step == 0
    with failure_noted(cell.run):
        assert standing_of(cell).state == "missing"
    (folder / "result.json").write_text("{}")
    assert standing_of(cell).state == "failed"


def test_the_views_show_every_cell(home, data):
    found = cells(data, range(4), epochs=4.0)
    note_failure(found[0].run, "the disk is full.")
    PositionWriter(found[1].run.folder).at(50, 72.0)
    with run_locked(found[1].run.folder, lambda: None):
        standings = [standing_of(cell) for cell in found]
    assert counts(standings) == "0 of 4 done, 1 running, 1 failed, 2 missing"
    assert [row["state"] for row in rows_of(standings)] == ["failed", "running", "missing", "missing"]
    assert rows_of(standings)[1]["left"] == clock(150 * 72.0) == "3:00:00"
    console = Console(width=200, file=io.StringIO())
    console.print(one_view(standings))
    text = console.file.getvalue()
    assert "failed 25% – –" in text
    assert "listops s5 seed 0" in text
    assert "failed: the disk is full." in text
    assert "step 50 of 200, 3:00:00 left" in text


def test_a_watched_view_ends_where_nothing_is_left_to_wait_for(home, data):
    """A run that failed without a record has ended, too."""
    found = cells(data, range(2), epochs=4.0)
    with LiveView(found, Console(file=io.StringIO(), force_terminal=True)) as view:
        assert not view.ended
        note_failure(found[0].run, "the disk is full.")
        view._draw(view._live)
        assert not view.ended, "the other has not begun"
        note_failure(found[1].run, "its process was ended by SIGKILL")
        view._draw(view._live)
        assert view.ended


def program(monkeypatch, code):
    """Let `code` train instead of lra-bench; sys.argv[1:] are the words of the command."""
    monkeypatch.setattr(local, "PROGRAM", (sys.executable, "-S", "-c", f"import os, signal, sys, time\n{code}"))
    monkeypatch.setattr(local, "PAUSE", 0.01)


def test_local_trains_each_cell_in_order_and_says_which_failed(home, data, tmp_path, monkeypatch, capsys):
    program(
        monkeypatch,
        "seed = sys.argv[sys.argv.index('--seed') + 1]\n"
        "open('order', 'a').write(seed + os.environ['JAX_CUDA_VISIBLE_DEVICES'])\n"
        "if seed == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "print('Error: the disk is full.'); sys.exit(1)",
    )
    found = cells(data, range(4))
    found[2].run.folder.mkdir(parents=True)
    with (
        run_locked(found[2].run.folder, lambda: None),
        pytest.raises(WorkError, match=r"3 of 4 runs failed\. The same with --status says why"),
    ):
        local.train_locally(found, tmp_path / "results", local.slots_of(GPUS, 1), [], lambda: None)
    assert (tmp_path / "order").read_text() == "001030"
    assert [standing_of(cell)[1] for cell in found] == ["failed", "failed", "missing", "failed"]
    assert standing_of(found[0]).why == "the disk is full."
    assert standing_of(found[1]).why == "its process was ended by SIGKILL"
    assert "s2 is left to the other process that trains it" in capsys.readouterr().err


def test_the_checksums_of_a_run_that_another_process_wrote_are_left(home, data, tmp_path, monkeypatch):
    """Two machines may share a home: the other one may write more between a look at the run and its start here."""
    program(monkeypatch, "")
    (cell,) = cells(data, [0])
    write_settings(cell.run)
    sums = cell.run.folder / "SHA256SUMS"
    more = f"{sums.read_text()}{'0' * 64}  test_correct.npy\n"
    sums.write_text(more)
    local.train_locally([cell], tmp_path / "results", local.slots_of(GPUS, 1), [], lambda: None)
    assert sums.read_text() == more


def test_a_cell_whose_folder_cannot_be_one_fails_alone(home, data, tmp_path, monkeypatch):
    program(monkeypatch, "open('order', 'a').write(sys.argv[sys.argv.index('--seed') + 1])")
    found = cells(data, range(3))
    found[0].run.folder.parent.mkdir(parents=True)
    found[0].run.folder.write_text("")
    (found[1].run.folder / local.LOG).mkdir(parents=True)
    with pytest.raises(WorkError, match="2 of 3 runs failed"):
        local.train_locally(found, tmp_path / "results", local.slots_of(GPUS, 1), [], lambda: None)
    assert (tmp_path / "order").read_text() == "2"
    assert "where the folder of a run belongs" in standing_of(found[0]).why


def test_a_sweep_that_is_stopped_lets_its_runs_save_themselves(home, data, tmp_path, monkeypatch):
    program(
        monkeypatch,
        "def save(*_): open(sys.argv[sys.argv.index('--seed') + 1], 'w'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\nopen('ready' + str(os.getpid()), 'w'); time.sleep(60)",
    )

    def interrupt():
        if len(list(tmp_path.glob("ready*"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.train_locally(cells(data), tmp_path / "results", local.slots_of(GPUS, None), [], interrupt)
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
    assert [standing_of(cell).state for cell in cells(data)] == ["missing", "missing"], "a stopped run did not fail"


GPUS = local.Devices(platform="gpu", devices=2, precision="tf32")


def test_there_is_a_process_per_gpu_and_one_on_a_cpu():
    def numbers(devices, jobs):
        return [slot.get("JAX_CUDA_VISIBLE_DEVICES") for slot in local.slots_of(devices, jobs)]

    assert numbers(GPUS, None) == ["0", "1"]
    assert numbers(GPUS, 3) == ["0", "1", "0"]
    cpu = local.Devices(platform="cpu", devices=2, precision="float32")
    assert numbers(cpu, None) == [None]
    assert numbers(cpu, 3) == [None] * 3


def test_slurm_where_it_is_not_is_one_sentence(monkeypatch):
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"needs submitit, which is not installed. Type: pip install 'lra-bench\[slurm\]'"
    ):
        slurm.refuse_if_not_usable()
    monkeypatch.setattr(slurm.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"there is no sbatch on this machine.*--engine local or --engine print"):
        slurm.refuse_if_not_usable()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_sweep_goes_on_where_it_was(home, data, tmp_path):
    """Killed with its run, then ended by a signal, then typed again: every cell is done once."""
    long = {**SMALL, "epochs": 3.0, "decay_epochs": 3.0}
    settings = [word for key, value in long.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "lra_bench", "sweep", "--model", "s5", "--task", "listops", *settings]
    command += ["--seed", "0", "--seed", "1", "--precision", "float32"]
    folders = [cell.run.folder for cell in cells(data, **long)]
    for end in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not any((folder / "metrics.jsonl").exists() for folder in folders):
                time.sleep(0.1)
            process.send_signal(end)
            process.wait(timeout=60)
    subprocess.run(command, check=True, capture_output=True)
    shown = subprocess.run([*command, "--status", "--json"], check=True, capture_output=True, text=True)
    assert [row["state"] for row in json.loads(shown.stdout)] == ["done", "done"]
    assert len(list((tmp_path / "results").glob("listops/s5/*.json"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_submitit_trains_six_cells_and_queues_a_run_again_when_its_time_is_up(home, data, tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    found = cells(data, range(6))
    commands = [command_words(cell, tmp_path / "results", []) for cell in found]
    for job in slurm.submit(commands, tmp_path / "jobs", 30, {}, None, cluster="local"):
        job.result()
    assert [standing_of(cell).state for cell in found] == ["done"] * 6
    (long,) = cells(data, [0], epochs=200.0, decay_epochs=200.0)
    job = slurm.TrainJob(command_words(long, tmp_path / "results", []))
    with ThreadPoolExecutor() as pool:
        training = pool.submit(job)
        while not (long.run.folder / "metrics.jsonl").exists():
            time.sleep(0.1)
        again = job.checkpoint()
        with pytest.raises(RuntimeError, match="ended with exit code 143"):
            training.result()
    assert again.function.words == job.words
    assert standing_of(long).state == "stopped"
    assert list((long.run.folder / "checkpoints" / "last").iterdir())
