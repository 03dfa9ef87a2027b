"""ListOps: values, the generator's distribution against the published grammar's, the TSV reader, both protocols."""

import gzip
import hashlib
import io
import random
import statistics
import tarfile

import numpy as np
import pytest

from lra_bench.datasource import Request
from lra_bench.errors import UserError
from lra_bench.tasks.listops import DATA, FILES, TASK, TOKENS, encode, layout_of, parse_row


def numbers(text: str) -> np.ndarray:
    return np.array([TOKENS.index("X" if token == "]" else token) for token in text.split()], np.uint8)


def evaluate_slowly(tokens: list[str]) -> int:
    """The oracle: recursive, in the words of the definition."""

    def read(position: int) -> tuple[int, int]:
        token = tokens[position]
        if not token.startswith("["):
            return int(token), position + 1
        arguments, position = [], position + 1
        while tokens[position] != "]":
            value, position = read(position)
            arguments.append(value)
        result = {"[MIN": min, "[MAX": max, "[MED": statistics.median, "[SM": lambda a: sum(a) % 10}[token](arguments)
        return int(result), position + 1

    value, end = read(0)
    assert end == len(tokens)
    return value


def generate(size, n, seed=0, protocol="s4", start=0):
    generator = DATA.generator(Request(protocol, size, seed, None))
    return generator, generator.generate(seed, start, start + n)


def texts(generator, rows):
    return [DATA.decode(generator.layout, *row) for row in zip(rows.inputs, rows.lengths, strict=True)]


def official(text: str) -> str:
    """An expression as the official files print it: every step of the list an application in parentheses."""

    def read(position: int) -> tuple[str, int]:
        if not tokens[position].startswith("["):
            return tokens[position], position + 1
        inner, position = tokens[position], position + 1
        while tokens[position] != "]":
            argument, position = read(position)
            inner = f"( {inner} {argument} )"
        return f"( {inner} ] )", position + 1

    tokens = text.split()
    return read(0)[0]


