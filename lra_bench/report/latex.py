"""Tables as LaTeX: a compact one for the text of a paper, and long ones for its appendix.

Text from records is escaped, so that a model's name cannot contain commands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from lra_bench.plain_text import one_line
from lra_bench.report.accuracy import DIFFERENCE, SEEDS
from lra_bench.report.compact import DIFFERENCE_LABEL, seeds_note
from lra_bench.report.compact import FAILED as COUNTS
from lra_bench.report.table import ABSENT, Accuracy, Block, Cell, Column, Table, footnotes

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "±": r"$\pm$", "×": r"$\times$",
    "✗": r"$\times$",
    "–": r"\textendash{}", "²": r"\textsuperscript{2}", "ω": r"$\omega$", "Δ": r"$\Delta$", "−": "$-$",
}  # fmt: skip
"""The letters that LaTeX cannot show as they are, and their LaTeX."""

_PLAIN_LATEX = re.compile(r"[A-Za-z0-9 .,:;/()\[\]+=*@!?\-]")
"""The ASCII letters that LaTeX shows as they are."""

_PIECE = re.compile(r"[^/_=,:;.\-]{1,12}[/_=,:;.\-]*|[/_=,:;.\-]{1,12}")
"""A piece of a long word: up to twelve letters, and the punctuation marks behind them."""

LONG_WORD = 12
"""The letters of the longest word that does not break in a column of text of a long table."""

SHORT_HEAD = 10
"""The letters of the shortest line of a heading that no other word is put on."""

WIDE = 10
"""The most columns of the compact table between which there is room for a wider gap."""

LONG_NAME = 20
"""The letters of the longest name of a row that does not break in the compact table."""

NAME_WIDTH = 57.0
"""The width in points of the names of rows in the compact table, where one of them is longer."""

COMPACT_PACKAGES = (
    r"% needs \usepackage[T1]{fontenc}, \usepackage{textcomp}, \usepackage{array}, \usepackage{booktabs} and "
    r"\usepackage{graphicx}"
)
"""The packages that the compact table needs; array is for names of rows that break."""

LONG_PACKAGES = (
    r"% for a page of one column; needs \usepackage[T1]{fontenc}, \usepackage{textcomp}, \usepackage{booktabs}, "
    r"\usepackage{array}, \usepackage{longtable} and \usepackage{pdflscape}"
)
"""The packages that the long tables need."""

LAYOUTS = (("scriptsize", 4.2, 397.0, False), ("scriptsize", 4.2, 650.0, True), ("tiny", 3.5, 650.0, True))
"""The layouts of a long table, the most readable first: the size of type, the width of a character and of the text in
points, and whether the page is turned. The text of a NeurIPS page is 5.5 by 9 inches."""

GAP = 4.0
"""The space between two columns of a long table, in points."""

NARROWEST = 34.0
"""The least width of a column of text in a long table, in points."""


def latex_text(text: str) -> str:
    """Return plain text as LaTeX that shows it literally; a letter without a glyph in pdflatex becomes ASCII or `?`."""
    return "".join(_latex_letter(letter) for letter in one_line(text)).replace("--", "-{}-")


def _latex_letter(letter: str) -> str:
    """Return one letter as LaTeX."""
    if letter in _LATEX:
        return _LATEX[letter]
    if _PLAIN_LATEX.fullmatch(letter) or "À" <= letter <= "ÿ":
        return letter
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(part, part) for part in plain) or "?"


def compact_latex(table: Table) -> str:
    """Return the compact accuracy table as a float, in type of 7 points.

    It is as wide as the text of a NeurIPS page with its default columns, and is made smaller where it is wider.
    """
    names = max(len(row[0].text) for block in table.blocks for row in block.rows)
    gap = 0.85 if len(table.columns) > WIDE else 2.0
    first = rf">{{\raggedright\arraybackslash}}p{{{NAME_WIDTH:g}pt}}" if names > LONG_NAME else "l"
    align = first + "r" * (len(table.columns) - 1)
    titles = [column.title.partition("(") for column in table.columns]
    heads = [
        latex_text(title) + _marks(column.marks) for (title, *_), column in zip(titles, table.columns, strict=True)
    ]
    details = [
        latex_text(column.detail or "".join(rest)) for (_, *rest), column in zip(titles, table.columns, strict=True)
    ]
    lines = [
        r"\begin{table*}[t]",
        rf"\centering\scriptsize\setlength{{\tabcolsep}}{{{gap:g}pt}}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        _row(heads),
        _row(details),
    ]
    for block in table.blocks:
        lines += [r"\midrule", _block_heading(block, len(table.columns))]
        lines += [_compact_row(row, block.quoted) for row in block.rows]
    lines += [
        r"\bottomrule",
        r"\end{tabular}}",
        rf"\caption{{{_caption(table.title, table.notes, table.footnotes)}}}",
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


def long_latex(table: Table) -> str:
    """Return the table as tables that break across pages: one of the measured rows and one of the quoted rows.

    They are no wider than the text of a NeurIPS page, which is turned for wide ones.
    """
    measured = [block for block in table.blocks if block.rows and not block.quoted]
    quoted = [block for block in table.blocks if block.rows and block.quoted]
    return "\n".join(_longtable(table, blocks) for blocks in (measured, quoted) if blocks)


def _longtable(table: Table, blocks: Sequence[Block]) -> str:
    """Return one longtable; `blocks` are all quoted or all measured.

    Columns that have the same text in every row are in the caption instead.
    """
    rows = [row for block in blocks for row in block.rows]
    quoted = blocks[0].quoted
    candidates = [i for i, column in enumerate(table.columns) if quoted or not column.quoted_only]
    same = [i for i in candidates[1:] if len(rows) > 1 and len({row[i].text for row in rows}) == 1]
    kept = [i for i in candidates if i not in same]
    columns = [table.columns[i] for i in kept]
    size, available, turned, widths = _layout(columns, [[_plain(row[i]) for row in rows] for i in kept])
    align = "".join(map(_alignment, columns, widths))
    constant = [f"{table.columns[i].title}: {rows[0][i].text}." for i in same if rows[0][i].text not in ("", ABSENT)]
    notes = [block.note for block in blocks if block.note] if quoted else table.notes_with(blocks)
    in_latex = {SEEDS: f"{seeds_note(blocks)} {COUNTS}", DIFFERENCE: ""}  # cells are written in another way
    written = [in_latex.get(note, note) for note in (*notes, *constant)]
    caption = _caption(table.title + (" (quoted)" if quoted else ""), written, footnotes(blocks))
    head = rf"\toprule {_row(_stacked(column) for column in columns)} \midrule"
    lines = [
        *([r"\begin{landscape}"] if turned else []),
        rf"{{\{size}\setlength{{\tabcolsep}}{{{GAP / 2:g}pt}}\setlength{{\LTcapwidth}}{{{available:g}pt}}",
        rf"\begin{{longtable}}{{@{{}}{align}@{{}}}}",
        rf"\caption{{{caption}}}\\",
        rf"{head}\endfirsthead",
        rf"{head}\endhead",
        r"\bottomrule\endfoot",
    ]
    for n, block in enumerate(blocks):
        lines += [*([r"\midrule"] if n else []), _block_heading(block, len(kept))]
        lines += [_row(_long_cell(row[i], quoted) for i in kept) for row in block.rows]
    return "\n".join([*lines, r"\end{longtable}}", *([r"\end{landscape}"] if turned else []), ""])


def _layout(columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> tuple[str, float, bool, list[float | None]]:
    """Return the layout: size of type, width of the text, whether the page is turned, and widths in points.

    The width of a column is None where its lines do not have to break. Only columns of text can break their lines.
    """
    letters = [
        max(len(text) for text in (*_stack(column), *there)) for column, there in zip(columns, texts, strict=True)
    ]
    for size, letter, available, turned in LAYOUTS:
        room = available - GAP * (len(columns) - 1)
        widths = [letter * count for count in letters]
        if sum(widths) <= room:
            return size, available, turned, [None] * len(columns)
        free = [i for i, column in enumerate(columns) if not column.numeric and widths[i] > NARROWEST]
        room -= sum(width for i, width in enumerate(widths) if i not in free) + NARROWEST * len(free)
        if room >= 0:
            break
    total = sum(widths[i] for i in free)
    broken = [NARROWEST + max(room, 0.0) * width / total if i in free else None for i, width in enumerate(widths)]
    return size, available, turned, broken


def _alignment(column: Column, width: float | None) -> str:
    if width is not None:
        return rf">{{\raggedright\arraybackslash}}p{{{width:.0f}pt}}"
    return "r" if column.numeric else "l"


def _stack(column: Column) -> list[str]:
    """Return the lines of a column's heading: its words, of which short ones share a line, and its detail."""
    lines = [""]
    for word in column.title.replace("/", "/ ").split():
        fits = len(lines[-1]) + len(word) < SHORT_HEAD
        lines[-1:] = [f"{lines[-1]} {word}".strip().replace("/ ", "/")] if fits else [lines[-1], word]
    return [line for line in (*lines, column.detail) if line]


