"""Results that a leaderboard could present in a misleading way, and what this one makes of them."""

import pytest

from lra_bench.recipes import s5_ptd
from lra_bench.records.files import write_record
from lra_bench.report import report
from tests.made_records import RECIPE, train_record

pytestmark = pytest.mark.usefixtures("unproved")


def table_of(folder, *records):
    for record in records:
        write_record(folder, record)
    return report(folder, pictures=False)


def accuracy(made, model, column):
    table = made.table("accuracy-paper")
    place = [title.title for title in table.columns].index(column)
    return next(row[place] for block in table.blocks if "published recipes" in block.title
                for row in block.rows if row[0].text == model)  # fmt: skip


def diverged(model, task, seed):
    return train_record(model, task, seed, None, status="diverged")


def test_one_good_seed_of_five_is_not_the_best_model(tmp_path):
    lucky = [train_record("lru", "pathx", 0, 0.97), *(diverged("lru", "pathx", seed) for seed in range(1, 5))]
    steady = [train_record("s5", "pathx", seed, 0.90 + seed / 1000) for seed in range(5)]
    made = table_of(tmp_path, *lucky, *steady)
    found = accuracy(made, "LRU", "Path-X")
    assert found.value == pytest.approx((97 + 4 * 50) / 5)
    assert found.text == "59.40 ± 21.02, median 97.00 (1/5)"
    assert (found.rank, accuracy(made, "S5", "Path-X").rank) == ("second", "best")


def test_a_diverged_seed_and_one_at_chance_count_alike(tmp_path):
    made = table_of(
        tmp_path,
        *(train_record("s4", "pathx", seed, 0.96) for seed in range(4)),
        train_record("s4", "pathx", 4, 0.5021),
        *(train_record("s5", "pathx", seed, 0.96) for seed in range(4)),
        diverged("s5", "pathx", 4),
        *(train_record("lru", "pathx", seed, 0.96) for seed in range(4)),
        train_record("lru", "pathx", 4, None, status="stopped"),
    )
    for model in ("S4", "S5", "LRU"):
        assert accuracy(made, model, "Path-X").value == pytest.approx(86.8)
    (row,) = (row for row in made.table("cells").blocks[0].rows if row[0].text == "LRU")
    assert "4/5 (38–96 %), 1 stopped" in {cell.text for cell in row}


def test_a_bimodal_cell_has_the_interval_of_its_share_and_none_of_its_mean(tmp_path):
    made = table_of(tmp_path, *(train_record("s5", "pathx", seed, 0.98 if seed < 6 else 0.5) for seed in range(10)))
    (row,) = made.table("cells").blocks[0].rows
    cells = dict(zip([column.title for column in made.table("cells").columns], row, strict=True))
    assert cells["Solved"].text == "6/10 (31–83 %)"
    assert cells["Interval"].text == cells["95% low"].text == "–"
    assert cells["Median of solved"].text == "98.00"


def test_no_interval_leaves_0_to_100(tmp_path):
    made = table_of(tmp_path, *(train_record("s5", "pathx", seed, test) for seed, test in enumerate((0.999, 0.93))))
    (row,) = made.table("cells").blocks[0].rows
    cells = dict(zip([column.title for column in made.table("cells").columns], row, strict=True))
    assert cells["95% high"].value == 100.0


def test_two_models_a_point_apart_on_2000_examples_are_not_told_apart(tmp_path):
    near = [train_record("s4", "listops", seed, 0.61 + seed / 1e4) for seed in range(5)]
    far = [train_record("lru", "listops", seed, 0.50 + seed / 1e4) for seed in range(5)]
    best = [train_record("s5", "listops", seed, 0.62 + seed / 1e4) for seed in range(5)]
    made = table_of(tmp_path, *near, *far, *best)
    assert {name: "a" in accuracy(made, name, "ListOps").marks for name in ("S5", "S4", "LRU")} == {
        "S5": False, "S4": True, "LRU": False,
    }  # fmt: skip


def test_one_seed_each_is_never_told_apart(tmp_path):
    made = table_of(tmp_path, train_record("s5", test=0.62), train_record("s4", test=0.40))
    assert "a" in accuracy(made, "S4", "ListOps").marks
    (row,) = made.table("differences").blocks[0].rows
    assert row[-1].text == "one seed"


def test_rows_of_two_precisions_name_them_and_are_compared_in_every_table(tmp_path):
    exact = [train_record("s5", seed=seed, test=0.62 + seed / 1e4) for seed in range(3)]
    rounded = {"precision": "tf32", "matmul_precision": "tensorfloat32"}
    other = [train_record("s4", seed=seed, test=0.50 + seed / 1e4, system=rounded) for seed in range(3)]
    made = table_of(tmp_path, *exact, *other)
    assert accuracy(made, "S5 [float32]", "ListOps").rank == "best"
    assert accuracy(made, "S4 [tf32]", "ListOps").rank == "second"
    (row,) = made.table("differences").blocks[0].rows
    assert [cell.text for cell in row[1:3]] == ["S4 [tf32]", "S5 [float32]"]


