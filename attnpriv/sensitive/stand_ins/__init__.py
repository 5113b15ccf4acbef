"""Public values that a model can read in place of personal data, by type; one file a language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

LANGUAGE = "en"  # that of the detector


@lru_cache
def stand_ins(language: str = LANGUAGE) -> Mapping[str, str]:
    """The value that stands for each type of personal data.

    >>> stand_ins()["PERSON"]
    'John Smith'
    """
    return tomllib.loads(files(__name__).joinpath(f"{language}.toml").read_text(encoding="utf-8"))
