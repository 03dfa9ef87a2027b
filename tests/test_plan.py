"""What `train` does with several runs: one that fails does not take the others along; repeated, it goes on."""

import os
import re
import shlex
import shutil
import time

import pytest

from lra_bench.commands.ls import LISTINGS
from lra_bench.commands.train import train_all
from lra_bench.data.manifest import load_manifest
from lra_bench.data.prepare import prepare
from lra_bench.errors import OutOfTime, UserError, WorkError
from lra_bench.overrides import parse_overrides, set_options
from lra_bench.paths import data_folder
from lra_bench.registry import every_task_name, model_names, recipes_of
from lra_bench.runs import plan
from lra_bench.runs.run import load_run, make_run
from lra_bench.training import train


@pytest.fixture
def data(data):
    """A copy of the prepared set in this test's own home."""
    return shutil.copytree(data, data_folder() / "listops" / data.name)


def planned(data, seeds, **overrides):
    info = load_manifest(data).data_info
    return [plan.PlannedRun(make_run(info, "s5", seed, overrides, "float32"), data) for seed in seeds]


def test_the_same_settings_are_the_same_command_in_whatever_order_they_were_typed():
    """Records hold the keys of a dictionary in alphabetical order."""
    typed = parse_overrides(['groups={"eigenvalues": "frozen", "dt": "frozen"}', "epochs=3"])
    kept = {"epochs": 3, "groups": {"dt": "frozen", "eigenvalues": "frozen"}}
    assert typed == kept
    assert set_options(typed) == set_options(kept)


def test_a_run_that_fails_does_not_keep_others_from_being_trained(data, tmp_path, monkeypatch, capsys):
    tried = []

    def fails_for_seed_1(run, *_):
        tried.append(run.seed)
        if run.seed == 1:
            raise WorkError("training diverged: as it was told to.")
        raise OutOfTime("enough") if run.seed == 2 else UserError("its data was changed.")

    monkeypatch.setattr(train, "train", fails_for_seed_1)
    with pytest.raises(OutOfTime):
        train_all(planned(data, [1, 0, 2]), tmp_path)
    assert tried == [1, 0, 2]
    assert "s1: training diverged" in capsys.readouterr().err
    with pytest.raises(WorkError, match=r"2 of 2 runs failed: listops/s5/\w+-s1, listops/s5/\w+-s0; see above"):
        train_all(planned(data, [1, 0]), tmp_path)
    with pytest.raises(WorkError, match="as it was told to"):
        train_all(planned(data, [1]), tmp_path)


def test_no_further_run_is_begun_after_the_time_limit(data, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(train, "train", lambda run, *_: (begun.append(run.seed), time.sleep(0.02)))
    monkeypatch.setattr("lra_bench.commands.train.print_result", lambda *_: None)
    with pytest.raises(OutOfTime, match="after 1 of 2 runs"):
        train_all(planned(data, [0, 1]), tmp_path, deadline=time.monotonic() + 0.01)
    assert begun == [0]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_results_folder_that_cannot_be_written_is_said_before_training(data, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it must not come to training"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no record can be written to .*Name another folder with --results-dir"):
        train_all(planned(data, [0]), tmp_path / folder)
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UserError, match="permission denied"):
            train_all(planned(data, [0]), tmp_path / "closed")


@pytest.mark.parametrize("value", ["1" * 5_000, "[" * 30_000])
def test_a_value_that_is_no_json_anybody_means_is_text(value):
    assert parse_overrides([f"n_layers={value}"]) == {"n_layers": value}


def test_the_recorded_command_repeats_the_run(data):
    """Typed into a shell, it gives the same overrides and so the same digest."""
    changes = {"embedding": 24, "norm": "layer", "prenorm": False, "lr": 0.01, "groups": {"dt": "ssm_decay"}}
    (item,) = planned(data, [3], **changes)
    words = shlex.split(item.run.command)
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    assert parse_overrides(given) == changes
    (again,) = planned(data, [int(words[words.index("--seed") + 1])], **parse_overrides(given))
    assert again.run == item.run
    assert {"s5", "listops", "s4", "tiny"} <= set(words)


def test_a_run_of_another_version_is_named(data):
    (item,) = planned(data, [0])
    item.run.folder.mkdir(parents=True)
    for content in ("{}", "not JSON", '{"model": "s5", "layers": 3}'):
        (item.run.folder / "run.json").write_text(content)
        with pytest.raises(UserError, match=re.escape(f"{item.run.folder / 'run.json'} describes no run")):
            load_run(item.run.folder)
    (listed,) = LISTINGS["runs"]()
    assert (listed["run"], listed["status"]) == (item.run.name, "unreadable")


def test_a_prepared_set_can_be_chosen_by_name(data, tmp_path):
    """Without a name the first seed's set is taken; the recorded command names the one that was."""
    other = prepare("listops", size="tiny", seed=7, jobs=1)
    asked = {"overrides": {}, "protocol": None, "size": None, "precision": "float32", "smoke": False}
    (by_rank,) = plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], data=None, **asked)
    (by_name,) = plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], data=other.name, **asked)
    assert (by_rank.data_folder, by_name.data_folder) == (data, other)
    assert by_name.run.data.fingerprint != by_rank.run.data.fingerprint
    assert f"--data {other.name}" in by_name.run.command
    with pytest.raises(UserError, match="unknown prepared set of listops 's4-generated-tiny-1'"):
        plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], data="s4-generated-tiny-1", **asked)


