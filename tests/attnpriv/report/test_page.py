"""The page: whole, alone, reachable without eyes or mouse, and true to the JSON file beside it."""

from __future__ import annotations

import dataclasses
import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count
from typing import Any

import pytest

from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import Audit, to_json
from attnpriv.audit.rollout import head_names
from attnpriv.estimates import Estimate
from attnpriv.report.chapters import findings
from attnpriv.report.document import make_report
from attnpriv.report.gates import Gate, Outcome
from attnpriv.report.html import render_html
from attnpriv.report.provenance import Provenance
from attnpriv.rounding import round_up

LAYERS, HEADS = 6, 12  # of MiniLM
VOID = {"meta", "br", "hr"}
LOADING = {"script", "iframe", "object", "embed", "img", "image", "link", "form", "video", "base"}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</svg></style><script>alert(1)</script>",
    "$\\frac{1}{0}$ 100% {{ version }} {% raw %}",
    "a\nb\x1b[31m\ud800 名前 \u202e" + "long" * 60,
    "\" onfocus='alert(1)' x=",
)


class Page(HTMLParser):
    """What a page is made of; refuses tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "td":
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID or "svg" in self.open, tag
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "svg" in self.open:
            return
        self.words.append(data)
        if "td" in self.open:
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def having(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]


def changed(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A result with each string and each estimate in it put through ``leaf``."""
    if isinstance(value, str | Estimate):
        return leaf(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: changed(each, leaf) for name, each in vars(value).items()})
    return tuple(changed(each, leaf) for each in value) if isinstance(value, tuple) else value


def distinct(audit: Audit) -> Audit:
    """The same with estimates no two of which look the same, in whatever way they are written."""
    numbered = count(1)

    def number(value: Any) -> Any:
        if isinstance(value, str):
            return value
        n = next(numbered)
        return Estimate(n + 0.5, n + 0.25, n + 0.75)

    unique: Audit = changed(audit, number)
    return unique


def widened(result: AuditResult) -> AuditResult:
    """The same with as many heads as MiniLM has."""
    attention, flow = result.attention, result.flow
    places = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    heads = [
        replace(attention.heads[i % len(attention.heads)], layer=layer, head=head)
        for i, (layer, head) in enumerate(places)
    ]
    flows = [
        replace(flow.heads[i % len(flow.heads)], name=name)
        for i, name in enumerate(head_names(LAYERS, HEADS))
    ]
    return replace(
        result,
        attention=replace(attention, heads=tuple(heads)),
        flow=replace(flow, heads=tuple(flows)),
    )


@pytest.fixture(scope="module")
def audit(synthetic: Audit) -> Audit:
    """Four runs of 72 heads."""
    return distinct(replace(synthetic, results=tuple(map(widened, synthetic.results))))


@pytest.fixture(scope="module")
def text(audit: Audit, origin: Provenance) -> str:
    return render_html(make_report(audit, origin), include_text=False)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def alone(synthetic: Audit) -> Audit:
    """One run, not compared with any."""
    return replace(synthetic, results=synthetic.results[:1], comparisons=())


def check_alone(page: Page, text: str) -> None:
    """Nothing outside the page is loaded or linked, and nothing runs."""
    assert not LOADING & {tag for tag, _ in page.elements}
    for name in ("src", "srcset", "action", "data", "poster", "formaction", "ping"):
        assert page.having(name) == []
    for target in page.having("href") + page.having("xlink:href"):
        assert target.startswith("#")
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import|@font-face", text)


class TestWhole:
    def test_it_loads_nothing(self, page: Page, text: str) -> None:
        check_alone(page, text)
        policy = next(a for a in page.all("meta") if "http-equiv" in a)
        assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"

    def test_it_is_small(self, text: str) -> None:
        assert len(text.encode()) < 3_000_000

    def test_ids_are_unique_and_every_reference_has_its_target(self, page: Page, text: str) -> None:
        ids = page.having("id")
        assert [name for name, count in Counter(ids).items() if count > 1] == []
        targets = [t[1:] for t in page.having("href") + page.having("xlink:href")]
        targets += [t for labels in page.having("aria-labelledby") for t in labels.split()]
        targets += re.findall(r"url\(#([^)]+)\)", text)
        assert set(targets) <= set(ids)

    def test_colours_are_the_page_s(self, text: str) -> None:
        """A colour of its own in a plot could not be read in both light and dark."""
        svg = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
        assert not re.search(r"#[0-9a-f]{6}|rgb\(", svg)
        declared = set(re.findall(r"(--[a-z0-9-]+):", text))
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", text)) <= declared

    def test_sections_stand_in_the_order_of_their_readers(self, page: Page) -> None:
        targets = [a["href"] for a in page.all("a") if a["href"][1:] in page.having("id")]
        order = ["verdict", "tested", "meaning", "limits", "privacy"]
        assert targets[1:6] == [f"#{name}" for name in order]  # after the skip link
        assert targets[0] == "#verdict"


