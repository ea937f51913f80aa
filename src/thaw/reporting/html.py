"""Pages are templates filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from thaw.files import write_text
from thaw.reporting.drawing import visible


def write_html(path: Path, template: str, context: Mapping[str, Any]) -> None:
    """Write a page from a template; everything is escaped except our own SVG."""
    environment = Environment(
        loader=PackageLoader("thaw.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    write_text(path, environment.get_template(template).render(context))
