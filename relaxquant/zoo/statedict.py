"""Read a PyTorch weight file and fit it to a model, or say in one error why not."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import nn

from .errors import ZooError

StateDict = dict[str, torch.Tensor]
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: Path) -> StateDict:
    """Read a state dict with ``torch.load(weights_only=True)``.

    A checkpoint that holds the state dict under ``state_dict``, ``model_state_dict`` or ``model``
    is opened, and the ``module.`` that DataParallel puts before each name is taken off.

    Raises
    ------
    ZooError
        If the file is missing, corrupt, or holds something else than a state dict.
    """
    if not path.is_file():
        raise ZooError(f"weight file {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ZooError(
            f"weight file {path} is corrupt or holds Python objects, which are not loaded; "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise ZooError(
            f"weight file {path} is corrupt or cut off; fetch or save it again"
        ) from error
    state = _unwrap(content)
    if state is None:
        raise ZooError(
            f"weight file {path} holds a {type(content).__name__}, not a state dict; "
            "save it with torch.save(model.state_dict(), path)"
        )
    return state


def _unwrap(content: object) -> StateDict | None:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        return None
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        return None
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def fit(model: nn.Module, state: StateDict, name: str, where: str) -> nn.Module:
    """Load `state` into `model` in place and return it.

    ``num_batches_tracked`` may be absent: files older than PyTorch 0.4.1 lack it, and only
    training reads it.

    Raises
    ------
    ZooError
        Naming `where` the weights came from and the first keys that do not fit model `name`.
    """
    misfits = _misfits(model.state_dict(), state)
    if misfits:
        more = f" and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise ZooError(
            f"{where} does not fit {name}: {'; '.join(misfits[:3])}{more}; "
            "give the file of this architecture, or leave `weights` out"
        )
    bad = [key for key, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise ZooError(f"{where} holds NaN or infinity in {bad[0]}; fetch or save it again")
    model.load_state_dict(state, strict=False)
    return model


def _misfits(own: StateDict, given: StateDict) -> list[str]:
    found = []
    for key, value in own.items():
        if key not in given:
            if not key.endswith("num_batches_tracked"):
                found.append(f"{key} is missing")
        elif given[key].shape != value.shape:
            found.append(
                f"{key} has shape {tuple(given[key].shape)}, expected {tuple(value.shape)}"
            )
    return found + [f"{key} is unknown" for key in given if key not in own]
