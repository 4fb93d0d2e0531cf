"""A tiny network as a `Subject`, and a run that only keeps its rows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

import relaxquant as rq
from relaxquant.zoo import Images
from tests.networks import make
from workbook.widths import Subject


def small_subject(name: str = "residual", images: int = 12, labelled: bool = True) -> Subject:
    """A network of `tests.networks` with random images, labelled by what fp32 sees."""
    network, example = make(name)
    shape = tuple(example.shape[1:])
    rng = np.random.default_rng(0)
    calibration, seen = (rng.standard_normal((n, *shape), np.float32) for n in (8, images))
    net = SimpleNamespace(
        name=name, model=network, weights="random", trained=False, dataset="cifar10",
        preprocess=lambda pictures: np.stack([calibration[0] for _ in pictures]),
        example_input=lambda batch, seed: example[:batch],
    )  # fmt: skip
    module = rq.frontends.from_torch(network, example, dynamic_batch=True)
    pool = Images(seen, None, [str(i) for i in range(images)], "noise", np.zeros(0))
    subject = Subject(net, module, [calibration], pool, {"target": "native", "threads": 1})
    if labelled:
        labels = subject.logits().argmax(1)
        subject.seen = Images(seen, labels, pool.names, "noise", pool.thumbnails)
    return subject


def recording_run() -> tuple[SimpleNamespace, list[dict]]:
    """A run whose rows go to a list."""
    rows: list[dict] = []
    return SimpleNamespace(record=lambda **row: rows.append(row)), rows
