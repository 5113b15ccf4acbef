"""The published schema: real and made-up reports keep it, and anything less does not."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from attnpriv.audit.results import SCHEMA_VERSION, Audit, NotRun, to_json
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.report import provenance, read_report
from attnpriv.report.document import PUBLISHED, Report, make_report, report_text
from attnpriv.report.json_schema import schema_text
from attnpriv.report.provenance import Provenance
from attnpriv.runs.folder import load_run

Json = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> Json:
    published: Json = json.loads(PUBLISHED.read_bytes())
    Draft202012Validator.check_schema(published)
    return published


@pytest.fixture(scope="module")
def validator(schema: Json) -> Draft202012Validator:
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def full(synthetic: Audit, origin: Provenance) -> Report:
    """Whatever may stand in a report, a measure that was not run included."""
    *others, last = synthetic.results
    last = dataclasses.replace(last, memorisation=NotRun("there are no members"))
    return make_report(dataclasses.replace(synthetic, results=(*others, last)), origin)


def test_what_is_published_is_what_the_dataclasses_say() -> None:
    assert PUBLISHED.name == f"report-{SCHEMA_VERSION}.json"
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("include_text", [False, True])
def test_a_made_up_report_is_valid(
    full: Report, validator: Draft202012Validator, include_text: bool
) -> None:
    validator.validate(to_json(full, include_text))


def test_a_real_report_is_valid(real_audit: Audit, validator: Draft202012Validator) -> None:
    validator.validate(json.loads(report_text(make_report(real_audit, None))))


def objects(value: Any, plain: Any) -> Iterator[tuple[str, Json]]:
    """The dataclasses within a value: name and JSON of each."""
    if dataclasses.is_dataclass(value):
        yield type(value).__name__, plain
        for field in dataclasses.fields(value):
            if field.name in plain:
                yield from objects(getattr(value, field.name), plain[field.name])
    elif isinstance(value, tuple):
        for item, plain_item in zip(value, plain, strict=True):
            yield from objects(item, plain_item)


def test_no_field_can_be_missing_renamed_or_of_another_type(full: Report, schema: Json) -> None:
    found = dict(objects(full, to_json(full)))
    definitions = {**schema["$defs"], "Report": {**schema, "$defs": {}}}
    assert found.keys() == definitions.keys()
    for name, plain in found.items():
        of = definitions[name]
        assert set(of["required"]) == set(plain)
        shallow = Draft202012Validator({**of, "properties": dict.fromkeys(of["properties"], True)})
        assert shallow.is_valid(plain)
        for key in plain:
            less = {k: v for k, v in plain.items() if k != key}
            assert not shallow.is_valid(less), (name, key)
            assert not shallow.is_valid({**plain, f"{key}_": 1}), (name, key)
            own = {"$defs": schema["$defs"], **of["properties"][key]}
            if of["properties"][key]:  # but for what a card or options may hold
                assert not Draft202012Validator(own).is_valid(object()), (name, key)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_refused(full: Report, tmp_path: Path, number: float) -> None:
    plain = to_json(full)
    plain["results"][0]["utility"]["accuracy"]["value"] = number
    (tmp_path / "audit.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match="is not a JSON file"):
        read_report(tmp_path / "audit.json")


def test_a_number_that_is_not_finite_where_one_must_be_makes_no_valid_report(
    synthetic: Audit, tmp_path: Path
) -> None:
    first = synthetic.results[0]
    robustness = dataclasses.replace(first.robustness, coordinate_deviation=float("nan"))
    broken = dataclasses.replace(first, robustness=robustness)
    text = report_text(make_report(dataclasses.replace(synthetic, results=(broken,)), None))
    (tmp_path / "audit.json").write_text(text)
    where = r"at \$\.results\[0\]\.robustness\.coordinate_deviation: expected type number"
    with pytest.raises(InputError, match=where):
        read_report(tmp_path / "audit.json")


def test_reading_gives_what_was_written(
    synthetic: Audit, origin: Provenance, tmp_path: Path
) -> None:
    path = tmp_path / "audit.json"
    path.write_text(report_text(make_report(synthetic, origin)), encoding="utf-8")
    assert read_report(path) == to_json(make_report(synthetic, origin))


BAD_REPORTS = {
    "not JSON": ("{", "is not a JSON file"),
    "not UTF-8": ("\udcff", "is not a JSON file"),
    "too deep": ("[" * 100_000, "is not a JSON file"),
    "a list": ("[]", "with schema_version 1 or noised-1, got None"),
    "another file": (
        '{"name": "x"}',
        "with schema_version 1 or noised-1, got None",
    ),
    "newer": (
        '{"schema_version": 2}',
        "with schema_version 1 or noised-1, got 2",
    ),
    "empty": ('{"schema_version": 1}', "at $: 'results' is a required property"),
    "with more": (
        '{"schema_version": 1, "results": [], "comparisons": [], "options": {}, "findings": [], '
        '"provenance": null, "extra": 1, "coverage": {"source": "", "entity_types": [], '
        '"cannot_see": [], "quality": null}}',
        "('extra' was unexpected)",
    ),
}


@pytest.mark.parametrize("case", BAD_REPORTS)
def test_bad_reports_are_refused(tmp_path: Path, case: str) -> None:
    text, words = BAD_REPORTS[case]
    path = tmp_path / "audit.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=re.escape(words)):
        read_report(path)


def test_a_refusal_does_not_quote_the_report(full: Report, tmp_path: Path) -> None:
    plain = to_json(full, include_text=True)
    plain["results"][0]["utility"]["classes"] = {"0": "hiddenword"}
    (tmp_path / "audit.json").write_text(json.dumps(plain))
    with pytest.raises(InputError, match="expected type array") as refused:
        read_report(tmp_path / "audit.json")
    assert "hiddenword" not in str(refused.value)


def test_a_report_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(InputError, match="cannot read"):
            read_report(path)


class TestProvenance:
    @pytest.fixture
    def real(self, tiny_run: Path, tickets: Dataset) -> Provenance:
        return provenance([load_run(tiny_run)], tickets)

    def test_it_is_the_same_again_and_names_no_machine_and_no_path(
        self, real: Provenance, tiny_run: Path, tickets: Dataset
    ) -> None:
        assert provenance([load_run(tiny_run)], tickets) == real
        text = json.dumps(dataclasses.asdict(real))
        assert str(tiny_run.parent) not in text
        assert str(Path.cwd()) not in text

    def test_it_holds_the_hashes_of_the_run_folder(self, real: Provenance, tiny_run: Path) -> None:
        (run,) = real.runs
        manifest = json.loads((tiny_run / "manifest.json").read_bytes())
        assert run.sha256 == manifest["sha256"]

    def test_it_changes_with_the_data(
        self, real: Provenance, tiny_run: Path, tickets: Dataset
    ) -> None:
        def hashes(of: Provenance) -> tuple[str, str | None]:
            return of.data_sha256, of.spans_sha256

        run = load_run(tiny_run)
        spans = (tickets.spans or ())[::-1]
        changed = (
            dataclasses.replace(tickets, spans=spans),
            dataclasses.replace(tickets, spans=None),
            dataclasses.replace(tickets, texts=("x", *tickets.texts[1:])),
            dataclasses.replace(tickets, labels=tickets.labels[::-1]),
        )
        assert len({hashes(each) for each in (real, *(provenance([run], d) for d in changed))}) == 5
