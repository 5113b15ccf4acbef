"""How a request is changed: any bytes of it, or one field, so that half of them can be parsed."""

from __future__ import annotations

import math
import random
from typing import Any

import atheris
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

MOST_BYTES = 400  # of one field
WHOLE = (0, 1, 2, 127, 2**31 - 1)  # fit every kind of integer
EMPTY = {
    FieldDescriptor.TYPE_BOOL: False,
    FieldDescriptor.TYPE_BYTES: b"",
    FieldDescriptor.TYPE_DOUBLE: 0.0,
    FieldDescriptor.TYPE_FLOAT: 0.0,
    FieldDescriptor.TYPE_STRING: "",
}
FLOATS = (0.0, -1.5, math.nan, math.inf, 5e-324)


def mutate(method: str, raw: bytes, most: int, seed: int) -> bytes:
    """Another request of a method, made from this one."""
    dice = random.Random(seed)
    message = GetMessageClass(_method(method).input_type)()
    try:
        if dice.random() < 0.5:
            raise DecodeError
        message.ParseFromString(raw)
    except DecodeError:
        return bytes(atheris.Mutate(raw, most))
    _alter(message, dice)
    changed = message.SerializeToString()
    return changed if len(changed) <= most else raw


def _method(name: str) -> Any:
    return Default().FindMethodByName(name.strip("/").replace("/", "."))


def _alter(message: Message, dice: random.Random) -> None:
    """Change one field, or one of a message inside; maps are left as they are."""
    fields = [field for field in message.DESCRIPTOR.fields if not _is_map(field)]
    if not fields:
        return
    field = dice.choice(fields)
    value = getattr(message, field.name)
    if field.is_repeated:
        _alter_list(field, value, dice)
    elif field.message_type:
        _alter(value, dice)
    else:
        setattr(message, field.name, _scalar(value, dice))


def _alter_list(field: FieldDescriptor, values: Any, dice: random.Random) -> None:
    """One fewer, one more, or one that is changed."""
    place = dice.randrange(len(values) + 1)
    if place < len(values) and dice.random() < 0.3:
        del values[place]
    elif field.message_type:
        _alter(values[place] if place < len(values) else values.add(), dice)
    elif place < len(values):
        values[place] = _scalar(values[place], dice)
    else:
        values.append(_scalar(EMPTY.get(field.type, 0), dice))


def _scalar(value: Any, dice: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case str():
            return bytes(atheris.Mutate(value.encode(), MOST_BYTES)).decode(errors="ignore")
        case bytes():
            return bytes(atheris.Mutate(value, MOST_BYTES))
        case float():
            return dice.choice(FLOATS)
        case _:
            return dice.choice(WHOLE)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
