"""The tables: what stands in which cell, what is left out and why."""

import csv
import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from lra_bench.errors import UserError, WorkError
from lra_bench.records.files import write_record
from lra_bench.report import report
from lra_bench.report.select import LRA, Loaded
from lra_bench.report.window_figures import audit_of
from tests.made_records import RECIPE, bench_record, robustness_record, train_record, window_record

pytestmark = pytest.mark.usefixtures("unproved")


def report_(folder, out=None, **options):
    return report(folder, out, pictures=False, **options)


def write(folder, *records):
    for record in records:
        write_record(folder, record)
    return folder


def cell(table, block, model, column):
    """The one cell of this row and column, found by their texts."""
    index = [found.title for found in table.columns].index(column)
    rows = [row for found in table.blocks if block in found.title for row in found.rows if row[0].text == model]
    assert len(rows) == 1, (block, model, [row[0].text for found in table.blocks for row in found.rows])
    return rows[0][index]


def left_out(made):
    try:
        table = made.table("left-out")
    except KeyError:
        return {}
    return {row[0].text: row[1].text for block in table.blocks for row in block.rows}


def test_mean_and_sample_deviation_over_seeds(tmp_path):
    made = report_(
        write(tmp_path, *(train_record("s5", seed=seed, test=test) for seed, test in enumerate((0.60, 0.62, 0.64))))
    )
    found = cell(made.table("accuracy-paper"), "published recipes", "S5", "ListOps")
    assert found.text == "62.00 ± 2.00 (3/3)"
    assert found.value == pytest.approx(62)
    assert left_out(made) == {}


def test_best_is_bold_and_second_underlined_among_measured_rows_only(tmp_path):
    records = [train_record(model, test=test) for model, test in (("s4", 0.59), ("s5", 0.62), ("s5_ptd", 0.61))]
    made = report_(write(tmp_path, *records))
    table = made.table("accuracy-paper")
    assert [cell(table, "published recipes", model, "ListOps").rank for model in ("S5", "S5-PTD", "S4")] == [
        "best",
        "second",
        "",
    ]
    quoted = next(block for block in table.blocks if block.quoted)
    assert all(not found.rank for row in quoted.rows for found in row)
    assert "**62.00 (1/1) (Δ −0.15)**" in made.files["leaderboard.md"]
    assert r"\underline{61.0}" in made.files["leaderboard.tex"]


def test_generated_data_is_marked_in_the_cell_and_never_called_official(tmp_path):
    made = report_(write(tmp_path, train_record(data={"source": "generated"})))
    assert cell(made.table("accuracy-paper"), "published recipes", "S5", "ListOps").marks == "g"
    for name in ("leaderboard.md", "leaderboard.tex"):
        assert "not the official files" in made.files[name]
    assert cell(made.table("accuracy-paper"), "Quoted", "S5", "ListOps").marks == "", "quoted rows are of official data"


def test_tiny_and_smoke_runs_never_enter_the_full_cell(tmp_path):
    made = report_(
        write(
            tmp_path,
            train_record(test=0.60),
            train_record(test=0.99, digest="b" * 12, data={"size": "tiny", "fingerprint": "t"}),
            train_record(test=0.98, digest="c" * 12, published_recipe=False, note="smoke"),
            train_record(test=0.97, digest="d" * 12, published_recipe=False, overrides={"n_layers": 2}),
        )
    )
    table = made.table("accuracy-paper")
    assert cell(table, "published recipes", "S5", "ListOps").text == "60.00 (1/1)"
    assert cell(table, "other settings", "S5 [smoke]", "ListOps").text == "98.00 (1/1)"
    assert cell(table, "other settings", "S5 [n_layers=2]", "ListOps").text == "97.00 (1/1)"
    reduced = made.table("reduced")
    assert cell(reduced, "reduced", "S5 [data tiny]", "ListOps").text == "99.00 (1/1)"
    assert cell(reduced, "reduced", "S5 [data tiny]", "ListOps: majority class").text == "17.00"
    assert "0.99" not in made.files["leaderboard.csv"]


