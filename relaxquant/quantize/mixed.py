"""Mixed precision: bits of weights layer by layer, as few as a budget of accuracy allows."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real

from rich.progress import Progress
from tvm import IRModule
from tvm.target import Target

from .batches import checked_batches, input_spec, with_batch_1
from .calibrate import CompileFn
from .checks import QuantizeError
from .config import NBITS, QConfig
from .sensitivity import Answers, LayerCost, sensitivity, top1_changed

Assignment = dict[str, int]
"""Bits of the weights by layer."""

SAVINGS = ("bytes", "macs")


@dataclass(frozen=True)
class Budget:
    """What mixed precision may lose, and how it chooses.

    Parameters
    ----------
    loss : float
        Percentage points: the largest share of calibration inputs whose top-1 answer may differ
        from the fp32 network's. Its grain is 100 divided by their number.
    candidates : sequence of int
        Bits that weights may have; two or more of those of `QConfig.nbit_weight`.
    per : str
        What a saved bit is worth: ``"bytes"``, the layer's weights, for size; or ``"macs"``, its
        multiply-accumulates, for time where fewer bits are faster.

    Raises
    ------
    QuantizeError
        If a value is not allowed.
    """

    loss: float
    candidates: tuple[int, ...] = (8, 6, 4, 3, 2)
    per: str = "bytes"

    def __post_init__(self):
        number = isinstance(self.loss, Real) and not isinstance(self.loss, bool)
        if not number or not 0 <= self.loss < 100:
            raise QuantizeError(
                f"Budget.loss is {self.loss!r}; allowed: percentage points from 0 to below 100"
            )
        if self.per not in SAVINGS:
            allowed = ", ".join(map(repr, SAVINGS))
            raise QuantizeError(f"Budget.per is {self.per!r}; allowed: {allowed}")
        candidates = tuple(sorted(set(self.candidates), reverse=True))
        if len(candidates) < 2 or any(n not in NBITS for n in candidates):
            allowed = ", ".join(map(str, NBITS))
            raise QuantizeError(
                f"Budget.candidates is {self.candidates!r}; allowed: two or more of {allowed}"
            )
        object.__setattr__(self, "candidates", candidates)

    @classmethod
    def of(cls, value: Budget | float) -> Budget:
        """A budget, from itself or from its loss."""
        return value if isinstance(value, cls) else cls(value)


def choose_bits(
    mod: IRModule,
    config: QConfig,
    data: Iterable,
    budget: Budget | float,
    *,
    compile_fn: CompileFn | None = None,
    progress: bool = False,
    target: str | dict | Target = "native",
) -> QConfig:
    """Find `QConfig.layer_bits` that save most and lose no more than a budget.

    Every layer starts with the most bits. What lowering one layer costs is measured by
    `sensitivity`; steps are taken in the order of that cost for each bit saved, and as many of them
    as the whole network, quantized so, stays within the budget. Layers that `config.layer_bits`
    holds already keep what they have.

    Parameters
    ----------
    mod, config, data, budget, compile_fn, progress, target
        As for `relaxquant.quantize`.

    Returns
    -------
    QConfig
        `config` with `layer_bits` for every layer.

    Raises
    ------
    QuantizeError
        If the budget is not met with the most bits everywhere, or the data does not fit.

    Notes
    -----
    Greedy by sensitivity and then checked as a whole, as in Wu et al., arXiv 2004.09602, section
    6.1, and HAWQ (Dong et al., ICCV 2019); the divergence is measured here and not estimated.
    """
    budget = Budget.of(budget)
    batches = list(checked_batches(data, input_spec(mod)))
    options = {"compile_fn": compile_fn, "target": target}
    rows = sensitivity(
        mod, batches, config, bits=budget.candidates[1:], progress=progress, **options
    )
    fixed = dict(config.layer_bits)
    steps = steps_down([row for row in rows if row.layer not in fixed], budget)
    names = sorted({row.layer for row in rows if row.layer not in fixed})
    loss_of = _Loss(mod, config, batches, options)

    def mixed(count: int) -> QConfig:
        bits = dict.fromkeys(names, budget.candidates[0]) | dict(steps[:count])
        return replace(config, layer_bits=tuple((fixed | bits).items()))

    taken = _most_steps(len(steps), budget, lambda count: loss_of(mixed(count)), progress)
    return mixed(taken)


def steps_down(rows: Sequence[LayerCost], budget: Budget) -> list[tuple[str, int]]:
    """All steps ``(layer, its bits from then on)``, the least cost for each bit saved first.

    Parameters
    ----------
    rows : sequence of LayerCost
        For every layer one row for each candidate but the first.
    budget : Budget
        Candidates, and what a bit is worth.
    """
    costs: dict[str, dict[int, LayerCost]] = {}
    for row in rows:
        costs.setdefault(row.layer, {})[row.bits] = row
    queue = [_step(costs[layer], layer, 0, budget) for layer in sorted(costs)]
    heapq.heapify(queue)
    steps = []
    while queue:
        _, layer, place = heapq.heappop(queue)
        steps.append((layer, budget.candidates[place + 1]))
        if place + 2 < len(budget.candidates):
            heapq.heappush(queue, _step(costs[layer], layer, place + 1, budget))
    return steps


def _step(
    rows: Mapping[int, LayerCost], layer: str, place: int, budget: Budget
) -> tuple[float, str, int]:
    """(cost of a saved bit, layer, place among the candidates) of a layer's next step."""
    before, after = budget.candidates[place : place + 2]
    # With the most bits the divergence is next to none, and fewer never count as less.
    so_far = max((rows[n].kl for n in budget.candidates[1 : place + 1]), default=0.0)
    worth = rows[after].parameters if budget.per == "bytes" else rows[after].macs
    return max(rows[after].kl - so_far, 0.0) / (worth * (before - after)), layer, place


class _Loss:
    """Percentage points of top-1 answers that a config changes."""

    def __init__(self, mod: IRModule, config: QConfig, batches, options: dict):
        self.mod, self.batches, self.options = mod, batches, options
        self.runner = Answers(batches, input_spec(mod), options["compile_fn"])
        self.exact = self.runner.of(with_batch_1(mod))

    def __call__(self, config: QConfig) -> float:
        from .pipeline import quantize  # here, because it chooses bits with what is in this file

        plain = replace(config, do_simulation=False, partition_conversions="disabled")
        qmod = quantize(self.mod, plain, self.batches, **self.options)
        return top1_changed(self.exact, self.runner.of(with_batch_1(qmod)))


def _most_steps(count: int, budget: Budget, loss_of, progress: bool) -> int:
    """The most steps that stay within the budget, by bisection; each result was measured."""
    with Progress(disable=not progress) as bar:
        task = bar.add_task("mixed precision", total=1 + math.ceil(math.log2(count + 1)))
        loss = loss_of(0)
        bar.advance(task)
        if loss > budget.loss:
            raise QuantizeError(
                f"with {budget.candidates[0]} bits in every layer {loss:g} % of the answers change "
                f"already, and the budget is {budget.loss:g}: allow more, take other settings, or "
                "give more calibration data, if it is few"
            )
        within, beyond = 0, count + 1
        while beyond - within > 1:
            middle = (within + beyond) // 2
            if loss_of(middle) <= budget.loss:
                within = middle
            else:
                beyond = middle
            bar.advance(task)
    return within
