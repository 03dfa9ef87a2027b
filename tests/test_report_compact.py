"""The compact accuracy table, and what `lra-bench report` prints on terminals of several widths."""

import io
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from lra_bench.commands.report import Part
from lra_bench.errors import UserError
from lra_bench.records.files import write_record
from lra_bench.report import report
from lra_bench.report.compact import DIFFERENCE_LABEL, SELECTED
from lra_bench.report.published import published
from lra_bench.report.select import LRA
from lra_bench.report.table import PARTS, Accuracy, signed
from tests.made_records import bench_record, train_record

pytestmark = pytest.mark.usefixtures("unproved")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three models on every task but one cell, with two seeds each, one of which failed on Path-X with S5."""
    made = tmp_path_factory.mktemp("results")
    rates = {"s5": 4000.0, "s4": 1000.0, "transformer": 2000.0}
    for model, base in (("s5", 0.62), ("s4", 0.60), ("transformer", 0.36)):
        for task in LRA:
            if (model, task) == ("transformer", "pathx"):
                continue
            for seed in range(2):
                test = base + 0.01 * seed + 0.3 * (task != "listops")
                test = 0.5 if (model, task, seed) == ("s5", "pathx", 1) else test
                speed = {"examples_per_second_per_device": rates[model]}
                write_record(made, train_record(model, task, seed, test, throughput=speed))
    remat = {"remat": True, "examples_per_second_per_device": 9.0}
    write_record(made, train_record("s4", "text", 2, 0.905, throughput=remat))
    write_record(made, bench_record())
    return made


def rows_of(table, block="published recipes"):
    return {row[0].text: row for found in table.blocks if block in found.title for row in found.rows}


def printed(folder, tmp_path, *, width=120, encoding="utf-8", terminal=False, **options):
    """What the report prints, to a file or to a terminal, and the report."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    color = "standard" if terminal else None
    console = Console(width=width, file=out, force_terminal=terminal, color_system=color)
    made = report(folder, tmp_path, pictures=False, console=console, **options)
    out.seek(0)
    return out.read(), made


def test_rows_by_family_then_average(folder, tmp_path):
    full = report(folder, tmp_path, pictures=False).table("accuracy-paper")
    assert list(rows_of(full)) == ["Transformer", "S4", "S5"], "S5 failed once on Path-X"
    quoted = [row for block in full.blocks if block.quoted for row in block.rows]
    families = {row.name: row.family for row in published().rows}
    assert list(dict.fromkeys(families[row[0].text] for row in quoted)) == [
        "attention", "convolution", "recurrence", "hybrid", "state space",
    ]  # fmt: skip


def test_columns_beside_accuracies(folder, tmp_path):
    full = report(folder, tmp_path, pictures=False).table("accuracy-paper")
    names = [column.name for column in full.columns]
    rows = rows_of(full)
    wins = {model: row[names.index("wins")].value for model, row in rows.items()}
    # S5 wins on five tasks against both, and loses Path-X against S4, which the Transformer lacks.
    assert wins == pytest.approx({"S5": 100 * 10 / 11, "S4": 100 * 6 / 11, "Transformer": 0.0})
    speeds = {model: row[names.index("speed")].value for model, row in rows.items()}
    assert speeds == {"S5": 4000.0, "S4": 1000.0, "Transformer": 2000.0}, "the run with --remat does not count"
    assert rows["S5"][names.index("parameters")].text == "0.19"
    assert [full.columns[names.index(task)].detail for task in ("listops", "retrieval")] == ["2,048", "2 × 4,000"]
    found = rows["S5"][names.index("listops")]
    assert found.accuracy.difference == pytest.approx(62.5 - 62.15)
    assert found.note == "Δ +0.35"


