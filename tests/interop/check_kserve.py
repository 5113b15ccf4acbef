"""Checks manifests by the models of KServe, made of its schema; run where it is installed."""

import json
import re
import sys
from typing import Any

import kserve
import kubernetes.client

PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float), "object": object}


def check(value: Any, kind: str, where: str) -> None:
    """End with an error where a value is not of a kind, such as ``list[V1Container]``."""
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        expect(isinstance(value, list), where, kind)
        for number, each in enumerate(value):
            check(each, inner[1], f"{where}[{number}]")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        expect(isinstance(value, dict), where, kind)
        for key, each in value.items():
            check(each, inner[1], f"{where}.{key}")
    elif kind in PLAIN:
        expect(isinstance(value, PLAIN[kind]), where, kind)
    elif model := getattr(kserve, kind, None) or getattr(kubernetes.client, kind, None):
        expect(isinstance(value, dict), where, kind)
        names = {wire: name for name, wire in model.attribute_map.items()}
        for key, each in value.items():
            expect(key in names, where, f"no field {key} in {kind}")
            check(each, model.openapi_types[names[key]], f"{where}.{key}")


def expect(true: bool, where: str, what: str) -> None:
    if not true:
        sys.exit(f"{where}: expected {what}")


for document in json.load(sys.stdin):
    version = document["apiVersion"].rpartition("/")[2]
    check(document, version[0].upper() + version[1:] + document["kind"], document["kind"])
