"""What a notebook imports: ``import helpers as h``.

Starts the run, keeps rows, tables, figures and headlines, reads the published figures, and names
the colours. No compiler code, and nothing here imports tvm or torch: `start` must be able to fix
the thread counts first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbook import display, paths
from workbook.context import Run, start
from workbook.errors import WorkbookError, hint
from workbook.figures import COLOURS, colour

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLOURS", "Run", "WorkbookError", "colour", "published", "say", "start"]


def say(text: str, **values: Any) -> None:
    """Show a sentence whose figures come from this run.

    Parameters
    ----------
    text : str
        Markdown with ``{name:.1f}`` fields.
    **values
        Values of the fields.
    """
    display.show_prose(text.format(**values))


def published(name: str) -> pd.DataFrame:
    """Read a table of published figures.

    Parameters
    ----------
    name : str
        File name in ``data/published/`` without suffix, ``table1`` say.

    Returns
    -------
    pandas.DataFrame
        As the file has it; the column ``source`` says where each figure stands.

    Raises
    ------
    WorkbookError
        For a table there is not, and for one without sources.
    """
    import pandas as pd

    folder = paths.published_dir()
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.csv"))
        raise WorkbookError(f"no published table {name!r}: {hint(name, known)}")
    frame = pd.read_csv(path)
    if "source" not in frame.columns or frame["source"].isna().any():
        raise WorkbookError(f"{path.name}: every published figure needs its source")
    return frame
