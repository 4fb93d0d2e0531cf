"""Why a network "works" in bool: it runs, but what comes out does not depend on what goes in.

A bool holds whether a quantized value is zero, and almost none is. What a layer computes with them
is whether any product is non-zero, since the sum of bools is their "or"; one true product makes it
true. So nearly everything is true, for every image alike.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from relaxquant.zoo import Network

CODES = 127  # of 8 bits, before they are cast to bool
SUMS = {
    "or": lambda count: count != 0,  # bool + bool in C++ and NumPy
    "exclusive or": lambda count: count % 2 != 0,  # an addition of one bit, as LLVM's i1
}


@dataclass(frozen=True)
class BoolRun:
    """What a network gave in bool.

    Attributes
    ----------
    addition : str
        How bools were added, of `SUMS`.
    images : int
        How many images it saw.
    distinct : int
        How many different outputs they gave.
    true_share : list of float
        Share of true values in what each layer reads, in program order, 0 to 1.
    """

    addition: str
    images: int
    distinct: int
    true_share: list[float]


def run_in_bool(net: Network, images: np.ndarray, addition: str = "or") -> BoolRun:
    """Run a network whose activations and weights are cast to bool.

    Every convolution and dense layer multiplies bools ("and") and adds them; batch norms, which
    bool has no room for, are left out.

    Parameters
    ----------
    net : relaxquant.zoo.Network
        Its torch model is copied.
    images : numpy.ndarray
        float32, (n, C, H, W), preprocessed.
    addition : str
        Of `SUMS`.
    """
    model, shares = copy.deepcopy(net.model), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _make_bool(module, SUMS[addition], shares)
        elif isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, inputs, _output: inputs[0])
    with torch.inference_mode():
        outputs = model(torch.from_numpy(images)).numpy()
    return BoolRun(addition, len(images), len(np.unique(outputs, axis=0)), shares)


def _make_bool(module: nn.Module, added, shares: list[float]) -> None:
    """Cast weights once, inputs at every call, and replace the sum of products."""
    module.weight = nn.Parameter(_nonzero(module.weight), requires_grad=False)
    module.bias = None

    def cast(_module, inputs):
        bools = _nonzero(inputs[0])
        shares.append(float(bools.mean()))
        return (bools,)

    module.register_forward_pre_hook(cast)
    module.register_forward_hook(lambda _module, _inputs, count: added(count.round()).float())


def _nonzero(values: torch.Tensor) -> torch.Tensor:
    """Whether the 8-bit code of a value is not zero, as 0.0 or 1.0."""
    scale = values.abs().max().clamp_min(1e-30) / CODES
    return (torch.round(values / scale) != 0).float()
