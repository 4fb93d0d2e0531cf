"""Import torch and torchvision, optional to the library, with one clear error or none."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .errors import ZooError

_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# torch drops a library's operators when the Library object is collected.
_libraries: list[object] = []


def import_torch() -> ModuleType:
    """Return torch.

    Raises
    ------
    ZooError
        If torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ZooError("the zoo needs torch: pip install torch torchvision") from error
    return torch


def import_torchvision() -> ModuleType:
    """Return torchvision, also where its compiled operators do not load.

    A torchvision built for CUDA beside a CPU torch cannot load its ``_C`` library, and then
    ``import torchvision`` fails with "operator torchvision::nms does not exist", because it
    registers fake kernels for two detection operators. Classification needs neither: they are
    declared, without a kernel, when they are missing.

    Raises
    ------
    ZooError
        If torch or torchvision is not installed or does not import.
    """
    if "torchvision" not in sys.modules:
        _declare_missing_operators()
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise ZooError(f"torchvision does not import: {error}; pip install torchvision") from error
    return torchvision


def _declare_missing_operators() -> None:
    torch = import_torch()
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    # Loading the library is what torchvision does first; done here, it shows what is missing.
    for library in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
    missing = [name for name in _OPERATORS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        fragment = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(fragment)
        for name in missing:
            fragment.define(_OPERATORS[name])
