"""The variants of one network on an NVIDIA GPU: what they are, and compiled or loaded.

Stock TVM's, ours, and what else runs there: PyTorch, which calls cuDNN, and TensorRT by way of
PyTorch's backend for it, where they are installed and see the GPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import relaxquant as rq
from relaxquant import zoo

if TYPE_CHECKING:
    import tvm

    from relaxquant import Library
    from relaxquant.zoo import Network


@dataclass(frozen=True)
class Variant:
    """One way to compile a network with TVM.

    Attributes
    ----------
    name : str
    precision : str
        ``"fp32"``, ``"fp16"`` or ``"w8a8"``.
    executor, schedule : str
        As for `relaxquant.compile`, and as columns of result rows.
    """

    name: str
    precision: str
    executor: str
    schedule: str = "auto"

    @property
    def columns(self) -> dict[str, str]:
        """Of result rows."""
        schedule = "tvm default" if self.executor == "naive" else self.schedule
        return {"precision": self.precision, "executor": self.executor, "schedule": schedule}


STOCK_FP32, STOCK_FP16 = "stock TVM, fp32", "stock TVM, fp16"
NAIVE, FP32, FP16 = "stock TVM, naive int8", "ours, fp32", "ours, fp16"
DP4A, MMA = "ours, DP4A", "ours, tensor cores"
VARIANTS = {
    each.name: each
    for each in (
        Variant(STOCK_FP32, "fp32", "naive"),
        Variant(STOCK_FP16, "fp16", "naive"),
        Variant(NAIVE, "w8a8", "naive"),
        Variant(FP32, "fp32", "graph"),
        Variant(FP16, "fp16", "graph"),
        Variant(DP4A, "w8a8", "graph", "cuda_dp4a"),
        Variant(MMA, "w8a8", "graph"),
    )
}
# What a quick run without a GPU counts: not stock fp16, which takes TVM longest.
BRIEF = (STOCK_FP32, NAIVE, FP32, FP16, DP4A, MMA)
BRIEFER = (NAIVE, DP4A, MMA)  # at a second batch size
OTHERS = {
    "PyTorch (cuDNN), fp32": {"precision": "fp32", "executor": "torch", "schedule": "cudnn"},
    "PyTorch (cuDNN), fp16": {"precision": "fp16", "executor": "torch", "schedule": "cudnn"},
    "TensorRT, fp16": {"precision": "fp16", "executor": "tensorrt", "schedule": "tensorrt"},
}


@dataclass(frozen=True)
class Modules:
    """A network in fp32, in fp16 and quantized, of any batch size."""

    fp32: tvm.IRModule
    w8a8: tvm.IRModule

    @cached_property
    def fp16(self) -> tvm.IRModule:
        """By TVM's pass for mixed precision: the same for stock TVM and ours."""
        return rq.frontends.in_half(self.fp32)


def modules_of(net: Network, calibration: int, seed: int) -> Modules:
    """Import a network and quantize it with the default configuration.

    Parameters
    ----------
    net : relaxquant.zoo.Network
    calibration, seed : int
        Images the quantizer sees, and their choice.
    """
    module = rq.frontends.from_torch(net.model, net.example_input(2, seed), dynamic_batch=True)
    seen = zoo.calibration_images(net, calibration, seed).x
    quantized = rq.quantize(module, rq.QConfig.best(), calibration=[seen])
    return Modules(module, quantized)


def compiled(
    modules: Modules,
    batch: int,
    target: str,
    threads: int,
    names: tuple[str, ...] = tuple(VARIANTS),
) -> dict[str, Library]:
    """The network in each variant.

    Parameters
    ----------
    modules : Modules
    batch : int
        Images in one inference.
    target : str
        A CUDA target.
    threads : int
        Of the host's part.
    names : tuple of str
        Keys of `VARIANTS`.
    """
    libraries = {}
    for variant in (VARIANTS[name] for name in names):
        module = getattr(modules, variant.precision)
        options = {"executor": variant.executor, "schedule": variant.schedule}
        libraries[variant.name] = rq.compile(
            module, target, threads=threads, batch=batch, **options
        )
    return libraries


def columns(name: str) -> dict[str, str]:
    """Precision, executor and schedule of a variant's rows."""
    return VARIANTS[name].columns if name in VARIANTS else OTHERS[name]


def others(net: Network, x: np.ndarray) -> tuple[dict[str, Callable], list[str]]:
    """The other frameworks that run here, and a line for each that does not.

    Parameters
    ----------
    net : relaxquant.zoo.Network
    x : numpy.ndarray
        float32 (batch, C, H, W): TensorRT compiles for its shape.

    Returns
    -------
    tuple of dict and list of str
        Name -> function from NumPy to a function without arguments that runs on the GPU and waits
        for it, and returns the output as a tensor there.
    """
    import torch

    if not torch.cuda.is_available():
        return {}, [f"{name}: this PyTorch sees no GPU" for name in OTHERS]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    fp32, fp16, tensorrt = OTHERS
    found = {fp32: _on_torch(net, torch.float32), fp16: _on_torch(net, torch.float16)}
    if find_spec("torch_tensorrt") is None:
        return found, [f"{tensorrt}: the package torch_tensorrt is not installed"]
    found[tensorrt] = _on_tensorrt(net, x)
    return found, []


def _on_torch(net: Network, dtype: Any) -> Callable:
    import torch

    # A copy: the network itself stays where the frontends read it.
    model = _copied(net).to("cuda", dtype, memory_format=torch.channels_last)
    return lambda x: _runner(model, x, dtype)


def _on_tensorrt(net: Network, x: np.ndarray) -> Callable:
    import torch
    import torch_tensorrt  # noqa: F401  (registers the backend)

    options = {"enabled_precisions": {torch.half}}
    model = torch.compile(_copied(net).to("cuda"), backend="tensorrt", options=options)
    _runner(model, x, torch.float32)()
    return lambda x: _runner(model, x, torch.float32)


def _copied(net: Network):
    return copy.deepcopy(net.model).eval()


def _runner(model: Any, x: np.ndarray, dtype: Any) -> Callable:
    import torch

    held = torch.from_numpy(x).to("cuda", dtype).contiguous(memory_format=torch.channels_last)

    def run():
        with torch.inference_mode():
            output = model(held)
        torch.cuda.synchronize()
        return output

    return run


def as_array(output: Any) -> np.ndarray:
    """An output that lies on the GPU, TVM's or PyTorch's, as float32."""
    found = output.numpy() if not hasattr(output, "cpu") else output.float().cpu().numpy()
    return np.asarray(found, np.float32)


def runners(
    libraries: Mapping[str, Library], other: Mapping[str, Callable], x: np.ndarray
) -> dict[str, Callable]:
    """Functions to time: the input lies on the GPU, and each waits until the GPU is done."""
    return {name: library.runner(x) for name, library in libraries.items()} | {
        name: prepare(x) for name, prepare in other.items()
    }