def test_the_compact_table(folder, tmp_path):
    compact = report(folder, tmp_path, pictures=False).compact
    assert [column.name for column in compact.columns[1:]] == [*LRA, "avg6", "wins", "parameters", "speed"]
    (_, s4, _, s5, _) = [row for row in compact.blocks[0].rows if row[0].text != "Transformer"]
    assert [cell.text for cell in s5[:2]] == ["S5", "62.5±.7"]
    assert s5[6].text == "71.0±30 1/2"
    assert s4[6].rank == "best"
    assert compact.columns[2].marks == "t", "a mark of every cell of a column stands in its heading"
    assert compact.blocks[0].rows[0][2].marks == ""
    names = [row[0].text for row in compact.blocks[1].rows]
    assert sorted(names) == sorted(SELECTED)
    assert set(SELECTED) <= {row.name for row in published().rows}


def test_columns_and_rows_in_the_order_that_is_asked_for(folder, tmp_path):
    made = report(folder, tmp_path, pictures=False, columns=["avg5", "text"], rows=["s5", "S4D-Lin", "S4"])
    assert [column.title for column in made.compact.columns] == ["Model", "Avg(5)", "Text"]
    assert [row[0].text for block in made.compact.blocks for row in block.rows] == ["S5", "S4", "S5", "S4D-Lin"]
    assert "S4D-Lin" in made.files["leaderboard.tex"]
    for wrong, legal in (({"columns": ["txt"]}, "wins, parameters, speed, difference"), ({"rows": ["S6"]}, "S4D-Lin")):
        with pytest.raises(UserError, match=f"unknown (row|column).*Legal:.*{legal}"):
            report(folder, tmp_path, pictures=False, **wrong)


