"""Counts what evaluation data shares with the texts that a bounded encoder was taught from.

For each evaluation file: how many of its texts are among the texts, and how many have a run of
eight words in common with them, letters and digits compared in lower case. A few shared runs are
quotations and set phrases; a shared text is a mistake.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

RUN = 8  # words
WORD = re.compile(r"\w+")


def runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every run of eight words; a shorter text has none."""
    return (words[start : start + RUN] for start in range(len(words) - RUN + 1))


def words_of(path: Path) -> Iterator[tuple[str, ...]]:
    """The words of each line, or of each column of a table: the longest is the text."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = tuple(WORD.findall(max(line.split("\t"), key=len).lower()))
        if words:
            yield words


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path, nargs="+", help="files that the encoder read")
    parser.add_argument("--against", type=Path, nargs="+", required=True, help="evaluation files")
    options = parser.parse_args()
    read = [words for path in options.texts for words in words_of(path)]
    whole, known = set(read), {hash(run) for words in read for run in runs(words)}
    for path in options.against:
        evaluated = list(words_of(path))
        same = sum(len(words) >= RUN and words in whole for words in evaluated)
        shared = sum(any(hash(run) in known for run in runs(words)) for words in evaluated)
        sys.stdout.write(
            f"{path.name}: {len(evaluated)} texts, {same} among the texts that were read, {shared} "
            f"share {RUN} words in a row with one\n"
        )
