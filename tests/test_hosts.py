"""Several processes train one run: found by what starts them, the numbers of one process, and an end in a sentence."""

import json
import shutil
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import OutOfTime, UserError
from lra_bench.machine.launch import Launch, launch_of, own_devices
from lra_bench.machine.processes import from_first, gather, is_first
from lra_bench.records.files import load_record
from lra_bench.runs.locking import leave, run_locked
from lra_bench.runs.run import make_run
from lra_bench.runs.saved_steps import saved_steps
from lra_bench.training import stopping, train
from lra_bench.training.stopping import StopRequest, out_of_memory_in_words
from tests.hosts import SETTINGS, TwoProcesses

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
ADDRESS = {"JAX_COORDINATOR_ADDRESS": "n1:1234"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        ({}, None),
        (SLURM, Launch("slurm", 4, 3)),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),  # a job of a sweep, or a shell of one task
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),  # a step of one task in a job of four
        ({name: value for name, value in SLURM.items() if "STEP" not in name}, None),  # the script of a job
        ({**OPEN_MPI, "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:5"}, Launch("ompi", 4, 3)),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({**OPEN_MPI, **ADDRESS}, Launch("", 4, 3)),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, Launch("", 2, 0)),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        ({**POD, **ADDRESS, "JAX_NUM_PROCESSES": "2"}, Launch("", 2, 1)),
    ],
)
def test_processes_are_found_by_what_started_them(environ, launch):
    assert launch_of(environ) == launch


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (OPEN_MPI, "mpirun -x JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        (ADDRESS, "JAX_NUM_PROCESSES or JAX_PROCESS_ID is missing"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES must be a whole number, got 'two'"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "counts from 0 and must be below 2"),
    ],
)
def test_variables_that_do_not_suffice_are_said(environ, said):
    with pytest.raises(UserError, match=said):
        launch_of(environ)


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        (SLURM, [1]),  # one process per GPU, as JAX assumes
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0"}, None),  # --gpus-per-task=1: each sees its own
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "4"}, None),  # --gpus-per-task=2: likewise
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, [2, 3]),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4,1"}, None),  # one process on this host: all of its GPUs
        ({**SLURM, "JAX_LOCAL_DEVICE_IDS": "0"}, None),  # JAX reads it
        ({**OPEN_MPI, **ADDRESS}, [1]),
        ({**OPEN_MPI, **ADDRESS, "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [2, 3]),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, None),  # nobody says how many are on this host
    ],
)
def test_the_processes_on_a_host_share_its_gpus_out(environ, devices):
    assert own_devices(environ) == devices


def test_a_single_process_agrees_with_itself():
    assert is_first()
    assert gather(3) == [3]
    assert from_first("x") == "x"


def test_a_time_limit_that_passes_in_one_process_during_a_save_stops_all(monkeypatch):
    monkeypatch.setattr(stopping, "gather", lambda own: [own, (None, True)])
    with pytest.raises(OutOfTime, match="all is saved"):
        StopRequest(None).raise_if_wanted(SimpleNamespace(command="lra-bench train"))


