"""CUDA kernels against the NumPy models: their generated text, run on the CPU, and on a GPU if any.

`cuda_emulator` says what the former proves. All cases of a schedule are compiled together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tvm

from relaxquant import target as targets
from relaxquant.kernels import convert, elementwise, pool2d, resize, softmax, table
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.cuda import bind
from relaxquant.kernels.cuda.conv2d_direct import depthwise, in_fp32
from relaxquant.kernels.cuda.conv2d_dp4a import by_dp4a, grouped_by_dp4a
from relaxquant.kernels.cuda.conv2d_mma import by_mma
from relaxquant.kernels.cuda.mma_tile import pack_fragments
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import implement_conv2d
from relaxquant.kernels.spec import TensorSpec, Window
from relaxquant.kernels.tile import Tile
from tests.kernels import reference
from tests.kernels.cuda_emulator import cuda_source, emulate, needs_compiler, on_gpu
from tests.kernels.harness import Layer, build, conv_layer, from_memory, random_tensor, to_memory
from tests.kernels.harness import run as run_on_cpu

MACHINES = [
    pytest.param(emulate, marks=needs_compiler, id="emulated"),
    pytest.param(
        on_gpu,
        marks=pytest.mark.skipif(not tvm.cuda(0).exist, reason="there is no CUDA device"),
        id="gpu",
    ),
]

# Layers chosen to hurt: for each, what a careless kernel would get wrong.
LAYERS = {
    "one pixel": dict(size=(1, 1), kernel=(1, 1)),
    "one tap, several blocks": dict(channels=48, out_channels=32, kernel=(1, 1)),
    "odd blocks, odd channels": dict(channels=37, out_channels=21, batch=2),
    "borders count as zero point": dict(zero_point=200, padding=(1, 1, 1, 1), out_channels=64),
    "odd zero points, residual": dict(
        zero_point=77,
        out_zero_point=3,
        residual="uint8",
        residual_zero_point=131,
        padding=(1, 1, 1, 1),
        channels=32,
    ),
    "float residual into float": dict(out_dtype="float32", residual="float32", batch=3),
    "uint8 residual into float": dict(out_dtype="float32", residual="uint8", clip=True),
    "asymmetric border, strides": dict(
        zero_point=5, padding=(0, 2, 1, 0), kernel=(3, 2), strides=(2, 1), size=(8, 9)
    ),
    "dilation skips the image": dict(
        zero_point=1, size=(4, 4), padding=(4, 4, 4, 4), dilation=(4, 5), kernel=(3, 2)
    ),
    "narrow sums": dict(narrow=16, padding=(1, 1, 1, 1)),
    "rounds upward": dict(rounding="UPWARD", out_zero_point=8),
    "more pixels than a tile": dict(size=(13, 11), kernel=(1, 1), batch=2),
}
DP4A_ONLY = {
    "image of four channels": dict(
        channels=3, block=4, zero_point=128, kernel=(7, 7), strides=(2, 2), padding=(3, 3, 3, 3)
    ),
    "groups of whole blocks": dict(channels=64, out_channels=32, groups=2, padding=(1, 1, 1, 1)),
    "groups of fours": dict(channels=40, out_channels=20, groups=5, batch=2, zero_point=7),
    "groups of eights": dict(channels=24, out_channels=24, groups=3, padding=(1, 1, 1, 1)),
}
TFLITE = {
    "fixed point": dict(zero_point=3, padding=(1, 1, 1, 1), out_zero_point=3, out_channels=37),
    "fixed point, shifted to the left": dict(left_shifts=True, out_zero_point=77, batch=2),
    "fixed point, rounded once": dict(size=(1, 1), kernel=(1, 1), channels=40, rounds_once=True),
}
DEPTHWISE = {
    "borders": dict(channels=24, out_channels=24, groups=24, zero_point=9, padding=(1, 1, 1, 1)),
    "one tap": dict(channels=16, out_channels=16, groups=16, kernel=(1, 1)),
    "strides": dict(channels=16, out_channels=16, groups=16, strides=(2, 2), size=(9, 8)),
}
FP32 = {
    "one tap": dict(size=(1, 1), kernel=(1, 1), channels=40, batch=2),
    "borders": dict(padding=(1, 1, 1, 1), out_channels=24),
    "plain image": dict(channels=3, block=1, padding=(1, 1, 1, 1), strides=(2, 2)),
}


def functions_and_calls(
    layers: dict, rule, isa, tile=None, change: Callable[[Layer], Layer] = lambda layer: layer
) -> tuple[dict, dict]:
    """PrimFuncs by name, and (layer, arguments) for each of them."""
    functions, calls = {}, {}
    for index, (name, options) in enumerate(layers.items()):
        layer = change(conv_layer(seed=index, **options))
        if options.get("requantize") == "tflite":
            layer = step_by_step(layer)
        implementation = rule(layer.spec, layer.weights, isa, tile)
        assert implementation is not None, f"{name}: the schedule does not take this layer"
        activations = [to_memory(layer.data, layer.spec.data)]
        if layer.residual is not None:
            activations.append(to_memory(layer.residual, layer.spec.epilogue.residual))
        arguments = [
            activations[given] if isinstance(given, int) else np.ascontiguousarray(given)
            for given in implementation.arguments
        ]
        functions[f"layer{index}"] = bind.emit(implementation.build)
        calls[f"layer{index}"] = (name, layer, arguments)
    return functions, calls


def step_by_step(layer):
    """The layer as it is lowered for a GPU under ``requantize="tflite"``."""
    epilogue = replace(layer.spec.epilogue, step_by_step=True)
    return replace(layer, spec=replace(layer.spec, epilogue=epilogue))


def run(kernel, arguments: list[np.ndarray], out: TensorSpec) -> np.ndarray:
    """A kernel's output; the batch is that of the first argument."""
    unwritten = out.integers[1] if out.integers else np.nan
    output = np.full(out.physical_shape(len(arguments[0])), unwritten, out.dtype)
    kernel(*arguments, output)
    return from_memory(output, out)


