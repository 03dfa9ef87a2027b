"""The scan engine against the sequential float64 oracle: values, gradients, every size, every transformation."""

import inspect
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_bench.ssm.oracle import diagonal_ssm_oracle
from lra_bench.ssm.scan import diagonal_ssm, recurrence, step
from lra_bench.ssm.scan_chunked import CHUNK


def problem(L, b=2, H=3, P=4, dtype=np.float64, seed=0, smallest=0.0):
    """Random operator arguments: eigenvalues anywhere in the disc, slow ones (|λ| up to 1 − 1e-4) among them."""
    rng = np.random.default_rng(seed)
    radius = np.where(np.arange(P) % 2, 1 - 10.0 ** rng.uniform(-4, -1, P), rng.uniform(smallest, 1, P))
    Lambda = radius * np.exp(1j * rng.uniform(-np.pi, np.pi, P))
    arrays = [
        Lambda.real,
        Lambda.imag,
        *(rng.normal(size=s) / np.sqrt(s[0]) for s in ((H, 2 * P), (2 * P, H), (2 * P, H))),
    ]
    real, imag, B, C, C_reverse, u = (jnp.asarray(a, dtype) for a in (*arrays, rng.normal(size=(L, b, H))))
    return (real, imag), B, C, C_reverse, u


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-30)


def gradients(function, arguments):
    """Gradients of Σ w·y over all arguments, flattened; w is fixed noise so that no component is favored."""
    weight = jnp.asarray(np.random.default_rng(9).normal(size=arguments[-1].shape), arguments[-1].dtype)
    return jax.tree.leaves(jax.jit(jax.grad(lambda *a: (function(*a) * weight).sum(), tuple(range(5))))(*arguments))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("form", "L", "b", "P"),
    [
        ("sequential", 1, 1, 4),
        ("sequential", 97, 3, 4),
        ("sequential", 33, 1, 70),
        ("chunked", 2, 3, 4),
        ("chunked", 257, 2, 5),
    ],
)
def test_values_and_gradients_equal_the_oracle(float64, form, L, b, P):
    arguments = problem(L, b=b, P=P)
    ours = partial(diagonal_ssm, form=form)
    assert relative(ours(*arguments), diagonal_ssm_oracle(*arguments)) < 1e-12
    pairs = zip(gradients(ours, arguments), gradients(diagonal_ssm_oracle, arguments), strict=True)
    assert max(relative(mine, oracle) for mine, oracle in pairs) < 1e-9


@pytest.mark.parametrize(
    ("form", "dtype"),
    [
        ("sequential", np.float32),
        pytest.param("sequential", np.float64, marks=pytest.mark.slow),
        ("chunked", np.float32),
        pytest.param("chunked", np.float64, marks=pytest.mark.slow),
    ],
)
def test_gradients_at_path_x_length(float64, form, dtype):
    arguments = problem(16384, b=1, P=8, dtype=dtype)
    exact = jax.tree.map(lambda a: a.astype(jnp.float64), arguments)
    pairs = zip(
        gradients(partial(diagonal_ssm, form=form), arguments), gradients(diagonal_ssm_oracle, exact), strict=True
    )
    assert max(relative(mine, oracle) for mine, oracle in pairs) < (1e-9 if dtype == np.float64 else 1e-4)


def eager_states(Lambda_bar, b, reverse):
    """The recurrence in numpy, for every length without compiling anything."""
    Lambda = np.asarray(Lambda_bar[0]) + 1j * np.asarray(Lambda_bar[1])
    b = np.asarray(b)[:: -1 if reverse else 1]
    x, states = 0, []
    for b_t in b[..., : Lambda.size] + 1j * b[..., Lambda.size :]:
        x = Lambda * x + b_t
        states.append(np.concatenate([x.real, x.imag], axis=-1))
    return np.stack(states)[:: -1 if reverse else 1]


EVERY_SHAPE = (
    *range(1, CHUNK + 1),
    *(CHUNK * n - 7 * n % CHUNK for n in range(2, CHUNK + 1)),
    *(CHUNK * n - 5 * n % CHUNK for n in range(CHUNK + 1, 64, 3)),
    CHUNK**2 - 1,
    CHUNK**2 + 1,
)
"""The length alone decides the chunks: how many levels there are, how long the last one is, and by how much each other
one is padded. One level of each length; two levels with each length of the last and all paddings but one; three levels
with every padding of both; and the lengths on both sides of the largest of two levels."""


