"""The bench command: what it records, how it compares, and one sentence for each kind of bad input."""

import json
import os
import re
import shlex
import sys

import jax
import pytest

from lra_bench import cli
from lra_bench.bench import case, timing
from lra_bench.bench import run as bench_run
from lra_bench.bench.apart import in_own_process, memory_left_free
from lra_bench.bench.case import Measured
from lra_bench.bench.plan import BenchRequest, default_batch, parse_lengths, plan
from lra_bench.bench.ratios import earlier_speeds, ratios
from lra_bench.bench.run import run_bench
from lra_bench.bench.synthetic import synthetic_run
from lra_bench.commands.bench import as_values, draw, print_outcome
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError, WorkError
from lra_bench.overrides import parse_overrides
from lra_bench.records.files import load_any, record_files
from lra_bench.records.schema import BenchRecord, Measurement
from tests.made_records import bench_record, honest_bench, honest_record, load_records, measurement

SMALL = {"n_layers": 1, "d_model": 8}


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "ROOFLINE_SIZES", {True: (256, 2**22)})
    monkeypatch.chdir(tmp_path)


def asked(**changes):
    fields = {"models": ["s5"], "tasks": ["listops"], "lengths": "32", "batch": 2, "overrides": SMALL, "smoke": True}
    return BenchRequest(precision="float32", **{**fields, **changes})


