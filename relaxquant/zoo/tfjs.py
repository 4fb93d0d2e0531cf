"""Read the weights of a TensorFlow.js layers model: a JSON manifest beside binary shards."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from .errors import ZooError

_DTYPES = {"float32": "<f4", "int32": "<i4", "uint8": "u1", "bool": "?"}


def read_tfjs_weights(model_json: Path) -> dict[str, np.ndarray]:
    """Read every weight of a TensorFlow.js model.

    The format (``weightsManifest`` in TensorFlow.js's weights_loader): each group names its
    shards, whose bytes joined in that order hold the weights one after another, little-endian and
    without padding.

    Parameters
    ----------
    model_json : Path
        ``model.json``; the shards lie beside it.

    Returns
    -------
    dict[str, numpy.ndarray]
        Weight name, e.g. ``"conv1/kernel"``, to a read-only array in Keras' layout (HWIO).

    Raises
    ------
    ZooError
        If a file is missing, a weight is stored quantized or in an unknown dtype, or the shards
        are shorter or longer than the manifest says.
    """
    try:
        groups = json.loads(model_json.read_text("utf-8"))["weightsManifest"]
        weights: dict[str, np.ndarray] = {}
        for group in groups:
            data = b"".join((model_json.parent / path).read_bytes() for path in group["paths"])
            weights.update(_cut(data, group["weights"], model_json))
    except (OSError, ValueError, KeyError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ZooError(f"{model_json} is no readable TensorFlow.js model: {what}") from error
    return weights


def _cut(data: bytes, entries: list[dict], model_json: Path) -> dict[str, np.ndarray]:
    weights: dict[str, np.ndarray] = {}
    offset = 0
    for entry in entries:
        name, dtype = entry["name"], _DTYPES.get(entry["dtype"])
        if dtype is None or "quantization" in entry:
            raise ZooError(f"{model_json}: weight {name} is stored in a form not read here")
        count = math.prod(entry["shape"])
        end = offset + count * np.dtype(dtype).itemsize
        if end > len(data):
            raise ZooError(f"{model_json}: the shards end before weight {name}; a shard is cut off")
        weights[name] = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        offset = end
    if offset != len(data):
        raise ZooError(f"{model_json}: {len(data) - offset} bytes are left over in the shards")
    return weights
