"""Looking into modules and generated code: what a network computes with, without running it."""

from . import asm, ir, substrings
from .operands import Operands, excerpt, operand_dtypes
from .proof import LayerProof, Proof, proof
from .roofline import LayerBound, layer_bounds

__all__ = [
    "LayerBound",
    "LayerProof",
    "Operands",
    "Proof",
    "asm",
    "excerpt",
    "ir",
    "layer_bounds",
    "operand_dtypes",
    "proof",
    "substrings",
]
