"""Names of people, places and organisations, by a small language model out of a package.

The models are spaCy's, under the MIT licence, uploaded to PyPI by others. Every file that is read
must have its pinned SHA-256, and nothing of the packages is imported, so that none of their code
runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from attnpriv.data.records import Span
from attnpriv.errors import InputError
from attnpriv.sensitive.packages import PACKAGES
from attnpriv.sensitive.readings import as_prose, pieces

PERSON = "PERSON"
TYPES = {
    "PERSON": PERSON,
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "NORP": "NRP",
}
# Above a bare run of digits, below whatever a pattern has recognised.
SCORE = 0.35
MENTION_SCORE = 0.36
_BATCH = 32  # pieces
# Names need the tokeniser and one component; the others would take most of the time.
_NAME_WORD = re.compile(r"[^\W\d_]{3,}")
_LEFT_OUT = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]


@cache
def load_names(model: str) -> Names:
    """The model of that name, loaded once in a process.

    Raises:
        InputError: as ``find_model``.
    """
    folder = find_model(model)
    import spacy

    return Names(spacy.load(folder, exclude=_LEFT_OUT))


def find_model(model: str) -> Path:
    """The folder of the model of that name; every file in it is the pinned one.

    Raises:
        InputError: there is no such model, its package is not installed, or one of its files is
            missing or is not the pinned one.
    """
    if model not in PACKAGES:
        raise InputError(f"expected language model {' or '.join(PACKAGES)}, got {model!r}")
    package = PACKAGES[model]
    found = importlib.util.find_spec(package.module)  # found, not imported
    if found is None or found.origin is None:
        raise InputError(f"language model {model} needs: pip install '{package.requirement}'")
    folder = Path(found.origin).parent / package.folder
    check_files(folder, package.files)
    return folder


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Check the SHA-256 of the files of a folder.

    Raises:
        InputError: one of them is missing or is another.
    """
    for name, expected in files.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the language model: {error}") from error
        if (digest := hashlib.sha256(content).hexdigest()) != expected:
            raise InputError(f"expected {folder / name} with sha256 {expected}, got {digest}")


class Names:
    """Finds names; safe to call from threads, which take turns.

    Args:
        pipeline: of spaCy, with a component that recognises entities.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._turn = threading.Lock()

    def find(self, texts: Sequence[str]) -> list[list[tuple[float, Span]]]:
        """What is named in each text, with a score; spans may overlap.

        Each piece is read as it stands and, where that differs, as prose. Neither the other texts
        of a call nor earlier calls change what is found, and no word is kept between calls.
        """
        work = [
            (number, start, reading)
            for number, text in enumerate(texts)
            for start, piece in pieces(text)
            for reading in dict.fromkeys((piece, as_prose(piece)))
        ]
        found: list[list[tuple[float, Span]]] = [[] for _ in texts]
        # A memory zone forgets the words that were new, and a pipeline has one zone at a time.
        with self._turn, self._pipeline.memory_zone():
            read = self._pipeline.pipe((reading for *_, reading in work), batch_size=_BATCH)
            for (number, start, _), document in zip(work, read, strict=True):
                found[number] += _entities(document, start)
        return found


def _entities(document: Any, start: int) -> Iterator[tuple[float, Span]]:
    for entity in document.ents:
        if kind := TYPES.get(entity.label_):
            yield SCORE, Span(start + entity.start_char, start + entity.end_char, kind)


def other_mentions(text: str, found: Iterable[Span]) -> Iterator[tuple[float, Span]]:
    """Where else in the text a word of a person's name stands, such as the surname alone."""
    names = {
        word
        for span in found
        if span.entity_type == PERSON
        for word in _NAME_WORD.findall(text, span.start, span.end)
        if word[0].isupper()
    }
    for match in _NAME_WORD.finditer(text) if names else ():
        if match[0] in names:
            yield MENTION_SCORE, Span(*match.span(), PERSON)