def run(tmp_path, against=None, **changes):
    """The values that `bench --json` prints."""
    return as_values(run_bench(asked(**changes), against, tmp_path / "results"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A causal network measured once at two lengths: its output and its results folder."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "ROOFLINE_SIZES", {True: (256, 2**22)})
        patch.setenv("LRA_BENCH_HOME", str(folder / "home"))
        outcome = run_bench(
            asked(lengths="32,64", overrides={**SMALL, "bidirectional": False}), None, folder / "results"
        )
        draw(folder / "plot.svg", outcome.records)
    return as_values(outcome), folder


def test_records_hold_what_was_measured(measured):
    output, folder = measured
    files = record_files(folder / "results")
    records = [load_any(file) for file in files]
    assert sorted(record.length for record in records) == [32, 64]
    assert [record.model_dump(mode="json") for record in sorted(records, key=lambda r: r.length)] == output["records"]
    for record in records:
        assert [m.call for m in record.measurements] == ["train", "forward", "recurrent"]
        assert record.parameters > 0
        assert record.batch_size == record.overrides["batch_size"] == 2
        for m in record.measurements:
            steps = record.length if m.call != "recurrent" else 1
            assert m.tokens_per_second_per_device == pytest.approx(2 * steps / m.seconds.median)
            assert m.seconds.q1 <= m.seconds.median <= m.seconds.q3
            assert m.seconds.windows == 5
            assert m.compile_seconds > 0
            assert (m.peak_memory_source, m.peak_memory_bytes > 0) == ("compiler estimate", True)
            assert 0 < m.roofline_fraction < 1
        train, forward, recurrent = record.measurements
        assert train.examples_per_second_per_device == pytest.approx(2 / train.seconds.median)
        assert recurrent.examples_per_second_per_device is None
        dense = 2 * record.length * 2 * 8 * 8
        assert train.flops > 3 * dense
        assert forward.flops > dense


def test_work_grows_with_length(measured):
    short, long = measured[0]["records"]
    for ours, theirs in zip(long["measurements"][:2], short["measurements"][:2], strict=True):
        assert 1.6 < ours["flops"] / theirs["flops"] < 2.1
        assert ours["peak_memory_bytes"] > theirs["peak_memory_bytes"]


def test_picture_over_length_is_drawn(measured):
    assert (measured[1] / "plot.svg").read_text().lstrip().startswith("<?xml")


def test_a_measured_cell_is_not_measured_again_unless_asked(measured, monkeypatch):
    output, folder = measured
    calls = []

    def again(cell, on_measured):
        calls.append(cell)
        return [Measured(Measurement.model_validate(measurement(0.01, 2, 32)), 1)]

    monkeypatch.setattr(bench_run, "measure_case", again)
    want = {"lengths": "32", "overrides": {**SMALL, "bidirectional": False}}
    assert run(folder, **want)["records"] == output["records"][:1]
    assert not calls
    kept = {path: path.read_text() for path in record_files(folder / "results")}
    replaced = run(folder, **want, again=True)["records"][0]
    assert len(calls) == 1
    assert replaced["digest"] == output["records"][0]["digest"]
    changed = [path for path, text in kept.items() if path.read_text() != text]
    assert [load_any(path).length for path in changed] == [32]
    for path, text in kept.items():
        path.write_text(text)


@pytest.mark.parametrize("free", [True, False], ids=["in processes of their own", "here, where the GPU serves one"])
def test_on_a_gpu_several_shapes_are_measured_apart(tmp_path, monkeypatch, free):
    apart, here = [], []

    def measured(request, planned, best, on_measured):
        here.append(planned[0].data.length)
        return bench_run.make_record(request, planned[0], 1, [], ""), timing.Roofline(1.0, 1.0)

    def in_own_process(function, request, number, best):
        apart.append((number, best))
        return function(request, number, best) if free else None

    monkeypatch.setattr(bench_run, "measure_one", measured)
    monkeypatch.setattr(bench_run, "in_own_process", in_own_process)
    monkeypatch.setattr(bench_run.jax, "default_backend", lambda: "gpu")
    output = run(tmp_path, lengths="32,64")
    assert apart == [(0, None), (1, timing.Roofline(1.0, 1.0))]
    assert here == [record["length"] for record in output["records"]] == [32, 64]
    run(tmp_path, lengths="32", again=True)
    assert len(apart) == 2, "a single shape needs no other process"


def test_a_process_of_its_own_gives_its_value_or_says_that_it_ended():
    assert in_own_process(os.getpid) != os.getpid()
    with pytest.raises(FileNotFoundError):
        in_own_process(os.stat, "missing")
    with pytest.raises(WorkError, match="ended in the middle"):
        in_own_process(os._exit, 1)
    with memory_left_free():
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ


@pytest.mark.slow
def test_what_looks_ahead_has_no_recurrent_step_and_real_data_stands_beside_synthetic(tmp_path):
    prepare("listops", size="tiny", jobs=1)
    output = run(tmp_path, lengths=None, data=True, remat=True)
    (record,) = output["records"]
    assert record["remat"]
    assert record["provenance"]["command"].endswith(" --remat --smoke")
    assert [(m["call"], m["input"]) for m in record["measurements"]] == [
        ("train", "synthetic"),
        ("train", "data"),
        ("forward", "synthetic"),
    ]


def test_what_does_not_fit_is_skipped_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(case, "free_memory", lambda: 0)
    with pytest.raises(WorkError, match="a batch of 2 needs about"):
        run(tmp_path)
    assert not record_files(tmp_path / "results")


@pytest.mark.parametrize(
    "error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")]
)
def test_memory_that_runs_out_is_no_traceback(tmp_path, monkeypatch, error):
    def allocates(*_):
        raise error

    monkeypatch.setattr(case, "synthetic_split", allocates)
    with pytest.raises(WorkError, match=r"a batch of 2 needs more memory than is free\. Try --batch 1"):
        run(tmp_path)


def test_real_data_is_measured_where_only_synthetic_was(measured, monkeypatch):
    _, folder = measured
    monkeypatch.setattr(bench_run, "measure_case", lambda *_: pytest.fail("it was measured"))
    kept = load_any(record_files(folder / "results")[0])
    assert isinstance(kept, BenchRecord)
    planned = plan(asked(lengths=str(kept.length), overrides={**SMALL, "bidirectional": False}))
    bench_run.measure_all(asked(), planned, {}, folder / "results")
    with pytest.raises(pytest.fail.Exception, match="it was measured"):
        bench_run.measure_all(asked(data=True), planned, {}, folder / "results")


def test_table_says_ratios_and_differences(measured, capsys):
    _, folder = measured
    want = asked(overrides={**SMALL, "bidirectional": False})
    print_outcome(run_bench(want, str(folder / "results"), folder / "results"))
    out = capsys.readouterr().out
    assert "training step" in out
    assert "recurrent step" in out
    assert len(re.findall(r"1\.00 times as fast\.", out)) == 3


