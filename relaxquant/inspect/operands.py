"""In which precision TVM's own legalization multiplies: read from its TIR, not from the graph."""

from __future__ import annotations

import re
from dataclasses import dataclass

import tvm
from tvm import relax

from ..errors import InputError

HEAVY = ("conv2d", "matmul")


@dataclass(frozen=True)
class Operands:
    """dtypes of one convolution or dense layer after legalization.

    ``data``, ``weight`` and ``output`` are the dtypes of the TIR function's buffers: what is really
    multiplied, and what it is accumulated in.
    """

    function: str
    data: str
    weight: str
    output: str

    @property
    def integer(self) -> bool:
        """Whether both factors are integers."""
        return all("int" in dtype for dtype in (self.data, self.weight))


def operand_dtypes(module: tvm.IRModule) -> list[Operands]:
    """What stock TVM multiplies in each convolution and dense layer of ``main``.

    Parameters
    ----------
    module : tvm.IRModule
        fp32 or QDQ Relax.

    Returns
    -------
    list of Operands
        One for each call, in program order.

    Notes
    -----
    Source of the legalization: ``tvm/relax/transform/legalize_ops``.
    """
    legal = relax.transform.LegalizeOps()(module)
    found = []
    for block in legal["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call) and isinstance(call.args[0], tvm.ir.GlobalVar):
                name = call.args[0].name_hint
                if name.startswith(HEAVY):
                    found.append(_operands(name, legal[name]))
    return found


def _operands(name: str, function: tvm.tirx.PrimFunc) -> Operands:
    dtypes = [str(parameter.dtype) for parameter in function.params]
    return Operands(name, dtypes[0], dtypes[1], dtypes[-1])


def excerpt(module: tvm.IRModule, operator: str = "R.nn.conv2d", index: int = 1) -> str:
    """The Relax text around one operator: the lines that make its operands, and its first reader.

    Parameters
    ----------
    module : tvm.IRModule
        The module.
    operator : str
        As TVMScript prints it.
    index : int
        Which occurrence, from 0.

    Raises
    ------
    InputError
        If there are not that many.
    """
    lines = [_plain(line) for line in module["main"].script(show_meta=False).splitlines()]
    hits = [i for i, line in enumerate(lines) if f"{operator}(" in line]
    if index >= len(hits):
        raise InputError(f"main has {len(hits)} calls of {operator}, there is no number {index}")
    hit = hits[index]
    around = _operand_lines(lines, hit)
    name = _defined(lines[hit])
    reader = next((i for i in range(hit + 1, len(lines)) if _reads(lines[i], name)), None)
    around += [hit] + ([reader] if reader is not None else [])
    return "\n".join(lines[i] for i in sorted(set(around)))


def _operand_lines(lines: list[str], hit: int, depth: int = 2) -> list[int]:
    """Lines that define what line ``hit`` reads, and what those read."""
    call = lines[hit].split(" = ", 1)[1]
    found = [i for i in range(hit) if _defined(lines[i]) in re.findall(r"\w+", call)]
    if depth > 1:
        found += [j for i in found for j in _operand_lines(lines, i, depth - 1)]
    return found


def _plain(line: str) -> str:
    """A line of TVMScript without the layout attributes, which are the same everywhere."""
    line = re.sub(r'metadata\["ir\.GenericConst"\]\[\d+\]', "const", line.strip())
    return re.sub(r", (?:data|kernel|out)_layout=\"\w+\"", "", line)


def _defined(line: str) -> str | None:
    match = re.match(r"(\w+): R\.", line)
    return match.group(1) if match else None


def _reads(line: str, name: str | None) -> bool:
    return name in re.findall(r"\w+", line.split(" = ", 1)[-1])
