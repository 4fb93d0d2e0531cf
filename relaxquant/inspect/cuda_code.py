"""The CUDA text of a network as the proof reads it: what each function executes in one call."""

from __future__ import annotations

from collections import Counter, defaultdict

from ..executors.cuda import CudaLibrary
from ..executors.launches import function_of
from .classes import DP4A, MMA, MULTIPLY_ADD
from .cuda_work import KernelWork, kernel_work


class CudaCode:
    """Kernels by the function that launches them.

    Parameters
    ----------
    library : CudaLibrary
        Not from a file.

    Attributes
    ----------
    names : set of str
        Functions that launch kernels.
    """

    def __init__(self, library: CudaLibrary):
        self.launches = library.launches
        self.kernels: dict[str, list[KernelWork]] = defaultdict(list)
        for name, work in kernel_work(library.source("cuda")).items():
            self.kernels[function_of(name)].append(work)
        self.names = set(self.kernels)

    def executed(self, name: str) -> tuple[dict[str, int], bool]:
        """Multiply-accumulates of one call by precision, and whether the text alone tells them.

        All threads count, those too that compute a pixel past the last one.
        """
        sums: Counter = Counter()
        exact = True
        for work in self.kernels[name]:
            launch = self.launches[work.name]
            exact = exact and work.exact and launch.blocks is not None
            for kind, number in work.macs.items():
                sums[kind] += number * launch.threads * (launch.blocks or 1)
        return dict(sums), exact

    def instructions(self, name: str) -> tuple[Counter, None]:
        """What multiplies in the passes that multiply most; there is no assembly to find loops in.

        ``"multiply-add"`` counts products of scalars that are added to a sum.
        """
        classes: Counter = Counter()
        for work in self.kernels[name]:
            hottest = work.hottest
            found = Counter({word: hottest.counts[word] for word in (DP4A, MMA)})
            if hottest.macs and not found.total():
                found[MULTIPLY_ADD] = hottest.macs.total()
            classes += found
        return classes, None
