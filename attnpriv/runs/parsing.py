"""JSON values into frozen dataclasses, with an error that names the field.

pydantic would do it, but reading a run folder must not need the extra that audits need.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from attnpriv.config import is_number, is_whole
from attnpriv.errors import InputError

KINDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def read_fields(
    kind: type, value: Any, name: str = "", leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """The fields of a dataclass from a JSON object, as its constructor takes them.

    What the object holds besides is passed over: a later version may have written it. A field that
    has a default may be missing: an earlier version may not have written it.

    >>> from attnpriv.config import AttentionConfig
    >>> read_fields(AttentionConfig, {"clip": 2.0, "color": "red"})
    {'clip': 2.0}
    >>> read_fields(AttentionConfig, {"clip": "2.0"}, "attention")
    Traceback (most recent call last):
    attnpriv.errors.InputError: expected attention.clip to be a number or null, got '2.0'

    Args:
        kind: the dataclass.
        value: the object.
        name: where the object stands, for messages.
        leave_out: fields that do not come from the object.

    Raises:
        InputError: a field without a default is missing, or a value is of another type.
    """
    _require(isinstance(value, dict), name, "an object", value)
    found, types = {}, get_type_hints(kind)
    for field in fields(kind):
        place = f"{name}.{field.name}" if name else field.name
        if field.name in leave_out:
            continue
        if field.name in value:
            found[field.name] = _read(types[field.name], value[field.name], place)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{place} is missing")
    return found


def _read(kind: Any, value: Any, name: str) -> Any:
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return _make(kind, read_fields(kind, value, name), name)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        (other,) = (each for each in arguments if each is not NoneType)
        return _read_or_none(other, value, name)
    if origin is tuple:
        _require(isinstance(value, list), name, "a list", value)
        return tuple(_read(arguments[0], v, f"{name}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        _require(isinstance(value, dict), name, "an object", value)
        return {key: _read(arguments[1], v, f"{name}.{key}") for key, v in value.items()}
    if origin is Literal:
        _require(value in arguments, name, f"one of {', '.join(arguments)}", value)
    elif kind is not Any:
        _require(_is(kind, value), name, KINDS[kind], value)
    return value


def _read_or_none(kind: Any, value: Any, name: str) -> Any:
    if value is None:
        return None
    if kind in KINDS:
        _require(_is(kind, value), name, f"{KINDS[kind]} or null", value)
    return _read(kind, value, name)


def _make(kind: type, values: dict[str, Any], name: str) -> Any:
    """The dataclass; what it refuses itself is told with its place."""
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _is(kind: type, value: Any) -> bool:
    if kind is float:
        return is_number(value)
    return is_whole(value) if kind is int else isinstance(value, kind)


def _require(fits: bool, name: str, expected: str, got: Any) -> None:
    if not fits:
        raise InputError(f"expected {name or 'the whole'} to be {expected}, got {got!r}")
