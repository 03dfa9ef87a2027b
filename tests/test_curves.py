"""`curves` and `compare`: what is shown of runs, finished or not, and how unfit ones are refused."""

import csv
import json
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lra_bench import cli
from lra_bench.bench.synthetic import synthetic_run
from lra_bench.commands.ls import epochs_done
from lra_bench.errors import UserError
from lra_bench.records.curves import read_curve
from lra_bench.records.files import record_text
from lra_bench.records.finished import write_finished
from lra_bench.records.schema import CurvePoint
from lra_bench.report.curves import ASCII_BARS, BARS, bars_for, sparkline
from tests.made_records import train_record


def point(epoch, val, train=0.9):
    values = {"train_loss": 2.0 / epoch, "train_accuracy": train, "val_loss": 2.5 / epoch, "val_accuracy": val}
    return CurvePoint(epoch=epoch, step=100 * epoch, **values)


def make_run(accuracies, finished=False, **settings):
    """The folder and name of a run on this machine with these validation accuracies."""
    run, _ = synthetic_run("s5", "listops", 64, settings, "float32")
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(run.model_dump_json())
    lines = [point(i, value).model_dump_json() + "\n" for i, value in enumerate(accuracies, 1)]
    (run.folder / "metrics.jsonl").write_text("".join(lines))
    if finished:
        (run.folder / "result.json").write_text(record_text(train_record(test=0.625)))
    return run


def typed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lra-bench", *map(str, words)])
    cli.main()


def refused(monkeypatch, capsys, *words):
    with pytest.raises(SystemExit) as leaving:
        typed(monkeypatch, *words)
    assert leaving.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_curves_are_shown_in_every_form(tmp_path, monkeypatch, capsys):
    a, b = make_run([0.2, 0.5, 0.4]), make_run([0.3], n_layers=1)
    files = [tmp_path / name for name in ("a.csv", "a.svg", "a.png")]
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, "curves", a.name, b.name, a.name, "--csv", files[0], "--plot", files[1])
    text = capsys.readouterr().out
    assert text.count(a.name) == 1, "a run that is named twice is shown once"
    assert "best validation accuracy 50.00% after epoch 2" in text
    assert f"20.00% {BARS[0]}{BARS[7]}{BARS[5]} 40.00%" in text
    rows = list(csv.DictReader(files[0].read_text().splitlines()))
    assert [(row["run"], row["epoch"], row["val_accuracy"]) for row in rows] == [
        (a.name, "1.0", "0.2"), (a.name, "2.0", "0.5"), (a.name, "3.0", "0.4"), (b.name, "1.0", "0.3"),
    ]  # fmt: skip
    ET.fromstring(files[1].read_text())
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, "curves", a.name, "--json", "--plot", files[2])
    assert [p["val_accuracy"] for p in json.loads(capsys.readouterr().out)[a.name]] == [0.2, 0.5, 0.4]
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_runs_without_a_curve_and_unfit_files_are_one_sentence(tmp_path, monkeypatch, capsys):
    run = make_run([])
    assert "has no evaluation yet" in refused(monkeypatch, capsys, "curves", run.name)
    assert "--plot writes .svg or .png" in refused(monkeypatch, capsys, "curves", run.name, "--plot", "a.pdf")
    assert "unknown run 'x'" in refused(monkeypatch, capsys, "curves", "x")
    (run.folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(UserError, match="line 1 is no point of a curve"):
        read_curve(run.folder)


@pytest.mark.usefixtures("unproved")
def test_two_runs_are_compared_by_what_differs(monkeypatch, capsys):
    a, b = make_run([0.2, 0.5], finished=True), make_run([0.3], n_layers=1)
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, "compare", a.name, b.name, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == [a.name, b.name]
    assert found["test accuracy %"] == [62.5, None]
    assert found["status"] == ["completed", "unfinished"]
    assert found["recipe.n_layers"] == [a.recipe.n_layers, 1]
    assert not [name for name, (one, other) in found.items() if name.startswith("recipe.") and one == other]
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, "compare", a.name, b.name)
    assert "recipe.n_layers" in capsys.readouterr().out


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=200))
def test_a_curve_of_text_has_its_largest_mark_and_its_smallest(values):
    marks = sparkline(values)
    assert len(marks) == min(len(values), 40)
    assert set(marks) <= {*BARS, "×"}


def test_an_output_without_the_marks_gets_those_of_ascii():
    assert bars_for("utf-8") == BARS
    assert bars_for("ascii") == bars_for(None) == ASCII_BARS
    assert sparkline([float(i) for i in range(8)], bars=ASCII_BARS) == ASCII_BARS
    assert sparkline([0.0, float("nan")], bars=ASCII_BARS) == "_x"


def test_a_damaged_last_line_leaves_the_epochs_before_it(monkeypatch):
    run = make_run([0.2, 0.5, 0.4])
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20] + "\nnull\n")
    assert epochs_done(run.folder) == 2.0


def test_marks_rise_with_the_values():
    assert sparkline([float(i) for i in range(8)]) == BARS
    assert sparkline([3.0, 3.0]) == BARS[0] * 2
    assert sparkline([0.0, float("nan"), 1.0]) == f"{BARS[0]}×{BARS[7]}"


@pytest.mark.usefixtures("unproved")
def test_of_a_finished_run_the_record_is_shown_and_a_changed_one_refused(monkeypatch, capsys):
    run = make_run([0.998])
    record = train_record(test=0.625)
    write_finished(run.folder, record)
    with pytest.raises(SystemExit, match="0"):
        typed(monkeypatch, "curves", run.name, "--json")
    shown = [p["val_accuracy"] for p in json.loads(capsys.readouterr().out)[run.name]]
    assert shown == [p.val_accuracy for p in record.curve]
    result = run.folder / "result.json"
    result.write_text(result.read_text().replace("0.625", "0.925"))
    for command in (["curves", run.name], ["compare", run.name, run.name]):
        assert "result.json has another SHA-256" in refused(monkeypatch, capsys, *command)
