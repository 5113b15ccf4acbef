"""The two files of a report: what they say, what they keep to themselves, and how they open."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from attnpriv.audit.results import Audit
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.data import Dataset
from attnpriv.data.records import Span
from attnpriv.errors import InputError
from attnpriv.report import headline, write_report
from attnpriv.run_folder import load_run

SMALL = AuditOptions(
    documents=40,
    members=40,
    ig_documents=4,
    ig_steps=4,
    pgd_documents=4,
    permutations=30,
    resamples=30,
)
WORD, SECRET, NAME = "zebracanary", "canarysecret", "<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "path", "use", "rect", "line", "circle", "img", "link", "input", "hr"}


@pytest.fixture(scope="module")
def planted(tickets: Dataset) -> Dataset:
    """Tickets in which every text carries a marked word and a marked piece of personal data."""
    texts = tuple(f"{WORD} {SECRET} {text}" for text in tickets.texts)
    start = len(WORD) + 1
    spans = ((Span(start, start + len(SECRET), "USER NAME"),),) * len(texts)
    return dataclasses.replace(tickets, name=NAME, texts=texts, spans=spans)


@pytest.fixture(scope="module")
def audit(tiny_run: Path, private_run: Path, planted: Dataset) -> Audit:
    return audit_runs([load_run(tiny_run), load_run(private_run)], planted, None, SMALL)


@pytest.fixture(scope="module")
def own_data_audit(tiny_run: Path, private_run: Path, tickets: Dataset) -> Audit:
    return audit_runs([load_run(tiny_run), load_run(private_run)], tickets, None, SMALL)


@pytest.fixture(scope="module")
def page(own_data_audit: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(own_data_audit, tmp_path_factory.mktemp("report"), show_text=True)[1]


def test_no_record_text_unless_asked_for(audit: Audit, tmp_path: Path) -> None:
    files = write_report(audit, tmp_path / "hidden")
    for file in files:
        text = file.read_text(encoding="utf-8")
        # Tokens are short pieces of words: look for each of them.
        assert not re.search("zebrac|canary|secret", text, re.IGNORECASE)
        assert "[USER_NAME]" in text


def test_asked_for_words_appear_but_personal_data_never(audit: Audit, tmp_path: Path) -> None:
    for file in write_report(audit, tmp_path / "shown", show_text=True):
        text = file.read_text(encoding="utf-8")
        assert "zebrac" in text
        assert not re.search("canarys|secret", text)
        assert "[USER_NAME]" in text


def test_names_from_outside_are_escaped(audit: Audit, tmp_path: Path) -> None:
    _, html = write_report(audit, tmp_path)
    assert NAME not in html.read_text()
    assert "&lt;img src=x" in html.read_text()


class _Checker(HTMLParser):
    """Tags must nest, ids be unique, and nothing may point outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.outside: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            loads = name in ("src", "href", "xlink:href", "action", "data", "srcset")
            if loads and not (value or "").startswith("#"):
                self.outside.append(f"{name}={value}")


def test_the_page_is_sound_and_self_contained(page: Path) -> None:
    text = page.read_text()
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    assert checker.outside == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert checker.tags.count("svg") == 6
    assert not {"script", "iframe", "object", "img", "image", "link", "form"} & set(checker.tags)
    assert not re.search(r"url\((?!#)|@import|javascript:", text)
    assert text.count('role="img" aria-label=') == 6
    assert len(text) < 3_000_000


def test_the_page_says_what_it_must(page: Path) -> None:
    text = page.read_text()
    for sentence in (
        "TRAINED WITHOUT DIFFERENTIAL PRIVACY",
        "not covered by ε",
        "It does <b>not</b> prove privacy",
        "What this report does not cover",
        "Signature",
        "no bound",
        "control passed",
    ):
        assert sentence in text, sentence


def test_writing_twice_gives_the_same_bytes(own_data_audit: Audit, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_report(own_data_audit, tmp_path)]
    assert [path.read_bytes() for path in write_report(own_data_audit, tmp_path)] == first
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "report.html"}


def test_json_holds_every_head_and_no_nan(own_data_audit: Audit, tmp_path: Path) -> None:
    path, _ = write_report(own_data_audit, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    audit = json.loads(path.read_text(), parse_constant=refuse)
    result = own_data_audit.results[1]
    assert len(audit["results"][1]["attention"]["heads"]) == len(result.attention.heads)
    assert audit["results"][1]["card"]["epsilon"] == result.card["epsilon"]


def test_an_audit_with_nothing_to_show_still_renders(
    own_data_audit: Audit, tiny_run: Path, tickets: Dataset, tmp_path: Path
) -> None:
    foreign = dataclasses.replace(
        tickets.subset(range(30)), spans=((),) * 30, name="nothing sensitive"
    )
    audit = audit_runs([load_run(tiny_run)], foreign, None, SMALL)
    text = write_report(audit, tmp_path)[1].read_text()
    assert "Membership test not run" in text
    assert "No held-out record with personal data" in text


def test_a_folder_that_cannot_be_made_is_refused(own_data_audit: Audit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the report"):
        write_report(own_data_audit, tmp_path / "file" / "report")


def _browse(page: Path, folder: Path) -> tuple[str, str, set[str]]:
    """Open a page in headless Chromium: its DOM, the browser's log, and what it asked for."""
    net_log = folder / "net.json"
    finished = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-features=NetworkTimeServiceQuerying",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={net_log}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    asked = set(re.findall(r'"url":"(?:https?|wss?|ftp)://([^/":]+)', net_log.read_text()))
    own = {host for host in asked if host.endswith((".google.com", ".googleapis.com"))}
    return finished.stdout, finished.stderr, asked - own  # own: the browser's, whatever the page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_the_page_opens_in_a_browser_without_errors_or_requests(page: Path, tmp_path: Path) -> None:
    dom, log, asked = _browse(page, tmp_path)
    assert dom.count("<svg") == 6
    assert dom.rstrip().endswith("</html>")
    assert "CONSOLE" not in log
    assert asked == set()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_page_that_loads_something_would_be_noticed(page: Path, tmp_path: Path) -> None:
    """The control of the test above: with the policy a console error, without it a request."""
    image = '<img alt="" src="http://outside.example/x.png"></main>'
    text = page.read_text().replace("</main>", image)
    (tmp_path / "forbidden.html").write_text(text)
    assert "CONSOLE" in _browse(tmp_path / "forbidden.html", tmp_path)[1]
    (tmp_path / "allowed.html").write_text(text.replace("default-src 'none'; ", ""))
    assert "outside.example" in _browse(tmp_path / "allowed.html", tmp_path)[2]


def test_the_headline_has_a_column_a_model_and_a_row_a_measure(audit: Audit) -> None:
    columns, rows = headline(audit)
    assert columns == ("", *(result.name for result in audit.results))
    assert all(len(row) == len(columns) for row in rows)
    table = {row[0]: row[1:] for row in rows}
    for number, result in enumerate(audit.results):
        value = result.utility.accuracy.value
        assert table["accuracy"][number].startswith(f"{value:.2f} [")
        unclipped = result.attention.certificate.largest_weight_bound is None
        assert (table["its certified bound"][number] == "none") == unclipped