@pytest.mark.parametrize("kind", [ValueError, jax.errors.JaxRuntimeError])
def test_an_error_of_the_network_waits_for_the_sentence_about_the_process_that_was_lost(kind, monkeypatch):
    waited = []
    monkeypatch.setattr(stopping, "wait_for_the_cause", lambda: waited.append(1))
    with pytest.raises(kind), out_of_memory_in_words(None):
        raise kind("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")
    with pytest.raises(ValueError, match="a shape"), out_of_memory_in_words(None):
        raise ValueError("a shape does not fit")
    assert waited == [1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with tiny ListOps, whose programs are compiled once."""
    home = tmp_path / "shared"
    monkeypatch.setenv("LRA_BENCH_HOME", str(home))
    prepare("listops", size="tiny", jobs=1)
    return home


def the_run(home, seed=0):
    """The run that the two processes train, and the folder of its data."""
    (data,) = home.glob("data/listops/[!.]*")
    return make_run(load_manifest(data).data_info, "s5", seed, SETTINGS, "float32"), data


def trained(home, results):
    codes, printed = TwoProcesses(home, results).end()
    assert codes == [0, 0], printed
    assert not printed[1], "process 0 speaks for all"
    return the_record(results)


def the_record(results):
    (path,) = results.glob("*/*/*.json")
    return load_record(path)


def numbers(record):
    return json.loads(record.model_dump_json(include={"digest", "status", "accuracy", "curve"}))


@pytest.mark.slow
def test_two_processes_train_as_one_does_also_after_a_signal_and_a_kill(home, tmp_path, monkeypatch):
    """All in one test, so that the run that is left alone is trained once on any number of workers."""
    whole = trained(home, tmp_path / "whole")
    assert (whole.system.devices, whole.system.processes) == (4, 2)
    (home / "runs").rename(tmp_path / "runs of whole")
    step = stopped_by_a_signal_to_one(home, tmp_path / "results")
    assert 0 < step < whole.curve[-1].step
    shutil.copytree(home, tmp_path / "home of one")

    both = TwoProcesses(home, tmp_path / "results")
    both.wait_for_steps()
    both.send(signal.SIGKILL, 0)
    codes, printed = both.end()
    assert codes == [-signal.SIGKILL, 1], printed
    assert printed[1].startswith("Error: another process of this run was lost")
    assert "start all processes again with the same command" in printed[1]
    assert printed[1].count("\n") == 1, "no traceback of Python, no stack of JAX"
    assert not list((tmp_path / "results").glob("*/*/*.json"))
    assert numbers(trained(home, tmp_path / "results")) == numbers(whole)

    run, data = the_run(home)
    kept = (run.folder / "test_correct.npy").read_bytes()
    monkeypatch.setenv("LRA_BENCH_HOME", str(tmp_path / "home of one"))
    check_one_process_continues(run, data, whole, tmp_path / "one")
    assert (run.folder / "test_correct.npy").read_bytes() == kept, "in the order of the split"


def stopped_by_a_signal_to_one(home, results):
    """The step that both have saved after a SIGTERM to process 1."""
    both = TwoProcesses(home, results)
    both.wait_for_steps()
    both.send(signal.SIGTERM, 1)
    codes, printed = both.end()
    assert codes == [128 + signal.SIGTERM] * 2, printed
    assert all("Error: stopped by SIGTERM; all is saved." in each for each in printed)
    (settings,) = home.glob("runs/*/*/*/run.json")
    (step,) = saved_steps(settings.parent / "checkpoints/last")
    return step


def check_one_process_continues(run, data, two, results):
    """One process with one device goes on from what two saved, on a batch that four devices cannot share out evenly."""
    assert run.recipe.batch_size % 4
    assert saved_steps(run.folder / "checkpoints/last")
    one = train.train(run, data, results)
    assert (one.digest, one.system.processes) == (two.digest, 1)
    assert (one.accuracy.test, one.accuracy.best_epoch) == (two.accuracy.test, two.accuracy.best_epoch)
    for ours, theirs in zip(one.curve, two.curve, strict=True):
        np.testing.assert_allclose(theirs.train_loss, ours.train_loss, rtol=1e-5)
        np.testing.assert_allclose(theirs.val_loss, ours.val_loss, rtol=1e-5)
        assert (theirs.train_accuracy, theirs.val_accuracy) == (ours.train_accuracy, ours.val_accuracy)


@pytest.mark.slow
def test_another_group_on_the_same_run_is_refused(home, tmp_path):
    """The lock is held here, as by the process 0 of a first group."""
    run, _ = the_run(home, seed=1)
    with run_locked(run.folder, leave):
        codes, printed = TwoProcesses(home, tmp_path / "results", seed=1).end()
    assert codes == [1, 1]
    assert all(f"another process is training {run.name}. Wait for it" in each for each in printed)
    assert not run.folder.exists()
