"""One layer on one device: its inputs, what must come out, and how long a kernel takes.

Nothing that MetaSchedule makes is timed before its output is that of the reference schedule: bit
for bit for integers, within rounding for floats.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tvm

from ..errors import RelaxQuantError
from ..kernels.conv2d_reference import plain_loops
from ..kernels.cuda.bind import for_machine
from ..kernels.intrinsics import InstructionSet
from ..kernels.registry import Implementation
from ..kernels.spec import ConvSpec, ConvWeights, TensorSpec

REPEATS = 5
A_REPEAT_S = 0.002  # a repeat runs the kernel for about that long
NOT_WORTH = 3.0  # a kernel that many times slower than the best is timed once
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3}  # of the largest output; integers have none


class WrongResult(RelaxQuantError):
    """A kernel computes something else than its layer."""


class Bench:
    """A layer on a device.

    Parameters
    ----------
    device : LocalDevice, LocalGpu or Board
        Where kernels run.
    spec, weights : ConvSpec, ConvWeights
        The layer; its batch must be known.
    isa : InstructionSet
        Of the reference kernel.
    target : tvm.target.Target
        What to compile for.
    """

    def __init__(
        self,
        device,
        spec: ConvSpec,
        weights: ConvWeights,
        isa: InstructionSet,
        target: tvm.target.Target,
    ):
        self.device, self.spec, self.target, self.machine = device, spec, target, isa.machine
        rng = np.random.default_rng(0)
        tensors = [spec.data, spec.epilogue.residual]
        self.activations = [random_activations(rng, t, spec.batch) for t in tensors if t]
        self.output = self._to_device(np.empty(spec.out.physical_shape(spec.batch), spec.out.dtype))
        self._reference = plain_loops(spec, weights, isa)
        self._expected: np.ndarray | None = None
        self._constants: dict[int, object] = {}

    def runner(self, implementation: Implementation) -> Callable[[], object]:
        """What runs a kernel once, as `race.race` times it."""
        return self.runner_of(implementation.build, implementation.arguments)

    def runner_of(
        self, build: Callable[[], tvm.tirx.PrimFunc], arguments: list
    ) -> Callable[[], object]:
        """The same for what builds a kernel, and its arguments, as of an `Implementation`."""
        return self.device.timed(*self._prepared(for_machine(build, self.machine), arguments))

    def checked_seconds(
        self, function: tvm.tirx.PrimFunc, arguments: list, best: float
    ) -> list[float]:
        """Seconds of a kernel, after it was seen to compute the layer.

        Parameters
        ----------
        function : tvm.tirx.PrimFunc
            The kernel.
        arguments : list
            As `Implementation.arguments`.
        best : float
            Seconds of the best kernel so far.

        Raises
        ------
        WrongResult
            If the output is another than the reference schedule's.
        """
        module, arguments = self._prepared(function, arguments)
        expected = self._expected_output()
        self._check(module, arguments, expected)
        device = self.device.tvm
        once = module.time_evaluator("main", device, number=1, repeat=1)(*arguments).mean
        if once > NOT_WORTH * best:
            return [float(once)]
        number = max(1, int(A_REPEAT_S / max(once, 1e-9)))
        evaluator = module.time_evaluator("main", device, number=number, repeat=REPEATS)
        return [float(seconds) for seconds in evaluator(*arguments).results]

    def _check(self, module, arguments: list, expected: np.ndarray) -> None:
        self.output.copyfrom(np.zeros_like(expected))
        module["main"](*arguments)
        found = self.output.numpy()
        if self.spec.is_integer:
            same = np.array_equal(found, expected)
        else:
            largest = np.abs(expected).max(initial=0)
            tolerance = TOLERANCE[self.spec.precision] * largest
            same = np.allclose(found, expected, rtol=0, atol=tolerance)
        if not same:
            raise WrongResult("the kernel computes something else than the reference schedule")

    def _expected_output(self) -> np.ndarray:
        if self._expected is None:
            kernel = self._reference
            function = for_machine(kernel.build, self.machine)
            module, arguments = self._prepared(function, kernel.arguments)
            module["main"](*arguments)
            self._expected = self.output.numpy()
        return self._expected

    def _prepared(self, function: tvm.tirx.PrimFunc, arguments: list) -> tuple:
        """A kernel on the device, and its arguments there with the output."""
        module = self.device.load(function, self.target)
        return module, [*(self._argument(argument) for argument in arguments), self.output]

    def _argument(self, argument: np.ndarray | int):
        array = self.activations[argument] if isinstance(argument, int) else argument
        if id(array) not in self._constants:
            # The array is kept beside it, so that no other gets its id.
            self._constants[id(array)] = (self._to_device(array), array)
        return self._constants[id(array)][0]

    def _to_device(self, array: np.ndarray):
        return tvm.runtime.tensor(array, self.device.tvm)


def random_activations(rng, tensor: TensorSpec, batch: int) -> np.ndarray:
    """Stored activations of all values that the tensor can have."""
    shape = tensor.physical_shape(batch)
    if tensor.integers:
        lowest, highest = tensor.integers
        highest = min(highest, tensor.largest) if tensor.dtype == "uint8" else highest
        return rng.integers(lowest, highest + 1, shape).astype(tensor.dtype)
    return rng.standard_normal(shape).astype(tensor.dtype)
