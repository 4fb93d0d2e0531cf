"""What MetaSchedule proposes for NVIDIA's GPUs: CUDA text with ``dp4a``, right in the emulator."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.s_tir import meta_schedule as ms

from relaxquant import target as targets
from relaxquant.executors import nvidia, nvrtc
from relaxquant.kernels import loop_conv2d
from relaxquant.kernels.conv2d_metaschedule import workload
from relaxquant.kernels.dot_choice import DotChoice
from relaxquant.kernels.tir import CUDA, emitting_for
from relaxquant.kernels.tvm_intrinsics import import_intrinsics
from relaxquant.tune.space_cuda import cuda_space, with_limits
from tests.kernels import reference
from tests.kernels.cuda_emulator import cuda_source, emulate, needs_compiler
from tests.kernels.harness import conv_layer, from_memory, to_memory

LAYERS = {
    "border, residual": dict(
        channels=32, out_channels=32, size=(6, 8), padding=(1, 1, 1, 1), zero_point=77,
        residual="uint8", residual_zero_point=131, out_zero_point=3,
    ),
    "channels in parts of blocks, strides": dict(
        channels=17, out_channels=33, size=(7, 9), strides=(2, 2), kernel=(3, 2), batch=2,
    ),
    "one tap": dict(channels=64, kernel=(1, 1), size=(4, 4), out_dtype="float32", clip=True),
}  # fmt: skip
NO_DOTS = DotChoice(None)  # TVM's intrinsic is exact whatever the weights


def proposals(layer, target: tvm.target.Target, count: int) -> dict[str, tvm.tirx.PrimFunc]:
    """Kernels that a search would try."""
    import_intrinsics()
    with emitting_for(CUDA):
        module = workload(layer.spec, NO_DOTS)
    context = ms.TuneContext(
        module,
        target=with_limits(target),
        space_generator=cuda_space(),
        search_strategy=ms.search_strategy.ReplayTrace(max_fail_count=100),
        num_threads=1,
        rand_state=1,
    )
    model = ms.cost_model.RandomModel(seed=0)
    context.pre_tuning(count, count, database=ms.database.MemoryDatabase(), cost_model=model)
    found = context.generate_measure_candidates()
    return {f"try{i}": made.sch.mod["main"] for i, made in enumerate(found)}


@needs_compiler
@pytest.mark.parametrize("name", LAYERS)
def test_proposals_use_dp4a_and_compute_the_layer(name):
    layer = conv_layer(**LAYERS[name])
    target = targets.resolve("sm_61")
    kernels = proposals(layer, target, 2)
    assert len(kernels) == 2
    text = cuda_source(kernels, target)
    assert text.count("__shared__") == 4, "activations and weights, in each kernel"
    activations = [to_memory(layer.data, layer.spec.data)]
    if layer.residual is not None:
        activations.append(to_memory(layer.residual, layer.spec.epilogue.residual))
    given = [
        activations[argument] if isinstance(argument, int) else np.ascontiguousarray(argument)
        for argument in loop_conv2d.arguments(layer.spec, layer.weights, NO_DOTS)
    ]
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    for key, run in emulate(kernels, target).items():
        assert "__dp4a(" in cuda_source({key: kernels[key]}, target)
        out = layer.spec.out
        output = np.full(out.physical_shape(len(layer.data)), 255 if out.integers else np.nan)
        output = output.astype(out.dtype)
        run(*given, output)
        np.testing.assert_array_equal(from_memory(output, out), expected)


@pytest.mark.skipif(not nvrtc.available(), reason=f"NVRTC is not installed: {nvrtc.PACKAGES}")
def test_nvidias_compiler_takes_proposals():
    target = targets.resolve("sm_61")
    kernels = proposals(conv_layer(**LAYERS["one tap"]), target, 2)
    parts = nvidia.ptx_by_kernel(nvidia.ptx(cuda_source(kernels, target), "sm_61"))
    assert len(parts) == 2
    assert all("dp4a.u32.s32" in part and ".shared" in part for part in parts.values())
