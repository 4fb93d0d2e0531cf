"""NHWC in the kernels that know no layout: one block of all channels, indexed by TensorSpec."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from relaxquant.kernels import elementwise
from relaxquant.kernels.elementwise import AddSpec, ConcatSpec
from relaxquant.kernels.spec import TensorSpec
from tests.kernels import (
    reference,
    test_conv2d_fp32,
    test_conv2d_int8,
    test_convert,
    test_elementwise,
    test_pool2d,
)
from tests.kernels.harness import as_nhwc, conv_layer
from tests.kernels.test_conv2d_int8 import DEPTHWISE, REFERENCE, with_depthwise_groups
from tests.kernels.test_convert import image

TARGETS = ["avx2", "native"]


def test_names_and_shapes():
    blocked = TensorSpec(40, 5, 7, "uint8")
    nhwc = TensorSpec(40, 5, 7, "uint8", block=48, nhwc=True)
    assert (blocked.layout, blocked.physical_shape(2)) == ("NCHW16c", (2, 3, 5, 7, 16))
    assert (nhwc.layout, nhwc.physical_shape(2)) == ("NHWC", (2, 1, 5, 7, 48))
    assert TensorSpec(3, 5, 7, "uint8", block=4).layout == "NCHW4c"
    assert TensorSpec(3, 5, 7, "uint8", block=4, nhwc=True).layout == "NHWC"
    assert TensorSpec(3, 5, 7, "uint8", block=1, nhwc=True).layout == "NCHW"
    narrow = TensorSpec(16, 5, 7, "uint8")
    assert narrow.physical_shape(1) == as_nhwc(narrow).physical_shape(1), "the same in memory"


def test_every_channel_has_a_place_of_its_own():
    for spec in (image(40, 2, "uint8", 16), as_nhwc(image(40, 2, "uint8", 16))):
        memory = np.zeros(spec.physical_shape(1))
        for channel in range(40):
            memory[tuple(spec.element_at(0, channel, 1, 1))] += 1
        assert memory.sum() == 40 and memory.max() == 1 and memory[..., 0, 1, :].sum() == 0
    assert image(40, 2, "uint8", 1).element_at(0, 17, 1, 1) == [0, 17, 1, 1]
    assert TensorSpec(40, 1, 1, "float32", 1, rank=2).element_at(3, 17, 0, 0) == [3, 17]


def test_a_vector_starts_where_its_first_channel_lies():
    for spec in (image(40, 2, "uint8", 16), as_nhwc(image(40, 2, "uint8", 16))):
        *at, ramp = spec.vector_at(0, 24, 1, 1, 8)
        assert [*at, int(ramp.base)] == spec.element_at(0, 24, 1, 1)
        assert int(ramp.lanes) == 8


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mixed", [False, True], ids=["nhwc", "one input in NCHW16c"])
def test_add(mixed, target):
    a, b, out = (
        as_nhwc(test_elementwise.tensor(40, kind)) for kind in ("u8", "u8 around 77", "u8")
    )
    b = test_elementwise.tensor(40, "u8 around 77") if mixed else b
    test_elementwise.check(
        elementwise.build_add,
        test_elementwise.model_of_add,
        AddSpec(2, a, b, out),
        (a, b),
        [0.7, 0.31],
        target,
        batch=2,
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [(32, 5, 40), (10, 3, 20), (7, 9, 16), (18,)], ids=str)
def test_concat(channels, target):
    inputs = tuple(as_nhwc(test_elementwise.tensor(count, "u8 around 77")) for count in channels)
    out = as_nhwc(test_elementwise.tensor(sum(channels), "u8"))
    spec = ConcatSpec(2, inputs, out)
    scales = [0.5 + 0.37 * i for i in range(len(inputs))]
    test_elementwise.check(
        elementwise.build_concat, reference.concat, spec, inputs, scales, target, batch=2
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["max uneven", "max float32", "avg with padding", "avg float32", "global average"]
)
def test_pooling(name, target):
    spec, batch = test_pool2d.LAYERS[name]
    spec = replace(spec, data=as_nhwc(spec.data), out=as_nhwc(spec.out))
    test_pool2d.check((spec, batch), target)


CONVERSIONS = {
    "quantize": (as_nhwc(image(40, 5, "float32", 16)), as_nhwc(image(40, 5, "uint8", 16, 128))),
    "to NCHW16c": (as_nhwc(image(40, 5, "uint8", 16, 77)), image(40, 5, "uint8", 16, 3)),
    "from NCHW16c": (image(40, 5, "float32", 16), as_nhwc(image(40, 5, "float32", 16))),
    "pack": (image(40, 5, "float32", 1), as_nhwc(image(40, 5, "uint8", 16, 9))),
    "unpack": (as_nhwc(image(40, 5, "uint8", 16, 9)), image(40, 5, "float32", 1)),
    "image of four": (image(3, 5, "uint8", 4, 9), as_nhwc(image(3, 5, "uint8", 16, 9))),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions(name, target):
    data, out = CONVERSIONS[name]
    scale = 40.0 if data.dtype == "float32" and out.dtype == "uint8" else 0.83
    test_convert.check(data, out, target, scale=scale)


@pytest.mark.parametrize("rule", ["depthwise", "reference"])
def test_convolutions_of_groups(rule):
    """In int8 and in fp32; what is left of the layers in plain NCHW stays as it is."""
    layers = DEPTHWISE if rule == "depthwise" else REFERENCE
    for layer in layers.values():
        layer = with_depthwise_groups(layer) if rule == "depthwise" else layer
        layer = layer | {"nhwc": True}
        test_conv2d_int8.check(conv_layer(**layer), "native", rule)
        fp32 = conv_layer(**test_conv2d_fp32.as_fp32(layer))
        test_conv2d_fp32.check(fp32, "native", test_conv2d_int8.RULES[rule])


def test_the_direct_schedule_takes_nhwc_too():
    layer = conv_layer(channels=40, out_channels=48, padding=(1, 1, 1, 1), zero_point=7, nhwc=True)
    test_conv2d_int8.check(layer, "native", "direct")
