"""Two models on the same test examples: the tests against slow ones, and what `compare` and `export` show of them."""

import csv
import json
import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lra_bench import cli
from lra_bench.bench.synthetic import synthetic_run
from lra_bench.commands.compare import settings_of_both
from lra_bench.errors import UserError
from lra_bench.records.finished import CORRECT, load_correct, load_finished, write_finished
from lra_bench.records.per_example import write_per_example
from lra_bench.report.paired import mcnemar, paired_interval
from lra_bench.runs.pretraining import pretraining_for
from lra_bench.runs.run import write_settings
from tests.made_records import train_record

N = 2000


def exact_p(only_a, only_b):
    """Every outcome of fair coins that is at most as likely as the one found, summed as fractions."""
    n = only_a + only_b
    found = math.comb(n, only_a)
    return float(Fraction(sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= found), 2**n))


@settings(deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 3), st.integers(0, 3))
def test_p_is_the_sum_over_all_outcomes(only_a, only_b, both, neither):
    a = np.repeat([True, False, True, False], [only_a, only_b, both, neither])
    b = np.repeat([False, True, True, False], [only_a, only_b, both, neither])
    found = mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p == pytest.approx(exact_p(only_a, only_b), rel=1e-9)
    assert found.statistic == pytest.approx((only_a - only_b) ** 2 / max(only_a + only_b, 1))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_over_seeds_covers_what_it_says(seeds):
    """Two equal models whose seeds differ more than the examples make them: 95 of 100 intervals hold zero."""
    rng, held, tries = np.random.default_rng(seeds), 0, 400
    for _ in range(tries):
        hard = rng.random(400)
        accuracy = 0.7 + 0.05 * rng.standard_normal((2, seeds, 1))
        a, b = hard < accuracy
        held += paired_interval(a, b).holds_zero
    assert 0.92 < held / tries <= 1.0


def test_interval_is_narrower_for_examples_that_both_fail():
    """Where seeds are alike, only the examples on which the models differ widen it."""
    hard = np.arange(1000) % 2 == 0
    a, b = np.tile(hard, (2, 1)), np.tile(hard, (2, 1))
    a[:, 1:20:2] = True  # ten examples more
    found = paired_interval(a, b)
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(0.01 * 0.99 / 1000)
    assert (found.low, found.high) == pytest.approx((0.01 - half, 0.01 + half))


def finished_run(seed, share, **settings):
    """A finished run whose first examples are right, up to a share of them."""
    run, _ = synthetic_run("s5", "listops", 64, settings, "float32")
    run = run.model_copy(update={"seed": seed})
    write_settings(run)
    record = train_record(seed=seed, test=share)
    write_finished(run.folder, record, np.arange(N) < round(N * share))
    return run


def typed(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["lra-bench", *map(str, words)])
    with pytest.raises(SystemExit) as leaving:
        cli.main()
    told = capsys.readouterr()
    return leaving.value.code, told.out, " ".join(told.err.split())


@pytest.mark.usefixtures("unproved")
def test_runs_of_one_test_set_are_compared_example_by_example(monkeypatch, capsys):
    a, other_seed = (finished_run(seed, 0.62 + seed / 100) for seed in (0, 1))
    b, _ = (finished_run(seed, 0.60, n_layers=1) for seed in (3, 4))
    _, text, _ = typed(monkeypatch, capsys, "compare", a.name, b.name, "--json")
    paired = json.loads(text)["paired"]
    assert (paired["only_a"], paired["only_b"], paired["seeds"]) == (40, 0, [[0, 1], [3, 4]])
    assert paired["p"] == pytest.approx(2 * 0.5**40)
    assert paired["difference"] == pytest.approx(0.025)
    assert paired["interval"][0] < 0.025 < paired["interval"][1]
    _, text, _ = typed(monkeypatch, capsys, "compare", a.name, b.name)
    assert "only A classifies correctly: 40, only B: 0 (McNemar's χ² 40.00, exact p 1.8e-12)" in text
    assert "over seeds (A: 0, 1; B: 3, 4): +2.50 points, 95 % interval" in text
    _, text, _ = typed(monkeypatch, capsys, "compare", a.name, other_seed.name, "--json")
    assert "interval" not in json.loads(text)["paired"], "two seeds of one model are no two models"

    (b.folder / CORRECT).unlink()
    _, text, _ = typed(monkeypatch, capsys, "compare", a.name, b.name)
    assert f"No paired test: {b.name} does not keep which test examples are right. `lra-bench evaluate" in text


def test_a_pretrained_run_is_told_from_one_that_was_not():
    run, _ = synthetic_run("s4", "listops", 64, {}, "float32")
    stage = {"pretraining": pretraining_for("listops", "s4", run.recipe, "masked", {})}
    for each in (run, run.model_copy(update=stage)):
        write_settings(each)
    found = settings_of_both(run.name, run.model_copy(update=stage).name)
    assert {name for name, (a, b) in found.items() if a != b and name.startswith("pretraining")}
    assert all(a == b for name, (a, b) in found.items() if not name.startswith("pretraining"))


@pytest.mark.usefixtures("unproved")
def test_correct_examples_are_exported_on_request(monkeypatch, capsys, tmp_path):
    a, b = finished_run(0, 0.62), finished_run(1, 0.60)
    code, out, _ = typed(monkeypatch, capsys, "export", tmp_path / "c.csv", "--per-example")
    assert (code, out.strip()) == (0, str(tmp_path / "c.csv"))
    header, *rows = csv.reader((tmp_path / "c.csv").read_text().splitlines())
    assert header == ["example", a.name, b.name]
    assert [rows[number] for number in (0, 1199, 1200, 1999)] == [
        ["0", "1", "1"], ["1199", "1", "1"], ["1200", "1", "0"], ["1999", "0", "0"],
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"name it \.csv, not runs\.tar\.xz"):
        write_per_example(tmp_path / "runs.tar.xz")
    (b.folder / CORRECT).unlink()
    assert write_per_example(tmp_path / "c.csv") == [a.folder]
    with pytest.raises(UserError, match="does not keep which test examples are right"):
        write_per_example(tmp_path / "c.csv", [b.name])


@pytest.mark.usefixtures("unproved")
def test_bits_that_do_not_fit_the_record_are_refused():
    run = finished_run(0, 0.62)
    record = load_finished(run.folder)
    assert load_correct(run.folder, record).sum() == 1240
    write_finished(run.folder, record, np.arange(N) < 1239)
    with pytest.raises(UserError, match=r"does not give the accuracy of result\.json.*writes test_correct\.npy anew"):
        load_correct(run.folder, record)
    (run.folder / CORRECT).write_bytes(b"\x93NUMPY")
    with pytest.raises(UserError, match=r"test_correct\.npy has another SHA-256"):
        load_correct(run.folder, record)
    (run.folder / "SHA256SUMS").unlink()
    (run.folder / "run.json").write_text(run.model_dump_json())  # as of an earlier version
    with pytest.raises(UserError, match="does not give the accuracy"):
        load_correct(run.folder, record)
