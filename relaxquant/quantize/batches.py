"""Calibration batches: checked one by one, so that bad data is named and not averaged in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from tvm import IRModule, relax
from tvm.tirx import Var

from .config import QuantizeError
from .graph import read_graph


@dataclass(frozen=True)
class InputSpec:
    """The one input of a network.

    Parameters
    ----------
    name : str
        Its name in the module.
    shape : tuple
        Integers; the first is None where the batch is symbolic.
    batch_symbol : str, optional
        Name of the symbolic batch dimension.
    """

    name: str
    shape: tuple[int | None, ...]
    batch_symbol: str | None = None

    def __str__(self) -> str:
        sizes = [self.batch_symbol or "n" if size is None else str(size) for size in self.shape]
        return f"'{self.name}' takes float32 ({', '.join(sizes)})"

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape fits."""
        return len(shape) == len(self.shape) and all(
            got == size or (size is None and got > 0)
            for got, size in zip(shape, self.shape, strict=True)
        )


def input_spec(mod: IRModule) -> InputSpec:
    """Describe the input of ``main``.

    Raises
    ------
    QuantizeError
        If there is not exactly one, or it is not float32, or symbolic beyond its batch.
    """
    params = [node for node in read_graph(mod).nodes if node.op == "input"]
    if len(params) != 1:
        names = ", ".join(node.name for node in params) or "none"
        raise QuantizeError(
            f"calibration needs a network of one input, but this has {len(params)} ({names}): "
            "import it with its weights as constants (keep_params_as_input=False)"
        )
    param = params[0]
    if param.shape is None or param.var.ty.dtype != "float32":
        raise QuantizeError(f"input '{param.name}' is {param.var.ty}: it must be a float32 tensor")
    symbolic = [axis for axis, size in enumerate(param.shape) if not isinstance(size, int)]
    if symbolic and (symbolic != [0] or not isinstance(param.shape[0], Var)):
        raise QuantizeError(
            f"input '{param.name}' has shape {tuple(param.shape)}: only its first axis, the batch, "
            "may be symbolic"
        )
    symbol = str(param.shape[0].name) if symbolic else None
    shape = tuple(size if isinstance(size, int) else None for size in param.shape)
    return InputSpec(param.name, shape, symbol)


def with_batch_1(mod: IRModule) -> IRModule:
    """The module with a symbolic batch bound to 1."""
    symbol = input_spec(mod).batch_symbol
    return mod if symbol is None else relax.transform.BindSymbolicVars({symbol: 1})(mod)


def checked_batches(batches: Iterable, spec: InputSpec) -> Iterator[np.ndarray]:
    """Yield the batches as NumPy arrays, each one checked.

    Parameters
    ----------
    batches : iterable
        float32 NumPy arrays or torch tensors.
    spec : InputSpec
        What they must fit.

    Raises
    ------
    QuantizeError
        If there is none, or one has the wrong type, dtype or shape, or holds NaN or infinity.
    """
    if batches is None or hasattr(batches, "shape"):
        what = "missing" if batches is None else "one array, not a sequence of batches: use [batch]"
        raise QuantizeError(f"calibration data is {what}; {spec}")
    count = 0
    for count, batch in enumerate(batches, start=1):
        yield _checked(batch, f"calibration batch {count - 1}", spec)
    if count == 0:
        raise QuantizeError(f"calibration data is empty: give at least one batch; {spec}")


def _checked(batch, where: str, spec: InputSpec) -> np.ndarray:
    if hasattr(batch, "detach"):  # a torch tensor, without importing torch
        batch = batch.detach().cpu().numpy()
    if not isinstance(batch, np.ndarray):
        kind = type(batch).__name__
        raise QuantizeError(f"{where} is a {kind}, not a NumPy array or torch tensor; {spec}")
    if batch.dtype != np.float32:
        raise QuantizeError(f"{where} is {batch.dtype}; {spec}")
    if not spec.accepts(batch.shape):
        raise QuantizeError(f"{where} has shape {batch.shape}; {spec}")
    bad = batch.size - np.count_nonzero(np.isfinite(batch))
    if bad:
        raise QuantizeError(f"{where} holds {bad} value(s) that are NaN or infinite")
    return np.ascontiguousarray(batch)