def test_failed_seeds_of_a_model_without_a_published_number_stay_in_their_cell(tmp_path):
    """Each says in its own note why it ended, and a row of its own for each would leave the mean to the survivors."""
    ends = [(seed, None, {"status": "diverged", "note": f"the loss of step {seed} was not finite"}) for seed in (3, 4)]
    unpublished = {"published_recipe": False, "recipe": {**RECIPE, "published": None}}
    write(tmp_path, *(train_record("linoss", "pathx", seed, 0.97, **unpublished) for seed in range(3)))
    write(tmp_path, *(train_record("linoss", "pathx", seed, test, **more, **unpublished) for seed, test, more in ends))
    rows = [row for block in report_(tmp_path).table("accuracy-paper").blocks for row in block.rows]
    (linoss,) = [row for row in rows if row[0].text.startswith("LinOSS")]
    assert "78.20 ± 25.74, median 97.00 (3/5)" in [cell.text for cell in linoss]


def test_runs_that_diverged_before_their_first_evaluation_are_reported(tmp_path):
    """Nothing can be drawn of them."""
    write(tmp_path, train_record("s5", "listops", 0, None, status="diverged", curve=[]))
    assert "0/1" in report(tmp_path, pictures=True).files["leaderboard.md"]


def test_only_tiny_runs_still_give_a_table(tmp_path):
    console = Console(width=120, record=True, file=io.StringIO())
    made = report_(write(tmp_path, train_record(data={"size": "tiny"})), console=console)
    text = console.export_text()
    assert "S5 [data tiny]" in text
    assert "Quoted" not in text, "published numbers do not stand above a run that cannot be compared with them"
    assert cell(made.table("reduced"), "reduced", "S5 [data tiny]", "ListOps").value == pytest.approx(60)


def test_what_does_not_fit_is_left_out_with_its_reason(tmp_path):
    made = report_(
        write(
            tmp_path,
            *(train_record(seed=seed) for seed in (0, 1)),
            train_record(seed=3, test=None),
            train_record(seed=4, digest="b" * 12, data={"protocol": "lra"}),
            train_record(seed=5, digest="c" * 12, data={"fingerprint": "other"}),
            train_record(seed=6, digest="d" * 12),
            train_record(seed=7, accuracy={"selection": "test"}),
        )
    )
    assert cell(made.table("accuracy-paper"), "published recipes", "S5", "ListOps").text == "60.00 ± 0.00 (2/2)"
    reasons = {name.rsplit("/", 1)[1]: reason for name, reason in left_out(made).items()}
    expected = {
        "aaaaaaaaaaaa-s3": "no test accuracy",
        "bbbbbbbbbbbb-s4": "other protocol: lra",
        "cccccccccccc-s5": "other examples",
        "dddddddddddd-s6": "another configuration",
        "aaaaaaaaaaaa-s7": "chosen on the test set",
    }
    assert set(reasons) == set(expected)
    assert all(part in reasons[name] for name, part in expected.items()), reasons


def test_official_data_is_the_column_where_both_are_there(tmp_path):
    generated = {"source": "generated", "fingerprint": "made"}
    made = report_(write(tmp_path, *(train_record("s4", seed=s, data=generated) for s in range(5)), train_record("s5")))
    table = made.table("accuracy-paper")
    assert [row[0].text for row in table.blocks[0].rows] == ["S5"]
    assert len(left_out(made)) == 5


