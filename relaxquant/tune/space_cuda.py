"""What MetaSchedule may do with the plain loops of an int8 convolution on an NVIDIA GPU.

TVM's structure ``SSSRRSRS`` without its virtual threads, of which TVM allows so few that most draws
were refused: blocks of threads, threads, and in each thread a tile of accumulators in registers, of
which the innermost step is TVM's own tensor intrinsic for ``dp4a``. Activations, with the border,
and weights come to shared memory a part of the reduction at a time, fetched by all threads of the
block together; the epilogue runs on a thread's accumulators.

Nothing here was timed: what it gives is compiled to CUDA, and run by an emulator in tests.

Source: ``tvm/s_tir/tensor_intrin/dot_product_common.py`` and TVM's default space for CUDA,
``schedule_rule/schedule_rule.cc``.
"""

from __future__ import annotations

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.schedule_rule import PyScheduleRule, ReuseType

from ..kernels.loop_conv2d import ACC, OUTPUT, PADDED
from ..kernels.tensor_intrin import DP4A
from .space import around_intrinsic

STRUCTURE = "SSRRSRS"
THREAD = 1  # the loop over threads, after that over blocks
BINDS = ["blockIdx.x", "threadIdx.x"]
LARGEST_TILE = 64  # of any axis
FETCHED = (1, 4)  # bytes that a thread fetches at once
UNROLL_STEPS = (16, 64, 512)


@derived_object
class Dp4aTiling(PyScheduleRule):
    """Tiling around ``dp4a``, with border and epilogue where they belong."""

    def __init__(self):
        self.tiling = ms.schedule_rule.MultiLevelTiling(
            STRUCTURE,
            tile_binds=BINDS,
            max_innermost_factor=LARGEST_TILE,
            vector_load_lens=list(FETCHED),
            reuse_read=ReuseType("must", [3], "shared"),
            filter_fn=lambda *_: True,
        )

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self.tiling._initialize_with_tune_context(context)

    def apply(self, schedule: tvm.s_tir.Schedule, block) -> list[tvm.s_tir.Schedule]:
        """The design spaces of the multiply-adds; other blocks stay as they are."""
        if schedule.get(block).name_hint != ACC:
            return [schedule]
        schedule.set_scope(block, 0, "local")
        around = around_intrinsic(schedule, block, DP4A)
        return [_placed(tiled) for tiled in self.tiling.apply(schedule, around)]

    def clone(self) -> Dp4aTiling:
        """The same rule, for TVM's copies of a context."""
        return Dp4aTiling()


def _placed(tiled: tvm.s_tir.Schedule) -> tvm.s_tir.Schedule:
    loops = tiled.get_loops(tiled.get_sblock(f"{ACC}_o"))
    output = tiled.get_sblock(OUTPUT)
    tiled.reverse_compute_at(output, loops[THREAD], preserve_unit_loops=True)
    blocks = tiled.get_child_blocks(tiled.get_sblock("root"))
    for block in blocks:
        if tiled.get(block).name_hint == PADDED:
            tiled.compute_inline(block)  # into what fetches it
    return tiled


def cuda_space() -> ms.SpaceGenerator:
    """The design space of `loop_conv2d` in int8 for CUDA."""
    post, mutate = ms.postproc, ms.mutator
    return ms.space_generator.PostOrderApply(
        sch_rules=[
            Dp4aTiling(),
            # Not unrolled explicitly: TVM would take what it loaded before the next part is
            # fetched for what is there after it, as `kernels.cuda.generate` says.
            ms.schedule_rule.ParallelizeVectorizeUnroll(
                max_jobs_per_core=-1,
                max_vectorize_extent=-1,
                unroll_max_steps=list(UNROLL_STEPS),
                unroll_explicit=False,
            ),
        ],
        postprocs=[
            post.DisallowDynamicLoop(),
            post.RewriteCooperativeFetch(),
            post.RewriteParallelVectorizeUnroll(),
            post.RewriteReductionBlock(),
            post.RewriteTensorize(vectorize_init_loop=False),
            post.VerifyGPUCode(),
        ],
        mutator_probs={mutate.MutateTileSize(): 0.9, mutate.MutateUnroll(): 0.1},
    )


def with_limits(target: tvm.target.Target) -> tvm.target.Target:
    """The target with what every GPU since sm_61 has, which TVM checks schedules against."""
    limits = {"max_shared_memory_per_block": 48 << 10, "max_threads_per_block": 1024}
    return tvm.target.Target(dict(target.export()) | limits)
