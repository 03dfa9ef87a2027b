"""The ListOps grammar, compiled with numba: random expressions by the official generator's rules, and their values.

The rules are those of google-research/long-range-arena @ cd31e5c6, lra_benchmarks/data/listops.py. A node draws its
kind, then the number of its arguments, then the arguments, then its operator. A tree is kept if its length lies
strictly between two bounds. Expressions are arrays of token numbers, which are positions in
`lra_bench.tasks.listops.TOKENS`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.compiled import compiled

CLOSE, FIRST_DIGIT, FIRST_OPERATOR = 0, 1, 11
"""The token numbers of `]`, of the digit 0 and of the operator MAX."""

MAX, MED, MIN, SM = range(4)
"""The operators; their token numbers are these plus FIRST_OPERATOR."""


@compiled
def apply(operator: int, values: NDArray[np.int64], n: int) -> int:
    """Return the value of an operator on the digits `values[:n]`.

    MED of an even n is the mean of the two middle digits, rounded down.
    """
    counts = np.zeros(10, np.int64)
    total = 0
    for i in range(n):
        counts[values[i]] += 1
        total += values[i]
    if operator == SM:
        return total % 10
    # MAX, MIN and MED are the mean of the digits of rank `low` and `high`, counted from 1 in rising order.
    low = n if operator == MAX else 1 if operator == MIN else (n + 1) // 2
    high = n // 2 + 1 if operator == MED else low
    seen = middle = 0
    for digit in range(10):
        if seen < low <= seen + counts[digit]:
            middle += digit
        if seen < high <= seen + counts[digit]:
            middle += digit
        seen += counts[digit]
    return middle // 2


@compiled
def draw_tree(rng, max_depth, max_arguments, max_length, p_operator, tokens):  # type: ignore[no-untyped-def]
    """Draw one tree into `tokens` and return (length, value).

    `tokens` must have `max_length + 2 * max_depth` elements. The tree is given up once its length reaches `max_length`;
    then the result is (`max_length`, 0).
    """
    opened = np.zeros(max_depth + 1, np.int64)
    arguments = np.zeros(max_depth + 1, np.int64)
    filled = np.zeros(max_depth + 1, np.int64)
    values = np.zeros((max_depth + 1, max_arguments), np.int64)
    depth = 1
    length = 0
    while length < max_length:
        if depth < max_depth and rng.random() <= p_operator:
            opened[depth] = length
            arguments[depth] = rng.integers(2, max_arguments + 1)
            filled[depth] = 0
            length += 1
            depth += 1
            continue
        value = rng.integers(0, 10)
        tokens[length] = FIRST_DIGIT + value
        length += 1
        while depth > 1:
            parent = depth - 1
            values[parent, filled[parent]] = value
            filled[parent] += 1
            if filled[parent] < arguments[parent]:
                break
            operator = rng.integers(0, 4)
            tokens[opened[parent]] = FIRST_OPERATOR + operator
            tokens[length] = CLOSE
            length += 1
            value = apply(operator, values[parent], arguments[parent])
            depth = parent
        if depth == 1:
            return length, value
    return max_length, 0


@compiled
def draw_kept_tree(rng, max_depth, max_arguments, min_length, max_length, p_operator, tokens):  # type: ignore[no-untyped-def]
    """Draw trees until the length of one lies between the bounds; return (length, value), its tokens in `tokens`."""
    while True:
        length, value = draw_tree(rng, max_depth, max_arguments, max_length, p_operator, tokens)
        if min_length < length < max_length:
            return length, value


@compiled
def evaluate(tokens: NDArray[np.uint8]) -> int:
    """Return the value of an expression (n,) of token numbers; −1 if it is not one complete, legal expression."""
    n = len(tokens)
    values = np.zeros(n, np.int64)
    operators = np.zeros(n, np.int64)
    starts = np.zeros(n, np.int64)
    depth = top = 0
    for i in range(n):
        token = tokens[i]
        if token >= FIRST_OPERATOR:
            operators[depth] = token - FIRST_OPERATOR
            starts[depth] = top
            depth += 1
        elif token >= FIRST_DIGIT:
            values[top] = token - FIRST_DIGIT
            top += 1
        else:
            if depth == 0 or top == starts[depth - 1]:
                return -1
            depth -= 1
            start = starts[depth]
            values[start] = apply(operators[depth], values[start:], top - start)
            top = start + 1
        if depth == 0 and i < n - 1:
            return -1
    return values[0] if depth == 0 and top == 1 else -1
