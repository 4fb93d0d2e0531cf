"""Pictures made from noise, where no real ones can be had."""

from __future__ import annotations

import numpy as np
from PIL import Image


def noise_pictures(n: int, edge: int, seed: list[int]) -> np.ndarray:
    """Make seeded pictures with structure at every scale, as photographs have.

    Noise of 2, 4, 8, ... cells an edge is enlarged and added, each octave at 0.6 of the strength of
    the coarser one: a spectrum that falls with frequency, unlike white noise, whose activations
    are far from those of photographs.

    Parameters
    ----------
    n : int
        How many.
    edge : int
        Height and width in pixels.
    seed : list of ints
        Seed sequence for `numpy.random.default_rng`.

    Returns
    -------
    numpy.ndarray
        uint8, ``(n, edge, edge, 3)``.
    """
    rng = np.random.default_rng(seed)
    return np.stack([_noise_picture(rng, edge) for _ in range(n)])


def _noise_picture(rng: np.random.Generator, edge: int) -> np.ndarray:
    field = np.zeros((edge, edge, 3), np.float32)
    cells, strength = 2, 1.0
    while cells <= edge:
        coarse = rng.standard_normal((3, cells, cells), np.float32)
        planes = [Image.fromarray(p).resize((edge, edge), Image.Resampling.BICUBIC) for p in coarse]
        field += strength * np.stack([np.asarray(p) for p in planes], axis=-1)
        cells, strength = cells * 2, strength * 0.6
    field /= field.std()
    return np.clip(127.5 + 55 * field, 0, 255).astype(np.uint8)
