"""Griffe extension: docstrings draw their tables with ``=``, since terminals show them too."""

from __future__ import annotations

import re

import griffe

TABLE = re.compile(r"^( *)=+ [= ]+\n(?:.+\n)+?\1=+ [= ]+\n\1.+(?:\n.+)*?\n\1=+ [= ]+$", re.M)


class Docstrings(griffe.Extension):
    """Shows as Markdown what docstrings draw with characters."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """Tables become literal blocks, and the two colons that announce one become one, or none."""
    indented = TABLE.sub(lambda table: re.sub("^", "    ", table[0], flags=re.M), docstring)
    return re.sub(r"::$", ":", re.sub(r"^ *::\n", "", indented, flags=re.M), flags=re.M)
