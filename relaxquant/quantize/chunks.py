"""Calibrating a few tensors at a time: less memory, and the data is read once for each few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from .annotate import Annotation
from .config import QConfig, QuantizeError


def calibration_chunks(annotation: Annotation, config: QConfig, batches: Iterable) -> list:
    """Annotations that hold at most `calibrate_chunk_by` calibrated tensors each.

    Parameters
    ----------
    annotation : Annotation
        Of the whole network.
    config : QConfig
        `calibrate_chunk_by` acts here.
    batches : iterable
        The calibration data.

    Returns
    -------
    list of Annotation
        Each with the tensors of one chunk; one annotation where nothing is to be split.

    Raises
    ------
    QuantizeError
        If there are several and `batches` can be read only once.
    """
    tensors = [tensor for tensor in annotation.tensors.values() if tensor.is_calibrated]
    size = config.calibrate_chunk_by
    if size == -1 or size >= len(tensors):
        return [annotation]
    chunks = [tensors[first : first + size] for first in range(0, len(tensors), size)]
    if isinstance(batches, Iterator):
        raise QuantizeError(
            f"QConfig.calibrate_chunk_by is {size}, so the calibration data is read {len(chunks)} "
            "times, but it can be read only once: give a list of batches"
        )
    return [replace(annotation, tensors={t.node: t for t in chunk}) for chunk in chunks]
