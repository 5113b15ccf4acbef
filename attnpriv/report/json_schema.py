"""The JSON Schema of ``audit.json``, made from the dataclasses that it is written from.

The one that is published stands in ``schema/``; ``python -m attnpriv.report.json_schema`` prints
what it must be, and with ``noised-1`` after it that of a report under an ε. A released schema never
changes: with any other field, ``SCHEMA_VERSION`` goes up, and the new schema gets a file of its own
beside the older ones.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from attnpriv.audit.comparison import Comparison
from attnpriv.audit.coverage import DetectorCoverage
from attnpriv.audit.examples import Piece
from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import SCHEMA_VERSION
from attnpriv.report.document import Report
from attnpriv.report.noised.document import VERSION, NoisedReport

WITH_TEXT_ONLY: dict[type, tuple[str, ...]] = {Piece: ("word", "joined")}
# What ``Report`` names and does not import, so that reading one is quick.
NAMES = {each.__name__: each for each in (AuditResult, Comparison, DetectorCoverage)}
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}

Schema = dict[str, Any]


KINDS = {
    SCHEMA_VERSION: (Report, "The report of an attnpriv audit"),
    VERSION: (NoisedReport, "The report of an attnpriv audit under an ε"),
}
"""What each version of the schema is of."""


def report_schema(version: int | str = SCHEMA_VERSION) -> Schema:
    """The schema, in the words of JSON Schema 2020-12."""
    of, title = KINDS[version]
    definitions: dict[str, Schema] = {}
    _schema(of, definitions)
    report = definitions.pop(of.__name__)
    report["properties"]["schema_version"] = {"const": version}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:attnpriv:report:{version}",
        "title": title,
        **report,
        "$defs": dict(sorted(definitions.items())),
    }


def _schema(of: Any, definitions: dict[str, Schema]) -> Schema:
    """The schema of a type; dataclasses are defined once and referred to."""
    if of is Any:
        return {}
    if of in PLAIN:
        return {"type": PLAIN[of]}
    if dataclasses.is_dataclass(of):
        assert isinstance(of, type)
        if of.__name__ not in definitions:
            definitions[of.__name__] = {}  # it may refer to itself
            definitions[of.__name__] = _object(of, definitions)
        return {"$ref": f"#/$defs/{of.__name__}"}
    origin, arguments = get_origin(of), get_args(of)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (UnionType, Union):  # with a Literal it is the latter
        return {"anyOf": [_schema(each, definitions) for each in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    assert origin is tuple, of
    if arguments[-1] is Ellipsis:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    entries = [_schema(each, definitions) for each in arguments]
    return {"type": "array", "prefixItems": entries, "items": False, "minItems": len(entries)}


def _object(of: type, definitions: dict[str, Schema]) -> Schema:
    types, left_out = get_type_hints(of, localns=NAMES), WITH_TEXT_ONLY.get(of, ())
    names = [field.name for field in dataclasses.fields(of)]
    return {
        "type": "object",
        "description": (inspect.getdoc(of) or "").partition("\n")[0],
        "properties": {name: _schema(types[name], definitions) for name in names},
        "required": [name for name in names if name not in left_out],
        "additionalProperties": False,
    }


def schema_text(version: int | str = SCHEMA_VERSION) -> str:
    """The schema as it is published."""
    return json.dumps(report_schema(version), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text(VERSION if VERSION in sys.argv[1:] else SCHEMA_VERSION))