def test_only_the_whole_published_set_makes_a_published_result(data):
    info = load_manifest(data).data_info
    whole = info.model_copy(update={"size": "full", "counts": {"train": 96_000, "val": 2_000, "test": 2_000}})
    assert make_run(whole, "s5", 0, {}, "float32").is_published_recipe
    assert make_run(whole, "s5", 0, {}, "tf32").is_published_recipe
    assert not make_run(whole, "s5", 0, {}, "bfloat16").is_published_recipe
    assert not make_run(whole, "s5", 0, {"lr": 0.1}, "float32").is_published_recipe
    cut = whole.model_copy(update={"counts": {"train": 86_400, "val": 9_600, "test": 2_000}})
    assert not make_run(cut, "s5", 0, {}, "float32").is_published_recipe
    assert not make_run(info, "s5", 0, {}, "float32").is_published_recipe


def test_all_tasks_are_those_prepared(data):
    asked = {"overrides": {}, "protocol": None, "size": None, "precision": "float32", "smoke": False, "data": None}
    unasked, every = (plan.plan_runs(["s5"], tasks=tasks, seeds=[0], **asked) for tasks in ([], ["all"]))
    assert [item.run.data.task for item in unasked] == ["listops"]
    assert unasked == every


def test_epochs_alone_leave_the_schedule_and_the_plan_says_so_with_smoke_too(data):
    """`--smoke` has a schedule of its own, which is not what the user typed."""
    asked = {"protocol": None, "size": None, "precision": "float32", "smoke": True, "data": None}
    for overrides, told in [({"epochs": 4}, True), ({"epochs": 2}, False), ({"epochs": 4, "decay_epochs": 4}, False)]:
        (item,) = plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], overrides=overrides, dry_run=True, **asked)
        assert ("--set epochs=4 does not move the schedule" in item.schedule_note) == told


def test_a_dry_run_looks_at_the_data_that_is_there(data, capsys):
    asked = {"overrides": {}, "protocol": None, "size": None, "precision": "float32", "smoke": True}
    plan.plan_runs(["s5"], tasks=["image"], seeds=[0], data=None, dry_run=True, **asked)
    assert "image: the tiny set is not prepared yet; without --dry-run it is made first." in capsys.readouterr().err
    with pytest.raises(UserError, match="unknown prepared set of listops 'mine'"):
        plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], data="mine", dry_run=True, **asked)
    (data / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="has manifest version None"):
        plan.plan_runs(["s5"], tasks=["listops"], seeds=[0], data=None, dry_run=True, **asked)


def test_a_setting_that_the_recipe_has_already_is_no_change(data):
    """So it is the same run, as published; 4 and 4.0 are one setting, too."""
    info = load_manifest(data).data_info
    whole = info.model_copy(update={"size": "full", "counts": {"train": 96_000, "val": 2_000, "test": 2_000}})
    plain = make_run(whole, "s5", 0, {}, "float32")
    for same in ({"epochs": 40}, {"d_state": 16, "lr": 0.003}, {"groups": plain.recipe.groups}):
        run = make_run(whole, "s5", 0, same, "float32")
        assert run == plain
        assert run.is_published_recipe
    four, again = (make_run(info, "s5", 0, {"n_layers": number}, "float32") for number in (4, 4.0))
    assert four == again
    assert four.overrides == {"n_layers": 4}


def test_each_model_and_each_task_is_trained(data):
    prepare("image", size="tiny", jobs=1, tfds=False)
    asked = {"overrides": {}, "protocol": None, "size": None, "precision": "float32", "smoke": False, "data": None}
    found = plan.plan_runs(["s5", "s4d"], tasks=["image", "listops"], seeds=[0, 1], **asked)
    cells = [(item.run.model, item.run.data.task, item.run.seed) for item in found]
    assert cells == [(m, t, s) for m in ("s5", "s4d") for t in ("image", "listops") for s in (0, 1)]
    every = plan.plan_runs(["all"], tasks=["listops"], seeds=[0], **asked)
    assert [item.run.model for item in every] == [name for name in model_names() if name in recipes_of("listops")]


def test_a_plan_without_data_tells_the_same_run_as_with_it(tmp_path, monkeypatch):
    """But for the fingerprint, which only the data has."""
    asked = {"overrides": {}, "protocol": None, "size": None, "precision": "float32", "smoke": True, "data": None}
    for task in every_task_name():
        (before,) = plan.plan_runs(["s5"], tasks=[task], seeds=[0], dry_run=True, **asked)
        assert before.data_folder is None
        assert not data_folder().exists()
        if task in ("listops", "retrieval"):
            (after,) = plan.plan_runs(["s5"], tasks=[task], seeds=[0], **asked)
            made = {"data": before.run.data.model_copy(update={"fingerprint": after.run.data.fingerprint})}
            assert before.run.model_copy(update=made) == after.run
            shutil.rmtree(data_folder())
