"""A record proves itself: whatever follows from the package is computed again, and a forgery is refused everywhere."""

import json

import pytest

from lra_bench.commands.show import describe
from lra_bench.errors import UserError
from lra_bench.records.files import load_any, write_record
from lra_bench.records.proof import contradictions, run_of
from lra_bench.records.validate import validate
from lra_bench.registry import recipes_of, task_names
from lra_bench.report import report
from tests.made_records import edited, edited_json, honest_bench, honest_data, honest_record, robustness_record

SOUND = {"s5 listops": honest_record(seed=1), "s4 image": honest_record("s4", "image", test=0.88)}
N = SOUND["s5 listops"].data.counts["test"]
BETTER = 0.75

FORGED = {
    "digest": {"digest": "b" * 12},
    "seed below 0": {"seed": -1},
    "seed of 2^32": {"seed": 2**32},
    "learning rate": {"recipe__lr": 0.1},
    "layer setting": {"recipe__layer__conj_sym": False},
    "more epochs": {"recipe__epochs": 400.0},
    "published number": {"recipe__published": 50.0},
    "no published number": {"recipe__published": None},
    "not the published recipe": {"published_recipe": False},
    "override that was not made": {"overrides": {"lr": 0.5}},
    "override hidden": {"recipe__d_model": 64, "overrides": {}},
    "unknown override": {"overrides": {"surprise": 1}},
    "model": {"model": "s4"},
    "model of nobody": {"model": "best_model"},
    "code of a layer": {"code": "c" * 12},
    "task": {"data__task": "image"},
    "precision": {"system__precision": "tf32"},
    "called official": {"data__source": "official"},
    "fingerprint": {"data__fingerprint": "0" * 16},
    "called full": {"data__counts": {"train": 96, "val": 20, "test": 20}},
    "classes": {"data__classes": 2},
    "better test": {"accuracy__test": BETTER},
    "better test and last_test": {"accuracy__test": BETTER, "accuracy__last_test": 0.1},
    "test of no examples": {"accuracy__test": 0.62175, "accuracy__last_test": 0.62175},
    "test above 1": {"accuracy__test": 1.5, "accuracy__last_test": 1.5},
    "test NaN": {"accuracy__test": float("nan")},
    "loss infinite": {"accuracy__test_loss": float("inf")},
    "loss too small": {"accuracy__test_loss": 0.01},
    "best_val": {"accuracy__best_val": 0.9},
    "best_epoch": {"accuracy__best_epoch": 3.0},
    "last_val": {"accuracy__last_val": 0.1},
    "lower majority": {"accuracy__majority": 0.0},
    "curve point": {"curve__10__val_accuracy": 0.123456},
    "curve peak": {"curve__10__val_accuracy": 0.9},
    "curve step": {"curve__10__step": 17},
    "half a curve": {"curve": json.loads(SOUND["s5 listops"].model_dump_json())["curve"][:20]},
    "no curve": {"curve": []},
    "faster": {"throughput__examples_per_second": 1e6},
    "faster device": {"throughput__examples_per_second_per_device": 1e6},
    "tokens": {"throughput__tokens_per_second": 1e9},
    "fewer steps": {"throughput__steps": 10},
    "more steps": {"throughput__steps": 80_000, "throughput__train_seconds": 800.0},
    "no devices": {"system__devices": 0},
    "negative parameters": {"parameters": -1},
    "absurd parameters": {"parameters": 10**18},
    "time": {"provenance__finished": "zzzz"},
    "diverged": {"status": "diverged"},
    "chosen on test": {"accuracy__selection": "test"},
    "validation is the test set": {"data__validation_is_test": True},
    "impossible size": {"data__size": "huge"},
}


def file_of(folder, name, values):
    path = folder / "listops" / "s5" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("name", FORGED)
