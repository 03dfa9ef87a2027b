"""The LaTeX tables: they compile, look like tables, and nothing in a record becomes a command."""

import re
import shutil
import subprocess

import pytest

from lra_bench.records.files import write_record
from lra_bench.report import report
from lra_bench.report.formats import csv_text, markdown_text
from lra_bench.report.latex import latex_text
from lra_bench.report.select import LRA
from tests.made_records import bench_record, train_record

pytestmark = pytest.mark.usefixtures("unproved")

HOSTILE = (
    r"\input{/etc/passwd}",
    r"\write18{id}",
    "$$ x_1^2 $",
    "100% & # {}~",
    r"\end{tabular}",
    "a\n\\b",
    "|`*_[x](y)<b>",
    "ü Ж 漢 ±✗",
)
DOCUMENT = r"""\documentclass{article}
PACKAGES
\setlength{\textwidth}{5.5in}\setlength{\textheight}{9in}
\providecommand{\resizebox}{}\renewcommand{\resizebox}[3]{#3}
\begin{document}
Text before.
\input{TABLES}
\end{document}
"""
"""Text as wide as that of a NeurIPS page, in which a table that is wider is not made smaller."""

COMMANDS = re.findall(
    r"\w+",
    "begin end centering scriptsize tiny setlength tabcolsep LTcapwidth raggedright arraybackslash "
    "resizebox ifdim width textwidth else fi toprule midrule bottomrule multicolumn endfirsthead endhead endfoot "
    "emph textbf underline textit textsuperscript caption pm times omega Delta textbackslash textasciicircum "
    "textasciitilde textless textgreater textbar textquotedbl textasciigrave textendash allowbreak shortstack",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made_up):
    made = tmp_path_factory.mktemp("results")
    for model, base in (("s4", 0.58), ("s5", 0.62), ("s5_ptd", 0.61)):
        for task in LRA:
            for seed in range(3):
                write_record(made, train_record(model, task, seed, base + 0.002 * seed + 0.3 * (task != "listops")))
    for seed in range(5):
        write_record(made, train_record("s4_ptd", "pathx", seed, 0.96 if seed else 0.5))
    for i, text in enumerate(HOSTILE):
        write_record(made, train_record("s5", digest=f"h{i:011d}", published_recipe=False, overrides={"note": text}))
    write_record(made, bench_record(system={"device_kind": HOSTILE[0]}))
    with made_up():
        names = [row[0].text for row in report(made, pictures=False).table("accuracy-paper").blocks[1].rows]
        report(made, pictures=False, rows=["S4", "S5", "S5-PTD", "S4-PTD", *names])
    return made


@pytest.mark.parametrize("name", ["leaderboard.tex", "appendix.tex"])
def test_only_known_commands(folder, name):
    text = (folder / name).read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert set(re.findall(r"\\([A-Za-z]+)", body.replace(r"\\", ""))) <= set(COMMANDS)
    for environment in ("tabular", "longtable", "landscape"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}")
    assert re.findall(r"(?<!\\)%", body) == ["%"] * body.count("{!}{%\n")


def test_cells_are_of_one_line(folder):
    text = (folder / "leaderboard.tex").read_text(encoding="utf-8")
    assert r"\textbf{62.2}\,{\scriptsize $\pm$.2}" in text
    assert r"86.8\,{\scriptsize $\pm$21}\,{\scriptsize 4/5}" in text, "k/n only where k < n"
    assert "3/3" not in text
    assert r"\scriptsize 0.0" in text, "the difference to the published number"


@pytest.mark.parametrize("text", HOSTILE)
def test_escapes(text):
    assert not re.search(r"(?<!\\)[#%&]", latex_text(text))
    assert latex_text(text).count("{") == latex_text(text).count("}")
    assert "\n" not in latex_text(text) + markdown_text(text) + csv_text(text)
    assert not re.search(r"(?<!\\)[|`*_\[\]]|<(?!/?sup>)", markdown_text(text).replace("\\\\", ""))


def test_a_spreadsheet_sees_no_formula():
    for text in ("=1+1", "+1", "-1+2", "@SUM(A1)"):
        assert csv_text(text) == f"'{text}"
    assert csv_text("s5-ptd") == "s5-ptd"


@pytest.mark.skipif(
    shutil.which("tectonic") is None and shutil.which("pdflatex") is None, reason="neither tectonic nor pdflatex here"
)
@pytest.mark.parametrize("name", ["leaderboard.tex", "appendix.tex"])
def test_it_compiles_with_the_packages_that_it_names_within_the_width_of_a_page(folder, tmp_path, name):
    text = (folder / name).read_text(encoding="utf-8")
    comments = "\n".join(line for line in text.splitlines() if line.startswith("%"))
    packages = re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", comments)
    (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "paper.tex").write_text(DOCUMENT.replace("PACKAGES", "\n".join(packages)).replace("TABLES", name))
    command = ["tectonic", "--keep-logs", "paper.tex"]
    if shutil.which("pdflatex"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:].decode("utf-8", errors="replace")
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert not re.findall(r"Overfull \\hbox.*", log)
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "-layout", "paper.pdf"], cwd=tmp_path, check=True)
        shown = (tmp_path / "paper.txt").read_text(encoding="utf-8")
        expected = {"leaderboard.tex": ("62.2 ±.2", "Path-X"), "appendix.tex": ("S4D-DFouT", "Quoted from papers")}
        for part in expected[name]:
            assert part in shown
        assert "root:" not in shown
