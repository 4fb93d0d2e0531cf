"""Why a quantized network is slow on a GPU: counted in the CUDA text of its kernels.

Counts of a kernel are upper bounds, both ways of an ``if`` and threads past the border included;
those a multiply-accumulate are of a thread. See `relaxquant.inspect.cuda_work`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tvm import relax
from tvm.relax import op as R

import relaxquant as rq
from relaxquant.executors.launches import function_of
from relaxquant.inspect.classes import DP4A, MMA
from relaxquant.inspect.cuda_work import (
    CONVERSION,
    FLOAT_MULTIPLY,
    LOAD,
    LOAD_BYTES,
    SHARED,
    STORE_BYTES,
    KernelWork,
    kernel_work,
)
from workbook import cuda_variants as variants

if TYPE_CHECKING:
    from relaxquant import Library

GIGA = 1e9
ACTIVATIONS = ("int8", "int16", "int32")  # as the study of ResNet-50 had them
LAYER = "64 x 56 x 56, 3x3"


def kernel_lines(library: Library, most: int = 24) -> list[dict[str, Any]]:
    """A line a kernel, the hottest first: how it is launched, and one pass of its hot loop.

    Parameters
    ----------
    library : relaxquant.Library
        Of a CUDA target, with static shapes.
    most : int
        How many lines.
    """
    works = kernel_work(library.source("cuda"))
    ranked = sorted(works.values(), key=lambda work: -_executed(library, work).total())
    return [_kernel_line(library, work) for work in ranked[:most]]


def _kernel_line(library: Library, work: KernelWork) -> dict[str, Any]:
    launch, hot = library.launches[work.name], work.hottest
    return {
        "kernel": function_of(work.name),
        "calls": _calls(library, work),
        "blocks x threads": f"{launch.blocks} x {launch.threads}",
        "passes": hot.times,
        "multiply-adds": hot.macs.total(),
        FLOAT_MULTIPLY: hot.counts[FLOAT_MULTIPLY],
        CONVERSION: hot.counts[CONVERSION],
        "global loads": hot.counts[LOAD],
        SHARED: hot.counts[SHARED],
        DP4A: hot.counts[DP4A],
        MMA: hot.counts[MMA],
    }


def network_lines(libraries: Mapping[str, Library]) -> list[dict[str, Any]]:
    """A line a library: launches, multiply-accumulates by type, and bytes threads ask for."""
    lines = []
    for name, library in libraries.items():
        works = kernel_work(library.source("cuda")).values()
        executed = sum((_executed(library, work) for work in works), Counter())
        total = sum((_all_threads(library, work) for work in works), Counter())
        integer = sum(number for kind, number in executed.items() if kind.startswith("int"))
        lines.append(
            {
                "compiled": name,
                "launches": sum(_calls(library, work) for work in works),
                "with dp4a": _with(library, works, DP4A),
                "with mma": _with(library, works, MMA),
                "10⁹ multiply-adds": executed.total() / GIGA,
                "of integers (%)": 100 * integer / executed.total(),
                "conversions a multiply-add": total[CONVERSION] / executed.total(),
                "GB loaded": total[LOAD_BYTES] / GIGA,
                "GB stored": total[STORE_BYTES] / GIGA,
            }
        )
    return lines


def _with(library: Library, works, word: str) -> int:
    return sum(_calls(library, work) for work in works if work.counts[word])


def _calls(library: Library, work: KernelWork) -> int:
    return library.calls[function_of(work.name)]


def _all_threads(library: Library, work: KernelWork) -> Counter:
    """Counts of all threads of all calls."""
    return _times(work.counts, _threads(library, work))


def _executed(library: Library, work: KernelWork) -> Counter:
    """Multiply-accumulates of all threads of all calls, by precision."""
    return _times(work.macs, _threads(library, work))


def _threads(library: Library, work: KernelWork) -> int:
    launch = library.launches[work.name]
    return launch.blocks * launch.threads * _calls(library, work)


def _times(counts: Counter, factor: int) -> Counter:
    return Counter({what: number * factor for what, number in counts.items()})


def layer_libraries(target: str) -> dict[str, Library | str]:
    """One layer of a ResNet, `LAYER`, in every way; the reason in place of what does not compile.

    Beside fp32, fp16 and the quantized layer, the integer convolution that a network with int8,
    int16 or int32 activations would ask stock TVM for, with weights in the activations' type as
    TVM's rules want them.
    """
    torch.manual_seed(0)
    x = torch.randn(1, 64, 56, 56)
    fp32 = rq.frontends.from_torch(nn.Conv2d(64, 64, 3, padding=1).eval(), x)
    config = rq.QConfig.best(calibrate_mode="global_scale", skip_conv_layers=None)
    int8, half = rq.quantize(fp32, config), rq.frontends.in_half(fp32)
    found: dict[str, Library | str] = {
        variants.STOCK_FP32: rq.compile(fp32, target, executor="naive"),
        variants.STOCK_FP16: rq.compile(half, target, executor="naive"),
        variants.NAIVE: rq.compile(int8, target, executor="naive"),
    }
    for dtype in ACTIVATIONS:
        found[f"stock TVM, integers, {dtype}"] = _stock_integers(dtype, 64, 56, target)
    found["stock TVM, integers, int8, 128 channels"] = _stock_integers("int8", 128, 28, target)
    found[variants.FP16] = rq.compile(half, target)
    found[variants.DP4A] = rq.compile(int8, target, schedule="cuda_dp4a")
    found[variants.MMA] = rq.compile(int8, target)
    return found


def _stock_integers(dtype: str, channels: int, size: int, target: str) -> Library | str:
    """Stock TVM's kernel for a 3x3 convolution of integers, or why there is none."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, channels, size, size), dtype))
    weight = relax.const(np.ones((channels, channels, 3, 3), dtype))
    with builder.function("main", [x]):
        with builder.dataflow():
            sums = builder.emit(R.nn.conv2d(x, weight, padding=1, out_dtype="int32"))
            output = builder.emit_output(sums)
        builder.emit_func_output(output)
    try:
        return rq.compile(builder.get(), target, executor="naive")
    except Exception as error:  # TVM's own, of several kinds
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:60]}"


