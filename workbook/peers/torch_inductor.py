"""PyTorch compiled by Inductor: fp32, and PT2E x86 int8 quantization through torchao.

https://docs.pytorch.org/ao/stable/pt2e_quantization/pt2e_quant_x86_inductor.html: the exported
graph is prepared with `X86InductorQuantizer` and its default configuration, calibrated, converted,
and compiled with frozen weights. Inductor's own cache lies beside the network's materials; the
worker's memory counts export, calibration and compilation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from workbook.peers.job import Job
from workbook.peers.registry import Loaded
from workbook.peers.torch_eager import module, runner


def artifact(job: Job) -> None:
    """Nothing: the worker compiles."""


def prepare(jobs: Sequence[Job]) -> None:
    """Nothing to do."""


def load(job: Job, path: None) -> Loaded:
    """Quantize where asked, and compile at the first call."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job.path("inductor"))
    import torch

    model = module(job)
    if job.precision == "w8a8":
        model = _quantized(model, np.load(job.path("calibration.npy")), job.batch)
    compiled = runner(torch.compile(model.to(memory_format=torch.channels_last)))
    with torch.no_grad():
        compiled.run(np.load(job.path("images.npy"), mmap_mode="r")[[0] * job.batch])
    return compiled


def _quantized(model, images: np.ndarray, batch: int):
    """Return the converted graph module."""
    import torch
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    example = torch.from_numpy(images[[0] * batch])
    with torch.no_grad():
        exported = torch.export.export(model, (example,)).module()
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        prepared = prepare_pt2e(exported, quantizer)
        for start in range(0, len(images), batch):
            # The graph is of one batch size: the last images fill it by turns.
            chosen = np.arange(start, start + batch) % len(images)
            prepared(torch.from_numpy(images[chosen]))
        converted = convert_pt2e(prepared)
    move_exported_model_to_eval(converted)
    return converted