def dp4a_rule(spec, weights, isa, tile):
    """The row of the schedule that takes the layer."""
    return by_dp4a(spec, weights, isa, tile) or grouped_by_dp4a(spec, weights, isa, tile)


def check(machine, layers: dict, rule, arch: str, tile: Tile | None = None) -> None:
    """Every layer's output is the model's, bit for bit."""
    target = targets.resolve(arch)
    functions, calls = functions_and_calls(layers, rule, instruction_set(target), tile)
    kernels = machine(functions, target)
    for key, (name, layer, arguments) in calls.items():
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
        got = run(kernels[key], arguments, layer.spec.out)
        np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.mark.parametrize("machine", MACHINES)
def test_dp4a(machine):
    check(machine, LAYERS | DP4A_ONLY, dp4a_rule, "sm_61")


@pytest.mark.parametrize("machine", MACHINES)
def test_tflites_requantization(machine):
    layers = {name: options | dict(requantize="tflite") for name, options in TFLITE.items()}
    check(machine, layers, by_dp4a, "sm_61")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("arch", ["sm_75", "sm_80"])
def test_mma(machine, arch):
    check(machine, LAYERS, by_mma, arch)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("rule", "arch"), [(by_dp4a, "sm_61"), (by_mma, "sm_80")])
def test_tiles_larger_than_small_layers_get(machine, rule, arch):
    layers = {
        "several tiles": dict(
            size=(9, 11), out_channels=64, channels=32, padding=(1, 1, 1, 1), zero_point=3
        )
    }
    check(machine, layers, rule, arch, Tile(vectors=2, pixels=4))


