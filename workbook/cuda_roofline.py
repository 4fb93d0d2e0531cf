"""What a GPU's published limits say of our tensor-core kernels, from the bytes their threads load.

Three limits of a layer: its multiply-adds over the tensor cores' rate, the bytes that its threads
ask for over the rate of the L1 cache (which is that of shared memory too), and what must come from
memory at least, inputs, weights and outputs once. Which is the largest is arithmetic; nothing here
is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from relaxquant.executors.launches import kernel_of
from relaxquant.inspect.cuda_work import LOAD_BYTES, STORE_BYTES, kernel_work
from relaxquant.inspect.roofline import layer_bytes
from relaxquant.lower import conv_layers
from workbook import paths

if TYPE_CHECKING:
    import tvm

    from relaxquant import Library

TENSOR, L1, MEMORY = "int8 tensor cores", "L1 and shared memory", "memory"
TERA, MICROSECONDS = 1e12, 1e6
STEP = 32  # input channels of one product, a byte each
TILES = ((16, 64), (32, 64), (64, 64), (64, 128), (128, 128))  # pixels x channels of a warp


@dataclass(frozen=True)
class Bound:
    """Least seconds of one call of a layer by each limit of a GPU.

    Attributes
    ----------
    name, shape : str
        As in ``lib.kernels``.
    seconds : dict of str to float
        Limit -> seconds.
    """

    name: str
    shape: str
    seconds: dict[str, float]

    @property
    def by(self) -> str:
        """The limit that binds."""
        return max(self.seconds, key=self.seconds.get)


def limits(gpu: str) -> dict[str, float]:
    """A GPU's published limits, operations or bytes a second."""
    table = pd.read_csv(paths.root() / "data" / "gpus.csv")
    rows = table[table["gpu"] == gpu]
    return {row.limit: row.value * TERA for row in rows.itertuples()}


def bounds(library: Library, module: tvm.IRModule, batch: int, gpu: str) -> list[Bound]:
    """The limits of every layer on tensor cores, in order.

    Parameters
    ----------
    library : relaxquant.Library
        The quantized module's.
    module : tvm.IRModule
        That module, of one batch size.
    batch : int
    gpu : str
        Of ``data/gpus.csv``.
    """
    return list(_bounds(library, module, batch, limits(gpu)))


def _bounds(library: Library, module, batch: int, limit: dict[str, float]) -> Iterator[Bound]:
    works = kernel_work(library.source("cuda"))
    records = [record for record in library.kernels if record.macs]
    for record, layer in zip(records, conv_layers(module), strict=True):
        if record.schedule != "cuda_mma":
            continue
        kernel = kernel_of(record.name)
        launch, work = library.launches[kernel], works[kernel]
        threads = launch.blocks * launch.threads
        asked = (work.counts[LOAD_BYTES] + work.counts[STORE_BYTES]) * threads
        seconds = {
            TENSOR: work.macs.total() * threads / limit[TENSOR],
            L1: asked / limit[L1],
            MEMORY: layer_bytes(layer.spec, layer.weights, batch) / limit[MEMORY],
        }
        yield Bound(record.name, record.shape, seconds)


def lines(found: dict[tuple[str, int], list[Bound]]) -> list[dict[str, Any]]:
    """A line a GPU and batch size: the layers together, and which limit binds them.

    Parameters
    ----------
    found : dict
        (GPU, batch size) -> `bounds`.
    """
    return [
        {
            "GPU": gpu,
            "batch": batch,
            "layers": len(layers),
            **{f"{limit} (us)": _total(layers, limit) for limit in (TENSOR, L1, MEMORY)},
            "least (us)": MICROSECONDS * sum(max(each.seconds.values()) for each in layers),
            **{f"bound by {limit}": sum(e.by == limit for e in layers) for limit in (TENSOR, L1)},
        }
        for (gpu, batch), layers in found.items()
    ]


def _total(layers: list[Bound], limit: str) -> float:
    return MICROSECONDS * sum(layer.seconds[limit] for layer in layers)


def tile_lines(gpu: str) -> list[dict[str, Any]]:
    """A line a warp's tile: bytes a multiply-add, and the share of the tensor cores' rate left.

    A step of 32 input channels loads the pixels' and the channels' bytes once and multiplies each
    by each, be it from the L1 cache or from shared memory: their rate is the same.
    """
    limit = limits(gpu)
    found = []
    for pixels, channels in TILES:
        each = (pixels + channels) * STEP / (pixels * channels * STEP)
        reached = min(1.0, limit[L1] / each / limit[TENSOR])
        found.append(
            {
                "tile of a warp (pixels x channels)": f"{pixels} x {channels}",
                "sums in registers of a thread": pixels * channels // 32,
                "bytes a multiply-add": each,
                "at most of the tensor cores' rate (%)": 100 * reached,
            }
        )
    return found
