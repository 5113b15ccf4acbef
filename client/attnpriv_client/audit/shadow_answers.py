"""What shadow models say about the rows, read from the folder of ``attnpriv shadows``.

The folder holds one file of answers for each model, in the format of safetensors: a length, a
header of JSON, and the numbers. No model is loaded, and no text is in the folder.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.shadow_answers import (
    FORMAT,
    INSIDE,
    LOG_ODDS,
    SETTINGS,
    answers_path,
    not_finished,
)
from attnpriv_client.audit.rows import Row

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class ShadowAnswers:
    """What the shadow models of a run say about all rows of its data.

    Attributes:
        data: fingerprint of the data, as ``attnpriv.data.records.Dataset`` makes it.
        log_odds: of the true label, for each model one number a row.
        inside: for each model and row, whether it was trained on the row.
    """

    data: str
    log_odds: tuple[Sequence[float], ...]
    inside: tuple[Sequence[bool], ...]

    def check(self, rows: Sequence[Row], source: str) -> None:
        """Raise InputError unless the models were made from exactly these rows, in this order.

        Args:
            rows: all rows of the file, with the model's own names of their classes.
            source: the file, for the error.
        """
        digest = hashlib.sha256()
        for row in rows:
            digest.update(json.dumps([row.text, row.label]).encode())
        if len(rows) != len(self.log_odds[0]) or digest.hexdigest() != self.data:
            raise InputError(
                f"{source}: expected all rows of the data that the shadow models were made from, "
                f"with their labels and in their order ({len(self.log_odds[0])} rows), got "
                f"{len(rows)} rows that are not these"
            )


def read_shadow_answers(folder: Path) -> ShadowAnswers:
    """The answers in a folder of shadow models.

    Raises:
        InputError: it is no folder of shadow models, not all of them are finished, or a file is
            damaged.
    """
    data, models = _settings(folder / SETTINGS)
    paths = [answers_path(folder, number) for number in range(models)]
    if missing := sum(not path.exists() for path in paths):
        raise not_finished(folder, missing, models)
    log_odds, inside = zip(*map(_answers, paths), strict=True)
    if len({len(each) for each in (*log_odds, *inside)}) != 1:
        raise InputError(f"the answers in {folder} are not all about the same rows")
    return ShadowAnswers(data, log_odds, inside)


def _settings(path: Path) -> tuple[str, int]:
    try:
        plain = json.loads(path.read_bytes())
        data, models, version = plain["data"], plain["models"], plain["format"]
        fits = isinstance(data, str) and isinstance(models, int) and models > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise InputError(
            f"expected a folder of attnpriv shadows, but {path} cannot be read as its settings"
        )
    if version != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, got {version}")
    return data, models


def _answers(path: Path) -> tuple[Sequence[float], Sequence[bool]]:
    try:
        content = path.read_bytes()
        (length,) = _LENGTH.unpack_from(content)
        start = _LENGTH.size + length
        header = json.loads(content[_LENGTH.size : start])
        log_odds = array("d", _tensor(content[start:], header[LOG_ODDS], "F64"))
        inside = [bool(each) for each in _tensor(content[start:], header[INSIDE], "BOOL")]
    except OSError as error:
        raise InputError(f"cannot read the answers {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, struct.error, RecursionError):
        raise InputError(f"{path} does not hold the answers of a shadow model") from None
    if sys.byteorder == "big":
        log_odds.byteswap()
    return log_odds, inside


def _tensor(content: bytes, described: Any, dtype: str) -> bytes:
    """The bytes of a tensor with one axis.

    Raises:
        ValueError: it is of another type or shape, or cut short.
    """
    start, end = described["data_offsets"]
    found = content[start:end]
    (size,) = described["shape"]
    if described["dtype"] != dtype or len(found) != size * {"F64": 8, "BOOL": 1}[dtype]:
        raise ValueError
    return found
