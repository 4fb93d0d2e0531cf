"""What a compiled network holds in memory, counted from its Relax before code is generated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod

import numpy as np
import tvm
from tvm import relax


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a compiled network, beside its code and TVM's runtime.

    Attributes
    ----------
    weights : dict
        dtype -> bytes of all constants as they are packed for the kernels: int8 or float32 weights,
        uint8 where weights of fewer than eight bits lie packed, int32 biases, float32 multipliers,
        and the padding of channels to whole blocks.
    activations : int or None
        Bytes of the storage that all intermediate activations share, as static memory planning
        laid it out; None where nothing is planned (executors ``"vm"`` and ``"naive"``).
    """

    weights: dict[str, int]
    activations: int | None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(self.weights.values())

    def as_dict(self) -> dict:
        """JSON-able form."""
        return asdict(self)


def account(module: tvm.IRModule) -> MemoryUse:
    """Count the constants of ``main``, and the storage that a memory planner gave it.

    Parameters
    ----------
    module : tvm.IRModule
        Relax; after ``StaticPlanBlockMemory`` where activations are to be counted.
    """
    constants: list[tvm.ir.GenericConst] = []
    storages: list[int] = []

    def visit(expression) -> None:
        if isinstance(expression, tvm.ir.GenericConst):
            new = not any(expression.same_as(other) for other in constants)
            if new and isinstance(expression.value, tvm.runtime.Tensor):
                constants.append(expression)
        elif _allocates_storage(expression):
            storages.append(prod(int(size) for size in expression.args[0].values))

    relax.analysis.post_order_visit(module["main"], visit)
    weights: dict[str, int] = {}
    for constant in constants:
        dtype = str(constant.value.dtype)
        size = prod(int(extent) for extent in constant.value.shape) * np.dtype(dtype).itemsize
        weights[dtype] = weights.get(dtype, 0) + size
    return MemoryUse(weights, sum(storages) if storages else None)


def _allocates_storage(expression) -> bool:
    is_operator = isinstance(expression, relax.Call) and isinstance(expression.op, tvm.ir.Op)
    return is_operator and expression.op.name == "relax.memory.alloc_storage"
