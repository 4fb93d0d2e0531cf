"""OpenVINO: fp32 and NNCF's post-training quantization, tuned for latency.

One stream, ``PERFORMANCE_HINT`` latency, and ``INFERENCE_PRECISION_HINT`` f32 so that fp32 is not
run in bfloat16 where a CPU has it. It binds its own threads (``ENABLE_CPU_PINNING``, on by
default) and does not spin when idle. NNCF's defaults: symmetric int8 weights per channel, mixed
preset chosen by itself, fast bias correction.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workbook.peers.job import Job
from workbook.peers.registry import Loaded, versions


def artifact(job: Job) -> Path:
    """The exported network, or its quantized form."""
    if job.precision == "fp32":
        return job.path("network.onnx")
    return job.path(f"{versions('openvino', 'nncf')}-int8.xml")


def prepare(jobs: Sequence[Job]) -> None:
    """Quantize, if it is asked for."""
    for job in jobs:
        if job.precision == "w8a8":
            _quantize(job)


def _quantize(job: Job) -> None:
    import nncf
    import openvino

    images = np.load(job.path("calibration.npy"))
    data = nncf.Dataset([image[None] for image in images])
    network = openvino.Core().read_model(job.path("network.onnx"))
    quantized = nncf.quantize(network, data, subset_size=len(images))
    target = artifact(job)
    with tempfile.TemporaryDirectory(dir=job.folder) as folder:
        staged = Path(folder, target.name)
        openvino.save_model(quantized, staged, compress_to_fp16=False)
        # The weights first: whoever sees the .xml finds them there.
        for suffix in (".bin", ".xml"):
            os.replace(staged.with_suffix(suffix), target.with_suffix(suffix))


def load(job: Job, path: Path) -> Loaded:
    """Compile for the CPU at the job's batch size."""
    import openvino

    core = openvino.Core()
    network = core.read_model(path)
    _, *image = network.input(0).partial_shape
    network.reshape([job.batch, *(dimension.get_length() for dimension in image)])
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    request = compiled.create_infer_request()
    return Loaded(lambda x: request.infer({0: x})[0], _primitives(compiled))


def _primitives(compiled) -> str:
    """What most convolutions run as, by its execution graph, ``"brgconv_avx512"`` say."""
    kinds = Counter()
    for node in compiled.get_runtime_model().get_ops():
        about = node.get_rt_info()
        if about["layerType"].astype(str) == "Convolution":
            kinds[about["primitiveType"].astype(str)] += 1
    return kinds.most_common(1)[0][0] if kinds else ""
