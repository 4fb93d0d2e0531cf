"""Pooling against the NumPy model, bit for bit: the order of float additions included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import pool2d
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.pool2d import PoolSpec
from relaxquant.kernels.spec import TensorSpec, Window
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


def pool(
    kind: str,
    window: Window,
    *,
    channels: int = 20,
    size: tuple[int, int] = (7, 9),
    dtype: str = "uint8",
    out_dtype: str | None = None,
    zero_point: int = 0,
    out_zero_point: int | None = None,
    count_include_pad: bool = False,
    batch: int = 1,
    symbolic: bool = False,
) -> tuple[PoolSpec, int]:
    """A pooling layer and the batch to run it with; the output is like the input unless said."""
    out_dtype = out_dtype or dtype
    out_zero_point = zero_point if out_zero_point is None else out_zero_point
    data = TensorSpec(channels, *size, dtype, zero_point=zero_point if dtype == "uint8" else 0)
    out_zero_point = out_zero_point if out_dtype == "uint8" else 0
    out = TensorSpec(channels, *window.output_size(*size), out_dtype, zero_point=out_zero_point)
    spec_batch = None if symbolic else batch
    return PoolSpec(kind, spec_batch, data, out, window, count_include_pad), batch


def check(layer: tuple[PoolSpec, int], target_name: str, multiplier: float = 1.0, seed=0) -> None:
    spec, batch = layer
    target = target_of(target_name)
    data = random_tensor(np.random.default_rng(seed), spec.data, batch)
    low, high = (end - spec.out.zero_point for end in spec.out.integers or (-np.inf, np.inf))
    library = build(pool2d.build(spec, instruction_set(target)), target)
    parameters = pool2d.pool_parameters(spec, multiplier, low, high)
    actual = run(library, [to_memory(data, spec.data), *parameters], spec.out)
    if spec.kind == "max":
        expected = reference.max_pool(spec, data)
    else:
        expected = reference.avg_pool(spec, data, multiplier, low, high)
    np.testing.assert_array_equal(actual, expected)


THREE = Window((3, 3), (2, 2), (1, 1, 1, 1))
UNEVEN = Window((3, 2), (1, 3), (2, 0, 0, 1), (1, 2))
LAYERS = {
    "max uint8": pool("max", THREE, zero_point=128),
    "max float32": pool("max", THREE, dtype="float32"),
    "max uneven": pool("max", UNEVEN, batch=2, symbolic=True),
    "max int16": pool("max", THREE, dtype="int16"),
    "max ceil mode": pool("max", Window((2, 2), (2, 2), (0, 0, 1, 1)), zero_point=7),
    "avg uint8": pool("avg", THREE, zero_point=3),
    "avg float32": pool("avg", THREE, dtype="float32"),
    "avg with padding": pool("avg", THREE, zero_point=128, count_include_pad=True),
    "avg with padding float32": pool("avg", THREE, dtype="float32", count_include_pad=True),
    "avg uneven": pool("avg", UNEVEN, zero_point=255, batch=3),
    "avg int16": pool("avg", THREE, dtype="int16"),
    "avg int16 to uint8": pool("avg", THREE, dtype="int16", out_dtype="uint8", out_zero_point=128),
    "avg dequantized": pool("avg", THREE, zero_point=9, out_dtype="float32"),
    "avg quantized": pool("avg", THREE, dtype="float32", out_dtype="uint8", out_zero_point=128),
    "global average": pool("avg", Window((7, 9)), channels=33, zero_point=77, out_zero_point=0),
    "global average float32": pool("avg", Window((7, 9)), dtype="float32"),
    "global average, symbolic": pool("avg", Window((7, 9)), zero_point=1, batch=2, symbolic=True),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_nasty_layers(name, target):
    scale = 1.0 if LAYERS[name][0].out.dtype == LAYERS[name][0].data.dtype else 0.37
    check(LAYERS[name], target, scale)


@st.composite
def touching_windows(draw):
    """Windows that touch the image everywhere: padding below the reach of the kernel."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = [draw(st.integers(0, kernel[axis] - 1)) for axis in (0, 1, 0, 1)]
    padding = [pad * dilation[axis] for pad, axis in zip(padding, (0, 1, 0, 1), strict=True)]
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    window = Window(kernel, strides, tuple(padding), dilation)
    reach = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
    size = [draw(st.integers(least, least + 6)) for least in reach]
    return window, tuple(size)


@given(
    touching_windows(),
    st.sampled_from(["max", "avg"]),
    st.sampled_from(["uint8", "float32"]),
    st.integers(0, 255),
    st.booleans(),
    st.integers(1, 35),
    st.sampled_from(RUNNABLE),
    st.integers(0, 2**32 - 1),
)
@examples(30)
def test_pooling(shape, kind, dtype, zero_point, include, channels, target, seed):
    window, size = shape
    layer = pool(
        kind,
        window,
        size=size,
        dtype=dtype,
        zero_point=zero_point,
        count_include_pad=include,
        channels=channels,
        batch=2,
    )
    check(layer, target, 1.0, seed)


@pytest.mark.parametrize("include", [True, False])
def test_model_agrees_with_pytorch(include):
    """The model's idea of count_include_pad and of a border is PyTorch's."""
    torch = pytest.importorskip("torch")
    spec, _ = pool("avg", THREE, dtype="float32", count_include_pad=include)
    data = random_tensor(np.random.default_rng(0), spec.data, 2)
    ours = reference.avg_pool(spec, data, 1.0, -np.inf, np.inf)
    image = torch.from_numpy(data)
    theirs = torch.nn.functional.avg_pool2d(image, 3, 2, 1, count_include_pad=include)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)
    largest = torch.nn.functional.max_pool2d(image, 3, 2, 1).numpy()
    np.testing.assert_array_equal(reference.max_pool(spec, data), largest)
