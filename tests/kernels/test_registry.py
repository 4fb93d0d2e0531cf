"""The schedule table: which kernel a layer gets, and how to add one."""

from __future__ import annotations

import numpy as np
import pytest

from relaxquant.errors import InputError
from relaxquant.kernels import conv2d_nchw_spatial_pack as direct
from relaxquant.kernels import implement_conv2d, register, registry, schedule_names
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.intrinsics import INSTRUCTION_SETS, instruction_set
from relaxquant.kernels.tile import Tile, choose_tile
from tests.kernels import reference
from tests.kernels.harness import Layer, build, conv_layer, run_implementation, target_of

NAME = "nchw_spatial_pack"
ISA = INSTRUCTION_SETS[-1]


@pytest.fixture
def table(monkeypatch):
    """The schedule table, put back as it was after the test."""
    monkeypatch.setattr(registry, "SCHEDULES", list(registry.SCHEDULES))
    return registry.SCHEDULES


def chosen(layer: Layer, schedule: str = NAME) -> str:
    """First word of the key: the kernel that the layer gets."""
    return implement_conv2d(layer.spec, layer.weights, ISA, schedule).key[0]


@pytest.mark.parametrize("wrong, near", [("nchw_spatial_pak", NAME), ("referense", "reference")])
def test_unknown_name_gives_the_near_one(wrong, near):
    layer = conv_layer()
    with pytest.raises(InputError, match=f"{wrong!r}; did you mean {near!r}"):
        implement_conv2d(layer.spec, layer.weights, ISA, wrong)


def test_name_like_no_other_lists_all():
    layer = conv_layer()
    with pytest.raises(InputError, match=f"'zzz' .there are: .*{NAME}") as error:
        implement_conv2d(layer.spec, layer.weights, ISA, "zzz")
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_which_kernel_a_layer_gets(dtype):
    assert chosen(conv_layer(dtype=dtype)) == "direct"
    assert chosen(conv_layer(dtype=dtype, groups=16)) == "depthwise"
    assert chosen(conv_layer(dtype=dtype, channels=32, out_channels=32, groups=2)) == "direct"
    assert chosen(conv_layer(dtype=dtype, groups=4)) == "reference"
    assert chosen(conv_layer(dtype=dtype, groups=16, out_channels=32)) == "reference"
    assert chosen(conv_layer(dtype=dtype), "reference") == "reference"


def test_plain_int8_has_no_fours_for_a_dot_product():
    assert chosen(conv_layer(block=1)) == "reference"
    assert chosen(conv_layer(block=1, dtype="float32")) == "direct"


def test_a_registered_schedule_is_chosen_by_name_and_shows_in_the_names(table):
    @register("mine", precisions=("int8",))
    def mine(spec, weights, isa, _tile=None):
        if spec.window.kernel != (1, 1):
            return None
        return registry.Implementation("mine", "none", ("mine", spec), lambda: None, [])

    assert schedule_names()[-1] == "mine"
    assert chosen(conv_layer(kernel=(1, 1)), "mine") == "mine"
    assert chosen(conv_layer(kernel=(1, 1))) == "direct", "only by name: no rule prefers it"
    assert chosen(conv_layer(), "mine") == "direct", "where it does not apply, the table decides"
    fp32 = conv_layer(kernel=(1, 1), dtype="float32")
    assert chosen(fp32, "mine") == "direct", "it is not registered for fp32"


def test_the_table_is_as_it_was():
    assert "mine" not in schedule_names()
    assert {"auto", NAME, "reference"} <= set(schedule_names())


def test_equal_keys_mean_one_function_for_both_layers():
    """Layers that differ in weights and scales only share a kernel; it computes both."""
    first, second = (conv_layer(zero_point=3, weight_max=60, seed=seed) for seed in (1, 2))
    target = target_of("native")
    isa = instruction_set(target)
    implementations = [
        implement_conv2d(layer.spec, layer.weights, isa, NAME) for layer in (first, second)
    ]
    assert implementations[0].key == implementations[1].key
    library = build(implementations[0].build(), target)
    for layer, implementation in zip((first, second), implementations, strict=True):
        actual = run_implementation(library, implementation, layer)
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
def test_keys_differ_where_the_code_does(isa):
    narrow, wide = conv_layer(weight_max=64), conv_layer(weight_max=127)
    keys = [implement_conv2d(a.spec, a.weights, isa, NAME).key for a in (narrow, wide)]
    assert (keys[0] == keys[1]) == (len(isa.dots) == 1)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_chosen_tiles_fit_the_layer_and_the_registers(isa, dtype):
    for out_channels, groups, width in [(16, 1, 1), (64, 1, 56), (48, 1, 7), (96, 2, 13)]:
        layer = conv_layer(
            channels=32, out_channels=out_channels, groups=groups, size=(3, width + 2), dtype=dtype
        )
        dot = isa.dots[0] if dtype == "uint8" else None
        tile = choose_tile(layer.spec, isa, dot)
        registers = dot.tile_registers if dot else isa.tile_registers
        assert out_channels // groups % (tile.vectors * isa.lanes) == 0
        assert 1 <= tile.pixels <= width
        assert tile.vectors * (tile.pixels + 1) <= registers


def test_a_tile_past_the_channels_of_a_group_is_refused():
    layer = conv_layer(channels=32, out_channels=32, groups=2)
    vectors = 32 // ISA.lanes
    with pytest.raises(InputError, match=f"{vectors} vectors of {ISA.lanes} channels"):
        direct.build(layer.spec, ISA, ISA.dots[-1], Tile(vectors, 2))


def test_what_the_kernels_list_shows_of_a_layer():
    layer = conv_layer(channels=3, block=4, strides=(2, 2), dilation=(1, 2), kernel=(3, 2))
    assert str(layer.spec.window) == "3x2/2 dil (1, 2)"
    assert layer.spec.data.layout == "NCHW4c"
    per_pixel = 3 * 3 * 2 * layer.spec.out.height * layer.spec.out.width
    assert layer.spec.macs_per_image == 16 * per_pixel
    implementation = spatial_pack(layer.spec, layer.weights, ISA)
    assert (implementation.schedule, implementation.instructions) == (NAME, "int32 multiply-add")
