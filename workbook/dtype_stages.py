"""``python -m workbook.dtype_stages int4``: take one data type through stock TVM, stage by stage.

Runs in a process of its own, because a stage may end the process, and since a kernel that writes
beyond its tensor spoils the memory of whatever runs after it. One JSON line a stage, as it ends.
Nothing of relaxquant is used here: this is what TVM itself does.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

COUNT = 1000  # elements of every tensor here
UNTOUCHED = 0x55
MAX_ERROR = 200  # characters of a message that are kept


class WrongResult(Exception):
    """A stage ran through, but what it computed is wrong."""


def values(dtype: str, seed: int = 0) -> np.ndarray:
    """Zeros and another value that the type can hold, in random order, float32."""
    one = -1.0 if dtype == "int1" else 1.0
    return np.random.default_rng(seed).choice(np.array([0.0, one], np.float32), COUNT)


def relax_type(dtype: str) -> None:
    """A Relax variable of this type."""
    from tvm import relax

    relax.Var("x", relax.TensorType((COUNT,), dtype))


def quantize(dtype: str) -> None:
    """``R.quantize`` to this type, and its type inference."""
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((COUNT,), "float32"))
    scale, zero = relax.const(0.5, "float32"), relax.const(0, "int8")
    builder.normalize(relax.op.quantize(x, scale, zero, axis=0, out_dtype=dtype))


def _sum(dtype: str):
    from tvm import te

    a, b = (te.placeholder((COUNT,), dtype, name=name) for name in "ab")
    return te.create_prim_func([a, b, te.compute((COUNT,), lambda i: a[i] + b[i], name="c")])


def te_function(dtype: str) -> None:
    """A TE function that adds two tensors of this type."""
    _sum(dtype)


def llvm_code(dtype: str) -> None:
    """LLVM code of that function."""
    import tvm

    tvm.compile(_sum(dtype), target="llvm")


def vm_allocation(dtype: str) -> None:
    """A network with an intermediate tensor of this type, on the virtual machine."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((COUNT,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            narrow = builder.emit(relax.op.astype(x, dtype))
            y = builder.emit_output(relax.op.astype(narrow, "float32"))
        builder.emit_func_output(y)
    machine = relax.VirtualMachine(relax.build(builder.get(), target="llvm"), tvm.cpu())
    expect(machine["main"](tvm.runtime.tensor(values(dtype))).numpy(), values(dtype))


def _stored(dtype: str, seed: int = 0):
    """A tensor that a kernel filled with `values`, and the memory it is a view of."""
    import tvm
    from tvm import te

    source = te.placeholder((COUNT,), "float32", name="source")
    target = te.compute((COUNT,), lambda i: source[i].astype(dtype), name="target")
    kernel = tvm.compile(te.create_prim_func([source, target]), target="llvm")
    memory = tvm.runtime.tensor(np.full(4 * COUNT, UNTOUCHED, np.uint8))
    view = memory._create_view((COUNT,), dtype)
    kernel(tvm.runtime.tensor(values(dtype, seed)), view)
    return view, memory


def bytes_written(dtype: str) -> None:
    """A kernel writes as many bytes as the run time allocates for its tensor."""
    import tvm

    _, memory = _stored(dtype)
    written = int(np.count_nonzero(memory.numpy() != UNTOUCHED))
    allocated = (COUNT * tvm.runtime.DataType(dtype).bits + 7) // 8
    if dtype == "bool":
        allocated = COUNT  # a byte each, by DLPack's convention
    if written != allocated:
        raise WrongResult(f"a tensor has {allocated} bytes, the kernel writes {written}")


def copy_in(dtype: str) -> None:
    """A run-time tensor filled from NumPy."""
    import tvm

    tvm.runtime.empty((COUNT,), dtype).copyfrom(values(dtype).astype(np.int8))


def copy_out(dtype: str) -> None:
    """What a kernel stored, read back into NumPy."""
    # Other values than before: TVM may return memory that it never wrote to.
    view, _ = _stored(dtype, seed=1)
    expect(np.asarray(view.numpy()), values(dtype, seed=1))


STAGES: dict[str, Callable[[str], None]] = {
    "Relax type": relax_type,
    "R.quantize": quantize,
    "TE": te_function,
    "LLVM code": llvm_code,
    "VM allocation": vm_allocation,
    "bytes written": bytes_written,
    "copy in": copy_in,
    "copy out": copy_out,
}


def expect(found: np.ndarray, wanted: np.ndarray) -> None:
    """Compare what came out with what went in.

    Raises
    ------
    WrongResult
        Where they differ.
    """
    wrong = int(np.count_nonzero(found.astype(np.float32) != wanted))
    if wrong:
        raise WrongResult(f"{wrong} of {len(wanted)} values come back wrong")


def attempt(stage: str, dtype: str) -> dict[str, str]:
    """Run one stage: its name, its error (empty if none) and the file that raised it."""
    try:
        STAGES[stage](dtype)
    except Exception as error:
        words = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {words[0] if words else ''}".strip()
        file = "" if isinstance(error, WrongResult) else origin(error)
        return {"stage": stage, "error": text[:MAX_ERROR], "file": file}
    return {"stage": stage, "error": "", "file": ""}


def origin(error: BaseException) -> str:
    """The deepest file of TVM in a traceback: TVM's own frames in C++ are in there too."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = str(Path(__file__))
    known = [f for f in files if f != ours and Path(f).suffix in (".cc", ".cpp", ".h", ".py")]
    if not known:
        return ""
    name = known[-1].replace("\\", "/")
    for mark, start in {"/site-packages/": "", "/src/": "src/"}.items():
        if mark in name:
            return start + name.split(mark)[-1]
    return name


def main() -> None:
    """Attempt the stages from the one that the command line names on."""
    dtype, first = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for stage in list(STAGES)[first:]:
        print(json.dumps(attempt(stage, dtype)), flush=True)


if __name__ == "__main__":
    main()
