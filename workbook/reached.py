"""Which modules of this package some code imports, and which those import in turn.

A notebook's results depend on the modules it runs through and on no other: those it reaches count
in its fingerprint, so that a change of one notebook's figures leaves the others' results alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "workbook"
# A package whose modules are also imported by name, in other processes: one reaches all.
BY_NAME = "peers"
# Lines that IPython alone understands.
MAGIC = ("%", "!")


def modules(sources: Iterable[str], root: Path) -> list[Path]:
    """Return the files of ``workbook/`` that code reaches by its imports, sorted.

    Parameters
    ----------
    sources : iterable of str
        Python code, of cells or files. What does not parse imports nothing.
    root : pathlib.Path
        The checkout.

    Notes
    -----
    Imports inside functions and those for type checking count. What is imported by a name that is
    put together at run time is not seen, but of the package `BY_NAME`.
    """
    pending = [name for source in sources for name in _imports(source)]
    found: set[Path] = set()
    while pending:
        path = _file(pending.pop(), root)
        if path is not None and path not in found:
            found.add(path)
            pending += _imports(path.read_text(encoding="utf-8"))
            if path.parent.name == BY_NAME:
                pending += (
                    f"{PACKAGE}.{BY_NAME}.{other.stem}" for other in path.parent.glob("*.py")
                )
    return sorted(found)


def _imports(source: str) -> Iterator[str]:
    """Names of modules, and of what is taken from them: that may be a module as well."""
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(MAGIC))
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str, root: Path) -> Path | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    place = root.joinpath(*parts)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
