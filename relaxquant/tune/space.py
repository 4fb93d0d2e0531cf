"""What MetaSchedule may do with the plain loops of a convolution.

One structure, ``SSRS``: tasks, tiles of tasks, the whole reduction, a register tile of
``output channels x rows x columns`` that the tensor intrinsic's vectors fill. The epilogue runs on
a register tile right after its reduction, and the border is added either for the whole image or
for each task. Sizes, as far as `registers` allows, that choice and unrolling are what is searched;
TVM's own ``SSRSRS`` has tiles between reductions too, whose accumulators never stay in registers.

Source: Shao et al., "Tensor Program Optimization with Probabilistic Programs", NeurIPS 2022;
``tvm/s_tir/meta_schedule/schedule_rule/multi_level_tiling.py``.
"""

from __future__ import annotations

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.schedule_rule import PyScheduleRule
from tvm.s_tir.schedule.transform import tile_with_tensor_intrin

from ..kernels.loop_conv2d import ACC, OUTPUT, PADDED
from .registers import FitsRegisters, Limits

STRUCTURE = "SSRS"
TENSORIZE = "meta_schedule.auto_tensorize"  # what TVM's postprocessor looks for
SPATIAL = 5  # image, channel block, row, column, channel in the block
TASK, REGISTER_TILE = SPATIAL - 1, 2 * SPATIAL - 1  # the last loop over tasks, over tiles
LARGEST_TILE = 64  # of any axis
UNROLL_STEPS = (64, 256)  # statements of a reduction that become straight code


@derived_object
class FusedTiling(PyScheduleRule):
    """Tiling with a tensor intrinsic, and the blocks before and after where they belong."""

    def __init__(self, intrinsic: str):
        self.intrinsic = intrinsic
        self.tiling = ms.schedule_rule.MultiLevelTiling(
            STRUCTURE, max_innermost_factor=LARGEST_TILE, filter_fn=lambda *_: True
        )

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        self.tiling._initialize_with_tune_context(context)

    def apply(self, schedule: tvm.s_tir.Schedule, block) -> list[tvm.s_tir.Schedule]:
        """The design spaces of the multiply-adds; other blocks stay as they are."""
        if schedule.get(block).name_hint != ACC:
            return [schedule]
        around = around_intrinsic(schedule, block, self.intrinsic)
        return [space for tiled in self.tiling.apply(schedule, around) for space in _placed(tiled)]

    def clone(self) -> FusedTiling:
        """The same rule, for TVM's copies of a context."""
        return FusedTiling(self.intrinsic)


def around_intrinsic(schedule: tvm.s_tir.Schedule, block, intrinsic: str):
    """A block of blocks, each of which is one tensor intrinsic, to be tiled.

    TVM's ``MultiLevelTilingWithIntrin`` does the same, but asks before in a way that no chain of
    dot products passes.
    """
    loop = tile_with_tensor_intrin(schedule, block, intrinsic)
    outer = schedule.blockize(loop)
    schedule.annotate(outer, TENSORIZE, intrinsic)
    return outer


def _placed(tiled: tvm.s_tir.Schedule) -> list[tvm.s_tir.Schedule]:
    """The epilogue behind each register tile; the border before everything, or before each task.

    Vectors are made here, not by TVM's rule, which would also cut the intrinsic's own loops.
    """
    loops = tiled.get_loops(tiled.get_sblock(f"{ACC}_o"))
    output = tiled.get_sblock(OUTPUT)
    tiled.reverse_compute_at(output, loops[REGISTER_TILE], preserve_unit_loops=True)
    tiled.vectorize(tiled.get_loops(output)[-1])
    blocks = tiled.get_child_blocks(tiled.get_sblock("root"))
    padded = [block for block in blocks if tiled.get(block).name_hint == PADDED]
    if not padded:
        return [tiled]
    by_task = tiled.copy()
    by_task.compute_at(padded[0], loops[TASK], preserve_unit_loops=True)
    for schedule in (tiled, by_task):
        schedule.vectorize(schedule.get_loops(padded[0])[-1])
    return [tiled, by_task]


def space(intrinsic: str, allowed: Limits) -> ms.SpaceGenerator:
    """The design space for one tensor intrinsic.

    Parameters
    ----------
    intrinsic : str
        Name of a registered one, from `relaxquant.kernels.tensor_intrin`.
    allowed : Limits
        Of the register tile.
    """
    post, mutate = ms.postproc, ms.mutator
    return ms.space_generator.PostOrderApply(
        sch_rules=[
            FusedTiling(intrinsic),
            ms.schedule_rule.ParallelizeVectorizeUnroll(
                max_jobs_per_core=64,
                max_vectorize_extent=-1,
                unroll_max_steps=list(UNROLL_STEPS),
                unroll_explicit=True,
            ),
        ],
        postprocs=[
            FitsRegisters(allowed),
            post.DisallowDynamicLoop(),
            post.RewriteParallelVectorizeUnroll(),
            post.RewriteReductionBlock(),
            post.RewriteTensorize(vectorize_init_loop=True),
        ],
        mutator_probs={mutate.MutateTileSize(): 0.9, mutate.MutateUnroll(): 0.1},
    )
