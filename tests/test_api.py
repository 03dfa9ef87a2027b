"""Use from Python: the documented snippet runs, off the main thread, and what it gives is what the commands give."""

import csv
import json
import re
import threading
from pathlib import Path

import numpy as np
import pytest

import lra_bench
from lra_bench.commands.evaluate import evaluate as evaluate_command
from lra_bench.errors import UserError
from lra_bench.training.history import History
from lra_bench.training.result import Score

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")


def in_a_thread(code, names):
    failed = []

    def work():
        try:
            exec(code, names)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_the_documented_names_are_all_there_are():
    assert sorted(re.findall(r"^\| `(\w+)\(", PAGE, re.M)) == sorted(lra_bench.__all__)
    assert len(lra_bench.__all__) == 6
    with pytest.raises(AttributeError, match="has no attribute 'test'"):
        _ = lra_bench.test


@pytest.mark.slow
def test_the_documented_snippet_agrees_with_the_commands(tmp_path, monkeypatch):
    """One training run, in a thread of its own: predictions, the model and `evaluate` give its recorded accuracy."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names = {}
    in_a_thread(snippet, names)
    record, found = names["record"], names["found"]
    assert (found.predictions == found.labels).mean() == record.accuracy.test
    assert (found.logits.argmax(axis=1) == found.predictions).all()
    np.testing.assert_allclose(names["logits"], found.logits[names["wrong"][:5]], rtol=1e-4, atol=1e-5)
    assert list((tmp_path / "results").glob("listops/s5/*.json"))

    scored = lra_bench.evaluate(record)
    assert (scored.test_accuracy, scored.recorded_test_accuracy) == (record.accuracy.test,) * 2
    name = f"{record.digest}-s0"
    with monkeypatch.context() as patch:
        correct = found.predictions == found.labels
        again = Score(0.0, 0.0, correct), Score(0.0, correct.mean(), correct), History(best_val=0.0, best_epoch=0.2)
        patch.setattr("lra_bench.training.evaluate.score_best", lambda *_: again)
        for file in (tmp_path / "p.csv", tmp_path / "new" / "p.jsonl"):
            evaluate_command(name, predictions=file)
    with (tmp_path / "p.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    lines = [json.loads(line) for line in (tmp_path / "new" / "p.jsonl").read_text().splitlines()]
    assert [int(row["row"]) for row in rows] == [line["row"] for line in lines] == list(range(len(found.labels)))
    assert [int(row["label"]) for row in rows] == [line["label"] for line in lines] == found.labels.tolist()
    assert [int(row["prediction"]) for row in rows] == found.predictions.tolist()
    assert np.array_equal(np.array([line["logits"] for line in lines], np.float32), found.logits)
    assert np.array_equal(np.array([[row[f"logit_{k}"] for k in range(10)] for row in rows], np.float32), found.logits)

    for wrong, says in [("predictions.txt", "takes a .csv or a .jsonl file"), (".", "takes a .csv")]:
        with pytest.raises(UserError, match=says):
            evaluate_command(name, predictions=Path(wrong))
    with pytest.raises(UserError, match="unknown split 'dev'"):
        lra_bench.load("listops", "dev")
    with pytest.raises(UserError, match="unknown model 'all'"):
        lra_bench.train("all", "listops")
    with pytest.raises(UserError, match="unknown setting 'layers'"):
        lra_bench.train("s5", "listops", settings={"layers": 3})


@pytest.mark.slow
def test_the_optuna_example_finds_a_best_trial(tmp_path, monkeypatch):
    pytest.importorskip("optuna", reason="the example is for users of Optuna")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    import optuna_search

    monkeypatch.setitem(optuna_search.FIXED, "epochs", 0.2)
    assert set(optuna_search.search(2).best_params) == {"lr", "dropout"}