@pytest.mark.parametrize("machine", MACHINES)
def test_depthwise_in_int8(machine):
    check(machine, DEPTHWISE, depthwise, "sm_80")


@pytest.mark.parametrize("machine", MACHINES)
def test_odd_groups_and_int16_in_plain_loops(machine):
    layers = {
        "groups straddle blocks": dict(channels=20, out_channels=16, groups=2, zero_point=7),
        "int16": dict(dtype="int16", out_dtype="int16", padding=(1, 1, 1, 1)),
        "weights with zero points": dict(weight_zero_points="each", zero_point=3),
    }
    check(machine, layers, plain_loops, "sm_61")


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rule", [in_fp32, depthwise])
def test_fp32(machine, rule):
    layers = FP32 if rule is in_fp32 else DEPTHWISE
    floats = dict(dtype="float32", out_dtype="float32")
    target = targets.resolve("sm_80")
    layers = {name: options | floats for name, options in layers.items()}
    functions, calls = functions_and_calls(layers, rule, instruction_set(target))
    kernels = machine(functions, target)
    for key, (name, layer, arguments) in calls.items():
        spec, weights, data = layer.spec, layer.weights, layer.data.astype(np.float64)
        expected = reference.convolve(data, weights.weight, spec.window, spec.groups)
        expected += weights.bias[:, None, None]
        got = run(kernels[key], arguments, spec.out)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "data",
    [TensorSpec(21, 9, 8, "uint8", zero_point=7), TensorSpec(21, 9, 8, "float16")],
    ids=["uint8", "float16"],
)
def test_kernels_that_only_move_memory(machine, data):
    """Those written as parallel loops for CPUs, on the threads of a GPU."""
    target, rng = targets.resolve("sm_61"), np.random.default_rng(0)
    isa = instruction_set(target)
    bounds = np.array([-7, 248, 0.75], np.float32)
    pools = {
        kind: pool2d.PoolSpec(
            kind, 2, data, replace(data, height=5, width=4), Window((3, 3), (2, 2), (1, 1, 1, 1))
        )
        for kind in ("max", "avg")
    }
    one = replace(data, height=1, width=1)
    pools["global"] = pool2d.PoolSpec("avg", 2, data, one, Window((9, 8)))
    add = elementwise.AddSpec(2, data, data, data)
    wide = replace(data, channels=42)
    concat = elementwise.ConcatSpec(2, (data, data), wide)
    plain = TensorSpec(21, 9, 8, "float32", 1)
    load, store = convert.ConvertSpec(2, plain, data), convert.ConvertSpec(2, data, plain)
    builds = {name: lambda spec=spec: pool2d.build(spec, isa) for name, spec in pools.items()}
    builds["add"] = lambda: elementwise.build_add(add, isa)
    builds["concat"] = lambda: elementwise.build_concat(concat, isa)
    builds["load"] = lambda: convert.build(load, isa)
    builds["store"] = lambda: convert.build(store, isa)
    kernels = machine({name: bind.emit(build) for name, build in builds.items()}, target)

    a, b = (random_tensor(rng, data, 2) for _ in range(2))
    x, y = (to_memory(stored, data) for stored in (a, b))
    got = run(kernels["max"], [x], pools["max"].out)
    np.testing.assert_array_equal(got, reference.max_pool(pools["max"], a))
    for name in ("avg", "global"):
        got = run(kernels[name], [x, bounds], pools[name].out)
        expected = reference.avg_pool(pools[name], a, 0.75, -7, 248)
        np.testing.assert_array_equal(got, expected, err_msg=name)
    scales = elementwise.scales_and_bounds([0.3, 0.6], -7, 248)
    expected = reference.add(add, a, b, [0.3, 0.6], -7, 248)
    np.testing.assert_array_equal(run(kernels["add"], [x, y, scales], data), expected)
    expected = reference.concat(concat, [a, b], [0.3, 0.6], -7, 248)
    np.testing.assert_array_equal(run(kernels["concat"], [x, y, scales], wide), expected)
    image = rng.normal(size=a.shape).astype(np.float32)
    given = np.array([-7, 248, 50], np.float32)
    expected = reference.convert(image, plain, data, 50, -7, 248)
    np.testing.assert_array_equal(run(kernels["load"], [image, given], data), expected)
    given = np.array([-np.inf, np.inf, 0.1], np.float32)
    expected = reference.convert(a, data, plain, 0.1, -np.inf, np.inf)
    np.testing.assert_array_equal(run(kernels["store"], [x, given], plain), expected)


