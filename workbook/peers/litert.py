"""LiteRT with XNNPACK, where somebody has put a quantized ``.tflite`` of the network.

It cannot quantize a PyTorch network by itself, so it runs only if ``tflite/<model>.tflite`` lies in
the zoo's cache folder: converted from the same weights, and taking the same input, in NCHW or NHWC,
as float or quantized. The agreement beside its time tells whether it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbook.errors import WorkbookError
from workbook.peers.job import Job
from workbook.peers.registry import Loaded


def artifact(job: Job) -> Path:
    """The file that has to be there."""
    from relaxquant.zoo.cache import cache_dir

    return cache_dir() / "tflite" / f"{job.model}.tflite"


def prepare(jobs: Sequence[Job]) -> None:
    """Refuse: nothing here makes the file."""
    raise WorkbookError(f"no int8 model: put tflite/{jobs[0].model}.tflite in the cache folder")


def load(job: Job, path: Path) -> Loaded:
    """Allocate an interpreter; it applies XNNPACK by itself."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=job.threads)
    (taken,) = interpreter.get_input_details()
    (given, *_) = interpreter.get_output_details()
    last = taken["shape"][-1] == 3
    interpreter.resize_tensor_input(taken["index"], [job.batch, *taken["shape"][1:]])
    interpreter.allocate_tensors()

    def run(x: np.ndarray) -> np.ndarray:
        image = x.transpose(0, 2, 3, 1) if last else x
        interpreter.set_tensor(taken["index"], quantize(image, taken))
        interpreter.invoke()
        return dequantize(interpreter.get_tensor(given["index"]), given)

    return Loaded(run)


def quantize(x: np.ndarray, tensor: dict) -> np.ndarray:
    """Bring float values to a tensor's own type, by its scale and zero point."""
    scale, zero = tensor["quantization"]
    if not scale:
        return x.astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def dequantize(q: np.ndarray, tensor: dict) -> np.ndarray:
    """Return a tensor's values as float32."""
    scale, zero = tensor["quantization"]
    if not scale:
        return q.astype(np.float32)
    return ((q.astype(np.float32) - zero) * scale).astype(np.float32)