def test_ratio_is_of_rates_and_names_what_differs(tmp_path):
    before = honest_bench("s5", "listops", 2048)
    after = bench_record("s5", "listops", 2048, 0.004, batch_size=25, system={"device_kind": "other"})
    path = tmp_path / "before.json"
    path.write_text(before.model_dump_json())
    found = {ratio.call: ratio for ratio in ratios([after], earlier_speeds(str(path), [("s5", "listops", 2048)]))}
    assert found["train"].times_as_fast == pytest.approx(0.01 / 50 / (0.004 / 25))
    assert found["train"].sentence() == (
        "s5 on listops, 2,048 steps, train (synthetic): 1.25 times as fast; batch 25, before 50; "
        "on other, before on NVIDIA H200."
    )
    assert found["recurrent"].times_as_fast == pytest.approx(found["train"].times_as_fast)


def test_a_training_record_and_json_output_can_be_held_against(tmp_path):
    trained = tmp_path / "trained.json"
    trained.write_text(honest_record("s5", "listops").model_dump_json())
    (key, speed), *_ = earlier_speeds(str(trained), [("s5", "listops", 2048)]).items()
    assert (key.call, speed.rate) == ("train", 5000.0)
    output = tmp_path / "output.json"
    output.write_text(json.dumps({"records": [honest_bench().model_dump(mode="json")], "skipped": [], "ratios": []}))
    assert len(earlier_speeds(str(output), [("s5", "listops", 2048)])) == 3


def test_the_recorded_command_repeats_the_measurement():
    run, _ = synthetic_run("s4_ptd", "listops", 32, {**SMALL, "n_ssm": None, "batch_size": 2}, "float32")
    words = shlex.split(bench_run.command_of(asked(remat=True, smoke=False), run))
    assert words[:2] == ["lra-bench", "bench"]
    assert words[-1] == "--remat"
    assert words[words.index("--lengths") + 1] == "32"
    real = shlex.split(bench_run.command_of(asked(data=True), run))
    assert "--data" in real
    assert "--lengths" not in real, "the two are refused together"
    assert real[-1] == "--smoke"
    given = parse_overrides(words[i + 1] for i, word in enumerate(words) if word == "--set")
    assert given == {**SMALL, "n_ssm": None, "batch_size": 2}


def test_lengths_are_powers_of_two_by_letter():
    assert parse_lengths("1k,4k, 16k,1M,1000,1k") == [1024, 4096, 16384, 2**20, 1000]
    assert parse_lengths(None) == [None]


@pytest.mark.parametrize("text", ["", "1k,", "abc", "0", "-4", "1.5k", "1G", "17M", "1k 4k"])
def test_bad_lengths_are_refused(text):
    with pytest.raises(UserError, match="--lengths takes steps"):
        parse_lengths(text)


def test_default_batch_on_a_cpu_keeps_a_cell_short():
    assert default_batch(50, 2048) == 8
    assert default_batch(4, 2048) == 4
    assert default_batch(32, 2**20) == 1


BAD = {
    "unknown model": (["--model", "s55"], "unknown model 's55'"),
    "unknown task": (["--task", "listopps"], "Did you mean 'listops'"),
    "length": (["--lengths", "4q"], "--lengths takes steps"),
    "setting": (["--set", "n_layer=1"], "unknown setting 'n_layer'"),
    "value": (["--task", "listops", "--set", "n_layers=none"], "n_layers"),
    "batch twice": (["--batch", "2", "--set", "batch_size=4"], "give the batch once"),
    "lengths of real data": (["--data", "--lengths", "1k"], "leave out --lengths"),
    "not prepared": (["--data", "--task", "listops"], "listops is not prepared"),
    "no such run": (["--task", "listops", "--against", "nowhere.json"], "nowhere.json"),
    "not JSON": (["--task", "listops", "--against", "broken.json"], "is not JSON"),
    "not a record": (["--task", "listops", "--against", "list.json"], "schema version"),
    "not comparable": (["--task", "listops", "--against", "other.json"], "it holds s4 on image at 1024"),
    "picture": (["--task", "listops", "--plot", "out.pdf"], "--plot writes .svg or .png"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_users_mistake_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "other.json").write_text(honest_bench("s4", "image", 1024).model_dump_json())
    words, expected = BAD[name]
    monkeypatch.setattr(sys, "argv", ["lra-bench", "bench", *words])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    err = capsys.readouterr().err
    assert leaving.value.code == 2
    assert "Traceback" not in err
    assert expected in " ".join(err.split())
    assert not load_records(tmp_path / "results")