def test_rows_of_one_published_precision_do_not_name_it(tmp_path):
    rounded = {"precision": "tf32", "matmul_precision": "tensorfloat32"}
    made = table_of(tmp_path, *(train_record(model, system=rounded) for model in ("s4", "s5")))
    assert accuracy(made, "S4", "ListOps").value == accuracy(made, "S5", "ListOps").value


def told_apart(made):
    """Difference, its bounds and whether it is told apart, by the row's model, in the table of differences."""
    return {row[1].text: [cell.text for cell in row[4:]] for row in made.table("differences").blocks[0].rows}


def test_where_seeds_failed_cells_are_told_apart_by_the_share_that_solved_the_task(tmp_path):
    best = [train_record("s5", "pathx", seed, 0.98 + seed / 1e4) for seed in range(5)]
    mostly = [train_record("s4", "pathx", seed, 0.98 if seed else 0.5) for seed in range(5)]
    seldom = [train_record("lru", "pathx", seed, 0.5 if seed else 0.98) for seed in range(5)]
    made = table_of(tmp_path, *best, *mostly, *seldom)
    assert "a" in accuracy(made, "S4", "Path-X").marks
    assert "a" not in accuracy(made, "LRU", "Path-X").marks
    found = told_apart(made)
    assert found["S4"][1:] == ["–", "–", "no, by solved seeds: 4/5, 5/5"]
    assert found["LRU"][1:] == ["–", "–", "yes, by solved seeds: 1/5, 5/5"]


def test_seeds_that_solved_the_task_far_below_the_best_are_told_apart_although_one_failed(tmp_path):
    best = [train_record("s5", "pathx", seed, 0.98 + seed / 1e4) for seed in range(5)]
    below = [train_record("s4", "pathx", seed, 0.6 + seed / 1e4 if seed else 0.5) for seed in range(5)]
    made = table_of(tmp_path, *best, *below)
    assert "a" not in accuracy(made, "S4", "Path-X").marks
    assert told_apart(made)["S4"][-1] == "yes, by solved seeds: 4/5, 5/5"


def test_seeds_that_all_failed_have_no_interval_of_the_constant_they_count_as(tmp_path):
    best = [train_record("s5", "pathx", seed, 0.98) for seed in range(5)]
    made = table_of(tmp_path, *best, *(train_record("s4", "pathx", seed, 0.501) for seed in range(5)))
    names = [column.title for column in made.table("cells").columns]
    (row,) = (row for row in made.table("cells").blocks[0].rows if row[0].text == "S4")
    cells = {name: cell.text for name, cell in zip(names, row, strict=True)}
    assert cells["Interval"] == cells["95% low"] == cells["95% high"] == "–"
    assert cells["Solved"] == "0/5 (0–43 %)"
    assert told_apart(made)["S4"] == ["−48.00", "–", "–", "yes, by solved seeds: 0/5, 5/5"]


def test_a_difference_to_a_number_that_was_not_read_carries_its_mark_in_every_format(tmp_path):
    recipe = s5_ptd.RECIPES["pathfinder"].model_dump()
    made = table_of(tmp_path, *(train_record("s5_ptd", "pathfinder", seed, 0.95, recipe=recipe) for seed in range(2)))
    assert accuracy(made, "S5-PTD", "Pathfinder").note == "Δ −0.54 n"
    below = made.compact.blocks[0].rows[1]
    assert [(cell.text, cell.marks) for cell in below if cell.marks] == [("−0.5", "n")]
    assert "n" in dict(made.compact.footnotes)
    assert r"\textsuperscript{n}" in made.files["leaderboard.tex"].split("Quoted from papers")[0]
    assert "Δ −0.54 n" in made.files["leaderboard.md"]


def test_a_difference_of_averages_carries_the_marks_of_all_the_published_numbers(tmp_path):
    records = [
        train_record("s5_ptd", task, test=0.95, recipe=recipe.model_dump()) for task, recipe in s5_ptd.RECIPES.items()
    ]
    assert accuracy(table_of(tmp_path, *records), "S5-PTD", "Avg(6)").note.endswith(" n,s")


def test_a_recipe_without_a_published_number_says_what_is_published_of_its_model(tmp_path):
    bare = {"published_recipe": False, "recipe": {**RECIPE, "published": None}}
    places = (("lru", "image"), ("transformer", "pathx"), ("linoss", "listops"))
    made = table_of(tmp_path, *(train_record(*place, test=0.8, **bare) for place in places))
    labels = {row[0].text for row in made.table("accuracy-paper").blocks[1].rows}
    assert labels == {
        "LRU [published for color only]", "Transformer [published as failed]", "LinOSS [no published accuracy]",
    }  # fmt: skip