def _stacked(column: Column) -> str:
    side = "r" if column.numeric else "l"
    lines = r"\\".join(latex_text(line) for line in _stack(column))
    return rf"\shortstack[{side}]{{{lines}}}{_marks(column.marks)}"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _block_heading(block: Block, columns: int) -> str:
    return rf"\multicolumn{{{columns}}}{{@{{}}l}}{{\emph{{{latex_text(block.title)}}}}} \\*"


def _caption(title: str, notes: Iterable[str], marks: Iterable[tuple[str, str]]) -> str:
    """Return the title, the notes that are not empty, and the footnotes."""
    parts = [latex_text(note) for note in notes if note]
    parts += [rf"\textsuperscript{{{mark}}} {latex_text(meaning)}." for mark, meaning in marks]
    return " ".join([f"{latex_text(title)}.", *parts])


def _numbers(cell: Cell, accuracy: Accuracy, digits: int) -> str:
    r"""Return the numbers of an accuracy cell on one line, such as `62.2\,{\scriptsize $\pm$.2}`."""
    mean, deviation, count = accuracy.parts(digits)
    text = _emphasized(cell, latex_text(mean))
    text += rf"\,{{\scriptsize $\pm${deviation}}}" if deviation else ""
    return text + (rf"\,{{\scriptsize {count}}}" if count else "")


