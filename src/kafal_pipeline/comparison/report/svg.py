"""A figure as SVG inside a page: text stays text, colours become CSS variables, nothing points outside."""

import io
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree  # nosec B405  # it reads what matplotlib has just written

import matplotlib
from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"'DejaVu Sans'|DejaVu Sans")


def svg_text(figure: Figure) -> str:
    """Return a figure as an SVG file, the same one each time."""
    options: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "comparison", "text.parse_math": False}
    buffer = io.StringIO()
    with matplotlib.rc_context(options):
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date"), None))
    return buffer.getvalue()


def inline_svg(text: str, *, name: str, description: str, variables: Mapping[str, tuple[str, str]]) -> str:
    """Return an SVG file as an element of an HTML page.

    `name`: of the figure, unique on the page: ids begin with it. `description`: read out instead of the picture.
    `variables`: by colour (``#rrggbb``), the CSS variable that takes its place, and something else.
    """
    root = ElementTree.fromstring(text)  # nosec B314
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{_SVG}metadata", f"{_SVG}style"}:  # a style would reach the whole page
                parent.remove(child)
    colours = re.compile("|".join(map(re.escape, variables)), re.IGNORECASE)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in list(element.attrib.items()):
            found = value.replace("url(#", f"url(#{name}-")
            if key == "id":
                found = f"{name}-{value}"
            elif key == _HREF and value.startswith("#"):
                del element.attrib[key]
                key, found = "href", f"#{name}-{value[1:]}"  # noqa: PLW2901 - the attribute gets another name
            elif key == "style":
                found = colours.sub(
                    lambda match: f"var({variables[match.group().lower()][0]})", _FONT.sub("system-ui", found)
                )
            element.attrib[key] = found
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": description, "class": "figure"}
    return ElementTree.tostring(root, encoding="unicode")
