"""The files of a report of real runs: what they keep to themselves, and how they are written."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from attnpriv.audit.results import Audit
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.data import Dataset
from attnpriv.report import headline, write_report
from attnpriv.report.document import make_report
from attnpriv.runs.folder import load_run


def test_no_record_text_unless_asked_for(planted_audit: Audit, tmp_path: Path) -> None:
    """And the same audit gives the same bytes."""
    files = write_report(make_report(planted_audit, None), tmp_path)
    first = [path.read_bytes() for path in files]
    for written in first:
        text = written.decode()
        # Tokens are short pieces of words: look for each of them.
        assert not re.search("zebrac|canary|quagga", text, re.IGNORECASE)
        assert "[USER_NAME]" in text
    assert [
        path.read_bytes() for path in write_report(make_report(planted_audit, None), tmp_path)
    ] == first
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "report.html"}


def test_asked_for_words_appear_but_personal_data_never(
    planted_audit: Audit, tmp_path: Path
) -> None:
    for file in write_report(make_report(planted_audit, None), tmp_path, include_text=True):
        text = file.read_text(encoding="utf-8")
        assert "zebrac" in text
        assert not re.search("canaryq|quagga", text)
        assert "[USER_NAME]" in text


def test_an_audit_with_nothing_to_show_still_renders(
    tiny_run: Path, tickets: Dataset, small: AuditOptions, tmp_path: Path
) -> None:
    foreign = dataclasses.replace(
        tickets.subset(range(30)), spans=((),) * 30, name="nothing sensitive"
    )
    audit = audit_runs([load_run(tiny_run)], foreign, None, small)
    text = write_report(make_report(audit, None), tmp_path)[1].read_text()
    for name in ("Membership test", "Attention to personal data", "The swap test", "Conductance"):
        assert f"{name} not run" in text
    assert "No held-out record with personal data" in text


def test_the_headline_has_a_column_a_model_and_a_row_a_measure(synthetic: Audit) -> None:
    columns, rows = headline(synthetic)
    assert columns == ("", *(result.name for result in synthetic.results))
    assert all(len(row) == len(columns) for row in rows)
    table = {row[0]: row[1:] for row in rows}
    for number, result in enumerate(synthetic.results):
        value = result.utility.accuracy.value
        assert table["accuracy"][number].startswith(f"{value:.2f} [")
        unclipped = result.attention.certificate.largest_weight_bound is None
        assert (table["proved bound on attention weights"][number] == "none") == unclipped
