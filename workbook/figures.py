"""One palette, one style, one way to keep a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbook.errors import WorkbookError, hint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind-safe set (jfly.uni-koeln.de/color): a meaning keeps its colour in
# every figure. The two greys differ in lightness, so they survive a black-and-white print.
COLOURS = {
    "torch": "#E69F00",
    "stock TVM": "#C0C0C0",
    "fp32": "#0072B2",
    "naive int8": "#D55E00",
    "int8 vm": "#56B4E9",
    "int8 graph": "#009E73",
    "published": "#4D4D4D",
    "other": "#CC79A7",
}
DOTS_PER_INCH = 200

STYLE = {
    "figure.figsize": (7.2, 3.8),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E3E6E8",
    "legend.frameon": False,
    # Text stays text in SVG (searchable, small), and the same figure gives the same file.
    "svg.fonttype": "none",
    "svg.hashsalt": "relaxquant",
}


def colour(role: str) -> str:
    """Return the hex colour of a role, ``"fp32"`` or ``"int8 graph"`` say.

    Raises
    ------
    WorkbookError
        For a role the palette does not have.
    """
    if role not in COLOURS:
        raise WorkbookError(f"unknown colour role {role!r}: {hint(role, COLOURS)}")
    return COLOURS[role]


def use_style() -> None:
    """Set matplotlib's defaults to the workbook's style, without choosing a backend."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(STYLE)
    mpl.rcParams["axes.prop_cycle"] = cycler(color=list(COLOURS.values()))


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """Save a figure as PNG and SVG.

    Returns
    -------
    tuple of pathlib.Path
        The PNG and the SVG.

    Raises
    ------
    WorkbookError
        Where `figure` is no matplotlib figure; axes know theirs as ``ax.figure``.
    """
    if not hasattr(figure, "savefig"):
        raise WorkbookError(
            f"{stem}: a matplotlib figure is needed, not {type(figure).__name__}; "
            "for axes pass ax.figure"
        )
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    figure.savefig(png, dpi=DOTS_PER_INCH, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None})
    return png, svg