def test_a_forgery_is_refused_by_all_that_reads_it_and_stops_no_other(tmp_path, name):
    neighbor = write_record(tmp_path, honest_record(seed=0))
    path = file_of(tmp_path, "forged-s1", edited_json(SOUND["s5 listops"], **FORGED[name]))
    with pytest.raises(UserError) as caught:
        load_any(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        describe(str(path))
    problems = {problem.file for problem in validate(tmp_path) if problem.severity == "error"}
    assert problems == {"listops/s5/forged-s1.json"}
    made = report(tmp_path, pictures=False)
    assert [item.id for item in made.refused] == ["listops/s5/forged-s1"]
    (row, *_) = made.table("accuracy-paper").blocks[0].rows
    assert row[1].runs == (neighbor.relative_to(tmp_path).with_suffix("").as_posix(),)


AGAIN = ("learning rate", "layer setting", "published number", "no published number", "not the published recipe")
AGAIN += ("override that was not made", "override hidden", "unknown override", "model of nobody", "code of a layer")


@pytest.mark.parametrize("name", AGAIN)
def test_a_forger_who_computes_the_digest_again_is_refused_too(name):
    record = edited(SOUND["s5 listops"], **FORGED[name])
    record = record.model_copy(update={"digest": run_of(record).digest})
    assert [message for message in contradictions(record) if "digest" not in message]


def test_what_a_forger_can_compute_again_too_is_accepted_and_where_official_is_known_it_is_not():
    """A digest is no signature: the point is that nothing contradicts the package or itself."""
    claimed = honest_record(data={"source": "official", "fingerprint": "0" * 16})
    assert contradictions(claimed) == []
    claimed = honest_record("s4", "image", data={"fingerprint": "0" * 16})
    (message,) = contradictions(claimed)
    assert message.startswith("called official, with fingerprint 0000000000000000; that of the official files is")
    (message,) = contradictions(honest_record("s4", "image", data={"source": "generated"}))
    assert "cannot be generated" in message


@pytest.mark.parametrize("task", task_names())
def test_honest_records_of_every_recipe_are_taken_in(task):
    for model in recipes_of(task):
        for overrides in ({}, {"epochs": 3.7, "batch_size": 48}):
            record = honest_record(model, task, overrides=overrides)
            assert contradictions(record) == []
            assert run_of(record).digest == record.digest
            assert record.published_recipe is (not overrides and record.recipe.published is not None)


def test_a_users_own_layer_is_taken_in_with_the_hash_of_its_code():
    sound = honest_record("s5", "listops")
    plain = {"recipe__groups": {"eigenvalues": "ssm", "input": "ssm", "dt": "ssm"}, "recipe__schedule": "cosine"}
    own = {"model": "pkg.mod:Layer", "code": "c" * 12, "recipe__published": None, "recipe__layer": {"anything": 3}}
    record = edited(sound, **plain, **own, published_recipe=False)
    record = record.model_copy(update={"digest": run_of(record).digest})
    assert contradictions(record) == []
    assert contradictions(record.model_copy(update={"code": "d" * 12}))
    assert contradictions(record.model_copy(update={"code": None}))
    assert contradictions(record.model_copy(update={"published_recipe": True}))


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "b" * 12},
        {"batch_size": 25},
        {"recipe__lr": 1.0},
        {"system__device_kind": "other"},
        {"measurements__0__examples_per_second_per_device": 1e5},
        {"measurements__0__seconds__q1": 9.0},
        {"remat": True},
    ],
)
def test_a_forged_benchmark_is_refused(tmp_path, change):
    assert contradictions(honest_bench()) == []
    with pytest.raises(UserError):
        load_any(file_of(tmp_path, "bench", edited_json(honest_bench(), **change)))


def test_a_robustness_record_claims_no_more_than_it_can():
    sound = robustness_record(data=honest_data("image").model_dump())
    assert contradictions(sound) == []
    assert contradictions(edited(sound, data__size="10000"))
    assert contradictions(edited(sound, clean=0.88001))


def test_one_run_copied_as_several_seeds_is_one_run(tmp_path):
    original = honest_record(seed=0)
    paths = [write_record(tmp_path, original.model_copy(update={"seed": seed})) for seed in range(4)]
    nearly = edited(original, seed=9, curve__3__train_loss=1.23456)
    paths.append(write_record(tmp_path, nearly))
    write_record(tmp_path, honest_record(seed=5))
    names = {path.relative_to(tmp_path).as_posix() for path in paths[1:]}
    assert {problem.file for problem in validate(tmp_path) if problem.severity == "error"} == names
    made = report(tmp_path, pictures=False)
    assert {f"{item.id}.json" for item in made.refused} == names
    assert made.table("accuracy-paper").blocks[0].rows[0][1].text.endswith("(2/2)")


def test_a_claim_to_official_data_never_displaces_others_unseen(tmp_path):
    for seed in range(3):
        write_record(tmp_path, honest_record("s4", seed=seed))
    write_record(tmp_path, honest_record("s5", data={"source": "official", "fingerprint": "0" * 16}))
    table = report(tmp_path, pictures=False).table("accuracy-paper")
    (note,) = [note for note in table.notes if "Records of other examples" in note]
    assert "ListOps shows official" in note
    assert "as its records say of themselves" in note
    assert "comparable: 3" in note
    assert any("no known fingerprint" in problem.message for problem in validate(tmp_path))


def test_official_contents_come_before_a_claim(tmp_path):
    write_record(tmp_path, honest_record("s4", "image", data={"source": "user"}))
    for seed in range(3):
        claim = {"counts": {"train": 45_001, "val": 4_999, "test": 10_000}, "fingerprint": "0" * 16}
        write_record(tmp_path, honest_record("s5", "image", seed, data=claim))
    table = report(tmp_path, pictures=False).table("accuracy-paper")
    assert [row[0].text for block in table.blocks if not block.quoted for row in block.rows] == ["S4"]