def _emphasized(cell: Cell, text: str) -> str:
    return rf"\{'textbf' if cell.rank == 'best' else 'underline'}{{{text}}}" if cell.rank else text


def _compact_row(row: Sequence[Cell], quoted: bool) -> str:
    if row[0].text == DIFFERENCE_LABEL:
        return _row(rf"\scriptsize {latex_text(cell.text)}".rstrip() + _marks(cell.marks) for cell in row)
    return _row(_cell(cell, quoted, 1, _breakable) for cell in row)


def _long_cell(cell: Cell, quoted: bool) -> str:
    return _cell(cell, quoted, 2, _breakable)


def _cell(cell: Cell, quoted: bool, digits: int, written: Callable[[str], str]) -> str:
    accuracy = cell.accuracy
    text = _numbers(cell, accuracy, digits) if accuracy else _emphasized(cell, written(cell.text))
    return (rf"\textit{{{text}}}" if quoted and text else text) + _marks(cell.marks)


def _plain(cell: Cell) -> str:
    """Return the text that a cell of a long table takes up."""
    return (cell.accuracy.short(2) if cell.accuracy else cell.text) + cell.marks


def _breakable(text: str) -> str:
    """Return plain text as LaTeX in which long words may break across lines, at best behind a punctuation mark."""
    words = (_PIECE.findall(word) if len(word) > LONG_WORD else [word] for word in one_line(text).split(" "))
    return " ".join(r"\allowbreak{}".join(map(latex_text, pieces)) for pieces in words)


def _marks(marks: str) -> str:
    return rf"\textsuperscript{{{marks}}}" if marks else ""
