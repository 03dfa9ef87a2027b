"""The TFDS dataset of a set that is larger than TFDS's own buffer, which would otherwise ask for TensorFlow."""

import numpy as np
from tensorflow_datasets.core import shuffle

from lra_bench.data.packed import open_split
from lra_bench.data.prepare import prepare
from lra_bench.data.tfds_builder import read_dataset


def test_a_split_beyond_tfds_buffer_is_written_whole_and_in_order(monkeypatch):
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1_000)
    folder = prepare("listops", size="tiny", jobs=1)
    assert shuffle.MAX_MEM_BUFFER_SIZE == 1_000
    packed, dataset = open_split(folder, "train"), read_dataset(folder, "train")
    assert len(dataset) == len(packed.labels)
    for row in (0, 1, 777, len(dataset) - 1):
        np.testing.assert_array_equal(dataset[row]["inputs"], packed.inputs[row])
        assert (dataset[row]["length"], dataset[row]["label"]) == (packed.lengths[row], packed.labels[row])
