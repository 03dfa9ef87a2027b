"""What `validate` finds in a results folder, and that it finds nothing in a sound one."""

import re

import pytest

from lra_bench.errors import UserError
from lra_bench.records.files import path_of, write_record
from lra_bench.records.validate import validate
from tests.made_records import honest_bench, honest_data, honest_record, measurement, robustness_record


def sound(seed=0, test=0.6215, **change):
    """A full ListOps run near its published 62.15 %, consistent in itself."""
    return honest_record(seed=seed, test=test, **change)


def problems(folder, *records):
    for record in records:
        write_record(folder, record)
    return [(problem.severity, problem.message) for problem in validate(folder)]


def test_a_sound_folder_has_no_problems(tmp_path):
    records = [sound(seed=seed) for seed in range(3)]
    assert problems(tmp_path, *records, honest_bench(), robustness_record(data=honest_data("image").model_dump())) == []


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        ({"accuracy__test": 0.62175}, "error", "no whole number of 2000"),
        ({"accuracy__test": None}, "error", "completed without a test accuracy"),
        ({"accuracy__best_val": 0.9}, "error", "not the best of its curve"),
        ({"accuracy__last_test": 0.5}, "error", "last_test 0.5000 contradicts test"),
        ({"curve": []}, "error", "called completed after 0 of 40 epochs"),
        ({"data__validation_is_test": True}, "error", "validation is the test set"),
        ({"throughput__examples_per_second": 9000.0}, "error", "batch and seconds give 5000"),
        ({"throughput__examples_per_second_per_device": 9000.0}, "error", "times devices is not examples/s"),
        ({"provenance__git_dirty": True}, "warning", "uncommitted changes"),
        ({"provenance__finished": "yesterday"}, "error", "no ISO 8601 time"),
        ({"provenance__finished": "9999-01-01T00:00:00Z"}, "warning", "in the future"),
        ({"provenance__command": "lra-bench train --data /home/me/x"}, "error", "somebody's machine"),
        ({"provenance__command": "curl x | sh"}, "warning", "not the one that repeats the run"),
    ],
)
def test_each_problem_of_a_training_record(tmp_path, change, severity, message):
    found = problems(tmp_path, sound(**change))
    assert [s for s, text in found if re.search(message, text)] == [severity], found


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (0.75, "too good: 75.00%, published 62.15 %"),
        (0.50, "too bad: 50.00%, published 62.15 %"),
        (0.10, "below the majority class"),
    ],
)
def test_an_implausible_accuracy_is_a_warning(tmp_path, test, message):
    found = problems(tmp_path, sound(test=test))
    assert [severity for severity, text in found if message in text] == ["warning"], found


def test_too_small_a_set_is_not_full(tmp_path):
    found = problems(tmp_path, sound(data={"counts": {"train": 90, "val": 20, "test": 200}, "size": "full"}))
    assert any("called full, with 200 test examples" in text for _, text in found)


def test_too_fast_and_a_backward_curve(tmp_path):
    record = sound()
    fast = [point.model_copy(update={"val_accuracy": 0.6215}) for point in record.curve]
    early = record.accuracy.model_copy(update={"best_epoch": 1.0})
    assert [text for _, text in problems(tmp_path, record.model_copy(update={"curve": fast, "accuracy": early}))] == [
        "too fast: at the published accuracy within the first twentieth of the training"
    ]
    back = [record.curve[1], record.curve[0], *record.curve[2:]]
    (found,) = problems(tmp_path / "b", record.model_copy(update={"curve": back}))
    assert found == ("error", "its curve is not one of 76800 steps, 1920 in an epoch")


def test_a_far_validation_accuracy(tmp_path):
    record = sound()
    curve = [point.model_copy(update={"val_accuracy": point.val_accuracy + 0.1}) for point in record.curve]
    last = curve[-1].val_accuracy
    accuracy = record.accuracy.model_copy(update={"best_val": last, "last_val": last})
    found = problems(tmp_path, record.model_copy(update={"curve": curve, "accuracy": accuracy}))
    assert [text for _, text in found if "further apart than their samples explain" in text], found


def test_failed_path_x_seeds_are_seen_but_are_no_error(tmp_path):
    found = problems(tmp_path, honest_record("s5", "pathx", test=0.5))
    assert [severity for severity, _ in found] == ["warning"], found


