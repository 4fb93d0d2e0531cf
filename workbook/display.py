"""Show a table, a figure or a sentence where there is a notebook to show it in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


def show_table(styled: Styler, plain: pd.DataFrame) -> None:
    """Display the styled table in a notebook; print the plain one elsewhere."""
    if _in_ipython():
        from IPython.display import display

        display(styled)
    else:
        print(plain.to_string(index=False))


def show_figure(figure: Figure, png: Path, caption: str) -> None:
    """Close `figure` and display its saved picture with the caption below it.

    The saved picture, and not the figure, is shown: what is read in the notebook is then what
    was kept, and the picture carries the caption as its alternative text.
    """
    from matplotlib import pyplot

    pyplot.close(figure)
    if _in_ipython():
        from IPython.display import Image, Markdown, display

        width = round(figure.get_figwidth() * 100)
        display(Image(filename=str(png), width=width, alt=caption), Markdown(f"*{caption}*"))


def show_sentence(sentence: str) -> None:
    """Display one sentence in bold in a notebook; print it elsewhere."""
    if _in_ipython():
        from IPython.display import Markdown, display

        display(Markdown(f"**{sentence}**"))
    else:
        print(sentence)


def show_prose(text: str) -> None:
    """Display Markdown in a notebook; print it elsewhere."""
    if _in_ipython():
        from IPython.display import Markdown, display

        display(Markdown(text))
    else:
        print(text)


def _in_ipython() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None
