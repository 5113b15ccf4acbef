"""How much may be asked at once, and how long connections last."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from attnpriv.errors import InputError


@dataclass(frozen=True)
class Limits:
    """How much may be asked at once, and how long connections last.

    ``docs/security.md`` says what happens beyond each.

    Attributes:
        message_bytes: of one message, after decompression.
        metadata_bytes: of the headers of one call, 32 more counted for each.
        texts: of one Predict; and images.
        summary_texts: of one Summarize.
        summary_bytes: of all messages of one Summarize together.
        text_bytes: of one text in UTF-8; far more than any model here reads.
        image_bytes: of one PNG or JPEG file; the pixels are those that the model reads, no more.
        explanations: that wait.
        connections: in all.
        streams: calls at the same time on one connection.
        handshake_seconds: of a new connection, until TLS and HTTP/2 have shaken hands.
        idle_seconds: of a connection without calls.
        connection_seconds: after which a connection takes no new calls; clients open another.
            Varied by a tenth, so that not all come back at once.
        stream_seconds: that the calls of such a connection may still take.
        silence_seconds: after which a client with open calls is asked for a sign of life, and in
            which it has to give one.

    Raises:
        InputError: one is below 1, or larger than gRPC can count.
    """

    message_bytes: int = 4 * 1024 * 1024
    metadata_bytes: int = 8 * 1024
    texts: int = 128
    summary_texts: int = 10_000
    summary_bytes: int = 16 * 1024 * 1024
    text_bytes: int = 64 * 1024
    image_bytes: int = 1024 * 1024
    explanations: int = 64
    connections: int = 512
    streams: int = 100
    handshake_seconds: int = 10
    idle_seconds: int = 300
    connection_seconds: int = 3600
    stream_seconds: int = 3600
    silence_seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            largest = 2**31 // 1000 if name.endswith("_seconds") else 2**31 - 1
            if type(value) is not int or not 1 <= value <= largest:
                raise InputError(
                    f"expected limit {name} to be a whole number from 1 to {largest}, got {value!r}"
                )


def load_limits(path: Path) -> Limits:
    """Read limits from a TOML file of ``name = number`` lines; what is absent is the default.

    Raises:
        InputError: the file cannot be read, is not TOML, or has an unknown name or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # long numbers and deep nesting too
        raise InputError(f"cannot read limits {path}: {error}") from error
    known = asdict(Limits())
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"limits {path}: unknown {unknown[0]!r}, expected {', '.join(known)}")
    return Limits(**values)