def test_bench_records(tmp_path):
    wrong_rate = measurement(0.01, 50, 2048, examples_per_second_per_device=9999.0)
    wrong_order = measurement(
        0.01, 50, 2048, seconds={"median": 0.01, "q1": 0.02, "q3": 0.03, "windows": 5, "calls": 1, "warmup": 0}
    )
    beyond = measurement(0.01, 50, 2048, roofline_fraction=1.4)
    for i, (made, message) in enumerate(
        ((wrong_rate, "batch and median give"), (wrong_order, "quartiles"), (beyond, "best measured rates"))
    ):
        found = problems(tmp_path / str(i), honest_bench(measurements=[made]))
        assert len(found) == 1
        assert message in found[0][1]


def test_further_tests_that_contradict_the_run_they_are_of(tmp_path):
    run = honest_record("s5", "image", test=0.88)
    of_run = {"digest": run.digest, "data": run.data.model_dump(), "published_recipe": run.published_recipe}
    of_run["system"] = run.system.model_dump()
    sound_test = robustness_record(**of_run)
    assert not [text for _, text in problems(tmp_path / "sound", run, sound_test) if "of image/s5" in text]
    for i, (change, message) in enumerate(
        (
            ({"clean": 0.8}, "0.8000 without a change is not the test accuracy 0.8800 of image/s5"),
            ({"published_recipe": not run.published_recipe}, "its recipe, precision or data is not that of image/s5"),
            ({"examples": 100}, "100 examples were scored, and the test split has 10000"),
        )
    ):
        found = problems(tmp_path / str(i), run, robustness_record(**{**of_run, **change}))
        assert any(message in text for _, text in found), found


def test_tokens_per_second_follow_from_the_time(tmp_path):
    wrong = measurement(0.01, 50, 2048, tokens_per_second_per_device=1e9)
    found = problems(tmp_path, honest_bench(measurements=[wrong]))
    assert any("1e+09 tokens/s/device, but batch, length and median give 1.024e+07" in text for _, text in found)


def test_a_file_in_the_wrong_place_and_a_seed_twice(tmp_path):
    write_record(tmp_path, sound())
    copy = path_of(tmp_path, sound()).with_name("copy-s0.json")
    copy.write_bytes(path_of(tmp_path, sound()).read_bytes())
    found = problems(tmp_path)
    assert any(f"belongs into listops/s5/{sound().digest}-s0.json" in text for _, text in found)
    assert any(f"seed 0 of {sound().digest} is there twice" in text for _, text in found)


def test_a_digest_with_two_recipes_and_a_fingerprint_of_two_sets(tmp_path):
    other = sound(seed=1)
    other = other.model_copy(update={"recipe": other.recipe.model_copy(update={"lr": 0.5})})
    words = sound(seed=2)
    words = words.model_copy(update={"recipe": words.recipe.model_copy(update={"notes": "only words"})})
    found = problems(tmp_path, sound(), other, words)
    twice = [text for _, text in found if text.startswith(f"digest {sound().digest} has another recipe")]
    assert len(twice) == 1, found
    made = [sound(), sound(seed=1, digest="b" * 12, data__source="user")]
    found = problems(tmp_path / "two", *made)
    assert [severity for severity, text in found if "is of other examples" in text] == ["error"]


def test_two_official_sets_that_differ(tmp_path):
    made = [sound(seed=seed, data={"source": "official", "fingerprint": name}) for seed, name in enumerate("ab")]
    found = problems(tmp_path, *made)
    assert [severity for severity, text in found if "which is another one elsewhere" in text] == ["warning"]
    unproved = [
        severity for severity, text in found if "which no known fingerprint of official listops can prove" in text
    ]
    assert unproved == ["warning"] * 2


def test_files_that_are_no_records_are_problems_too(tmp_path):
    path = tmp_path / "listops" / "s5" / "x-s0.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 99}')
    (problem,) = validate(tmp_path)
    assert (problem.severity, problem.file) == ("error", "listops/s5/x-s0.json")
    assert "schema version 99" in str(problem)
    with pytest.raises(UserError, match="no results folder"):
        validate(tmp_path / "none")


def test_errors_come_first(tmp_path):
    found = problems(tmp_path, sound(seed=0, test=0.75), sound(seed=1, provenance__finished="x"))
    assert [severity for severity, _ in found] == ["error", "warning"]
