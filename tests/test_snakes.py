"""The Pathfinder generator against a slow one, against what is known of the released images, and against itself."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from lra_bench.data.generators import compiled, snakes
from lra_bench.data.generators.snake_paddles import markers, paddles
from tests.snake_oracle import Oracle

SMALL, PATHX = snakes.PARAMETERS[32], snakes.PARAMETERS[128]

PATHX_MARKER = (
    (0, [0, 56, 135, 157, 103, 4]),
    (0, [56, 234, 245, 235, 254, 158]),
    (0, [135, 245, 218, 223, 224, 228, 28]),
    (0, [157, 235, 223, 225, 225, 225, 57]),
    (0, [103, 255, 224, 225, 237, 215]),
    (1, [158, 228, 225, 215, 68]),
    (2, [28, 57]),
)
"""Gray values of every marker in the released Path-X (docs/references.md, "Path-X as released"): each row's first
column and its values."""


def oracle_image(parameters, seed, i):
    """Image i by the slow generator, from the random stream it is documented to have."""
    oracle = Oracle(parameters, np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, i])))
    return oracle.image(), oracle.label


@pytest.mark.parametrize(("window", "images"), [(32, range(8)), (128, range(1, 2)), (256, range(2))])
def test_equals_the_slow_generator_in_every_pixel(window, images):
    parameters = snakes.PARAMETERS[window]
    fast, labels = snakes.generate(parameters, 3, images.start, images.stop)
    for image, label, i in zip(fast, labels, images, strict=True):
        slow, slow_label = oracle_image(parameters, 3, i)
        np.testing.assert_array_equal(image, slow)
        assert label == slow_label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("window", "images"), [(32, range(100, 120)), (64, range(1)), (128, range(3, 5)), (256, range(2, 3))]
)
def test_equals_the_slow_generator_in_many_images(window, images):
    test_equals_the_slow_generator_in_every_pixel(window, images)


@pytest.mark.parametrize("window", [32, 128])
def test_an_image_depends_on_seed_and_number_alone(window):
    parameters = snakes.PARAMETERS[window]
    images, labels = snakes.generate(parameters, 5, 0, 6)
    for start, stop in ((4, 6), (0, 3), (3, 4), (2, 2)):
        part, part_labels = snakes.generate(parameters, 5, start, stop)
        np.testing.assert_array_equal(part, images[start:stop])
        np.testing.assert_array_equal(part_labels, labels[start:stop])
    others, _ = snakes.generate(parameters, 6, 0, 6)
    everything = np.concatenate([images, others])
    assert len({image.tobytes() for image in everything}) == 12
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32


def test_threads_do_not_disturb_each_other():
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(lambda start: snakes.generate(SMALL, 5, start, start + 40)[0], (0, 40)))
    np.testing.assert_array_equal(np.concatenate(halves), snakes.generate(SMALL, 5, 0, 80)[0])


@pytest.mark.parametrize(
    ("window", "digest"),
    [
        (32, "4e2abe640e253b1ecce1ce070434e84337f2aaabdabeee58699de38b38bbbbee"),
        (128, "741d899751b5346e649bbc7f3e459864a1141dd457fcb57543db2f28bfb9540e"),
    ],
)
def test_bytes_of_a_seed_are_those_of_the_first_release(window, digest):
    """A change here makes every generated data set another one: raise the version of the tasks with it."""
    images, labels = snakes.generate(snakes.PARAMETERS[window], 0, 0, 8)
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == digest


def test_both_margins_and_labels_occur_evenly():
    drawn = [
        (s.margin, s.label)
        for s in snakes.sketches(snakes.PARAMETERS[256].model_copy(update={"margins": (2, 3)}), 0, 0, 400)
    ]
    for margin in (2, 3):
        for label in (0, 1):
            assert abs(drawn.count((margin, label)) - 100) < 4.5 * (400 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize("window", [32, 128])
def test_the_label_says_whether_the_discs_lie_on_one_snake(window):
    for sketch in snakes.sketches(snakes.PARAMETERS[window], 1, 0, 12):
        beginnings = [tuple(row[1:]) for row in sketch.targets[:2].tolist()]
        ends = [tuple(row[1:]) for row in sketch.targets[-2:].tolist()]
        same = beginnings.index(sketch.origin) == ends.index(sketch.terminal)
        assert same == sketch.label


@pytest.mark.parametrize("window", [32, 128])
def test_snakes_are_chains_of_paddles(window):
    """Each paddle's head is within reach of the last one's: a gap of 2 margins between, give or take a pixel."""
    parameters = snakes.PARAMETERS[window]
    for sketch in snakes.sketches(parameters, 2, 0, 6):
        length, gap = parameters.paddle_length, 2 * sketch.margin
        chains = [sketch.targets[0::2], sketch.targets[1::2], *sketch.distractors]
        for chain in chains:
            apart = np.linalg.norm(np.diff(chain[1:, 1:], axis=0), axis=1)
            assert (apart <= length + gap + 3).all()
            assert (chain[1:, 0] >= 360).all()
        assert len(chains[0]) == len(chains[1]) == parameters.contour_length


@pytest.mark.parametrize("window", [32, 128, 256])
def test_markers_are_found_where_they_are(window):
    parameters = snakes.PARAMETERS[window]
    for sketch in snakes.sketches(parameters, 4, 0, 25):
        found = snakes.find_markers(snakes.render(parameters, sketch), parameters)
        assert {tuple(place) for place in found.tolist()} == {sketch.origin, sketch.terminal}


def test_an_image_that_is_not_pathfinder_has_no_two_markers():
    image = snakes.generate(PATHX, 0, 0, 1)[0][0]
    (y, x), other = snakes.find_markers(image, PATHX)
    damaged = image.copy()
    damaged[y, x] = 0
    assert snakes.find_markers(damaged, PATHX).tolist() == [other.tolist()]
    assert len(snakes.find_markers(image // 2, PATHX)) == 0
    assert len(snakes.find_markers(np.zeros_like(image), PATHX)) == 0


def test_marker_of_pathx_has_the_gray_values_of_the_released_images():
    far = len(markers(PATHX)) // 2
    disc = markers(PATHX)[far, far]
    gray = (np.maximum(disc, 0) / disc.max() * 255).astype(int)
    for row, (column, shown) in zip(gray[far - 3 :], PATHX_MARKER, strict=False):
        assert row[far - 3 + column :][: len(shown)].tolist() == shown


RELEASED_MARGINS = {2: 3, 3: 5}
"""How many of the eight released images of Path-X whose statistics are known have which margin."""

RELEASED = {"components": (94.333 * 3 + 83.6 * 5) / 8, "1": 462, "2": 524, "3": 128, "lit": 0.161, "mean": 0.0370}


def deviations(parameters, images):
    """Of the released images' statistics from those of generated ones, in standard errors of a mean of eight."""
    measured = {margin: [] for margin in RELEASED_MARGINS}
    for sketch in snakes.sketches(parameters, 0, 0, images):
        image = snakes.render(parameters, sketch)
        parts = ndimage.label(image > 90, np.ones((3, 3)))[1]
        gray = [(image == value).sum() for value in (1, 2, 3)]
        measured[sketch.margin].append([parts, *gray, (image > 0).mean(), image.mean() / 255])
    expected = sum(n * np.mean(measured[m], axis=0) for m, n in RELEASED_MARGINS.items()) / 8
    variance = sum(n * np.var(measured[m], axis=0) for m, n in RELEASED_MARGINS.items()) / 64
    return dict(zip(RELEASED, (np.array(list(RELEASED.values())) - expected) / np.sqrt(variance), strict=True))