def test_the_notes_say_how_many_seeds_a_cell_is_of(folder, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(folder, results)
    assert "over 2 to 3 seeds." in report(results, tmp_path / "out", pictures=False).compact.notes[0]
    write_record(results, train_record("s5_ptd", "image", 0, 0.86))
    made = report(results, tmp_path / "out", pictures=False)
    said = "mean ± standard deviation over 2 to 3 seeds; without ± or k/n, of one seed."
    assert said in made.compact.notes[0]
    for name in ("leaderboard.tex", "appendix.tex"):
        assert said.replace("±", r"$\pm$") in made.files[name]
    narrow, _ = printed(results, tmp_path / "out", width=80)
    assert "mean over 1 to 3 seeds." in " ".join(narrow.split()), "no deviations, no ±"


def test_the_notes_of_single_seeds_name_no_deviation(tmp_path):
    write_record(tmp_path, train_record("s5"))
    assert report(tmp_path, tmp_path / "out", pictures=False).compact.notes[0] == "Test accuracy in %, of one seed."


def test_the_notes_say_that_ranks_are_also_among_rows_not_shown(folder, tmp_path):
    note = "among all 3 rows measured here with published recipes, also those not shown"
    for rows, said in ((["S4", "Transformer"], True), (["S4", "S5", "Transformer"], False), ([], False)):
        made = report(folder, tmp_path, pictures=False, rows=rows)
        assert any(note in found for found in made.compact.notes) == said, rows
        assert (note in made.files["leaderboard.tex"]) == said


def test_rows_with_other_settings_are_counted_but_for_those_that_are_asked_for(folder, tmp_path):
    results = tmp_path / "results"
    shutil.copytree(folder, results)
    for i in range(80):
        lr = {"published_recipe": False, "overrides": {"lr": 0.001 + 0.0000009999999999999 * i}}
        write_record(results, train_record("s5", digest=f"c{i:011d}", **lr))
    text, made = printed(results, tmp_path / "out")
    assert "[lr=" not in text + made.files["leaderboard.tex"]
    assert "80 rows with other settings not shown; report accuracy and appendix.tex" in " ".join(text.split())
    labels = [row[0].text for row in made.table("accuracy-paper").blocks[1].rows]
    assert len(labels) == 80
    assert max(map(len, labels)) == len("S5 [lr=0.001079]")
    asked = report(results, tmp_path / "out", pictures=False, rows=["S5 [lr=0.001079]"])
    assert next(row[0].text for row in asked.compact.blocks[0].rows) == "S5 [lr=0.001079]"
    assert not any("not shown" in note for note in asked.compact.notes)


def test_settings_that_differ_in_the_seventh_digit_are_two_rows(tmp_path):
    for digest, lr in (("a" * 12, 0.00128), ("b" * 12, 0.0012800001)):
        made = train_record("s5", test=0.6, digest=digest, published_recipe=False, overrides={"lr": lr})
        write_record(tmp_path, made)
    rows = report(tmp_path, tmp_path / "out", pictures=False).compact.blocks[0].rows
    assert [row[0].text for row in rows if row[0].text != DIFFERENCE_LABEL] == ["S5 [lr=0.00128]"] * 2


@pytest.mark.parametrize(("width", "encoding"), [(80, "utf-8"), (200, "utf-8"), (80, "ascii"), (200, "ascii")])
def test_a_terminal_shows_one_compact_table(folder, tmp_path, width, encoding):
    text, _ = printed(folder, tmp_path, width=width, encoding=encoding)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    assert re.match(r"S5 [ |]*62\.5", next(line for line in lines if line.startswith("S5 ")))
    assert "1/2" in text
    assert "?" not in text
    assert ("Ex/s" in text) == (width == 200)
    assert "Throughput" not in text
    assert re.search(r"`lra-bench\s+report\s+--results-dir\s", text)
    assert len(lines) < 45


def test_commands_name_the_folder_that_is_not_the_default_one(folder, tmp_path, monkeypatch):
    assert f"`lra-bench report --results-dir {folder} PART`" in " ".join(
        printed(folder, tmp_path, width=900)[0].split()
    )
    shutil.copytree(folder, tmp_path / "here" / "results")
    monkeypatch.chdir(tmp_path / "here")
    assert "`lra-bench report PART`" in printed(Path("results"), tmp_path, width=900)[0]


@pytest.mark.parametrize("part", [None, "accuracy", "speed"])
def test_notes_on_bold_numbers_are_there_only_where_some_are_bold(folder, tmp_path, part):
    assert "bold" not in printed(folder, tmp_path, part=part)[0]
    assert "\x1b[1m" in (shown := printed(folder, tmp_path, part=part, terminal=True)[0])
    assert "Best bold" in shown


def test_parts_by_name_and_verbose(folder, tmp_path):
    assert set(get_args(Part)) == set(PARTS)
    text, _ = printed(folder, tmp_path, part="speed")
    assert "Throughput on fixed shapes" in text
    assert "Throughput of the training runs" in text
    assert "Long Range Arena" not in text
    assert "No record in" in printed(folder, tmp_path, part="robustness")[0]
    text, _ = printed(folder, tmp_path, verbose=True)
    assert "Throughput on fixed shapes" in text
    assert "62.50 ± 0.71 (2/2)" in text


def test_without_records_it_says_what_to_type(tmp_path):
    text, made = printed(tmp_path, tmp_path / "out")
    assert text.startswith("No record in")
    assert "S4-LegS (v2)" in text
    assert "62.2±.2" in text
    assert "lra-bench train --model s5" in text
    assert made.compact.blocks[0].quoted


@pytest.mark.parametrize(
    ("accuracy", "text"),
    [
        (Accuracy(62.15, 0.23), "62.2±.2"),
        (Accuracy(62.75), "62.8"),
        (Accuracy(61.1, 0.25), "61.1±.3"),
        (Accuracy(86.8, 20.46, 4, 5), "86.8±20 4/5"),
        (Accuracy(50.0, None, 0, 3), "✗ 0/3"),
        (Accuracy(93.0, 9.96, 3, 3), "93.0±10"),
        (Accuracy(93.0, 1.24, 1, 1), "93.0±1.2"),
    ],
)
def test_short_cells(accuracy, text):
    assert accuracy.short() == text


def test_signs():
    assert [signed(value, 1) for value in (0.04, -0.04, 0.05, -12.35)] == ["0.0", "0.0", "+0.1", "−12.4"]
