"""TFLite models in LiteRT, and ours compared with it tensor by tensor and label by label."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import relaxquant as rq
from relaxquant.inspect.activations import quantized_activations, with_activations
from workbook.errors import WorkbookError


class LiteRT:
    """A ``.tflite`` file in LiteRT's interpreter.

    Parameters
    ----------
    path : str or pathlib.Path
        The model.
    reference : bool
        Run the reference kernels, whose arithmetic defines the quantized operators, instead of
        XNNPACK, and keep every tensor.
    threads : int
        Of the interpreter.
    """

    def __init__(self, path: str | Path, reference: bool = False, threads: int = 1):
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise WorkbookError("LiteRT is not installed: pip install ai-edge-litert") from error
        settings = {}
        if reference:
            settings["experimental_op_resolver_type"] = OpResolverType.BUILTIN_REF
            settings["experimental_preserve_all_tensors"] = True
        self.interpreter = Interpreter(str(path), num_threads=threads, **settings)
        self.interpreter.allocate_tensors()
        self.inputs = self.interpreter.get_input_details()
        self.output, *_ = self.interpreter.get_output_details()

    def __call__(self, *inputs: np.ndarray) -> np.ndarray:
        """The first output for inputs of the model's own shapes and dtypes."""
        for tensor, x in zip(self.inputs, inputs, strict=True):
            self.interpreter.set_tensor(tensor["index"], x)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(self.output["index"])

    def tensors(self, names: list[str]) -> list[np.ndarray]:
        """Tensors of the last run by name, dots in which Relax does not take."""
        details = self.interpreter.get_tensor_details()
        index = {_relax_name(each["name"]): each["index"] for each in details}
        missing = [name for name in names if _relax_name(name) not in index]
        if missing:
            raise WorkbookError(f"LiteRT has no tensor called {missing[0]!r}")
        return [self.interpreter.get_tensor(index[_relax_name(name)]) for name in names]


def _relax_name(name: str) -> str:
    return name.replace(".", "_")


@dataclass(frozen=True)
class TensorAgreement:
    """How one quantized tensor agrees with LiteRT's, over all inputs that were run.

    ``equal`` is the share of equal integers, ``largest`` the largest difference in steps.
    """

    name: str
    shape: tuple[int, ...]
    equal: float
    largest: int


def compare_tensors(
    path: str | Path, inputs: Iterable[np.ndarray], **settings
) -> list[TensorAgreement]:
    """Compare every quantized tensor of a model with LiteRT's reference kernels.

    Parameters
    ----------
    path : str or pathlib.Path
        A quantized ``.tflite`` file.
    inputs : iterable of numpy.ndarray
        Each of the model's own shape and dtype.
    **settings
        Of `relaxquant.compile`.

    Returns
    -------
    list of TensorAgreement
        In program order.
    """
    module = rq.frontends.from_tflite(path)
    names = quantized_activations(module)
    library = rq.compile(with_activations(module, names), **settings)
    theirs = LiteRT(path, reference=True)
    equal, largest, shapes = np.zeros(len(names)), np.zeros(len(names), int), {}
    count = 0
    for x in inputs:
        theirs(x)
        for i, (mine, other) in enumerate(zip(library(x), theirs.tensors(names), strict=True)):
            image = mine.transpose(0, 2, 3, 1) if mine.ndim == 4 else mine
            difference = np.abs(image.astype(int) - other.reshape(image.shape))
            equal[i] += np.mean(difference == 0)
            largest[i] = max(largest[i], difference.max())
            shapes[names[i]] = other.shape
        count += 1
    return [
        TensorAgreement(name, shapes[name], float(equal[i] / count), int(largest[i]))
        for i, name in enumerate(names)
    ]


def first_difference(rows: list[TensorAgreement]) -> TensorAgreement | None:
    """The first tensor that is not equal throughout; None if all are."""
    return next((row for row in rows if row.largest), None)


@dataclass(frozen=True)
class LabelAgreement:
    """On how many of ``count`` inputs ours and LiteRT give the same best class."""

    equal: int
    count: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.equal / self.count


def compare_labels(
    path: str | Path, inputs: Iterable[np.ndarray], reference: bool = False, **settings
) -> LabelAgreement:
    """Compare the best class of each input with LiteRT's; of equal outputs the first is the best.

    Parameters
    ----------
    path, inputs
        As for `compare_tensors`.
    reference : bool
        Against LiteRT's reference kernels instead of XNNPACK.
    **settings
        Of `relaxquant.compile`.
    """
    library = rq.compile(rq.frontends.from_tflite(path), **settings)
    theirs = LiteRT(path, reference)
    same = [int(library(x).argmax()) == int(theirs(x).argmax()) for x in inputs]
    return LabelAgreement(sum(same), len(same))