def test_pathx_has_the_statistics_of_the_released_images():
    found = deviations(PATHX, 400)
    assert max(abs(z) for z in found.values()) < 3, found


def test_the_documented_number_of_distractors_does_not():
    assert deviations(PATHX.model_copy(update={"distractors": 8}), 100)["components"] > 10


def test_paddle_of_pathx_has_the_contrast_of_the_released_images():
    """Every pixel of a lone paddle is its patch at 0.82 of the marker's scale."""
    sketch = next(snakes.sketches(PATHX, 0, 0, 1))
    alone = sketch._replace(
        targets=sketch.targets[:1], distractors=sketch.distractors[:0], origin=(120, 120), terminal=(120, 9)
    )
    alone.targets[0, 1:] = 64, 64
    line = paddles(PATHX, sketch.margin).line[alone.targets[0, 0]]
    radius = len(line) // 2
    shown = snakes.render(PATHX, alone)[64 - radius : 65 + radius, 64 - radius : 65 + radius] / 255
    far = len(markers(PATHX)) // 2
    np.testing.assert_allclose(shown, 0.82 * np.maximum(line, 0) / markers(PATHX)[far, far].max(), atol=1 / 255)


def test_wrong_parameters_are_refused():
    for change in ({"window": 28}, {"seed_distance": 4}, {"paddle_thickness": 0.3}, {"margin": 2}):
        with pytest.raises(ValidationError):
            snakes.SnakeParameters(**SMALL.model_dump() | change)


def test_compiles_where_nothing_can_be_cached(monkeypatch):
    njit = compiled.numba.njit

    def refusing(function, **options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(function, **options)

    monkeypatch.setattr(compiled.numba, "njit", refusing)
    assert compiled.compiled(lambda x: x + 1)(1) == 2


def test_parameters_are_read_without_loading_the_compiler():
    code = "import sys, lra_bench.data.generators.snakes; print({'numba', 'PIL', 'scipy', 'jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
