"""What a network sees in scikit-image's cat, at several precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import relaxquant as rq
from relaxquant import zoo
from workbook.widths import Subject

CATS = {"imagenet": range(281, 286), "cifar10": range(3, 4)}  # tabby to Egyptian cat; cat
LETTERS = 22  # of a class name that are shown


@dataclass(frozen=True)
class Guess:
    """The classes that a network holds most likely.

    Attributes
    ----------
    name : str
        Of the precision.
    classes : list of str
        Most likely first.
    chances : list of float
        Softmax, 0 to 1.
    cats : list of bool
        Which of them are cats.
    """

    name: str
    classes: list[str]
    chances: list[float]
    cats: list[bool]

    def words(self, count: int) -> str:
        """The first ``count`` classes, with their chance."""
        pairs = list(zip(self.classes, self.chances, strict=True))[:count]
        return ", ".join(f"{name} {100 * chance:.0f} %" for name, chance in pairs)


def of_the_cat(
    subject: Subject, chosen: Mapping[str, rq.QConfig | None], count: int = 5
) -> list[Guess]:
    """The most likely classes of the cat at each precision.

    Parameters
    ----------
    subject : Subject
        The network.
    chosen : mapping
        Name -> config, None for fp32.
    count : int
        How many classes.
    """
    net = subject.net
    x = net.preprocess([zoo.cat()])
    names, cats = zoo.class_names(net.dataset), CATS[net.dataset]
    guesses = []
    for name, config in chosen.items():
        logits = subject.library(config)(x)[0].astype(np.float64)
        # A stable sort: equal logits rank by class, as `measure.top_k` takes them.
        order = np.argsort(-logits, kind="stable")[:count]
        chances = _softmax(logits)[order]
        classes = [names[index].split(",")[0][:LETTERS] for index in order]
        is_cat = [int(index) in cats for index in order]
        guesses.append(Guess(name, classes, chances.tolist(), is_cat))
    return guesses


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def lines(guesses: list[Guess]) -> list[dict[str, Any]]:
    """A line for each precision: is the first a cat, and all of them in words."""
    return [
        {
            "precision": guess.name,
            "a cat": "yes" if guess.cats[0] else "no",
            "cats among them": sum(guess.cats),
            "most likely classes": guess.words(len(guess.classes)),
        }
        for guess in guesses
    ]
