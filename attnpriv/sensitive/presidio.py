"""What we use of Presidio, imported without transformers.

Where transformers is installed, Presidio imports it for language models that are not used here, and
it brings in half of PyTorch's compiler: five seconds of every start, of a server and of an audit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let an import of a package fail, as if it were not installed, unless it is there already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        yield
    finally:
        del sys.modules[package]


with _hidden("transformers"):
    from presidio_analyzer import Pattern, PatternRecognizer, predefined_recognizers

__all__ = ["Pattern", "PatternRecognizer", "predefined_recognizers"]
