"""From a dotted path to what a report holds there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attnpriv.errors import InputError

EVERY = "[*]"  # after the name of a list: every entry of it
IDENTIFYING = (
    "name",
    "label",
    "entity_type",
    "layer",
    "head",
    "scale",
    "edits",
    "fpr",
    "ranking",
    "explanation",
    "measure",
    "repetitions",
    "source",
)


@dataclass(frozen=True)
class Found:
    """What stands at a path.

    Attributes:
        value: a JSON value.
        passed: the objects on the way, the outermost first.
        entry: which entry of a list it is of, in words; empty without a list.
        path: the names on the way, with dots between them.
    """

    value: Any
    passed: tuple[dict[str, Any], ...] = ()
    entry: str = ""
    path: str = ""


def find(root: dict[str, Any], path: str, subset: Mapping[str, str | float]) -> list[Found]:
    """What stands at a path: one value, or one an entry where the path asks for every entry.

    Args:
        root: an object of the report.
        path: names with dots between them.
        subset: what the entry of a list that is meant has as values.

    Raises:
        InputError: the report has nothing there, or it was not computed; the subset chooses no
            entry, or several where one is asked for, or has a key that no list on the way has.
    """
    found, used = [Found(root)], set[str]()
    for name in path.split("."):
        found = [deeper for each in found for deeper in _step(each, name, subset, used)]
    for key in subset:
        if key not in used:
            raise InputError(f"no list on the way to {path} has entries with {key!r}")
    return found


def _step(
    found: Found, part: str, subset: Mapping[str, str | float], used: set[str]
) -> list[Found]:
    name = part.removesuffix(EVERY)
    here = found.value
    if here is None:
        raise InputError(f"what has {name!r} was not computed")
    if not isinstance(here, dict) or name not in here:
        known = f"only {', '.join(sorted(here))}" if isinstance(here, dict) else "no names"
        raise InputError(f"the report has no {name!r} there, {known}")
    value, passed = here[name], (*found.passed, here)
    path = f"{found.path}.{name}" if found.path else name
    if isinstance(value, dict) and value.keys() == {"not_run"}:
        raise InputError(f"{name} was not computed: {value['not_run']}")
    if not isinstance(value, list):
        if part != name:
            raise InputError(f"{name} is not a list")
        return [Found(value, passed, found.entry, path)]
    entries = _choose(name, value, subset, used)
    if part == name and len(entries) > 1:
        raise InputError(
            f"{name} has several entries: choose one by a subset, or say {name}{EVERY}"
        )
    return [
        Found(entry, passed, f"{found.entry} {_words(entry)}".strip(), path) for entry in entries
    ]


def _choose(
    name: str, entries: list[Any], subset: Mapping[str, str | float], used: set[str]
) -> list[dict[str, Any]]:
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if not objects:
        raise InputError(f"{name} is an empty list, or one of plain numbers")
    keys = [key for key in subset if key in objects[0]]
    used.update(keys)
    chosen = [entry for entry in objects if all(entry[key] == subset[key] for key in keys)]
    if not chosen:
        wanted = ", ".join(f"{key} = {subset[key]!r}" for key in keys)
        raise InputError(f"{name} has no entry with {wanted}")
    return chosen


def _words(entry: dict[str, Any]) -> str:
    return ", ".join(f"{key} {entry[key]}" for key in IDENTIFYING if key in entry)
