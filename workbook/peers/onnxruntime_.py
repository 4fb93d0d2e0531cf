"""ONNX Runtime: fp32, and static U8S8 QDQ quantization, as its documentation advises.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html: pre-processing
first, activations uint8 and weights int8 per channel, min-max calibration; ``reduce_range`` where
the CPU has no VNNI, since `vpmaddubsw` saturates otherwise. S8S8 is slower on x86 and is not used.

Its pool's threads are bound by ``session.intra_op_thread_affinities`` and the calling thread, which
is one of them, by hand: unbound, both were seen on one core. ``force_spinning_stop`` ends spinning
with each call: it burns the idle core for tens of milliseconds otherwise. The symbolic batch is
overridden, which lets shapes be folded.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbook.files import replacing
from workbook.peers import bind
from workbook.peers.job import Job
from workbook.peers.registry import Loaded, versions


def artifact(job: Job) -> Path:
    """The exported network, or its quantized form."""
    if job.precision == "fp32":
        return job.path("network.onnx")
    reduced = "" if _has_vnni() else "-reduced"
    return job.path(f"{versions('onnxruntime', 'onnx')}-u8s8-minmax{reduced}.onnx")


def _has_vnni() -> bool:
    from relaxquant.measure.cpuinfo import read_cpu

    return any("vnni" in name for name in read_cpu()["features"])


def prepare(jobs: Sequence[Job]) -> None:
    """Quantize, if it is asked for."""
    for job in jobs:
        if job.precision == "w8a8":
            _quantize(job)


def _quantize(job: Job) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, replacing(artifact(job)) as path:
        ready = Path(folder, "ready.onnx")
        quant_pre_process(job.path("network.onnx"), ready)
        quantize_static(
            ready,
            path,
            _Reader(np.load(job.path("calibration.npy"))),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not _has_vnni(),
        )


class _Reader:
    """Calibration images one at a time, as `CalibrationDataReader` gives them."""

    def __init__(self, images: np.ndarray):
        self._images = iter(images)

    def get_next(self) -> dict | None:
        image = next(self._images, None)
        return None if image is None else {"x": image[None]}


def load(job: Job, path: Path) -> Loaded:
    """Open a session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.add_free_dimension_override_by_name("n", job.batch)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if job.threads > 1 and (others := bind.processors(job.threads)[1:]):
        # Counted from 1; the calling thread is the pool's first and is not listed.
        listed = ";".join(str(cpu + 1) for cpu in others)
        options.add_session_config_entry("session.intra_op_thread_affinities", listed)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    bind.main_thread(job.threads)
    return Loaded(lambda x: session.run(None, {"x": x})[0])