def test_a_failed_task_counts_as_the_majority_class_and_solved_is_counted(tmp_path):
    tests = {"listops": 0.60, "text": 0.90, "retrieval": 0.90, "image": 0.85, "pathfinder": 0.95}
    records = [train_record("s5", task, test=test) for task, test in tests.items()]
    records += [train_record("s5", "pathx", seed, test) for seed, test in ((0, 0.52), (1, 0.49))]
    made = report_(write(tmp_path, *records))
    table = made.table("accuracy-paper")
    assert cell(table, "published recipes", "S5", "Path-X").text == "✗ 50.00 (0/2)"
    assert cell(table, "published recipes", "S5", "Avg(5)").value == pytest.approx(84.0)
    assert cell(table, "published recipes", "S5", "Avg(6)").value == pytest.approx((5 * 84.0 + 50.0) / 6)
    write(tmp_path, train_record("s5", "pathx", 2, 0.98), train_record("s5", "pathx", 3, None, status="diverged"))
    table = report_(tmp_path).table("accuracy-paper")
    found = cell(table, "published recipes", "S5", "Path-X")
    assert found.text == "62.00 ± 24.00, median 98.00 (1/4)"
    assert found.marks == "d"
    assert cell(table, "published recipes", "S5", "Avg(6)").value == pytest.approx((5 * 84.0 + 62.0) / 6)


def test_a_failed_cell_is_never_best(tmp_path):
    made = report_(write(tmp_path, train_record("s4", "pathx", test=0.51), train_record("s5", "pathx", test=0.52)))
    cells = [cell(made.table("accuracy-paper"), "published recipes", model, "Path-X") for model in ("S4", "S5")]
    assert [(found.text[0], found.rank) for found in cells] == [("✗", ""), ("✗", "")]


def test_wins_are_ranked_among_rows_with_as_many_tasks_only(tmp_path):
    records = [
        train_record(model, task, test=base + 0.3 * (task != "listops"))
        for model, base in (("s4", 0.60), ("s5", 0.62), ("lru", 0.58))
        for task in LRA
    ]
    made = report_(write(tmp_path, *records, train_record("s5_ptd", test=0.64), train_record("s4d", test=0.61)))
    table = made.table("accuracy-paper")
    wins = {model: cell(table, "published recipes", model, "Wins") for model in ("S5-PTD", "S5", "S4", "LRU")}
    assert wins["S5-PTD"].text == "100.0", "it wins all comparisons, on one task"
    assert {model: found.rank for model, found in wins.items()} == {
        "S5-PTD": "", "S5": "best", "S4": "second", "LRU": "",
    }  # fmt: skip
    assert cell(table, "published recipes", "S5-PTD", "ListOps").rank == "best"


def test_an_average_that_cannot_be_told_apart_from_the_best_is_marked(tmp_path):
    # On Path-X S5 and S4 vary much more than they differ, and the LRU is worse on every task.
    bases, spreads = {"s4": 0.600, "s5": 0.605, "lru": 0.5}, {"s4": 0.12, "s5": 0.1, "lru": 0.001}
    for model, base in bases.items():
        for task in LRA:
            spread = spreads[model] if task == "pathx" else 0.001
            write(tmp_path, *(train_record(model, task, s, base + 0.2 + spread * (s - 1)) for s in range(3)))
    table = report_(tmp_path).table("accuracy-paper")
    assert [cell(table, "published recipes", model, "Avg(6)").rank for model in ("S5", "S4")] == ["best", "second"]
    marks = {m: cell(table, "published recipes", m, "Avg(6)").marks for m in ("S5", "S4", "LRU")}
    assert marks == {"S5": "t", "S4": "at", "LRU": "t"}, "the marks of the cells are the average's, too"
    write(tmp_path, train_record("s5_ptd", "listops"), *(train_record("s5_ptd", task, 0, 0.6) for task in LRA[1:]))
    single = cell(report_(tmp_path).table("accuracy-paper"), "published recipes", "S5-PTD", "Avg(6)")
    assert single.marks == "at", "one seed never can"
    write(tmp_path, train_record("lru", "pathx", 3, None, status="diverged"))
    table = report_(tmp_path).table("accuracy-paper")
    assert cell(table, "published recipes", "LRU", "Avg(6)").marks == "dt", (
        "a failed seed makes accuracies of two kinds"
    )