@pytest.mark.parametrize("machine", MACHINES)
def test_other_kernels_give_what_they_give_on_a_cpu(machine):
    gpu, cpu = targets.resolve("sm_61"), targets.resolve("native")
    data = TensorSpec(21, 5, 6, "uint8", zero_point=7)
    wide = replace(data, height=7, width=11)
    vector = replace(data, height=1, width=1, rank=2)
    rng = np.random.default_rng(0)
    entries = rng.integers(0, 256, table.ENTRIES).astype(np.uint8)
    places = [*resize.nearest(5, 7, "half_pixel"), *resize.nearest(6, 11, "half_pixel")]
    between = [
        array
        for size, wanted in ((5, 7), (6, 11))
        for array in resize.between(size, wanted, "half_pixel", True)
    ]
    pad, copied = (
        resize.PadSpec(2, data, wide, (1, 2, 1, 3)),
        resize.ResizeSpec(2, data, wide, False),
    )
    linear = replace(copied, linear=True, signed=True)
    exponentials = softmax.exponentials(0.02)
    bounds = np.array([-7, 248, 255], np.float32)
    softmax_spec = softmax.SoftmaxSpec(2, vector, vector)
    mul = elementwise.MulSpec(2, data, replace(data, height=1, width=1), data)
    scales = elementwise.scales_and_bounds([0.01], -7, 248)
    pooled = replace(data, height=2, width=3)
    quotient = pool2d.PoolSpec("avg", 2, data, pooled, Window((3, 3), (2, 2), (0, 1, 0, 0)))
    quotient = replace(quotient, requantize="tflite", signed=True)
    twice = replace(data, channels=42)
    concat = elementwise.ConcatSpec(2, (data, data), twice, "tflite")
    factors = elementwise.tflite_concat_parameters([(0.3, 7), (0.6, 7)], 0.5, -7, 248)
    cases = {
        "quotient": (lambda isa: pool2d.build(quotient, isa), [bounds], pooled),
        "concat": (lambda isa: elementwise.build_concat(concat, isa), [factors], twice),
        "table": (lambda isa: table.build(table.TableSpec(2, data, data), isa), [entries], data),
        "pad": (lambda isa: resize.build_pad(pad, isa), [], wide),
        "nearest": (lambda isa: resize.build_resize(copied, isa), places, wide),
        "linear": (lambda isa: resize.build_resize(linear, isa), between, wide),
        "softmax": (lambda isa: softmax.build(softmax_spec, isa), [exponentials, bounds], vector),
        "mul": (lambda isa: elementwise.build_mul(mul, isa), [scales], data),
    }
    isa = instruction_set(gpu)
    kernels = machine(
        {name: bind.emit(lambda make=make: make(isa)) for name, (make, _, _) in cases.items()}, gpu
    )
    for name, (make, constants, out) in cases.items():
        of = vector if name == "softmax" else data
        inputs = [to_memory(random_tensor(rng, of, 2), of)]
        second = {"mul": mul.b, "concat": data}.get(name)
        if second:
            inputs.append(to_memory(random_tensor(rng, second, 2), second))
        library = build(make(instruction_set(cpu)), cpu)
        expected = run_on_cpu(library, [*inputs, *constants], out)
        got = run(kernels[name], [*inputs, *constants], out)
        np.testing.assert_array_equal(got, expected, err_msg=name)


