"""Time stamps around the kernels of a compiled network, taken by the network itself.

Every library holds ``main`` twice: as it is, and with a stamp before and after each kernel call. A
stamp is a kernel of one instruction, which reads the processor's time-stamp counter into an array
of the caller's. The virtual machine calls it as it calls all kernels, so a library from the cache,
one from a file and a stock build are timed alike, and Python takes no part between the first kernel
and the last: the two callbacks a kernel that TVM's instrument of the virtual machine makes cost
more than some kernels.

Counters: ``rdtsc`` on x86, ``cntvct_el0`` on AArch64. Both tick at a constant rate that they do not
tell; `layer_times.Clock` compares them with Python's.
"""

from __future__ import annotations

import json

import tvm
from tvm import relax
from tvm.tirx.script import builder as T

from ..kernels import tir
from .compiled_kernel import KernelSource

MAIN = "main"
STAMP = "relaxquant_stamp"  # the kernel
STAMPED = "relaxquant_stamped"  # main with stamps; its last argument is the array for them
NOW = "relaxquant_now"  # one stamp
CALLS = "relaxquant_stamped_calls"  # names of the calls that are timed, as JSON

NOTHING = relax.TupleType([])
STAMPS = relax.TensorType(ndim=1, dtype="int64")


def stamp_source(target: tvm.target.Target) -> KernelSource:
    """The kernel ``stamp(stamps, index)``, which writes the counter to ``stamps[index]``."""

    def body() -> None:
        stamps = tir.arg("stamps", (T.int64(),), "int64")
        index = T.arg("index", T.int64())
        tir.store(stamps, [index], T.call_llvm_intrin("int64", "llvm.readcyclecounter"))

    function = tir.prim_func(body).with_attr("global_symbol", STAMP)
    return KernelSource(STAMP, function, target)


def with_stamps(module: tvm.IRModule) -> tvm.IRModule:
    """Add the functions `STAMPED`, `NOW` and `CALLS` to a module.

    Parameters
    ----------
    module : tvm.IRModule
        Relax from which the virtual machine's bytecode is made, after all passes.
    """
    main = relax.utils.copy_with_new_vars(module[MAIN])
    stamps = relax.Var("stamps", STAMPS)
    blocks, names = [], []
    for block in main.body.blocks:
        bindings = []
        for binding in block.bindings:
            name = _kernel_called(binding.value, module)
            if name:
                at = 2 * len(names)
                bindings += [_stamp(stamps, at), binding, _stamp(stamps, at + 1)]
                names.append(name)
            else:
                bindings.append(binding)
        blocks.append(relax.BindingBlock(bindings))
    body = relax.SeqExpr(blocks, main.body.body)
    stamped = relax.Function([*main.params, stamps], body, main.ret_ty, False, main.attrs)
    added = {STAMPED: stamped, NOW: _now(), CALLS: _constant(json.dumps(names))}
    result = tvm.IRModule(dict(module.functions), attrs=module.attrs)
    for name, function in added.items():
        result[name] = function.with_attr("global_symbol", name)
    return result


def stamping_pipeline(pipeline: tvm.transform.Pass) -> tvm.transform.Pass:
    """A pipeline with `with_stamps` behind it."""

    @tvm.transform.module_pass(opt_level=0, name="WithStamps")
    def add(module: tvm.IRModule, _context) -> tvm.IRModule:
        return with_stamps(module)

    return tvm.transform.Sequential([pipeline, add])


def kernels_called(module: tvm.IRModule) -> list[str]:
    """Names of the kernels that ``main`` calls, in order, of a module at the end of a pipeline."""
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    called = (_kernel_called(binding.value, module) for binding in bindings)
    return [name for name in called if name]


def _kernel_called(value: relax.Expr, module: tvm.IRModule) -> str:
    """Name of the kernel that a call runs; empty where it runs none.

    The virtual machine's builtins manage memory, and functions for the host compute shapes.
    """
    if not isinstance(value, relax.Call):
        return ""
    called = value.op
    if isinstance(called, tvm.ir.Op) and called.name == "relax.vm.call_tir_dyn":
        called = value.args[0]
    if isinstance(called, tvm.ir.GlobalVar):
        is_shape = (module[called].attrs or {}).get("tirx.is_host_func", False)
        return "" if is_shape else called.name_hint
    if isinstance(called, relax.ExternFunc):
        name = str(called.global_symbol)
        return "" if name.startswith("vm.builtin") else name
    return ""


def _stamp(stamps: relax.Var, index: int) -> relax.VarBinding:
    arguments = [stamps, relax.prim_value(index)]
    call = relax.Call(relax.ExternFunc(STAMP), arguments, ty_args=[NOTHING])
    return relax.VarBinding(relax.Var("_", NOTHING), call)


def _now() -> relax.Function:
    stamps = relax.Var("stamps", STAMPS)
    body = relax.SeqExpr([relax.BindingBlock([_stamp(stamps, 0)])], stamps)
    return relax.Function([stamps], body, STAMPS, False)


def _constant(text: str) -> relax.Function:
    value = tvm.ir.StringImm(text)
    return relax.Function([], relax.SeqExpr([], value), value.ty, True)
