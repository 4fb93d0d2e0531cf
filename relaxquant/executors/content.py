"""What a compiled network depends on, as one digest: equal digests, equal machine code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.target import codegen

from ..kernels.registry import SCHEDULES

PACKAGE = Path(__file__).parents[1]


def _sources() -> str:
    """Digest of this package's own code: whoever edits a kernel never gets the old one."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE)} {len(text)}\n".encode() + text)
    return digest.hexdigest()


# Taken when the package is imported: the code that runs, also if a file is edited meanwhile.
SOURCES = _sources()


def digest(module: tvm.IRModule, target: tvm.target.Target, options: Mapping) -> str:
    """SHA-256 of all that decides what `relaxquant.compile` makes.

    Parameters
    ----------
    module : tvm.IRModule
        The network with its constants.
    target : tvm.target.Target
        Resolved, so that ``"native"`` stands for this machine's CPU.
    options : Mapping
        Everything else that changes the code or the kernel table, JSON-able: schedule, executor.

    Returns
    -------
    str
        64 hex digits, the same in every process.
    """
    facts = {
        "options": dict(options),
        "target": str(target),
        "sources": SOURCES,
        "versions": [metadata.version(name) for name in ("apache-tvm", "apache-tvm-ffi")],
        "llvm": codegen.llvm_version_major(),
        # The structure leaves out names, the text leaves out what it cannot print, and neither
        # has more than 64 bits for the weights: together with the bytes nothing is left out.
        "structure": str(tvm_ffi.structural_hash(module)),
        "text": module.script(show_meta=False),
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for constant in _constants(module):
        found.update(f"{constant.dtype} {constant.shape}".encode())
        found.update(np.ascontiguousarray(constant).data)
    return found.hexdigest()


def is_all_ours() -> bool:
    """Whether every schedule is this package's: `SOURCES` cannot vouch for others."""
    package = __name__.split(".")[0] + "."
    return all(row.rule.__module__.startswith(package) for row in SCHEDULES)


def _constants(module: tvm.IRModule) -> list[np.ndarray]:
    arrays: list[np.ndarray] = []

    def visit(expression) -> None:
        if isinstance(expression, tvm.ir.GenericConst):
            value = expression.value
            if isinstance(value, tvm.runtime.Tensor):
                arrays.append(value.numpy())

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return arrays