def write_tsv(folder, counts, size=30):
    """Files like the official ones from the generator, and the expected rows."""
    generator, rows = generate(size, sum(counts.values()))
    lines = [f"{official(text)}\t{label}\r\n" for text, label in zip(texts(generator, rows), rows.labels, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in FILES.items():
        start = generator.layout.starts[split]
        body = "".join(["Source\tTarget\r\n", *lines[start : start + counts[split]]])
        (folder / name).write_bytes(body.encode())
    return rows


COUNTS = {"train": 28, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[MED 1 2 ]", 1),
        ("[MED 9 0 4 ]", 4),
        ("[MED 0 9 8 3 ]", 5),
        ("[SM 9 9 ]", 8),
        ("[MIN 3 1 2 ]", 1),
        ("[MAX 3 [MIN 9 8 ] 2 ]", 8),
        ("[SM [MED 7 8 ] [MAX 0 0 ] 5 ]", 2),
    ],
)
def test_values(text, value):
    from lra_bench.data.generators.listops_grammar import evaluate

    assert evaluate(numbers(text)) == evaluate_slowly(text.split()) == value


@pytest.mark.parametrize("text", ["]", "[MIN 1 2", "1 2", "[MIN ]", "[MIN 1 ] ]", "[MIN 1 ] 2", ""])
def test_incomplete_expressions_have_no_value(text):
    from lra_bench.data.generators.listops_grammar import evaluate

    assert evaluate(numbers(text)) == -1


@pytest.mark.parametrize("size", ["tiny", 100])
def test_labels_agree_with_the_slow_oracle(size):
    generator, rows = generate(size, 100)
    assert [evaluate_slowly(text.split()) for text in texts(generator, rows)] == rows.labels.tolist()
    assert DATA.problems(generator.layout, rows, "generated") == []


def test_compiled_and_interpreted_grammar_draw_the_same_trees():
    from lra_bench.data.generators import listops_grammar as grammar
    from lra_bench.data.generators.tiny import rng_of

    arguments = (10, 10, 2000, 0.25)
    compiled, interpreted = np.zeros(2020, np.uint8), np.zeros(2020, np.uint8)
    for index in range(200):
        fast = grammar.draw_tree(rng_of(5, index), *arguments, compiled)
        slow = grammar.draw_tree.py_func(rng_of(5, index), *arguments, interpreted)
        assert fast == slow
        assert (compiled[: fast[0]] == interpreted[: fast[0]]).all()


def test_distribution_is_that_of_the_published_grammar():
    """Within sampling error of 100,000 trees of an independent program (docs/references.md, "ListOps: grammar")."""
    n = 6_000
    _, rows = generate("full", n)
    lengths = rows.lengths - 1  # without eos
    assert lengths.min() > 500
    assert lengths.max() < 2000
    for share, expected in {0.05: 539, 0.25: 702, 0.5: 954, 0.75: 1309, 0.95: 1801}.items():
        below = (lengths < expected).mean()
        assert abs(below - share) < 4 * (share * (1 - share) / n) ** 0.5 + 0.002
    assert abs(lengths.mean() - 1035) < 4 * 394 / n**0.5
    published = [0.168, 0.090, 0.079, 0.081, 0.090, 0.087, 0.077, 0.072, 0.086, 0.169]
    np.testing.assert_allclose(np.bincount(rows.labels) / n, published, atol=4 * (0.168 * 0.832 / n) ** 0.5 + 0.001)
    roots = np.bincount(rows.inputs[:, 0], minlength=18)[14:] / n
    np.testing.assert_allclose(roots, 0.25, atol=4 * (0.25 * 0.75 / n) ** 0.5 + 0.003)
    digits = np.bincount(rows.inputs.ravel(), minlength=18)[4:14]
    np.testing.assert_allclose(digits / digits.sum(), 0.1, atol=0.001)
    depth = np.where(rows.inputs >= 14, 1, np.where(rows.inputs == 3, -1, 0)).cumsum(1).max(1)
    assert (depth == 9).mean() > 0.999, "every kept tree reaches depth 10: nine operators above the deepest digits"


def test_vocabulary_is_in_order_of_frequency():
    """torchtext's order (−frequency, token); digits, and operators, are equally likely and go by token."""
    _, rows = generate("full", 2_000)
    counts = np.bincount(rows.inputs.ravel(), minlength=18)[3:]
    closers, digits, operators = counts[0], counts[1:11], counts[11:]
    assert closers > digits.max()
    assert digits.min() > operators.max()
    assert list(TOKENS[1:11]) == sorted(TOKENS[1:11])
    assert list(TOKENS[11:]) == sorted(TOKENS[11:])


def test_example_depends_on_seed_and_index_alone():
    generator, whole = generate("tiny", 300)
    parts = [generator.generate(0, start, start + 100) for start in (200, 0, 100)]
    for together, *pieces in zip(whole, parts[1], parts[2], parts[0], strict=True):
        np.testing.assert_array_equal(together, np.concatenate(pieces))
    assert (generator.generate(1, 0, 300).inputs != whole.inputs).any()


def test_examples_of_seed_zero_never_change():
    """A change here changes every prepared set: it needs a new TASK.version."""
    for size, expected in (("tiny", "d683cb56"), ("full", "57a34d5a")):
        _, rows = generate(size, 50)
        assert hashlib.sha256(b"".join(map(bytes, rows))).hexdigest()[:8] == expected


def test_protocols():
    s4, lra = (layout_of(protocol, TASK.splits) for protocol in ("s4", "lra"))
    assert (s4.length, len(s4.vocabulary)) == (2048, 18)
    assert (lra.length, len(lra.vocabulary)) == (2000, 17)
    tokens = numbers("[MAX 0 9 ]")
    assert encode(tokens, s4).tolist() == [14, 4, 13, 3, 2]
    assert encode(tokens, lra).tolist() == [12, 2, 11, 1]
    _, one = generate(20, 20)
    _, other = generate(20, 20, protocol="lra")
    assert (one.lengths == other.lengths + 1).all()
    assert (one.labels == other.labels).all()


def test_reader_gives_the_rows_of_the_official_files(tmp_path):
    rows = write_tsv(tmp_path, COUNTS)
    reading = DATA.read(tmp_path, Request("s4", 30, 0, None))
    batches = list(reading.batches())
    order = np.argsort(np.concatenate([placed.indices for placed in batches]))
    for column, expected in enumerate(rows):
        np.testing.assert_array_equal(np.concatenate([placed.rows[column] for placed in batches])[order], expected)


def test_parse_row_keeps_brackets_and_drops_parentheses():
    tokens, value = parse_row(b"( ( ( [MAX 4 ) ( ( ( [SM 9 ) 7 ) ] ) ) ] )\t6\r\n", "row")
    assert value == 6
    assert tokens.tolist() == numbers("[MAX 4 [SM 9 7 ] ]").tolist()


@pytest.mark.parametrize(
    "place", ["", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"]
)
def test_layouts_found_in_the_wild(tmp_path, place):
    write_tsv(tmp_path / place, COUNTS)
    request = Request("s4", 30, 0, None)
    assert [path.name for path in DATA.locate(tmp_path)] == list(FILES.values())
    assert sum(len(placed.indices) for placed in DATA.read(tmp_path, request).batches()) == 30
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(tmp_path, arcname=".")
    archive = tmp_path / "lra_release.gz"
    archive.write_bytes(gzip.compress(buffer.getvalue()))
    assert sum(len(placed.indices) for placed in DATA.read(archive, request).batches()) == 30


def edited(lines, row, change):
    lines[row] = change(lines[row])
    return lines


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda lines: edited(lines, 5, lambda line: line[:-3] + bytes([line[-3] ^ 1]) + b"\r\n"),
            r"row 5, has the value",
        ),
        (lambda lines: edited(lines, 7, lambda line: line.replace(b" ] )\t", b" )\t")), r"row 7, is not a complete"),
        (lambda lines: edited(lines, 7, lambda line: line.replace(b"[M", b"[N")), r"row 7, holds something"),
        (lambda lines: edited(lines, 7, lambda line: line.replace(b" 1 ", b" 12 ", 1)), r"row 7, holds something"),
        (lambda lines: edited(lines, 7, lambda line: line.replace(b"[MAX", b"a")), r"row 7, holds something"),
        (lambda lines: lines[:20], r"ends after row 19; 28 rows are expected"),
        (lambda lines: [*lines[:20], lines[20][:400]], r"row 20, is cut off"),
        (lambda lines: lines[1:], r"does not begin with the header"),
    ],
)
def test_damaged_files_name_file_and_row(tmp_path, damage, message):
    write_tsv(tmp_path, COUNTS)
    path = tmp_path / FILES["train"]
    path.write_bytes(b"".join(damage(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(UserError, match=rf"basic_train\.tsv.*{message}"):
        list(DATA.read(tmp_path, Request("s4", 30, 0, None)).batches())


def test_a_full_set_must_have_the_published_number_of_rows(tmp_path):
    write_tsv(tmp_path, COUNTS)
    with pytest.raises(UserError, match="2,000 rows are expected"):
        list(DATA.read(tmp_path, Request("s4", "full", 0, None)).batches())
    (tmp_path / FILES["val"]).unlink()
    with pytest.raises(UserError, match=r"basic_val\.tsv"):
        DATA.locate(tmp_path)


def test_problems_are_found():
    generator, rows = generate("tiny", 50)
    rng = random.Random(0)
    row = rng.randrange(50)
    rows.labels[row] = (rows.labels[row] + 1) % 10
    assert len(DATA.problems(generator.layout, rows, "generated")) == 1
    rows.inputs[row, 0] = 1  # <unk>
    assert "not a complete expression" in DATA.problems(generator.layout, rows, "generated")[0]


def test_a_validation_fraction_is_refused():
    with pytest.raises(UserError, match="leave --val-fraction out"):
        DATA.generator(Request("s4", "tiny", 0, 0.1))
