"""A model with what one must know to feed it and to judge what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .preprocess import Preprocess
from .synthetic import noise_pictures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Network:
    """A float32 model in eval mode, ready for a frontend.

    Attributes
    ----------
    name : str
        Name in the zoo.
    model : torch.nn.Module
        Takes float32 NCHW, returns logits; needs no gradients.
    trained : bool
        False for random weights: whatever is shown of it must be labelled "untrained".
    weights : str
        Short words on where the weights came from.
    dataset : str
        ``"imagenet"`` or ``"cifar10"``: what the classes are.
    input_shape : tuple[int, int, int]
        One input without the batch dimension, (C, H, W).
    preprocess : Preprocess
        Callable: list of PIL images or uint8 HWC arrays to float32 NCHW. Belongs to the weights as
        much as to the model: two sources of one model may differ in it.
    provenance : list[str]
        What the provider chain tried, in order.
    """

    name: str
    model: torch.nn.Module
    trained: bool
    weights: str
    dataset: str
    input_shape: tuple[int, int, int]
    preprocess: Preprocess
    provenance: list[str] = field(default_factory=list, compare=False)

    def example_input(self, batch: int = 1, seed: int = 0) -> torch.Tensor:
        """Return a float32 NCHW input in the range the model expects, made from seeded noise."""
        import torch

        pictures = noise_pictures(batch, self.input_shape[-1], [seed, 2])
        return torch.from_numpy(self.preprocess(pictures))
