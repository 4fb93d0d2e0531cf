"""From the graph back to Relax: every layer a ``call_tir`` of its kernel with packed constants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvm.tirx import PrimFunc

from ..kernels.cuda import bind
from ..kernels.fixed_point import FLOAT, TFLITE
from ..kernels.intrinsics import InstructionSet
from ..kernels.registry import Implementation
from ..kernels.tuned import Tuned
from ..kernels.weight_bits import bits_of
from ..recent import Recent
from .graph import Graph, Node, Value
from .layout import stays_with_tvm
from .read import Reader
from .realize import conv_spec, in_fixed_point, narrowest, realize
from .record import KernelRecord, functions_of, is_dense, shape_text
from .tvm_calls import tvm_call

# For the next network: emitting TIR takes longer than all else about a kernel that is compiled.
PRIM_FUNCS = Recent(1024)
# The first of several is shown.
PRECISIONS = {"int16": "int16", "uint8": "int8", "float16": "fp16"}


@dataclass(frozen=True)
class Lowered:
    """A lowered network: Relax over ``call_tir``, and what was chosen for each layer."""

    module: tvm.IRModule
    kernels: list[KernelRecord]


class Emitter:
    """Builds the lowered module; one use."""

    def __init__(
        self,
        graph: Graph,
        reader: Reader,
        isa: InstructionSet,
        schedule: str,
        tuned: Tuned | None = None,
    ):
        self.graph, self.reader, self.isa = graph, reader, isa
        self.schedule, self.tuned = schedule, tuned
        self.builder = relax.BlockBuilder()
        self.variables: dict[Value, relax.Expr] = {}
        self.functions: dict = {}  # Implementation.key -> (GlobalVar, name)
        self.records: list[KernelRecord] = []
        self.tvm_variables: dict[int, relax.Var] = {}  # record -> variable
        self.batch = reader.function.params[0].ty.shape[0]
        self.static_batch = graph.inputs[0].shape[0]

    def emit(self) -> Lowered:
        """Emit ``main`` and the kernels it calls."""
        parameters = [relax.Var(p.name, p.ty) for p in self.reader.function.params]
        self.variables.update(zip(self.graph.inputs, parameters, strict=True))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for node in self.graph.nodes:
                    if node.op == "view":
                        self.variables[node.output] = self.variables[node.inputs[0]]
                        continue
                    stays = stays_with_tvm(node)
                    call = self._tvm_call(node) if stays else self._kernel(node)
                    variable = self.variables[node.output] = self.builder.emit(call)
                    if stays and isinstance(call, relax.Call):
                        self.tvm_variables[len(self.records) - 1] = variable
                results = [self.variables[value] for value in self.graph.outputs]
                output = relax.Tuple(results) if self.graph.returns_tuple else results[0]
                output = self.builder.emit_output(output)
            self.builder.emit_func_output(output)
        module = self.builder.get()
        return Lowered(module, self._named(module))

    def _named(self, module: tvm.IRModule) -> list[KernelRecord]:
        """The records; what stays with TVM is named by the function that it makes of it."""
        if not self.tvm_variables:
            return self.records
        functions = functions_of(module)
        return [
            replace(record, name=functions.get(self.tvm_variables.get(index), record.name))
            for index, record in enumerate(self.records)
        ]

    def _kernel(self, node: Node) -> relax.Expr:
        implementation = realize(node, self.static_batch, self.isa, self.schedule, self.tuned)
        function = self._function(node, implementation)
        arguments = [
            self.variables[node.inputs[argument]]
            if isinstance(argument, int)
            else relax.const(argument, str(argument.dtype))  # int64 would become int32
            for argument in implementation.arguments
        ]
        self.records.append(_record(node, implementation, function.name_hint, self.static_batch))
        shape = node.output.spec.physical_shape(self.batch)
        return relax.call_tir(function, arguments, relax.TensorType(shape, node.output.dtype))

    def _function(self, node: Node, implementation: Implementation):
        if implementation.key not in self.functions:
            build = partial(bind.for_machine, implementation.build, self.isa.machine)
            function = PRIM_FUNCS.get((implementation.key, self.isa), build)
            name = _function_name(node, implementation, function)
            self.functions[implementation.key] = self.builder.add_func(function, name)
        return self.functions[implementation.key]

    def _tvm_call(self, node: Node) -> relax.Expr:
        call = tvm_call(node, self.reader, self.variables)
        if isinstance(call, relax.Call):
            self.records.append(_tvm_record(node))
        return call


def _function_name(node: Node, implementation: Implementation, function: PrimFunc) -> str:
    """Says what it is to people, and by its last part what code it is: the same in all networks."""
    op = "dense" if is_dense(node) else node.op
    parts = [op, _precision(node), implementation.schedule]
    sizes = "x".join(str(s) for s in node.inputs[0].shape[1:])
    return "_".join([*parts, sizes, f"{tvm_ffi.structural_hash(function) & 0xFFFFFFFF:08x}"])


def _precision(node: Node) -> str:
    """Of the arithmetic, or of what a memory-bound kernel moves."""
    values = node.inputs[:1] if node.op == "conv2d" else [*node.inputs, node.output]
    dtypes = {value.dtype for value in values}
    return next((word for dtype, word in PRECISIONS.items() if dtype in dtypes), "fp32")


def _record(node: Node, implementation: Implementation, name: str, batch) -> KernelRecord:
    macs = conv_spec(node, batch).macs_per_image if node.op == "conv2d" else 0
    return KernelRecord(
        name=name,
        layer=node.label,
        op="dense" if is_dense(node) else node.op,
        shape=shape_text(node),
        layout=node.inputs[0].spec.layout,
        schedule=implementation.schedule,
        precision=_precision(node),
        instructions=implementation.instructions,
        macs=macs,
        tile=str(implementation.tile or ""),
        **_widths(node, implementation),
        requantize=_requantize(node),
        chosen=implementation.reason,
        reason=node.why_float if node.op == "conv2d" else "",
    )


def _requantize(node: Node) -> str:
    """How an integer convolution gets from its sums to the integers it stores; else empty."""
    if node.op != "conv2d" or not node.integer or not node.output.is_quantized:
        return ""
    return TFLITE if in_fixed_point(node) else FLOAT


def _widths(node: Node, implementation: Implementation) -> dict[str, int]:
    """Bits and bytes of what a convolution multiplies, as a record has them."""
    if node.op != "conv2d":
        return {}
    weight = next(a for a in implementation.arguments if isinstance(a, np.ndarray))
    weight_bits = activation_bits = 8 * np.dtype(node.inputs[0].dtype).itemsize
    if node.integer:
        data, array = node.inputs[0], narrowest(node.weight.array)
        wide = int(np.abs(array.astype(np.int32)).max(initial=0)).bit_length() + 1
        weight_bits = bits_of(array) if array.dtype == np.int8 else wide
        activation_bits = data.largest.bit_length() + (data.dtype == "int16")
    return {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "weight_bytes": weight.nbytes,
    }


def _tvm_record(node: Node) -> KernelRecord:
    name = node.call.op.name.removeprefix("relax.")
    shape = f"{node.inputs[0].shape} -> {node.output.shape}" if node.inputs else ""
    in_half = any(value.dtype == "float16" for value in (*node.inputs, node.output))
    return KernelRecord(
        name=name,
        layer=node.label,
        op=name,
        shape=shape,
        layout="NCHW",
        schedule="tvm default",
        precision="fp16" if in_half else "fp32",
        reason=node.reason,
    )
