"""TensorFlow.js shards, written here and read back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from relaxquant.zoo import ZooError
from relaxquant.zoo.tfjs import read_tfjs_weights


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv1/kernel": rng.standard_normal((3, 3, 2, 5), np.float32),
        "conv1/bias": rng.standard_normal(5, np.float32),
        "step": np.array(7, np.int32),
    }


def _write(folder, weights, shard_bytes=100, cut=0, more=b"", quantized=False):
    data = b"".join(w.tobytes() for w in weights.values())
    data = data[: len(data) - cut] + more
    paths = []
    for start in range(0, len(data), shard_bytes):
        paths.append(f"shard{len(paths)}.bin")
        (folder / paths[-1]).write_bytes(data[start : start + shard_bytes])
    entries = [
        {"name": name, "shape": list(w.shape), "dtype": w.dtype.name} for name, w in weights.items()
    ]
    if quantized:
        entries[0]["quantization"] = {"dtype": "uint8", "min": 0, "scale": 1}
    model = folder / "model.json"
    model.write_text(json.dumps({"weightsManifest": [{"paths": paths, "weights": entries}]}))
    return model


def test_weights_that_cross_shards_are_read_back(tmp_path, weights):
    got = read_tfjs_weights(_write(tmp_path, weights))
    assert got.keys() == weights.keys()
    for name, expected in weights.items():
        np.testing.assert_array_equal(got[name], expected)
        assert got[name].dtype == expected.dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cut": 3}, "shards end before weight step"),
        ({"more": b"abc"}, "3 bytes are left over"),
        ({"quantized": True}, "weight conv1/kernel is stored in a form"),
    ],
)
def test_a_wrong_length_or_form_is_named(tmp_path, weights, change, message):
    with pytest.raises(ZooError, match=message):
        read_tfjs_weights(_write(tmp_path, weights, **change))


def test_a_missing_shard_and_a_broken_manifest_are_named(tmp_path, weights):
    model = _write(tmp_path, weights)
    (tmp_path / "shard1.bin").unlink()
    with pytest.raises(ZooError, match=r"shard1\.bin"):
        read_tfjs_weights(model)
    model.write_text("{")
    with pytest.raises(ZooError, match="no readable"):
        read_tfjs_weights(model)
