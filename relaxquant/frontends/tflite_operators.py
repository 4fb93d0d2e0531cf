"""TVM's TFLite importer, mended where what it makes is not the quantized operator that is meant.

- Variables are called as the model's tensors are, so that both can be compared by name.
- A fused activation is a clip before the quantize, in real units, instead of one after it.
- Operators that the importer applies to integers (average pooling, which it truncates; reshapes,
  padding) stand in float between dequantize and quantize as all others do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tflite
import tvm
from tvm import relax
from tvm.relax import op as R
from tvm.relax.frontend.tflite import from_tflite as import_tflite
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter, get_tensor_name

from ..errors import ModelError

# Quantized operators whose float form is what they mean.
IN_FLOAT = frozenset(
    {
        "AVERAGE_POOL_2D",
        "DEPTH_TO_SPACE",
        "EXPAND_DIMS",
        "MAX_POOL_2D",
        "MIRROR_PAD",
        "PACK",
        "PAD",
        "RELU_0_TO_1",
        "RESHAPE",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TILE",
        "TRANSPOSE",
        "UNPACK",
    }
)


def convert(model: tflite.Model, name: str) -> tvm.IRModule:
    """TVM's import of a model, in NHWC; ModelError, naming the operator, where it cannot be."""
    try:
        module = import_tflite(model, op_converter=Converter)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise ModelError(f"TVM cannot import {name}: {reason}") from error
    main = module["main"]
    module["main"] = main.without_attr("params").without_attr("num_input")
    return module


class Converter(OperatorConverter):
    """The importer's converter; `from_tflite` of TVM takes it as ``op_converter``."""

    _SUPPORTED_QUANTIZED_OPS = OperatorConverter._SUPPORTED_QUANTIZED_OPS | IN_FLOAT

    def __init__(self, *arguments, **fields):
        super().__init__(*arguments, **fields)
        self.as_float = False  # tensors then show no quantization

    def check_unsupported_ops(self) -> None:
        """Look at all operators before the first is converted."""
        for operator in self._operators():
            name = self._supported_name(operator)
            self._check_quantization(operator, name)

    def convert_op_to_relax(self) -> None:
        """Convert operator by operator; each output becomes a variable with its tensor's name."""
        for operator in self._operators():
            name = self.get_op_code_str(operator)
            try:
                result = self._converted(operator, name)
            except Exception as error:
                raise ModelError(
                    f"{self._where(operator, name)} cannot be imported ({_last_line(error)}); "
                    "replace it in the model, or cut the model before it"
                ) from error
            if result is not None:
                self._keep(operator, result)

    def _operators(self):
        return (self.subgraph.Operators(i) for i in range(self.subgraph.OperatorsLength()))

    def _where(self, operator, name: str) -> str:
        output = get_tensor_name(self.subgraph, int(operator.Outputs(0)))
        return f"operator {name} that computes {output!r}"

    def _supported_name(self, operator) -> str:
        try:
            name = self.get_op_code_str(operator)
        except NotImplementedError as error:
            custom = self.model.OperatorCodes(operator.OpcodeIndex()).CustomCode()
            name = custom.decode() if custom else "CUSTOM"
            raise ModelError(self._unsupported(operator, name)) from error
        tensors = [
            t for t in (*self.get_input_tensors(operator), *self.get_output_tensors(operator))
        ]
        quantized = any(tensor.qnn_params for tensor in tensors)
        known = name in self.convert_map
        if not known or (quantized and name not in self._SUPPORTED_QUANTIZED_OPS):
            raise ModelError(self._unsupported(operator, ("quantized " if known else "") + name))
        return name

    def _unsupported(self, operator, name: str) -> str:
        return (
            f"{self._where(operator, name)} is not supported; replace it in the model, or cut the "
            "model before it"
        )

    def _check_quantization(self, operator, name: str) -> None:
        """Refuse weights of integers that meet float activations."""
        first, *others = self.get_input_tensors(operator) or [None]
        outputs = self.get_output_tensors(operator)
        if name in ("DEQUANTIZE", "QUANTIZE") or first is None or first.qnn_params:
            return
        if any(tensor.qnn_params for tensor in others) and not outputs[0].qnn_params:
            raise ModelError(
                f"{self._where(operator, name)} multiplies float activations by integer weights "
                "(dynamic-range quantization), which has no scales to compute in integers with; "
                "convert the model with full integer quantization (a representative data set)"
            )

    def _converted(self, operator, name: str):
        quantized = bool(super().get_input_tensors(operator)[0].qnn_params)
        if quantized and name in IN_FLOAT:
            return self._through_float(operator, self.convert_map[name])
        return self.convert_map[name](op=operator)

    def _through_float(self, operator, convert: Callable):
        """Convert the float form of an operator, between dequantize and quantize."""
        hidden = {}
        for tensor in super().get_input_tensors(operator):
            if tensor.tensor_idx >= 0 and tensor.qnn_params:
                key = get_tensor_name(self.subgraph, tensor.tensor_idx)
                hidden[key] = self.get_tensor_expr(tensor)
                self.exp_tab.set_expr(key, self.dequantize(hidden[key], tensor), True)
        self.as_float = True
        try:
            result = self.bb.normalize(convert(op=operator))
        finally:
            self.as_float = False
            for key, expression in hidden.items():
                self.exp_tab.set_expr(key, expression, True)
        outputs = super().get_output_tensors(operator)
        if len(outputs) == 1:
            return self.quantize(result, outputs[0])
        return relax.Tuple([self.quantize(result[i], t) for i, t in enumerate(outputs)])

    def get_tensors(self, tensors_idx_list):
        """The importer's, which hides quantization while an operator is converted in float."""
        tensors = super().get_tensors(tensors_idx_list)
        if self.as_float:
            for tensor in tensors:
                tensor.qnn_params = None
        return tensors

    def _keep(self, operator, result) -> None:
        tensors = super().get_output_tensors(operator)
        for i, tensor in enumerate(tensors):
            name = get_tensor_name(self.subgraph, tensor.tensor_idx)
            value = result if len(tensors) == 1 else result[i]
            self.exp_tab.set_expr(name, self.bb.emit(value, name_hint=name))

    def convert_qnn_fused_activation_function(
        self, expr, fused_activation_fn, scale, zero_point, dtype
    ):
        """The activation of a quantize as a clip before it; nothing where the type's range does."""
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
        bounds = _bounds(fused_activation_fn)
        if bounds is None:
            return super().convert_qnn_fused_activation_function(
                expr, fused_activation_fn, scale, zero_point, dtype
            )
        low, high = (
            int(np.clip(np.rint(bound / scale) + zero_point, lowest, highest)) for bound in bounds
        )
        if (low, high) == (lowest, highest):
            return expr
        real = [float(np.float64(step - zero_point) * scale) for step in (low, high)]
        clipped = R.clip(expr.args[0], *real)
        return relax.Call(expr.op, [clipped, *expr.args[1:]], expr.attrs, expr.ty_args)


def _bounds(activation: int) -> tuple[float, float] | None:
    """Real bounds of a fused activation; None for one that is no clip."""
    kinds = tflite.ActivationFunctionType
    return {
        kinds.NONE: (-np.inf, np.inf),
        kinds.RELU: (0.0, np.inf),
        kinds.RELU6: (0.0, 6.0),
        kinds.RELU_N1_TO_1: (-1.0, 1.0),
    }.get(activation)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
