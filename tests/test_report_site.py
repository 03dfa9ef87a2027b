"""The folder for static hosting, and the results card in it."""

import re

import pytest

from lra_bench.errors import UserError
from lra_bench.records.files import write_record
from lra_bench.report import report
from lra_bench.report.card import card
from lra_bench.report.select import load
from lra_bench.report.site import refuse_if_not_own, write_site
from tests.made_records import bench_record, train_record

pytestmark = pytest.mark.usefixtures("unproved")

HOSTILE = "lra-bench train\n```\n# not a heading <b>"


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    for seed in range(2):
        write_record(folder, train_record(seed=seed, test=0.61 + seed / 100))
    write_record(folder, train_record("s4", provenance={"command": HOSTILE, "git_dirty": True}))
    write_record(folder, bench_record())
    return folder


def test_a_site_holds_index_html_and_what_it_links_to_and_nothing_else(results, tmp_path):
    made, site = report(results, pictures=False), tmp_path / "site"
    refuse_if_not_own(site)
    write_site(site, made.files, card(load(results)[0], "s4"))
    index = (site / "index.html").read_text(encoding="utf-8")
    linked = {name for name in re.findall(r'href="([^"]*)"', index) if not name.startswith(("#", "data:"))}
    assert {path.name for path in site.iterdir()} == {"index.html", *linked}
    assert len(linked) == 5
    refuse_if_not_own(site)
    (site / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"thesis\.tex"):
        refuse_if_not_own(site)
    with pytest.raises(UserError, match="is a file"):
        refuse_if_not_own(site / "thesis.tex")


def test_the_card_says_what_was_measured_and_how_to_repeat_it(results):
    text = card(load(results)[0], "s4")
    for part in ("61.50 ± 0.71 (2/2)", "fp-listops", "0123456789abcdef0123 with uncommitted changes", "jax 0.12.0",
                 "1 × NVIDIA H200", "\n    lra-bench train --model s5 --task listops --seed 1\n"):  # fmt: skip
        assert part in text
    assert [line for line in text.splitlines() if line.startswith(("#", "`"))] == [
        "# Results card",
        "## What was measured",
        "## Data",
        "## Versions and devices",
        "## Commands that repeat it",
    ]
