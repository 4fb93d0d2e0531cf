"""``python -m workbook.tflite_worker``: the process that one way to run a TFLite model is timed in.

The first request names the file, whether it is LiteRT's or an exported library of ours, the input
and the threads; the answer to it is the model's output, for the parent to check.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbook.peers import bind, ours
from workbook.peers.worker import serve


def _ready(first: dict[str, Any]) -> tuple[Callable[[], np.ndarray], dict]:
    path, threads = Path(first["path"]), first["threads"]
    bind.process(threads)
    run = _lite_rt(path, threads) if first["litert"] else ours.exported(path, threads)
    x = np.load(first["input"])
    return lambda: run(x), {"output": np.asarray(run(x)).reshape(-1).tolist()}


def _lite_rt(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    from workbook.litert import LiteRT

    return LiteRT(path, threads=threads)


if __name__ == "__main__":
    serve(_ready)
