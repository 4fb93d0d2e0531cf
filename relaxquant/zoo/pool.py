"""A pool of pictures that a provider offers, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .errors import ZooError
from .preprocess import Picture, Preprocess, as_rgb, resize_shorter_edge
from .trail import Trail

THUMBNAIL = 128


@dataclass(frozen=True)
class Images:
    """Pictures ready for one network.

    Attributes
    ----------
    x : numpy.ndarray
        Preprocessed, float32, NCHW.
    labels : numpy.ndarray or None
        int64, ``(n,)``, 0-based class; None where the pictures have no labels, and then no
        accuracy can be given.
    names : list[str]
        One a picture, unique; calibration and evaluation never share one.
    source : str
        Where they came from, for tables.
    thumbnails : numpy.ndarray
        uint8, ``(n, edge, edge, 3)``, the centre of each picture, for showing.
    provenance : list[str]
        What the provider chain tried, in order.
    """

    x: np.ndarray
    labels: np.ndarray | None
    names: list[str]
    source: str
    thumbnails: np.ndarray
    provenance: list[str] = field(default_factory=list, compare=False)

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield `x` in pieces of `size`; the last may be shorter."""
        if size < 1:
            raise ZooError(f"batch size must be at least 1, not {size}")
        for start in range(0, len(self.x), size):
            yield self.x[start : start + size]


@dataclass(frozen=True)
class Pool:
    """Everything one provider has for one purpose: names, labels, and a reader by index."""

    source: str
    names: list[str]
    labels: np.ndarray | None
    read: Callable[[int], Picture]


def draw(pool: Pool, n: int, seed: int, preprocess: Preprocess, trail: Trail) -> Images:
    """Choose `n` pictures of `pool` at random and preprocess them.

    The same seed gives the same order, so a smaller `n` is a prefix of a larger one. Where the
    pool has fewer than `n`, all are taken and the trail says so.
    """
    if n > len(pool.names):
        trail.warn(f"{n} images were asked for, {pool.source} has {len(pool.names)}")
    chosen = np.random.default_rng(seed).permutation(len(pool.names))[:n]
    x = np.empty((len(chosen), 3, preprocess.crop, preprocess.crop), np.float32)
    thumbnails = []
    for i, index in enumerate(chosen):
        picture = pool.read(int(index))
        x[i] = preprocess([picture])[0]
        thumbnails.append(_thumbnail(picture, min(THUMBNAIL, preprocess.crop)))
    return Images(
        x=x,
        labels=None if pool.labels is None else pool.labels[chosen].astype(np.int64),
        names=[pool.names[i] for i in chosen],
        source=pool.source,
        thumbnails=np.stack(thumbnails),
        provenance=list(trail),
    )


def _thumbnail(picture: Picture, edge: int) -> np.ndarray:
    image = resize_shorter_edge(as_rgb(picture), edge)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return np.asarray(image.crop((left, top, left + edge, top + edge)))
