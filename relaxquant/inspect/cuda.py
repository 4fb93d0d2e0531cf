"""Which instructions the text of a CUDA kernel has for integer products, kernel by kernel."""

from __future__ import annotations

import re
from collections import Counter

KERNEL = re.compile(r'extern "C" __global__ [^;{]*?(\w+)\([^)]*\) \{')
FUNCTION = re.compile(r"__device__ void (\w+)\(")
DP4A, MMA = re.compile(r"\b__dp4a\("), re.compile(r"mma\.sync\.aligned\.m\w+")


def kernels(text: str) -> dict[str, str]:
    """Name -> body of every kernel in a CUDA text, in order."""
    parts = KERNEL.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def integer_products(text: str) -> dict[str, Counter]:
    """How often each kernel's text has ``dp4a`` and ``mma.sync``.

    Instructions in the text, not executions. Those of a function that a kernel calls count as often
    as it is called.

    Parameters
    ----------
    text : str
        ``lib.source("cuda")``.

    Returns
    -------
    dict
        Kernel -> counts of ``"dp4a"`` and ``"mma.sync"``, those that it has.
    """
    functions = {name: len(MMA.findall(body)) for name, body in device_functions(text).items()}
    found = {}
    for name, body in kernels(text).items():
        calls = {called: len(re.findall(rf"\b{called}\(", body)) for called in functions}
        counts = Counter(dp4a=len(DP4A.findall(body)))
        counts["mma.sync"] = sum(functions[called] * count for called, count in calls.items())
        found[name] = +counts
    return found


def device_functions(text: str) -> dict[str, str]:
    """Name -> text of the functions that kernels call, up to what comes next."""
    helpers = KERNEL.split(text)[0]
    parts = FUNCTION.split(helpers)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
