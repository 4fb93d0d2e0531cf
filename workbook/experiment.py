"""Steps that several notebooks take: quantize a network, measure its accuracy, show its pictures.

Only calls of the library and rows of the store; whatever compiles or quantizes is in relaxquant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ImageOps

import relaxquant as rq
from relaxquant import measure, zoo
from workbook import shares
from workbook.tables import untrained

if TYPE_CHECKING:
    import tvm

    from relaxquant.measure import Proportion
    from workbook.context import Run

NO_LABEL = -1
EVALUATION_BATCH = 10  # images an inference where only accuracy is measured


@dataclass(frozen=True)
class Pair:
    """A network as fp32 Relax and as QDQ Relax, of one batch size."""

    fp32: tvm.IRModule
    int8: tvm.IRModule
    calibrated_on: str


def quantized_pair(
    net: zoo.Network, batch: int, calibration: int, seed: int, target: str = "native"
) -> Pair:
    """Import a network and quantize it with the default configuration.

    Parameters
    ----------
    net : relaxquant.zoo.Network
        The network.
    batch : int
        Images in one inference; calibration goes in whole batches.
    calibration : int
        Images for calibration, at least one batch of them.
    seed : int
        Of the choice of images.
    target : str
        What it will be compiled for, which decides on the range of weights.
    """
    module = rq.frontends.from_torch(net.model, net.example_input(batch, seed))
    images = zoo.calibration_images(net, max(calibration, batch), seed)
    batches = [part for part in images.batches(batch) if len(part) == batch]
    quantized = rq.quantize(module, rq.QConfig.best(), calibration=batches, target=target)
    return Pair(module, quantized, f"{batch * len(batches)} images, {images.source}")


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of fp32 and int8 on the same images: a table row, and a sentence for the headline.

    ``metrics`` are those of the rows behind the sentence: none where no image has a label.
    """

    model: str
    row: dict[str, Any]
    sentence: str
    metrics: tuple[str, ...] = ("top1",)


def accuracy(
    run: Run,
    name: str,
    calibration: int,
    images: int,
    seed: int,
    settings: Mapping[str, Any],
) -> Accuracy:
    """Measure and record the top-1 accuracy of a network in fp32 and int8.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``top1`` of both, in percent, and ``top1_difference`` in points.
    name : str
        A network of the zoo.
    calibration, images : int
        Images to calibrate on and, at most, to evaluate on; never the same ones.
    seed : int
        Of the choice of images.
    settings : mapping
        Further arguments of `relaxquant.compile`.
    """
    net = zoo.load_model(name)
    pair = quantized_pair(net, EVALUATION_BATCH, calibration, seed)
    seen = zoo.evaluation_images(net, images, seed)
    if seen.labels is None:
        row = {"model": name, "images": f"{len(seen)}, {seen.source}: no labels"}
        return Accuracy(name, row, f"{name}: no labelled images here, so no accuracy.", ())
    common = {"model": name, "weights": net.weights, "trained": net.trained}
    correct = {}
    for precision, module in (("fp32", pair.fp32), ("w8a8", pair.int8)):
        found = measure.Predictions(_logits(module, seen.x, settings), seen.labels)
        shares.keep(run, "top1", found.accuracy(1), common | {"precision": precision})
        correct[precision] = found.correct(1)
    return _compare(run, common, correct, seen.source)


