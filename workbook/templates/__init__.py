"""The pages' templates, rendered with Jinja; everything put into them is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, /, **values: Any) -> str:
    """Render a template of this folder.

    Parameters
    ----------
    template : str
        File name.
    **values
        What the template names; a name without a value is an error, not an empty place.
    """
    environment = Environment(
        loader=PackageLoader("workbook", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