def test_text_chosen_on_test_and_on_held_out_data_never_share_a_column(tmp_path):
    made = report_(
        write(
            tmp_path,
            train_record("s5", "text", test=0.89),
            train_record(
                "s5",
                "text",
                0,
                0.87,
                digest="b" * 12,
                data={"validation_is_test": False},
                accuracy={"selection": "val"},
            ),
            train_record("s5", "listops"),
        )
    )
    paper, holdout = made.table("accuracy-paper"), made.table("accuracy-holdout")
    assert cell(paper, "published recipes", "S5", "Text").text == "89.00 (1/1)"
    assert cell(paper, "published recipes", "S5", "Text").marks == "t"
    assert cell(holdout, "published recipes", "S5", "Text").text == "87.00 (1/1)"
    assert cell(holdout, "published recipes", "S5", "ListOps").text == "60.00 (1/1)"
    assert left_out(made) == {}


def test_text_with_validation_held_out_stands_in_the_row_of_its_recipe(tmp_path):
    held_out = {"validation_is_test": False, "counts": {"train": 22_500, "val": 2_500, "test": 25_000}}
    change = {"published_recipe": False, "accuracy": {"selection": "val"}, "data": held_out}
    write(tmp_path, train_record("s5", "text", 0, 0.87, digest="b" * 12, **change))
    write(tmp_path, *(train_record("s5", task, 0, 0.9) for task in LRA if task != "text"))
    holdout = report_(tmp_path).table("accuracy-holdout")
    text = cell(holdout, "published recipes", "S5", "Text")
    assert (text.text, text.note) == ("87.00 (1/1)", ""), "the published number was chosen on the test set"
    assert cell(holdout, "published recipes", "S5", "Avg(6)").value == pytest.approx((87 + 5 * 90) / 6)
    few = {**held_out, "size": "4000", "counts": {"train": 900, "val": 100, "test": 1000}, "fingerprint": "f"}
    write(tmp_path, train_record("s5", "text", 0, 0.6, digest="c" * 12, **{**change, "data": few}))
    assert cell(report_(tmp_path).table("reduced"), "reduced", "S5 [data 4000]", "Text").value == pytest.approx(60)


def test_further_tests_of_another_protocol_are_not_in_the_table(tmp_path):
    records = [window_record(5, 0.5), window_record(5, 0.6, seed=1)]
    records[1] = records[1].model_copy(update={"data": records[1].data.model_copy(update={"protocol": "lra"})})
    made = report_(write(tmp_path, *records))
    assert [row[4].text for row in made.table("windows").blocks[0].rows] == ["50.00"]
    assert any("other protocol: lra" in reason for reason in left_out(made).values())


def test_throughput_is_ranked_among_published_networks_on_the_same_devices_only(tmp_path):
    other = {"device_kind": "TPU v5e"}
    write(
        tmp_path,
        bench_record("s5", seconds=0.01),
        bench_record("s5", seconds=0.005, digest="r" * 12, remat=True),
        bench_record("s5", seconds=0.005, digest="n" * 12, overrides={"n_layers": 1}),
        bench_record("s5_ptd", seconds=0.02),
        bench_record("s4", seconds=0.005, batch_size=20),
        bench_record("s5", seconds=0.009, digest="m" * 12, system={"devices": 4}),
        bench_record("s5", seconds=0.005, digest="t" * 12, system=other),
        bench_record("s5", length=4096, seconds=0.03),
        train_record("s5"),
    )
    made = report_(tmp_path)
    blocks = {block.title: block.rows for block in made.table("throughput").blocks}
    assert set(blocks) == {"NVIDIA H200", "TPU v5e"}
    assert all(not found.rank for row in blocks["TPU v5e"] for found in row)
    steps = [row for row in blocks["NVIDIA H200"] if row[5].text == "training step"]
    assert [(row[0].text, row[2].text, row[3].text, row[4].text, row[7].value, row[7].rank) for row in steps] == [
        ("S4", "2,048", "20", "1", 4000.0, "second"),
        ("S5", "2,048", "50", "1", 5000.0, "best"),
        ("S5 [n_layers=1]", "2,048", "50", "1", 10000.0, ""),
        ("S5 --remat", "2,048", "50", "1", 10000.0, ""),
        ("S5-PTD", "2,048", "50", "1", 2500.0, ""),
        ("S5", "4,096", "50", "1", 50 / 0.03, ""),
        ("S5", "2,048", "50", "4", 50 / 0.009, ""),
    ]
    bench_tasks = report_(write(tmp_path / "two", *(bench_record("s5", task, 1024) for task in ("scifar", "pscifar"))))
    ranked = [row for row in bench_tasks.table("throughput").blocks[0].rows if row[5].text == "training step"]
    assert [row[7].rank for row in ranked] == ["", ""], "two tasks of one length are not ranked against each other"
    speed = made.table("training-speed").blocks[0].rows[0]
    assert [found.value for found in speed[8:13]] == [5000.0, 5000.0 * 2048, 10.0, 12.0, 3.0]


