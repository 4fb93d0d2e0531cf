"""What a result depends on, as one SHA-256: resume runs again what has another one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbook import paths, reached
from workbook.catalogue import Notebook

PACKAGES = (
    "apache-tvm", "apache-tvm-ffi", "torch", "torchvision", "numpy",
    "onnx", "onnxruntime", "openvino", "nncf", "torchao", "ai-edge-litert",
)  # fmt: skip


def of_notebook(
    notebook: Notebook, parameters: Mapping[str, Any], needs: Iterable[str], code: str
) -> str:
    """Return the fingerprint of one notebook's results.

    Parameters
    ----------
    notebook : Notebook
        Its cells' sources count, and the modules of this package that they reach; their outputs
        do not.
    parameters : mapping
        Those passed to it.
    needs : iterable of str
        Fingerprints of the notebooks it needs: it reads their results.
    code : str
        As `of_code` returns it.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    cells = [source for kind, source in notebook.sources if kind == "code"]
    modules = _of_files(reached.modules(cells, paths.root()), paths.root())
    parts = [notebook.name, notebook.sources, dict(parameters), sorted(needs), modules, code]
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def of_notebooks(
    notebooks: Iterable[Notebook], parameters: Mapping[str, Mapping[str, Any]], code: str
) -> dict[str, str]:
    """Return name -> fingerprint of notebooks that run together.

    Parameters
    ----------
    notebooks : iterable of Notebook
        In an order in which each comes behind those it needs.
    parameters : mapping
        Notebook name -> those passed to it.
    code : str
        As `of_code` returns it.
    """
    prints: dict[str, str] = {}
    for notebook in notebooks:
        needed = [prints[name] for name in notebook.needs]
        prints[notebook.name] = of_notebook(notebook, parameters[notebook.name], needed, code)
    return prints


def of_code(root: Path) -> str:
    """Return the fingerprint of all that every notebook calls: library, helpers, data, packages.

    Parameters
    ----------
    root : pathlib.Path
        The checkout: ``relaxquant/``, ``data/``, and ``helpers.py`` with the modules it reaches.
    """
    helpers = root / "helpers.py"
    files = [helpers, *reached.modules([helpers.read_text(encoding="utf-8")], root)]
    for folder in ("relaxquant", "data"):
        files += sorted(path for path in (root / folder).rglob("*") if _counts(path, root))
    versions = [f"{package} {_version(package)}" for package in PACKAGES]
    return hashlib.sha256("\n".join([_of_files(files, root), *versions]).encode()).hexdigest()


def _of_files(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _counts(path: Path, root: Path) -> bool:
    names = path.relative_to(root).parts
    return path.suffix != ".pyc" and not any(
        name.startswith(".") or name == "__pycache__" for name in names
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