def _logits(module, x: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    library = rq.compile(module, executor="graph", **settings)
    return measure.predict(library, x, EVALUATION_BATCH)


def _compare(run: Run, common: dict, correct: dict, source: str) -> Accuracy:
    change = measure.paired_difference(correct["w8a8"], correct["fp32"])
    shares.keep_difference(run, change, common | {"precision": "w8a8"})
    fp32, int8 = (100 * float(np.mean(correct[p])) for p in ("fp32", "w8a8"))
    words = shares.words(change)
    whose = f"{common['model']}{untrained(common['trained'])}"
    row = {
        "model": whose,
        "fp32 top-1 (%)": fp32,
        "int8 top-1 (%)": int8,
        "difference (points, 95 %)": words,
        "n": change.n,
        "images": source,
    }
    sentence = (
        f"{whose} in int8: top-1 {int8:.1f} % against {fp32:.1f} % in fp32, "
        f"{words} points on {change.n} images."
    )
    return Accuracy(common["model"], row, sentence)


def agreement(
    run: Run,
    net: zoo.Network,
    libraries: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, Any]],
    count: int,
    seed: int,
    batch: int,
) -> dict[str, Proportion]:
    """Record how often each library gives fp32's top class, so that no speed stands alone.

    Parameters
    ----------
    run : workbook.context.Run
        Where the rows go: ``agreement`` in percent.
    net : relaxquant.zoo.Network
        Tells which images fit.
    libraries : mapping
        Variant -> callable; ``"fp32"`` is the one compared with.
    columns : mapping
        Variant -> columns of its row.
    count, seed, batch : int
        Evaluation images, their choice, and how many go into one inference.
    """
    seen = zoo.evaluation_images(net, count, seed)
    logits = {name: measure.predict(library, seen.x, batch) for name, library in libraries.items()}
    found = {name: measure.agreement(logits[name], logits["fp32"]) for name in libraries}
    for name, share in found.items():
        shares.keep(run, "agreement", share, columns[name])
    return found


@dataclass(frozen=True)
class Shots:
    """Pictures with what fp32 and int8 see in them."""

    thumbnails: np.ndarray
    captions: list[str]
    correct: list[bool | None]
    source: str
    trained: bool


def shots(
    name: str, calibration: int, settings: Mapping[str, Any], *, count: int, seed: int
) -> Shots:
    """Predict a few evaluation images, and the cat, in fp32 and int8.

    Parameters
    ----------
    name : str
        A network of the zoo.
    calibration : int
        Images for calibration.
    settings : mapping
        Further arguments of `relaxquant.compile`.
    count, seed : int
        How many pictures, and which.
    """
    net = zoo.load_model(name)
    pair = quantized_pair(net, EVALUATION_BATCH, calibration, seed)
    pictures = _with_cat(net, count, seed)
    guesses = {
        precision: _logits(module, pictures.x, settings).argmax(1)
        for precision, module in (("fp32", pair.fp32), ("int8", pair.int8))
    }
    names = zoo.class_names(net.dataset)
    labels = np.full(len(pictures), NO_LABEL) if pictures.labels is None else pictures.labels
    captions = [
        f"label: {_short(names, label)}\nfp32: {_short(names, a)}\nint8: {_short(names, b)}"
        for label, a, b in zip(labels, guesses["fp32"], guesses["int8"], strict=True)
    ]
    correct = [
        None if label == NO_LABEL else bool(label == guess)
        for label, guess in zip(labels, guesses["int8"], strict=True)
    ]
    return Shots(pictures.thumbnails, captions, correct, pictures.source, net.trained)


def _with_cat(net: zoo.Network, count: int, seed: int) -> zoo.Images:
    """Evaluation images, and for an ImageNet network the cat, whose exact class nobody labelled."""
    seen = zoo.evaluation_images(net, count, seed)
    if net.dataset != "imagenet":
        return seen
    cat = zoo.cat()
    thumbnail = ImageOps.fit(cat, seen.thumbnails.shape[1:3])
    unlabelled = np.full(len(seen), NO_LABEL) if seen.labels is None else seen.labels
    return replace(
        seen,
        x=np.concatenate([seen.x, net.preprocess([cat])]),
        labels=np.append(unlabelled, NO_LABEL),
        names=[*seen.names, "chelsea"],
        thumbnails=np.concatenate([seen.thumbnails, np.asarray(thumbnail)[None]]),
        source=f"{seen.source}, and scikit-image's cat",
    )


def _short(names: list[str], index: int) -> str:
    return "none" if index == NO_LABEL else names[index].split(",")[0][:22]
