"""Residual add and concatenation against the NumPy model, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import elementwise
from relaxquant.kernels.elementwise import AddSpec, ConcatSpec
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.spec import TensorSpec
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    build,
    examples,
    random_tensor,
    run,
    target_of,
    to_memory,
)

SIZE = (3, 5)
KINDS = {
    "u8": ("uint8", 0),
    "u8 around 128": ("uint8", 128),
    "u8 around 77": ("uint8", 77),
    "i16": ("int16", 0),
    "float": ("float32", 0),
}


def tensor(channels: int, kind: str) -> TensorSpec:
    """A tensor of one of `KINDS`."""
    dtype, zero_point = KINDS[kind]
    return TensorSpec(channels, *SIZE, dtype, zero_point=zero_point)


def bounds(out: TensorSpec) -> tuple[float, float]:
    """What keeps the output in its dtype."""
    if not out.integers:
        return -2.5, np.inf
    return out.integers[0] - out.zero_point, out.integers[1] - out.zero_point


def check(build_kernel, model, spec, inputs, scales, target_name: str, batch: int) -> None:
    """Run the kernel and the model on random inputs."""
    target = target_of(target_name)
    rng = np.random.default_rng(len(scales))
    stored = [random_tensor(rng, tensor_spec, batch) for tensor_spec in inputs]
    low, high = bounds(spec.out)
    library = build(build_kernel(spec, instruction_set(target)), target)
    arguments = [to_memory(a, s) for a, s in zip(stored, inputs, strict=True)]
    arguments.append(elementwise.scales_and_bounds(scales, low, high))
    actual = run(library, arguments, spec.out)
    np.testing.assert_array_equal(actual, model(spec, stored, scales, low, high))


def model_of_add(spec, stored, scales, low, high) -> np.ndarray:
    """`reference.add` with the signature of `reference.concat`."""
    return reference.add(spec, *stored, scales, low, high)


def check_add(kinds: tuple, target: str, channels=20, scales=(0.7, 0.31), symbolic=False) -> None:
    a, b, out = (tensor(channels, kind) for kind in kinds)
    spec = AddSpec(None if symbolic else 2, a, b, out)
    check(elementwise.build_add, model_of_add, spec, (a, b), list(scales), target, batch=2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "kinds",
    [
        ("u8", "u8", "u8"),
        ("u8 around 128", "u8 around 77", "u8 around 128"),
        ("u8 around 77", "float", "u8"),
        ("float", "u8 around 128", "float"),
        ("float", "float", "float"),
        ("i16", "u8 around 77", "i16"),
    ],
    ids=" + ".join,
)
def test_add(kinds, target):
    check_add(kinds, target)


def test_add_with_symbolic_batch():
    check_add(("u8 around 77", "u8", "u8 around 128"), "native", symbolic=True)


positive_scales = st.floats(2**-8, 4, width=32)


@given(
    st.tuples(*[st.sampled_from(sorted(KINDS))] * 3),
    st.integers(1, 40),
    st.tuples(positive_scales, positive_scales),
    st.sampled_from(RUNNABLE),
)
@examples(15)
def test_add_of_any_scale(kinds, channels, scales, target):
    check_add(kinds, target, channels, scales)


def check_concat(inputs: list[tuple[int, str]], out: str, target: str, symbolic=False) -> None:
    tensors = tuple(tensor(channels, kind) for channels, kind in inputs)
    total = tensor(sum(channels for channels, _ in inputs), out)
    spec = ConcatSpec(None if symbolic else 2, tensors, total)
    scales = [0.5 + 0.37 * i for i in range(len(inputs))]
    check(elementwise.build_concat, reference.concat, spec, tensors, scales, target, batch=2)


CONCATS = {
    "aligned": ([(16, "u8"), (32, "u8 around 77"), (5, "u8")], "u8"),
    "unaligned": ([(10, "u8 around 128"), (3, "u8"), (20, "u8 around 77")], "u8 around 128"),
    "unaligned, then aligned": ([(7, "u8"), (9, "u8"), (16, "u8")], "u8 around 77"),
    "float, padding behind the last": ([(10, "float"), (10, "float")], "float"),
    "one channel each": ([(1, "u8"), (1, "float"), (1, "u8")], "float"),
    "int16": ([(10, "i16"), (7, "u8 around 77"), (20, "i16")], "i16"),
    "one input": ([(18, "u8")], "u8"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONCATS)
def test_concat(name, target):
    inputs, out = CONCATS[name]
    check_concat(inputs, out, target)


def test_concat_with_symbolic_batch():
    check_concat([(10, "u8 around 128"), (22, "u8")], "u8", "native", symbolic=True)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from(sorted(KINDS))), min_size=1, max_size=4),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(RUNNABLE),
)
@examples(15)
def test_concat_of_any_channels(inputs, out, target):
    check_concat(inputs, out, target)
