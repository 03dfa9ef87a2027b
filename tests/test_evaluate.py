"""`evaluate`: the recorded accuracy comes out again, or it is said that it does not."""

import json
import shutil

import pytest

from lra_bench.commands.evaluate import evaluate
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import UserError, WorkError
from lra_bench.records.files import load_record
from lra_bench.records.finished import load_correct, write_finished
from lra_bench.records.schema import Record
from lra_bench.runs.run import make_run
from lra_bench.training import train
from lra_bench.training.checkpoint import Checkpoints
from lra_bench.training.history import History
from lra_bench.training.setup import set_up

SMALL = {"n_layers": 1, "d_model": 8, "batch_size": 40, "epochs": 0.2, "decay_epochs": 1.0}


@pytest.mark.slow
def test_recorded_accuracy_is_reproduced_or_its_absence_told(tmp_path, monkeypatch, capsys):
    data = prepare("listops", size="tiny", jobs=1)
    run = make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")
    record = train.train(run, data, tmp_path / "results")
    result = run.folder / "result.json"
    with monkeypatch.context() as patch:
        patch.setattr("lra_bench.training.setup.compile_training", lambda *_: pytest.fail("it is of no use here"))
        evaluate(run.name, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["test_accuracy"], found["recorded_test_accuracy"]) == (record.accuracy.test,) * 2
    assert found["val_accuracy"] == record.accuracy.best_val
    kept = run.folder / "test_correct.npy"
    assert load_correct(run.folder, record).sum() == round(500 * record.accuracy.test)

    once = set_up(run, data)
    monkeypatch.setattr("lra_bench.training.evaluate.set_up_evaluation", lambda *_: once)
    sound, sums = kept.read_bytes(), (run.folder / "SHA256SUMS").read_text()
    for damage in (kept.unlink, lambda: kept.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))):
        damage()
        evaluate(run.name)
        assert kept.read_bytes() == sound
        assert sorted((run.folder / "SHA256SUMS").read_text().splitlines()) == sorted(sums.splitlines())
    capsys.readouterr()
    values = load_record(result).model_dump(mode="json")
    values["accuracy"]["test"] += 1 / 500
    write_finished(run.folder, Record.model_validate(values))
    with pytest.raises(WorkError, match=r"scores \d+\.\d{4}% on the test split, its record says"):
        evaluate(run.name)

    values["accuracy"] |= {"test": None, "last_test": None}
    values["status"] = "diverged"
    write_finished(run.folder, Record.model_validate(values))
    evaluate(run.name)
    assert "(not recorded: the run diverged)" in capsys.readouterr().out
    result.unlink()
    evaluate(run.name)
    assert "(not recorded yet: the run is unfinished)" in capsys.readouterr().out

    (data / "manifest.json").rename(data / "elsewhere")
    with pytest.raises(UserError, match=r"is not prepared here\. Type: lra-bench prepare listops --protocol s4 --size"):
        evaluate(run.name)


def test_a_run_without_a_checkpoint_is_a_users_mistake():
    data = prepare("listops", size="tiny", jobs=1)
    run = make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(run.model_dump_json())
    with pytest.raises(UserError, match=r"has no checkpoint yet\. Train it on: lra-bench train"):
        evaluate(run.name)
    assert not (run.folder / "checkpoints").exists()


@pytest.mark.parametrize("best", ["lost", pytest.param("a higher step that no state names", marks=pytest.mark.slow)])
def test_best_is_what_the_run_names_or_it_is_said_that_it_is_lost(tmp_path, capsys, best):
    """A best checkpoint that is gone is one sentence; one that was saved just before a kill is not the best yet."""
    data = prepare("listops", size="tiny", jobs=1)
    run = make_run(load_manifest(data).data_info, "s5", 0, SMALL, "float32")
    record = train.train(run, data, tmp_path / "results")
    folder = run.folder / "checkpoints" / "best"
    (step,) = folder.iterdir()
    if best == "lost":
        shutil.rmtree(folder)
        shutil.rmtree(run.folder / "checkpoints" / "last")
        with pytest.raises(WorkError, match=rf"best/{step.name}, cannot be read \(it is missing\)"):
            evaluate(run.name)
    else:
        (run.folder / "result.json").unlink()
        state = set_up(run, data)[1]
        Checkpoints(run.folder / "checkpoints").save_best(9999, state, History())
        assert len(list(folder.iterdir())) == 2
        evaluate(run.name, as_json=True)
        assert json.loads(capsys.readouterr().out)["test_accuracy"] == record.accuracy.test
