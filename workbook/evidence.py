"""One network in all the ways to compile it, and the tables of what its code really multiplies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import relaxquant as rq
from relaxquant import inspect, zoo
from workbook import latency, widths

if TYPE_CHECKING:
    import tvm

    from relaxquant.inspect import LayerProof, Proof
    from relaxquant.inspect.timed import TimedProof
    from relaxquant.measure import Ratio, Timings
    from workbook.context import Run

STOCK_FP32, NAIVE, FP32, INT8 = "stock fp32", "naive int8", "our fp32", "our int8"
SKIPPED = "all layers skipped"
# What a network multiplies does not depend on how well its values were rounded.
QUICKLY = {"weight_rounding": "nearest", "bias_correction": False}
PERCENT = 100


@dataclass(frozen=True)
class Variant:
    """A compiled network.

    Attributes
    ----------
    library : relaxquant.Library
    columns : dict
        Columns of its result rows.
    """

    library: rq.Library
    columns: dict[str, Any]


def quantized(
    net: zoo.Network, batch: int, low: str, calibration: int, seed: int
) -> dict[str, tvm.IRModule]:
    """A network as fp32 Relax, and quantized: to 8 bits, to few, and with every layer skipped.

    Parameters
    ----------
    net : relaxquant.zoo.Network
        The network.
    batch : int
        Images in one inference; calibration goes in whole batches.
    low : str
        A width such as ``w2a2``.
    calibration, seed : int
        Images for calibration, at least one batch, and which.
    """
    module = rq.frontends.from_torch(net.model, net.example_input(batch, seed))
    images = zoo.calibration_images(net, max(calibration, batch), seed)
    batches = [part for part in images.batches(batch) if len(part) == batch]
    layers = [operands.function for operands in inspect.operand_dtypes(module)]
    count = sum(name.startswith("conv2d") for name in layers)
    every = {"skip_conv_layers": tuple(range(count)), "skip_dense_layer": True}
    configs = {
        INT8: rq.QConfig.best(),
        low: widths.parse(low).config(**QUICKLY),
        SKIPPED: rq.QConfig.best(**every, **QUICKLY),
    }
    with warnings.catch_warnings():
        # Of the one that has every layer skipped, which is what was asked for.
        warnings.filterwarnings("ignore", "no layer of the network is quantized")
        made = {name: rq.quantize(module, c, calibration=batches) for name, c in configs.items()}
    return {FP32: module} | made


def compile_all(
    modules: Mapping[str, tvm.IRModule], low: str, common: Mapping[str, Any], **settings: Any
) -> dict[str, Variant]:
    """Compile the modules of `quantized`, fp32 and int8 by stock TVM, too.

    Parameters
    ----------
    modules : mapping
        From `quantized`.
    low : str
        As there.
    common : mapping
        Columns that all result rows share.
    **settings
        Further arguments of `relaxquant.compile`.
    """
    stock = {"executor": "naive", "schedule": "tvm default"}
    ours = {"executor": "graph", "schedule": "auto"}
    plan = {
        STOCK_FP32: (FP32, stock | {"precision": "fp32"}),
        NAIVE: (INT8, stock | {"precision": "w8a8"}),
        FP32: (FP32, ours | {"precision": "fp32"}),
        INT8: (INT8, ours | {"precision": "w8a8"}),
        f"our {low}": (low, ours | {"precision": low}),
        SKIPPED: (SKIPPED, ours | {"precision": "w8a8, all skipped"}),
    }
    return {
        name: Variant(
            rq.compile(modules[module], executor=columns["executor"], **settings),
            dict(common) | columns,
        )
        for name, (module, columns) in plan.items()
    }


def network_lines(proofs: Mapping[str, Proof]) -> list[dict[str, Any]]:
    """A line a network: the share of its multiply-accumulates that is executed in integers."""
    return [
        {
            "network": name,
            "GMAC": proof.macs / 1e9,
            "in integers (%)": PERCENT * proof.integer_share,
            "multiplied in": _shares(proof.by_precision, proof.macs),
            "layers": len(proof.rows),
            "not all in integers": len(proof.float_layers),
            "why": "; ".join(sorted({row.reason for row in proof.float_layers} - {""})),
        }
        for name, proof in proofs.items()
    ]


def _shares(parts: Mapping[str, float], total: float) -> str:
    return ", ".join(f"{kind} {PERCENT * part / total:.1f} %" for kind, part in parts.items())


def same_layer(proofs: Mapping[str, Proof], names: Sequence[str]) -> dict[str, LayerProof]:
    """One layer in several networks: the largest that all of them multiply directly.

    Parameters
    ----------
    proofs : mapping
        Network -> its proof; of one network in several precisions.
    names : sequence of str
        Which of them.
    """
    found = []
    for name in names:
        direct = [
            r for r in proofs[name].rows if r.hot_loop and "winograd" not in r.record.schedule
        ]
        found.append({_size(row): row for row in direct})
    together = [size for size in found[0] if all(size in rows for rows in found)]
    chosen = max(together)
    return {name: rows[chosen] for name, rows in zip(names, found, strict=True)}


def _size(row: LayerProof) -> tuple[int, str]:
    """Multiply-accumulates and output: what networks with other names and orders agree on."""
    return row.macs, row.record.shape.split("-> ")[-1].split(",")[0]


def layer_lines(timed: TimedProof) -> list[dict[str, Any]]:
    """A line for each distinct layer that multiplies: its shares of MACs and of time."""
    groups: dict[tuple, list] = {}
    for row in timed.rows:
        if row.proof:
            key = (row.record.shape, row.record.schedule, row.precision, row.proof.instructions)
            groups.setdefault(key, []).append(row)
    return [
        {
            "layer": shape,
            "calls": len(rows),
            "multiplied in": precision,
            "schedule": schedule,
            "in the hot loop": instructions,
            "MACs (%)": PERCENT * sum(row.macs for row in rows) / timed.macs,
            "time (%)": PERCENT * sum(row.seconds for row in rows) / timed.seconds,
        }
        for (shape, schedule, precision, instructions), rows in groups.items()
    ]


def time_lines(timed: Mapping[str, TimedProof]) -> list[dict[str, Any]]:
    """A line for each library and each type that it multiplies."""
    return [
        {
            "network": name,
            "multiplied in": line["precision"],
            "MACs (%)": PERCENT * line["macs_share"],
            "time (%)": PERCENT * line["time_share"],
            "time (ms)": 1e3 * line["seconds"],
        }
        for name, proof in timed.items()
        for line in proof.by_precision()
    ]


def keep(run: Run, variants: Mapping[str, Variant], proofs: Mapping[str, Proof]) -> None:
    """Record each network's share of MACs in integers, in percent."""
    for name, proof in proofs.items():
        share = PERCENT * proof.integer_share
        run.record(metric="integer_macs", value=share, unit="%", **variants[name].columns)


def keep_timed(run: Run, variants: Mapping[str, Variant], timed: Mapping[str, TimedProof]) -> None:
    """Record each network's share of time in layers that multiply integers, in percent."""
    for name, proof in timed.items():
        share = PERCENT * proof.integer_share
        run.record(metric="integer_time", value=share, unit="%", **variants[name].columns)


def keep_stamps(run: Run, timings: Timings, columns: Mapping[str, Any]) -> Ratio:
    """Record what the time stamps cost: the paired ratio of a stamped run and a plain one."""
    ratio = timings.ratio("stamped", "plain")
    latency.keep_ratio(run, "stamp_cost", ratio, columns)
    return ratio