def layer_lines(libraries: Mapping[str, Library | str]) -> list[dict[str, Any]]:
    """A line a way to compute the layer: what a thread does for each multiply-accumulate."""
    return [
        {"compiled": name, "multiplied as": f"does not compile: {found}"}
        if isinstance(found, str)
        else {"compiled": name, **_layer_line(found)}
        for name, found in libraries.items()
    ]


def _layer_line(library: Library) -> dict[str, Any]:
    works = kernel_work(library.source("cuda")).values()
    work = max(works, key=lambda each: each.macs.total())
    macs, counts = work.macs.total(), work.counts
    launch = library.launches[work.name]
    by_several = counts[DP4A] + counts[MMA]
    return {
        "multiplied as": " + ".join(work.macs),
        "instructions that multiply, a multiply-add": by_several / macs if by_several else 1.0,
        "conversions a multiply-add": work.per_mac(CONVERSION),
        "global bytes a multiply-add": work.per_mac(LOAD_BYTES),
        "shared accesses a multiply-add": work.per_mac(SHARED),
        "blocks x threads": f"{launch.blocks} x {launch.threads}",
    }


def layer_words(lines: list[dict[str, Any]]) -> str:
    """What the table says of the study, in one sentence, from its own lines."""
    by_name = {line["compiled"]: line for line in lines}
    column = "instructions that multiply, a multiply-add"
    integers = [by_name[f"stock TVM, integers, {dtype}"][column] for dtype in ACTIVATIONS]
    same = "the same" if len(set(integers)) == 1 else "not the same"
    ours = [integers[0] / by_name[name][column] for name in (variants.DP4A, variants.MMA)]
    return (
        f"with int8, int16 and int32 activations stock TVM multiplies in {same} number of "
        f"instructions, {integers[0]:g} for each multiply-accumulate; dp4a takes {ours[0]:.0f} "
        f"times and tensor cores {ours[1]:.0f} times fewer of a thread"
    )
