"""What the HTML pages share: the frame, the style, the security policy, and how strangers' text gets into them.

A page is one self-contained file: the template ``NAME.html.jinja`` in the frame ``page.html.jinja``, with the styles
``page.css`` and ``NAME.css`` and the scripts ``page.js`` and ``NAME.js`` in it, all from ``assets``. Its content
security policy forbids every request, and every style and script but these, which it names by their hash.
"""

import base64
import hashlib
import importlib.resources
import math
from typing import Any

import regex
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from hailproof.parsing import UNSEEN

# Letters that show nothing or rearrange what is around them; a newline and a tab are only text.
INVISIBLE = regex.compile(rf"[[{UNSEEN}\p{{Cs}}\p{{Zl}}\p{{Zp}}]--[\t\n]]", regex.V1)
UNDEFINED = "undefined"


def render(template: str, **values: Any) -> str:
    """Renders a page; everything in ``values`` is escaped, whoever wrote it.

    Args:
        template: Which page: the stem of its template, style and script.
        **values: What the template shows.

    Returns:
        The whole file.
    """
    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(visible=visible, percent=percent, number=plain, sha256=_sha256)
    style, script = (Markup(_asset(f"page.{kind}") + _asset(f"{template}.{kind}")) for kind in ("css", "js"))
    return environment.get_template(f"{template}.html.jinja").render(style=style, script=script, **values)


def _asset(name: str) -> str:
    return importlib.resources.files("hailproof.reports").joinpath("assets", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def visible(text: object) -> str:
    """Spells out the letters of a text that a page would hide or obey, such as a change of writing direction.

    Args:
        text: Anything; its ``str`` is taken.

    Returns:
        The text with each such letter as ``<U+202E>``; still to be escaped.
    """
    return INVISIBLE.sub(lambda match: f"<U+{ord(match[0]):04X}>", str(text))


def plain(value: float | None) -> str:
    """A number in three digits, or in whole thousands."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def percent(share: float | None) -> str:
    """A share as a percentage with one digit."""
    return UNDEFINED if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def cut(text: str, length: int) -> str:
    """The first letters of a text; an ellipsis is the last of them if something is left out."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
