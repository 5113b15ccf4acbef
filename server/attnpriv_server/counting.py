"""Counts the values of a message while it is still bytes.

A message of four megabytes can hold two million empty texts, and arrives as four kilobytes of gzip.
Parsing it, and whatever then walks through its elements, would hold up everybody else on the event
loop. Counting stops at the limit, so that it costs the same however large the message is.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

VARINT, FIXED64, BYTES, BEGIN_GROUP, END_GROUP, FIXED32 = range(6)
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
UNPACKED = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE}
VARINT_BYTES = 10


def has_more_values(raw: bytes, kind: Descriptor, limit: int) -> bool:
    """Whether a message has more values than the limit; reads no further than up to there.

    Each occurrence of a field is a value, known or not, and those of the messages within count
    too. Numbers that are packed count by their bytes, which are no fewer than they.

    Raises:
        DecodeError: the bytes are no message.
    """
    count = 0
    for values in _values(raw, kind, 0, len(raw)):
        count += values
        if count > limit:
            return True
    return False


def _values(raw: bytes, kind: Descriptor, position: int, end: int) -> Iterator[int]:
    """How many values each field of the message between two positions is."""
    groups = 0  # in which nothing is known, and all of protobuf's own are gone since proto3
    while position < end:
        tag, position = _varint(raw, position)
        wire, field = tag & 7, None if groups else kind.fields_by_number.get(tag >> 3)
        values = 1
        if wire == BYTES:
            size, position = _varint(raw, position)
            start, position = position, position + size
            if position > end:
                raise DecodeError("a field is cut off")
            if field is not None and field.message_type is not None:
                yield from _values(raw, field.message_type, start, position)
            elif field is not None and field.type not in UNPACKED:
                values = max(1, size)
        elif wire == VARINT:
            _, position = _varint(raw, position)
        elif wire in FIXED_SIZES:
            position += FIXED_SIZES[wire]
        elif wire in (BEGIN_GROUP, END_GROUP):
            groups += 1 if wire == BEGIN_GROUP else -1
        else:
            raise DecodeError("an unknown wire type")
        yield values


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """A whole number, seven bits a byte, the lowest first; and where it ends."""
    value = 0
    for number, byte in enumerate(raw[position : position + VARINT_BYTES]):
        value |= (byte & 127) << (7 * number)
        if byte < 128:
            return value, position + number + 1
    raise DecodeError("a number is cut off")