class TestReachable:
    def test_every_plot_has_a_title_and_a_description(self, page: Page, text: str) -> None:
        plots = page.all("svg")
        assert len(plots) == 9 + 4 * 4  # nine of all runs, four of each
        for plot in plots:
            assert plot["role"] == "img"
            title, description = plot["aria-labelledby"].split()
            assert re.search(rf"<title id='{title}'>[^<]{{10,}}</title>", text)
            assert re.search(rf"<desc id='{description}'>[^<]{{10,}}</desc>", text)

    def test_whatever_scrolls_is_a_named_stop_of_the_tab_key(self, page: Page) -> None:
        regions = [a for a in page.all("div") if "scroll" in a.get("class", "").split()]
        assert all((a["tabindex"], a["role"]) == ("0", "region") for a in regions)
        names = [a["aria-label"] for a in regions]
        assert len(set(names)) == len(names)
        assert all(names)
        assert len(regions) == len(page.all("table")) + len(page.all("svg"))

    def test_tables_have_captions_and_headers_with_a_scope(self, page: Page) -> None:
        assert len(page.all("caption")) == len(page.all("table"))
        assert all("scope" in a for a in page.all("th"))


def estimates(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Every number with an interval in a JSON value."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= set(value):
            yield path, value
        for key, item in value.items():
            yield from estimates(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from estimates(item, f"{path}[{i}]")


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


class TestTrue:
    def test_every_figure_with_an_interval_is_on_the_page(self, audit: Audit, page: Page) -> None:
        words = re.sub(r"\s+", " ", "".join(page.words))
        missing = []
        for path, e in estimates(to_json(audit)):
            values = [e["value"], e["low"], e["high"]]
            plain = ["{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*values, d=d) for d in (2, 3, 4)]
            percent = "{:.1%} [{:.1%}, {:.1%}]".format(*values)
            if not any(written in words for written in (*plain, percent)):
                missing.append(path)
        assert missing == []

    def test_every_number_in_a_table_is_in_the_json(
        self, audit: Audit, origin: Provenance, page: Page
    ) -> None:
        known = set()
        for number in numbers(to_json(make_report(audit, origin))):
            known |= {f"{number:.{digits}f}" for digits in range(5)} | {f"{number:.1%}"}
            known |= {round_up(number, digits) for digits in (2, 3)} | {f"{number:g}"}
        known |= {f"{quality}" for quality in ("80.0%", "92.9%")}  # ratios of counts in the JSON
        tables = " ".join(page.cells)
        found = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?%?(?![\w.])", tables)
        assert len(found) > 5_000
        assert set(found) - known == set()

    def test_every_finding_is_told_once_with_what_to_do(self, audit: Audit, text: str) -> None:
        for result in audit.results:
            for finding in findings(result):
                for part in (finding.title, finding.text, finding.action):
                    assert html.escape(part, quote=False) in text.replace("&#39;", "'")
        said = {finding for result in audit.results for finding in findings(result)}
        assert text.count("<b>What to do:</b>") == len(said)

    def test_it_says_what_it_does_not_cover(self, text: str) -> None:
        for words in (
            "not covered by ε",
            "It does <b>not</b> prove privacy",
            "LiRA, RMIA",
            "reconstruction of records were not run",
            "attention is not an explanation",
            "Edits of words and characters were not tested",
            "What the detector cannot see, or misses too often to rely on:</b> PERSON",
        ):
            assert words in text, words

    def test_provenance_is_on_it(self, origin: Provenance, page: Page) -> None:
        words = "".join(page.words)
        assert origin.code_sha256 in words
        assert origin.data_sha256 in words
        assert all(digest in words for run in origin.runs for digest in run.sha256.values())


def outcome(verdict: Any, name: str = "a limit", allowed: bool = False) -> Outcome:
    gate = Gate(name, "utility.accuracy", "at least", 0.5, allow_inconclusive=allowed)
    return Outcome(gate, "plain", verdict, f"because {name}")


@pytest.mark.parametrize(
    ("verdicts", "title", "level"),
    [
        ((("PASS", False), ("INCONCLUSIVE", True)), "Limits kept: PASSED", "warn"),
        ((("INCONCLUSIVE", False),), "Limits not shown to be kept: INCONCLUSIVE", "warn"),
    ],
)
def test_the_page_begins_with_the_limits(
    alone: Audit, verdicts: Any, title: str, level: str
) -> None:
    outcomes = [outcome(verdict, f"limit {i}", a) for i, (verdict, a) in enumerate(verdicts)]
    text = render_html(make_report(alone, None), False, outcomes)
    assert f'<div class="verdict {level}">\n<p class="word">{title}</p>' in text
    for each in outcomes:
        assert f'{each.verdict}</span></td><th scope="row">{each.gate.name}</th>' in text
        assert each.reason in text
    assert text.index(title) < text.index("Findings at a glance") < text.index('id="tested"')


def test_without_limits_it_neither_passes_nor_fails(text: str) -> None:
    assert "it neither passes nor fails" in text
    assert "PASSED" not in text
    assert "FAILED" not in text


def test_names_from_outside_are_only_text(synthetic: Audit) -> None:
    """They stand wherever a name may: run, class, type, data, limit, ranking."""
    renamed = {"plain": HOSTILE[0], "hardened": HOSTILE[3], "bill": HOSTILE[1], "EMAIL": HOSTILE[2]}

    two = replace(synthetic, results=synthetic.results[:2], comparisons=synthetic.comparisons[:1])
    audit = changed(two, lambda leaf: renamed.get(leaf, leaf) if isinstance(leaf, str) else leaf)
    text = render_html(make_report(audit, None), False, [outcome("FAIL", HOSTILE[4])])
    page = Page(text)
    check_alone(page, text)
    assert 'class="verdict bad">\n<p class="word">Limits not kept: FAILED' in text
    words = "".join(page.words)
    for name in HOSTILE:
        assert name in words
