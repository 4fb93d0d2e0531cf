"""Looking into modules and generated code: what a network computes with, and what that changes."""

from . import asm, ir, substrings
from .operands import Operands, excerpt, operand_dtypes
from .proof import LayerProof, Proof, proof
from .requantization import Differences, requantize_differences
from .roofline import LayerBound, layer_bounds
from .timed import TimedLayer, TimedProof, timed

__all__ = [
    "Differences",
    "LayerBound",
    "LayerProof",
    "Operands",
    "Proof",
    "TimedLayer",
    "TimedProof",
    "asm",
    "excerpt",
    "ir",
    "layer_bounds",
    "operand_dtypes",
    "proof",
    "requantize_differences",
    "substrings",
    "timed",
]
