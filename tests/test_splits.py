"""The published split orders, against values printed by the reference implementations (PyTorch 2.13, TFDS 4.9.10)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_datasets.core import hashing

from lra_bench.data.raw import splits
from lra_bench.data.raw.splits import holdout, tenths, tfds_order, torch_permutation


def test_torch_permutation_of_image():
    order = torch_permutation(50_000)
    assert order[:5].tolist() == [37542, 44491, 216, 43688, 41558]
    assert np.array_equal(np.sort(order), np.arange(50_000))


def test_torch_permutation_of_pathfinder():
    order = torch_permutation(200_000)
    assert order[:5].tolist() == [37542, 143173, 127710, 58234, 152906]
    first_test, after_test = tenths(200_000)
    assert (first_test, after_test) == (160_000, 180_000)
    assert order[160_000:160_003].tolist() == [122036, 135593, 30913]
    assert order[180_000:180_003].tolist() == [143170, 45464, 153084]


@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_torch_permutation_holds_each_index_once(n, seed):
    assert sorted(torch_permutation(n, seed).tolist()) == list(range(n))


def test_tfds_order_of_image():
    assert tfds_order(range(50_000), "train")[:6].tolist() == [16399, 1680, 47917, 17307, 27051, 48736]


def test_tfds_order_is_what_tfds_hashes():
    """TFDS's own hasher, on Pathfinder's keys, puts them in the same order."""
    keys = [f"imgs/{i // 7}_sample_{i % 7}.png_{i % 7 + 1}" for i in range(50)]
    hasher = hashing.Hasher("hard")
    expected = sorted(range(50), key=lambda i: hasher.hash_key(keys[i]))
    assert tfds_order(keys, "hard").tolist() == expected


@pytest.mark.parametrize(("n", "fraction", "held"), [(25_000, 0.1, 2_500), (11, 0.1, 2), (10, 0.5, 5)])
def test_holdout(n, fraction, held):
    train, val = holdout(n, fraction)
    assert (len(train), len(val)) == (n - held, held)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(n))
    assert val.tolist() == np.random.default_rng(42).permutation(n)[:held].tolist()


def test_wrong_orders_are_told(monkeypatch):
    assert splits.order_problems() == []
    monkeypatch.setattr(splits, "torch_permutation", lambda n: torch_permutation(n, 43))
    monkeypatch.setattr(splits, "tfds_order", lambda keys, split: tfds_order(keys, "test"))
    assert len(splits.order_problems()) == 3