def test_fragments_hold_every_weight_once():
    layer = conv_layer(channels=48, out_channels=32, kernel=(1, 1))
    weight = np.arange(32 * 48, dtype=np.int64).reshape(32, 48, 1, 1) + 1
    packed = pack_fragments(layer.spec, weight)
    assert packed.shape == (2, 2, 1, 1, 32, 16)
    np.testing.assert_array_equal(np.sort(packed[packed > 0]), weight.ravel())
    # Thread 5 has column 1 and inputs 4 to 7: of channels 1 and, in the second product, 3.
    four = np.arange(4, 8)
    np.testing.assert_array_equal(packed[0, 0, 0, 0, 5, :4], weight[1, four, 0, 0])
    np.testing.assert_array_equal(packed[0, 0, 0, 0, 5, 8:12], weight[3, four, 0, 0])


@pytest.mark.parametrize(
    ("arch", "options", "schedule", "instruction"),
    [
        ("sm_61", {}, "cuda_dp4a", "dp4a"),
        ("sm_75", {}, "cuda_mma", "mma.sync.m8n8k16"),
        ("sm_80", {}, "cuda_mma", "mma.sync.m16n8k32"),
        ("sm_80", dict(size=(1, 1), kernel=(1, 1)), "cuda_dp4a", "dp4a"),
        ("sm_80", dict(channels=3, block=4), "cuda_dp4a", "dp4a"),
        ("sm_80", dict(channels=32, out_channels=32, groups=2), "cuda_dp4a", "dp4a"),
        ("sm_80", dict(channels=32, groups=4), "cuda_dp4a", "dp4a"),
        ("sm_80", dict(groups=16), "cuda_direct", "int32 multiply-add"),
        ("sm_80", dict(channels=20, groups=2), "reference", "int32 multiply-add"),
        ("sm_80", dict(dtype="float32"), "cuda_direct", "fp32 multiply-add"),
        ("sm_80", dict(dtype="float16"), "cuda_mma", "mma.sync.m16n8k16"),
        ("sm_75", dict(dtype="float16"), "cuda_direct", "fp32 multiply-add"),
        ("sm_80", dict(dtype="float16", channels=3, block=4), "cuda_direct", "fp32 multiply-add"),
        ("sm_80", dict(dtype="float16", groups=16), "cuda_direct", "fp32 multiply-add"),
        ("sm_80", dict(dtype="float16", channels=20, groups=2), "reference", "fp32 multiply-add"),
    ],
)
def test_what_a_layer_gets_follows_from_the_compute_capability(
    arch, options, schedule, instruction
):
    layer, target = conv_layer(**options), targets.resolve(arch)
    found = implement_conv2d(layer.spec, layer.weights, instruction_set(target))
    assert (found.schedule, found.instructions) == (schedule, instruction)
    text = cuda_source({"main": bind.emit(found.build)}, target)
    kernel = text[text.index("#ifdef _WIN32") :]
    assert ("__dp4a(" in kernel) == (instruction == "dp4a")
    assert instruction.removeprefix("mma.sync.") in kernel or "mma" not in instruction


def test_cpu_schedules_are_not_for_gpus_nor_the_other_way_round():
    layer = conv_layer()
    gpu, cpu = (instruction_set(targets.resolve(name)) for name in ("sm_80", "generic"))
    on_cpu = implement_conv2d(layer.spec, layer.weights, cpu, schedule="cuda_mma")
    assert on_cpu.schedule == "nchw_spatial_pack"
    asked = implement_conv2d(layer.spec, layer.weights, gpu, schedule="nchw_simd")
    assert asked.schedule == "cuda_mma"
    asked = implement_conv2d(layer.spec, layer.weights, gpu, schedule="cuda_dp4a")
    assert (asked.schedule, asked.reason) == ("cuda_dp4a", "asked for")
