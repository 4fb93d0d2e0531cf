"""PyTorch eager, channels last, as its CPU tuning guide advises; OpenMP's threads are bound.

The worker's memory counts the zoo's imports, TVM among them: it holds the network as a module.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbook.peers.job import Job
from workbook.peers.registry import Loaded


def artifact(job: Job) -> None:
    """Nothing: the worker builds the network itself."""


def prepare(jobs: Sequence[Job]) -> None:
    """Nothing to do."""


def module(job: Job):
    """Return the network, and set torch's threads."""
    import torch

    from relaxquant import zoo

    torch.set_num_threads(job.threads)
    return zoo.load_model(job.model, weights=job.weights or None).model


def load(job: Job, path: None) -> Loaded:
    """Build the network with its weights in channels-last order."""
    import torch

    return runner(module(job).to(memory_format=torch.channels_last))


def runner(model) -> Loaded:
    """Wrap a module: NumPy in and out, no gradients, channels last."""
    import torch

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            tensor = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            return model(tensor).numpy()

    return Loaded(run)
