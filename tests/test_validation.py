"""What `validate` finds in a results folder, and that it finds nothing in a sound one."""

import re

import pytest

from lra_bench.errors import UserError
from lra_bench.records.files import path_of, write_record
from lra_bench.records.validate import validate
from tests.made_records import bench_record, measurement, robustness_record, train_record


def sound(**change):
    """A full ListOps run near its published 62.15 %, consistent in itself."""
    made = {"test": 0.6215, "epochs": 40}
    return train_record(**{**made, **change})


def problems(folder, *records):
    for record in records:
        write_record(folder, record)
    return [(problem.severity, problem.message) for problem in validate(folder)]


def test_a_sound_folder_has_no_problems(tmp_path):
    records = [sound(seed=seed) for seed in range(3)]
    assert problems(tmp_path, *records, bench_record(), robustness_record()) == []


@pytest.mark.parametrize(
    ("change", "severity", "message"),
    [
        ({"accuracy": {"test": 0.62175}}, "error", "no whole number of 2000"),
        ({"accuracy": {"test": 1.5}}, "error", r"outside \[0, 1\]"),
        ({"test": None}, "error", "completed without a test accuracy"),
        ({"test": 0.75}, "warning", "too good: 75.00%, published 62.15 %"),
        ({"test": 0.50}, "warning", "too bad: 50.00%, published 62.15 %"),
        ({"test": 0.10}, "warning", "below the majority class"),
        ({"accuracy": {"best_val": 0.9}}, "error", "not the best of its curve"),
        ({"epochs": 12}, "error", "completed after 12 of 40 epochs"),
        ({"data": {"counts": {"train": 90, "val": 20, "test": 200}}}, "error", "called full, with 200 test examples"),
        ({"data": {"validation_is_test": True}}, "error", "validation is the test set"),
        ({"throughput": {"examples_per_second": 9000.0}}, "warning", "batch and seconds give 5000"),
        ({"throughput": {"examples_per_second_per_device": 9000.0}}, "error", "times devices is not examples/s"),
        ({"provenance": {"git_dirty": True}}, "warning", "uncommitted changes"),
        ({"provenance": {"finished": "yesterday"}}, "error", "no ISO 8601 time"),
        ({"provenance": {"command": "lra-bench train --data /home/me/x"}}, "error", "somebody's machine"),
    ],
)
def test_each_problem_of_a_training_record(tmp_path, change, severity, message):
    found = problems(tmp_path, sound(**change))
    assert [s for s, text in found if re.search(message, text)] == [severity], found


def test_too_fast_and_a_backward_curve(tmp_path):
    record = sound()
    fast = [point.model_copy(update={"val_accuracy": 0.6215}) for point in record.curve]
    assert [text for _, text in problems(tmp_path, record.model_copy(update={"curve": fast}))] == [
        "too fast: at the published accuracy within the first twentieth of the training"
    ]
    back = [record.curve[1], record.curve[0], *record.curve[2:]]
    (found,) = problems(tmp_path / "b", record.model_copy(update={"curve": back}))
    assert found == ("error", "the steps of its curve do not increase")


def test_a_far_validation_accuracy(tmp_path):
    record = sound()
    curve = [point.model_copy(update={"val_accuracy": point.val_accuracy + 0.1}) for point in record.curve]
    accuracy = record.accuracy.model_copy(update={"best_val": 0.7215})
    found = problems(tmp_path, record.model_copy(update={"curve": curve, "accuracy": accuracy}))
    assert any("further apart than their samples explain" in text for _, text in found)


def test_failed_path_x_seeds_are_seen_but_are_no_error(tmp_path):
    found = problems(tmp_path, train_record("s5", "pathx", test=0.5, epochs=40))
    assert [severity for severity, _ in found] == ["warning"]


def test_bench_records(tmp_path):
    wrong_rate = measurement(0.01, 50, 2048, examples_per_second_per_device=9999.0)
    wrong_order = measurement(
        0.01, 50, 2048, seconds={"median": 0.01, "q1": 0.02, "q3": 0.03, "windows": 5, "calls": 1, "warmup": 0}
    )
    beyond = measurement(0.01, 50, 2048, roofline_fraction=1.4)
    for i, (made, message) in enumerate(
        ((wrong_rate, "batch and median give"), (wrong_order, "quartiles"), (beyond, "best measured rates"))
    ):
        found = problems(tmp_path / str(i), bench_record(measurements=[made]))
        assert len(found) == 1
        assert message in found[0][1]


def test_a_file_in_the_wrong_place_and_a_seed_twice(tmp_path):
    write_record(tmp_path, sound())
    copy = path_of(tmp_path, sound()).with_name("copy-s0.json")
    copy.write_bytes(path_of(tmp_path, sound()).read_bytes())
    found = problems(tmp_path)
    assert any("belongs into listops/s5/aaaaaaaaaaaa-s0.json" in text for _, text in found)
    assert any("seed 0 of aaaaaaaaaaaa is there twice" in text for _, text in found)


def test_a_digest_with_two_recipes_and_a_fingerprint_of_two_sets(tmp_path):
    other = sound(seed=1)
    other = other.model_copy(update={"recipe": other.recipe.model_copy(update={"lr": 0.5})})
    words = sound(seed=2)
    words = words.model_copy(update={"recipe": words.recipe.model_copy(update={"notes": "only words"})})
    found = problems(tmp_path, sound(), other, words)
    assert [text.split(" in ")[0] for _, text in found] == ["digest aaaaaaaaaaaa has another recipe, data or precision"]
    made = [sound(), sound(seed=1, digest="b" * 12, data={"source": "generated"})]
    found = problems(tmp_path / "two", *made)
    assert [severity for severity, text in found if "is of other examples" in text] == ["error"]


def test_two_official_sets_that_differ(tmp_path):
    found = problems(tmp_path, sound(), sound(seed=1, digest="b" * 12, data={"fingerprint": "another"}))
    assert [(severity, "official listops" in text) for severity, text in found] == [("warning", True)]


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
    found = problems(tmp_path, sound(seed=0, test=0.75), sound(seed=1, provenance={"finished": "x"}))
    assert [severity for severity, _ in found] == ["error", "warning"]
