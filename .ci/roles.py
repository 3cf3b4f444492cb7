"""Shows the roles of docstrings (``:class:`Shield` ``) as code, as the rest of a page is Markdown."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":[a-z]+:(?=`)")


class Roles(Extension):
    """An extension of the reader of docstrings that mkdocstrings uses."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Takes the names of roles out of the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub("", obj.docstring.value)
