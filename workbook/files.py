"""Files that are either the old or the new content, never half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from workbook.errors import WorkbookError

Made = TypeVar("Made")


def write_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file beside `path`, then rename it into place.

    Parameters
    ----------
    path : pathlib.Path
        Target; its folder is made where missing.
    text : str
        The whole content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        # mkstemp makes files private; a report folder is meant to be read by others.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN is refused because JSON has none."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_versioned(
    folder: Path, name: str, version: int, kind: str, build: Callable[[dict], Made]
) -> Made:
    """Read a JSON file that has a ``version``.

    Parameters
    ----------
    folder : pathlib.Path
        Where it lies.
    name : str
        Of the file.
    version : int
        That it must have.
    kind : str
        What the folder holds, for messages: ``"run"`` or ``"sweep"``.
    build : callable
        Makes the result of the content without its version.

    Raises
    ------
    WorkbookError
        Where there is no such file, or it was written by another version.
    """
    path = folder / name
    if not path.is_file():
        raise WorkbookError(f"{folder} holds no {kind}: it has no {name}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("version") != version:
            raise ValueError("another version of this program wrote it")
        return build(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkbookError(f"{path} cannot be read: {error}; start a new {kind}") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix, and rename what was written there.

    Nothing is left where the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        staged = Path(folder, path.name)
        yield staged
        os.replace(staged, path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