def test_robustness_table(tmp_path):
    made = report_(
        write(
            tmp_path,
            robustness_record(seed=0),
            robustness_record(seed=1, points={1.0: 0.87, 325.4: 0.1}, clean=0.90),
            train_record(),
        )
    )
    row = made.table("robustness").blocks[0].rows[0]
    assert [found.text for found in row[:6]] == ["S5", "Image", "official, full", "2", "0.1", "89.00"]
    assert [found.text for found in row[6:]] == ["86.00 ± 1.41", "15.00 ± 7.07"]


def test_window_table(tmp_path):
    records = [window_record(5, 0.5), window_record(61, 0.7), window_record(61, 0.8, seed=1)]
    changed = {"digest": "bbbbbbbbbbbb", "published_recipe": False}
    other = window_record(61, 0.2).model_copy(update=changed)
    row, apart = report_(write(tmp_path, *records, other)).table("windows").blocks[0].rows
    assert [found.text for found in row] == [
        "S5",
        "Image",
        "official, full",
        "2",
        "50.00 (1 of 2 seeds)",
        "75.00",
        "88.00",
    ]
    assert [apart[i].text for i in (0, 5)] == ["S5 [bbbbbbbbbbbb]", "20.00"]
    drawn = audit_of([Loaded("", record) for record in [*records, other]])
    assert {name: len(found) for name, found in drawn["image"].items()} == {"S5": 3, "S5 [bbbbbbbbbbbb]": 1}


def test_csv_holds_bare_numbers(tmp_path):
    made = report_(write(tmp_path, train_record(test=0.6125), train_record(seed=1, test=0.6135)))
    rows = list(csv.DictReader(io.StringIO(made.files["leaderboard.csv"])))
    assert float(rows[0]["ListOps"]) == pytest.approx(61.3)
    assert rows[0]["Path-X"] == ""
    assert {row["block"] for row in rows} == {
        "Measured here, published recipes", "Quoted from papers, not measured here (not ranked)",
    }  # fmt: skip


def test_another_schema_is_left_out(tmp_path):
    write(tmp_path, train_record())
    bad = tmp_path / "listops" / "s5" / "old-s1.json"
    bad.write_text('{"schema_version": 99}')
    made = report_(tmp_path)
    assert "schema version 99" in left_out(made)["listops/s5/old-s1"]
    assert [item.id for item in made.refused] == ["listops/s5/old-s1"]
    assert cell(made.table("accuracy-paper"), "published recipes", "S5", "ListOps").text == "60.00 (1/1)"
    with pytest.raises(UserError, match="no results folder"):
        report(tmp_path / "nothing")


def test_an_empty_folder_gives_the_quoted_rows(tmp_path):
    made = report_(tmp_path)
    assert cell(made.table("accuracy-paper"), "Quoted", "S5", "ListOps").text == "62.15 (0.23)"


def test_it_prints_and_reads_no_markup_in_names(tmp_path):
    write(tmp_path, train_record(note="[red]x", published_recipe=False))
    console = Console(width=100, record=True, file=io.StringIO())
    report_(tmp_path, console=console)
    text = console.export_text()
    assert "S5 [[red]x]" in text
    assert "62.2±.2" in text, "the quoted row of the same model is shown"
    assert "MEGA-chunk" not in text


