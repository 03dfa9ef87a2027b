"""How the weights start: the laws that the papers and codes of the later models state, at published widths."""

import re

import jax
import numpy as np
import pytest

from lra_bench.bench.synthetic import synthetic_run
from lra_bench.training.functional import initialized

SIGMAS = 5.0
"""The standard errors that a mean or a deviation may be away from that of its law."""


def normal(deviation):
    def check(x):
        assert abs(x.mean()) < SIGMAS * deviation / x.size**0.5
        assert abs(x.std() / deviation - 1) < SIGMAS / (2 * x.size) ** 0.5

    return check


def uniform(low, high):
    def check(x):
        assert low <= x.min()
        assert x.max() <= high
        deviation = (high - low) / 12**0.5
        assert abs(x.mean() - (low + high) / 2) < SIGMAS * deviation / x.size**0.5
        assert abs(x.std() / deviation - 1) < SIGMAS / x.size**0.5

    return check


def equal_to(expected):
    return lambda x: np.testing.assert_allclose(x, np.broadcast_to(expected, x.shape), rtol=1e-5, atol=1e-6)


def alternating(deviation):
    """1, −1, 1, … along the last axis, and normal numbers."""
    return lambda x: normal(deviation)(x - (-1.0) ** np.arange(x.shape[-1]))


def dt(low, high, of=np.exp):
    """Log-uniform step sizes, stored by the inverse of `of`."""
    return lambda x: uniform(np.log(low), np.log(high))(np.log(of(x)))


def softplus(x):
    return np.log1p(np.exp(x))


DENSE = {r"blocks/0/(gates|hidden|output|value|back)/kernel": normal(0.02), r"blocks/0/\w+/bias": equal_to(0)}
"""The dense layers in a block of MEGA."""

AVERAGE = {
    "average/(delta|alpha)": normal(0.2),
    "average/beta": alternating(0.02),
    "average/(gamma|omega)": normal(1),
}

LAWS = {
    ("s4d_ft", "listops"): {
        "layer/C": normal(0.5**0.5),
        "layer/D": normal(1),
        "layer/A_real": equal_to(np.log(0.5)),
        "layer/A_imag": equal_to(np.maximum(3 * np.pi * np.arange(64), 1e-4)),
        "layer/s": equal_to(0),
        "layer/inv_dt": dt(1e-3, 0.1, softplus),
    },
    ("s4d_dfout", "listops"): {
        "layer/C": normal(0.5**0.5),
        "layer/D": normal(1),
        "layer/A_real": equal_to(np.log(0.5)),
        "layer/inv_dt": dt(1e-3, 0.1),
    },
    ("rtf", "listops"): {"layer/(a|b)": equal_to(0), "layer/h_0": normal(1)},
    ("hope", "image"): {
        "layer/h": normal(0.5**0.5 / (2 * 256**0.5)),
        "layer/D": normal(1),
        "layer/inv_dt": dt(1e-3, 10),
    },
    ("linoss", "listops"): {
        "layer/B": uniform(-(128**-0.5), 128**-0.5),
        "layer/C(_reverse)?": uniform(-(16**-0.5), 16**-0.5),
        "layer/(a|s)": uniform(0, 1),
        "layer/D": normal(1),
    },
    ("mega", "listops"): {
        **{f"blocks/0/{name}": law for name, law in AVERAGE.items()},
        **DENSE,
        "blocks/0/gamma": normal(0.02),
        "blocks/0/beta": equal_to(0),
        "blocks/0/bias": normal(0.02),
        "embedding/table": normal(80**-0.5),
        "head/hidden/kernel": uniform(-((6 / 240) ** 0.5), (6 / 240) ** 0.5),
        "head/output/kernel": uniform(-((6 / 170) ** 0.5), (6 / 170) ** 0.5),
    },
    ("mega", "image"): {"embedding/scale": normal(1), "embedding/shift": normal(0.1)},
    ("s6", "listops"): {
        "layer/(B|C|w)": uniform(-(128**-0.5), 128**-0.5),
        "layer/a": equal_to(np.log(np.arange(1, 17))),
        "layer/b": dt(1e-3, 0.1, softplus),
        "layer/D": equal_to(1),
    },
    ("b2s6", "listops"): {
        "layer/(B|C|w)": uniform(-(16**-0.5), 16**-0.5),
        "layer/beta": normal(0.5**0.5),
        "layer/A_real": equal_to(np.log(0.5)),
        "layer/A_imag": equal_to(-np.pi * np.arange(16)),
        "layer/b": dt(1e-3, 0.1, softplus),
        "layer/D": equal_to(1),
    },
}
"""The law of each parameter by the end of its name."""


@pytest.mark.parametrize(("model", "task"), LAWS)
def test_weights_follow_their_laws(model, task):
    run, shape = synthetic_run(model, task, 64, {"n_layers": 1, "batch_size": 2}, "float32")
    _, params, _ = initialized(run, shape)
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value"): np.asarray(x, np.float64)
        for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    for pattern, law in LAWS[model, task].items():
        names = [name for name in found if re.search(rf"(^|/){pattern}$", name)]
        assert names, pattern
        for name in names:
            law(found[name])
