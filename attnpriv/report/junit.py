"""Gates as JUnit XML, which CI systems show as test cases.

Written with the standard library: junitparser reads and merges such files, which nobody needs here,
and would be one more dependency for four elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from attnpriv.report.gates import Outcome


def junit(outcomes: Sequence[Outcome]) -> str:
    """One test case a gate: FAIL is a failure, INCONCLUSIVE an error, or skipped where allowed."""
    elements = [_element(outcome) for outcome in outcomes]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(elements.count("failure")),
        "errors": str(elements.count("error")),
        "skipped": str(elements.count("skipped")),
    }
    root = ET.Element("testsuites", {"name": "attnpriv", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": "attnpriv gates", **counts})
    for outcome in outcomes:
        _case(suite, outcome)
    ET.indent(root)
    xml = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{xml}\n'


def _case(suite: ET.Element, outcome: Outcome) -> None:
    names = {"classname": f"attnpriv.{outcome.run}", "name": outcome.gate.name}
    case = ET.SubElement(suite, "testcase", {**names, "time": "0"})
    if element := _element(outcome):
        message = {"type": outcome.verdict, "message": outcome.reason}
        ET.SubElement(case, element, message).text = outcome.reason


def _element(outcome: Outcome) -> str | None:
    if outcome.verdict == "FAIL":
        return "failure"
    if outcome.verdict == "INCONCLUSIVE":
        return "error" if outcome.blocks else "skipped"
    return None