@pytest.mark.parametrize("width", [50, 80, 100, 120, 160, 220])
def test_a_terminal_of_any_width_shows_every_number_whole(tmp_path, width):
    for model in ("s4", "s5", "my_package.my_layer:MyLayer"):
        write(tmp_path, *(train_record(model, task, seed, 0.6 + seed / 9) for task in LRA for seed in range(3)))
    settings = {"batch_size": 20, "d_model": 32, "decay_epochs": 2.0, "n_layers": 2, "warmup_epochs": 1.0}
    tiny = {"data": {"size": "tiny"}, "digest": "t" * 12, "published_recipe": False, "overrides": settings}
    write(tmp_path, train_record("s5_ptd", **tiny), bench_record(), robustness_record())
    console = Console(width=width, record=True, file=io.StringIO())
    made = report_(tmp_path, console=console, verbose=True)
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    words = set(text.replace(";", " ").split())
    for name in ("accuracy-paper", "reduced", "throughput", "training-speed", "robustness"):
        table = made.table(name)
        for block in (block for block in table.blocks if not block.quoted):
            for row in block.rows:
                for column, found in zip(table.columns, row, strict=True):
                    if column.numeric and found.text != "–":
                        assert set(found.text.split()) <= words, (name, column.title, found.text)


def test_a_full_table_breaks_no_number_across_lines(tmp_path):
    for model in ("s4", "s5"):
        tests = [0.6 + 0.01 * s for s in range(3)]
        write(tmp_path, *(train_record(model, task, s, test) for task in LRA for s, test in enumerate(tests)))
        write(tmp_path, train_record(model, "pathx", 3, None, status="diverged"))
    forms = set()
    for width in range(60, 300, 20):
        console = Console(width=width, record=True, file=io.StringIO())
        report_(tmp_path, console=console, part="accuracy")
        text = console.export_text(clear=False)
        assert all(len(line) <= width for line in text.splitlines())
        measured = text[: text.index("Quoted")]
        assert measured.count("61.00 ± 1.00") >= 10, (width, measured)
        assert measured.count("58.25 ± 5.56") == 2, (width, measured)
        assert len(re.findall(r"\(3/3\) (?:a,)?t", measured)) == 2, (width, measured)
        forms.add(
            "list" if "ListOps 61.00" in measured else "one line" if "61.00 ± 1.00 (3/3)" in measured else "lines"
        )
    assert forms == {"list", "lines", "one line"}


def test_check_notices_every_change(tmp_path):
    results, out = tmp_path / "results", tmp_path / "out"
    write(results, train_record("s5"), train_record("s4"), bench_record())
    made = report_(results, out)
    assert {path.name for path in out.iterdir()} == set(made.files)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    report(results, out, check=True)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before, "a check writes nothing"
    for name in made.files:
        text = (out / name).read_text(encoding="utf-8")
        (out / name).write_text(text.replace("s5", "s6", 1) if "s5" in text else text + " ", encoding="utf-8")
        with pytest.raises(WorkError, match=f"{name} differs"):
            report(results, out, check=True)
        (out / name).write_text(text, encoding="utf-8")
    (out / "leaderboard.csv").unlink()
    (out / "reduced.csv").write_text("left from before")
    with pytest.raises(WorkError, match=r"leaderboard.csv is missing.*reduced.csv has no records, so remove it"):
        report(results, out, check=True)
    write(results, train_record("s5", seed=1, test=0.7))
    with pytest.raises(WorkError, match=r"leaderboard.md differs"):
        report(results, out, check=True)


def test_check_takes_the_columns_and_rows_that_the_files_were_made_with(tmp_path):
    results, out = tmp_path / "results", tmp_path / "out"
    write(results, train_record("s5"), train_record("s4"))
    chosen = {"columns": ["listops"], "rows": ["S5"]}
    report_(results, out, **chosen)
    report(results, out, check=True, **chosen)
    with pytest.raises(WorkError, match=r"leaderboard\.tex differs\. Give --check the --columns and --rows") as error:
        report(results, out, check=True)
    assert f"`lra-bench report --results-dir {results} --out {out}`" in str(error.value)


def test_no_jax_is_imported():
    code = "import sys, lra_bench.report, lra_bench.records.validate; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