def test_the_lengths_have_every_shape_of_chunks():
    shapes = set()
    for length in EVERY_SHAPE:
        levels = [length]
        while levels[-1] > CHUNK:
            levels.append(-(-levels[-1] // CHUNK))
        shapes |= {(len(levels), "last", levels[-1])}
        shapes |= {(len(levels), level, -size % CHUNK) for level, size in enumerate(levels[:-1])}
    every = set(range(CHUNK))
    assert {size for levels, level, size in shapes if (levels, level) == (1, "last")} == every - {0} | {CHUNK}
    assert {size for levels, level, size in shapes if (levels, level) == (2, "last")} == every - {0, 1} | {CHUNK}
    assert {padding for levels, level, padding in shapes if (levels, level) == (2, 0)} >= every - {7}
    assert all({p for levels, at, p in shapes if (levels, at) == (3, level)} == every for level in (0, 1))


A_FEW = (1, 2, 16, 17, 257, 997)


@pytest.mark.parametrize(
    ("form", "lengths"),
    [("sequential", A_FEW), ("chunked", A_FEW), pytest.param("chunked", EVERY_SHAPE, marks=pytest.mark.slow)],
    ids=["sequential", "chunked", "chunked, every shape"],
)
def test_any_length_is_right(float64, form, lengths):
    rng = np.random.default_rng(1)
    Lambda_bar, *_ = problem(1, P=3)
    both = jax.jit(
        lambda b: (recurrence(Lambda_bar, b, False, form), recurrence(Lambda_bar, b, True, form)),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    for L in lengths:
        b = rng.normal(size=(L, 1 + L % 3, 6))
        for reverse, states in enumerate(both(b)):
            assert relative(states, eager_states(Lambda_bar, b, bool(reverse))) < 1e-12, L


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_eigenvalues_near_zero_leave_no_overflow(float64, dtype):
    """λ = 0 and |λ| whose powers leave the range of the dtype inside a chunk, or between chunks."""
    magnitude = np.array([0, 1e-300, 1e-30, 1e-8, 1e-5, 1.6e-4, 1.8e-4, 1e-2, 0.3, 0.999]).astype(dtype)
    Lambda_bar = jnp.asarray(magnitude * np.cos(1.0), dtype), jnp.asarray(magnitude * np.sin(1.0), dtype)
    b = jnp.asarray(np.random.default_rng(2).normal(size=(700, 2, 20)), dtype)
    for reverse in (False, True):
        states = jax.jit(recurrence, static_argnums=(2, 3))(Lambda_bar, b, reverse, "chunked")
        exact = eager_states(jax.tree.map(lambda a: a.astype(jnp.float64), Lambda_bar), b.astype(jnp.float64), reverse)
        assert relative(states, exact) < (1e-13 if dtype == np.float64 else 1e-6)


def test_chunks_keep_float32_exact_for_slow_states():
    """An error of one rounding in λ^T would be 1e-4 after a chunk's worth of 16,384 steps; the powers are float64."""
    rng = np.random.default_rng(3)
    Lambda = (1 - 1e-4) * np.exp(1j * rng.uniform(-np.pi, np.pi, 16))
    Lambda_bar = jnp.asarray(Lambda.real, jnp.float32), jnp.asarray(Lambda.imag, jnp.float32)
    b = jnp.asarray(rng.normal(size=(16384, 1, 32)), jnp.float32)
    exact = eager_states(jax.tree.map(np.float64, Lambda_bar), np.float64(b), False)
    assert relative(jax.jit(recurrence, static_argnums=(2, 3))(Lambda_bar, b, False, "chunked"), exact) < 1e-6
    assert relative(jax.jit(recurrence, static_argnums=(2, 3))(Lambda_bar, b, False, "sequential"), exact) < 1e-5


def test_step_by_step_equals_the_causal_scan(float64):
    Lambda_bar, B, C, _, u = problem(20)
    state, outputs = jnp.zeros((2, 8)), []
    for u_t in u:
        state, y_t = step(Lambda_bar, B, C, state, u_t)
        outputs.append(y_t)
    assert relative(jnp.stack(outputs), diagonal_ssm(Lambda_bar, B, C, None, u)) < 1e-13


@pytest.mark.parametrize("form", [None, "chunked"])
def test_vmap_and_remat_change_nothing(float64, form):
    ours = partial(diagonal_ssm, form=form)
    several = [problem(70, seed=seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    together = jax.jit(jax.vmap(jax.grad(lambda *a: (ours(*a) ** 2).sum(), tuple(range(5)))))(*stacked)
    gradient = jax.jit(jax.grad(lambda *a: (jax.checkpoint(ours)(*a) ** 2).sum(), tuple(range(5))))
    for index, arguments in enumerate(several):
        apart = gradient(*arguments)
        for mine, other in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
            assert relative(mine[index], other) < 1e-11


def test_one_direction_has_a_gradient_too(float64):
    Lambda_bar, B, C, _, u = problem(30)
    ours, oracle = (
        jax.jit(jax.grad(lambda *a, f=f: (f(*a[:3], None, a[3]) ** 2).sum(), (0, 1, 2, 3)))(Lambda_bar, B, C, u)
        for f in (diagonal_ssm, diagonal_ssm_oracle)
    )
    assert max(map(relative, jax.tree.leaves(ours), jax.tree.leaves(oracle))) < 1e-9


def test_bfloat16_inputs_give_bfloat16_outputs_with_float32_states():
    arguments = problem(500, H=16, P=16, dtype=np.float32)
    u = arguments[4].astype(jnp.bfloat16)
    y = diagonal_ssm(*arguments[:4], u)
    assert y.dtype == jnp.bfloat16
    assert relative(y.astype(jnp.float32), diagonal_ssm(*arguments[:4], u.astype(jnp.float32))) < 1e-2
    assert recurrence(arguments[0], jnp.ones((4, 1, 32)), False, None).dtype == jnp.float32


SHARDED = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from lra_bench.ssm.scan import diagonal_ssm
rng = np.random.default_rng(0)
real, imag = jnp.full(8, 0.9), jnp.linspace(0, 0.4, 8)
B, C, C_reverse = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 16), (16, 4), (16, 4)))
u = jnp.asarray(rng.normal(size=(150, 6, 4)), jnp.float32)
mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
split = jax.device_put(u, NamedSharding(mesh, PartitionSpec(None, "batch")))
for form in (None, "chunked"):
    loss = lambda real, B, C, C_reverse, u: (diagonal_ssm((real, imag), B, C, C_reverse, u, form=form) ** 2).mean()
    gradient = jax.jit(jax.grad(loss, tuple(range(5))))
    whole, parts = gradient(real, B, C, C_reverse, u), gradient(real, B, C, C_reverse, split)
    assert len(parts[4].sharding.device_set) == 2
    for a, b in zip(whole, parts):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6 * np.abs(a).max())
"""


def test_a_batch_split_over_two_devices_gives_the_same_gradients():
    ran = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_cpu_loop_writes_over_its_input():
    """The point of the sequential form; if XLA copied its buffer at each step, memory would double and time explode."""
    b = jnp.ones((512, 2, 256))
    in_place = jax.jit(lambda real, b: recurrence((real, real), b * 2.0, False, "sequential"))
    assert in_place.lower(jnp.ones(128), b).compile().memory_analysis().temp_size_in_bytes < b.nbytes / 8


def test_memory_is_linear_in_the_length():
    def temporary(L):
        arguments = problem(L, b=1, H=8, P=64, dtype=np.float32)
        gradient = jax.grad(lambda *a: (diagonal_ssm(*a) ** 2).sum(), tuple(range(5)))
        return jax.jit(gradient).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8192) < 8.2 * temporary(1024)


def test_wrong_shapes_are_named():
    as_installed = inspect.unwrap(diagonal_ssm)  # without the checks that tests/conftest.py adds
    Lambda_bar, B, C, C_reverse, u = problem(5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"C_reverse must be \(8, 3\)"):
        as_installed(Lambda_bar, B, C, C_reverse.T, u)
    with pytest.raises(ValueError, match="time first"):
        as_installed(Lambda_bar, B, C, C_reverse, u[0])


def test_narrow_states_and_a_constant_drive_equal_the_oracle():
    """Few states share one output product; a drive is what one more input, always 1, would bring."""
    rng = np.random.default_rng(0)
    P, H, L = 2, 16, 37
    with jax.enable_x64(True):
        B, C, C_reverse, drive, u = (
            jnp.asarray(rng.normal(size=shape)) for shape in ((H, 2 * P), (2 * P, H), (2 * P, H), (2 * P,), (L, 3, H))
        )
        Lambda_bar = jnp.asarray([0.5, -0.3]), jnp.asarray([0.6, 0.2])
        wider = jnp.concatenate([u, jnp.ones((L, 3, 1))], axis=-1), jnp.concatenate([B, drive[None]])
        C, C_reverse = (jnp.pad(part, ((0, 0), (0, 1))) for part in (C, C_reverse))
        expected = diagonal_ssm_oracle(Lambda_bar, wider[1], C, C_reverse, wider[0])[..., :H]
        for form in (None, "chunked", "sequential"):
            y = diagonal_ssm(Lambda_bar, B, C[:, :H], C_reverse[:, :H], u, drive=drive, form=form)
            assert relative(y, expected) < 1e-12
