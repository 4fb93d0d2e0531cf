"""The frameworks there are. A new one is a line here and a module with three functions.

artifact(job) -> pathlib.Path or None
    The file that `load` needs, in the network's materials; its name tells versions and settings, so
    that another bench finds it again. Runs in the parent and imports no framework.
prepare(jobs) -> None
    Writes those files, for jobs of one network; runs in a process of its own.
load(job, path) -> Loaded
    Reads the file and returns a function to time; runs in the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType

import numpy as np

from workbook.peers.job import Job


@dataclass(frozen=True)
class Loaded:
    """A variant ready to run: float32 NCHW in, logits out, and a word on what multiplies."""

    run: Callable[[np.ndarray], np.ndarray]
    instructions: str = ""


@dataclass(frozen=True)
class Peer:
    """A framework.

    Attributes
    ----------
    title : str
        Name in tables.
    module : str
        Where it lives, in this package.
    packages : dict
        Precision -> importable packages it needs.
    imports : tuple of str
        What `load` imports: resident before there is a network.
    environment : dict
        Variables its worker starts with, beside those that fix the thread count.
    avx2 : dict or None
        Variables that keep it to AVX2; None where it cannot be told.
    """

    title: str
    module: str
    packages: dict[str, tuple[str, ...]]
    imports: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    avx2: dict[str, str] | None = None

    def adapter(self) -> ModuleType:
        """Import its module."""
        return import_module(f"workbook.peers.{self.module}")


# PyTorch's tuning guide: bind OpenMP's threads to cores. The worker has only as many as it may use.
BOUND = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}

PEERS = {
    "ours": Peer(
        "ours",
        "ours",
        {"fp32": ("tvm",), "w8a8": ("tvm",), "w4a4": ("tvm",)},
        ("relaxquant",),
        # TVM's workers spin for about 90 ms after a call unless told otherwise, into the turn of
        # the next variant; this is about 6 ms, long against the gaps inside an inference.
        {"TVM_THREAD_POOL_SPIN_COUNT": "20000"},
        avx2={},  # by its target
    ),
    "onnxruntime": Peer(
        "ONNX Runtime",
        "onnxruntime_",
        {"fp32": ("onnxruntime", "onnx"), "w8a8": ("onnxruntime", "onnx")},
        ("onnxruntime",),
    ),
    "openvino": Peer(
        "OpenVINO",
        "openvino_",
        {"fp32": ("openvino", "onnx"), "w8a8": ("openvino", "onnx", "nncf")},
        ("openvino",),
        avx2={"ONEDNN_MAX_CPU_ISA": "AVX2"},
    ),
    "torch": Peer(
        "PyTorch eager", "torch_eager", {"fp32": ("torch",)}, ("torch", "relaxquant"), BOUND
    ),
    "inductor": Peer(
        "PyTorch compile",
        "torch_inductor",
        {"fp32": ("torch",), "w8a8": ("torch", "torchao")},
        ("torch", "relaxquant"),
        BOUND | {"TORCHINDUCTOR_FREEZING": "1"},
    ),
    "litert": Peer(
        "LiteRT XNNPACK", "litert", {"w8a8": ("ai_edge_litert",)}, ("ai_edge_litert.interpreter",)
    ),
}

WORDS = {"fp32": "fp32", "w8a8": "int8"}


def label(peer: str, precision: str, schedule: str = "") -> str:
    """Return a variant's name in tables, ``"ONNX Runtime int8"`` say."""
    words = f"{PEERS[peer].title} {WORDS.get(precision, precision)}"
    return f"{words}, direct" if schedule else words


def obstacle(job: Job) -> str:
    """Return why a job cannot be run here, with the way out; empty where it can."""
    peer = PEERS[job.peer]
    if job.precision not in peer.packages:
        return f"{peer.title} is not measured in {WORDS.get(job.precision, job.precision)}"
    lacking = [name for name in peer.packages[job.precision] if find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed: run 'make peers'"
    if job.isa and peer.avx2 is None:
        return f"left out: {peer.title} cannot be kept to {job.isa.upper()}"
    return ""


def versions(*packages: str) -> str:
    """Return packages with their versions, for file names: ``"onnxruntime-1.31.1"``."""
    return "-".join(f"{name}-{version(name)}" for name in packages)
