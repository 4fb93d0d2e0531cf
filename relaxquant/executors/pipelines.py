"""Relax pass pipelines of the three executors."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.s_tir import dlight

EXECUTORS = ("graph", "vm", "naive")


def planning_pipeline(*, plan_memory: bool, cuda: bool = False) -> tvm.transform.Pass:
    """Passes for a lowered module, from ``call_tir`` to calls with their storage.

    Operators that stayed with TVM are legalized here. With ``plan_memory`` all activations get
    their place in shared storage at compile time, which needs static shapes. With ``cuda`` they are
    scheduled by TVM's rules for GPUs, under the target in scope; our kernels are already.
    Source: ``tvm/relax/backend/cpu_generic/pipeline.py``, without its fusion.
    """
    passes = [
        relax.transform.LegalizeOps(),
        *([_gpu_schedules()] if cuda else []),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
    ]
    if plan_memory:
        passes.append(relax.transform.StaticPlanBlockMemory())
    return tvm.transform.Sequential(passes)


def _gpu_schedules() -> tvm.transform.Pass:
    """Source: ``tvm/relax/backend/cuda/pipeline.py``, without what takes TVM seconds to import."""
    gpu = dlight.gpu
    return dlight.ApplyDefaultSchedule(gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())


def machine_pipeline() -> tvm.transform.Pass:
    """Passes from there to the virtual machine."""
    passes = [
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
    return tvm.transform.Sequential(passes)
