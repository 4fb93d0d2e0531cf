"""PyTorch to fp32 Relax, by torch.export and TVM's importer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import tvm

from ..errors import ModelError, cannot_import
from .clean import clean

if TYPE_CHECKING:
    import torch


def from_torch(
    model: torch.nn.Module, example_input: torch.Tensor, *, dynamic_batch: bool = False
) -> tvm.IRModule:
    """Import a PyTorch model as fp32 Relax with batch norms folded into convolutions.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is traced in evaluation mode and left as it was.
    example_input : torch.Tensor
        float32 (N, C, H, W), or whatever the network takes; its shape becomes the module's.
    dynamic_batch : bool
        Leave the first axis symbolic.

    Returns
    -------
    tvm.IRModule
        One function ``main`` with constants for weights.

    Raises
    ------
    ModelError
        If torch cannot export the model or TVM cannot import it; the message names the operator.

    Notes
    -----
    Source of the importer: ``tvm/relax/frontend/torch/exported_program_translator.py``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and TVM, not the user's
        program = _export(model, example_input, dynamic_batch)
        return clean(import_program(program, type(model).__name__))


def import_program(
    program: torch.export.ExportedProgram, name: str, converters: dict[str, Callable] | None = None
) -> tvm.IRModule:
    """Relax of an exported program as TVM's importer gives it, weights as constants.

    Parameters
    ----------
    program : torch.export.ExportedProgram
        The program.
    name : str
        What to call it in an error.
    converters : dict of str to callable, optional
        For operators that TVM does not know: ``converter(node, importer)``.

    Raises
    ------
    ModelError
        If TVM cannot import it; the message names the operator.
    """
    from tvm.relax.frontend.torch import from_exported_program

    try:
        return from_exported_program(
            program,
            keep_params_as_input=False,
            unwrap_unit_return_tuple=True,
            custom_convert_map=converters,
        )
    except ModelError:
        raise
    except Exception as error:
        raise cannot_import(name, _last_line(error)) from error


def _export(model, example_input, dynamic_batch: bool):
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if model.training:
        model = copy.deepcopy(model).eval()
    dynamic = ({0: torch.export.Dim("batch", min=1)},) if dynamic_batch else None
    if dynamic_batch and example_input.shape[0] == 1:
        # torch.export takes a dimension of 1 for a constant.
        example_input = torch.cat([example_input, example_input])
    try:
        with torch.no_grad():
            return torch.export.export(model, (example_input,), dynamic_shapes=dynamic)
    except Exception as error:
        raise ModelError(
            f"torch.export cannot trace {type(model).__name__} with an input of shape "
            f"{tuple(example_input.shape)}: {_last_line(error)}"
        ) from error


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
