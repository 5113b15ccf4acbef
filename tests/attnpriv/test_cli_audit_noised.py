"""``attnpriv audit --epsilon``: what is in the folder, what is not, and who pays for the noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from attnpriv.audit.measures import AuditResult
from attnpriv.audit.noised import BOUNDS
from attnpriv.report import as_report, read_report
from attnpriv.report.chapters import FIGURES
from attnpriv.report.json_schema import schema_text
from attnpriv.report.noised.document import LEFT_OUT, PUBLISHED, VERSION, NoisedReport

Command = Callable[..., Any]
DATA = "tickets:rows=300"
FILES = {"audit.json", "report.html", "audit.sarif", "summary.md", "gates.xml"}
GATES = """
[[gate]]
name = "attention"
measure = "attention.matched.lift"
operator = "at most"
threshold = 9

[[gate]]
name = "members"
measure = "membership.auc"
operator = "at most"
threshold = 0.01
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noised")
    (folder / "gates.toml").write_text(GATES)
    return folder


def audit(command: Command, run: Path, place: Path, *options: object) -> Any:
    asked = ["--data", DATA, "--documents", 60, "--gates", place / "gates.toml"]
    return command("audit", run, *asked, "--out", place / "out", *options)


def read(place: Path) -> dict[str, Any]:
    return read_report(place / "out" / "audit.json")


def test_a_report_under_an_epsilon(command: Command, tiny_run: Path, place: Path) -> None:
    made = audit(command, tiny_run, place, "--epsilon", 5)
    assert made.code == 1, made.err  # the second gate cannot be kept
    assert made.err == ""
    assert {path.name for path in (place / "out").iterdir()} == FILES
    private = place / "out.private"
    assert {path.name for path in private.iterdir()} == {"releases.json"}
    assert private.stat().st_mode & 0o077 == 0
    assert (private / "releases.json").stat().st_mode & 0o077 == 0
    report = read(place)
    assert report["noise"]["epsilon"] == report["provenance"]["epsilon"] == 5
    assert 0 < report["noise"]["delta"] == report["provenance"]["delta"] < 1 / 60
    assert "add or remove one" in report["noise"]["relation"]
    assert report["noise"]["audits"] == 1
    page, summary = ((place / "out" / each).read_text() for each in ("report.html", "summary.md"))
    for text in (page, summary):
        assert "ε = 5" in text
        assert "exact functions of the audited rows" not in text
    assert "not covered by ε" not in page


def test_the_same_audit_again_gets_the_same_noise(
    command: Command, tiny_run: Path, place: Path
) -> None:
    before = (place / "out" / "audit.json").read_bytes()
    shutil.rmtree(place / "out")
    for options in ((), ("--resume",)):
        assert audit(command, tiny_run, place, "--epsilon", 5, *options).code == 1
        assert (place / "out" / "audit.json").read_bytes() == before


def test_another_audit_is_charged_besides(command: Command, tiny_run: Path, place: Path) -> None:
    before = read(place)
    assert audit(command, tiny_run, place, "--epsilon", 3, "--delta", 0).code in (0, 1, 2)
    report = read(place)
    assert report["noise"]["mechanism"] == "discrete Laplace"
    assert (report["noise"]["audits"], report["noise"]["epsilon_of_all"]) == (2, 8)
    assert report["noise"]["delta_of_all"] == before["noise"]["delta"]
    assert report["results"] != before["results"]


@pytest.mark.exhaustive
def test_an_interrupted_audit_goes_on_and_is_paid_for_once(
    command: Command, interrupted: Command, tiny_run: Path, tmp_path: Path
) -> None:
    out, private = tmp_path / "out", tmp_path / "out.private"
    asked = ["audit", tiny_run, "--data", DATA, "--documents", 60, "--out", out]
    code, _, shown = interrupted(b"swapping", *asked, "--epsilon", 5)
    assert code == 130
    assert b"to continue, run the same command with --resume" in shown
    assert not out.exists()
    assert not (private / "releases.json").exists()  # nothing was released, so nothing was paid
    assert private.stat().st_mode & 0o077 == 0
    assert "go on with --resume" in command(*asked, "--epsilon", 5).err
    other = command(*asked, "--epsilon", 6, "--resume")
    assert (other.code, "its epsilon is 5" in other.err) == (2, True), other.err
    resumed = command(*asked, "--epsilon", 5, "--resume")
    assert resumed.code == 0, resumed.err
    noise = read_report(out / "audit.json")["noise"]
    assert (noise["audits"], noise["epsilon_of_all"]) == (1, 5)
    assert {path.name for path in private.iterdir()} == {"releases.json"}  # no exact pieces


def test_nothing_that_was_computed_from_the_records_stays_exact(place: Path) -> None:
    """Every number of the results is one of the figures, or public."""
    (result,) = read(place)["results"]
    noised = {path.replace("heads[*].", "") for path in BOUNDS}
    noised |= {"utility.most_frequent", "membership.auc"}
    public = {
        "held_out_rows", "utility.n", "attention.documents", "counterfactual.documents",
        "membership.members", "membership.non_members", "name", "data_name",
        "attention.certificate.logit_bound", "attention.certificate.temperature",
        "attention.certificate.holds",
    }  # fmt: skip
    del result["card"]
    judged, area = result["membership"].pop("judgement"), result["membership"]["auc"]
    (placed,) = judged["figures"]
    assert (placed["low"], placed["high"]) == (area["low"], area["high"])
    leaves = {path for path, _ in _leaves(result)}
    assert leaves == noised | public | {path for path in leaves if path in LEFT_OUT}
    text = (place / "out" / "audit.json").read_text()
    assert "sha256" not in text.replace("code_sha256", "").lower()


def _leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{above}{name}"
        end = not isinstance(value, dict) or value.keys() in ({"not_run"}, {"value", "low", "high"})
        if end:
            yield path, value
        else:
            yield from _leaves(value, f"{path}.")


def test_every_figure_is_noised_or_named_as_left_out(place: Path) -> None:
    """A new measure, or a new figure, needs a place in one of the two tables."""
    report = read(place)
    for path in FIGURES:
        above = [path[: i if i > 0 else None] for i in (*_dots(path), 0)]
        left = any(part.split("[")[0] in report["left_out"] for part in above)
        noised = path in BOUNDS or path == "membership.auc"
        noised |= path.startswith("membership.judgement.")  # which holds the AUC against the card
        public = path.startswith("card.") or path.endswith((".logit_bound", ".temperature"))
        assert noised or left or public, path
    measures = {*AuditResult.__dataclass_fields__} - {
        "name", "card", "data_name", "held_out_rows"
    }  # fmt: skip
    there = {path.partition(".")[0] for path in (*BOUNDS, *LEFT_OUT, "membership.auc")}
    assert measures == there


def _dots(path: str) -> list[int]:
    return [i for i, letter in enumerate(path) if letter == "."]


def test_a_report_is_read_as_it_was_written(place: Path) -> None:
    report = read(place)
    again = as_report(report)
    assert isinstance(again, NoisedReport)
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(VERSION)
    Draft202012Validator.check_schema(json.loads(PUBLISHED.read_bytes()))


def test_gates_are_checked_on_the_noised_figures(command: Command, place: Path) -> None:
    checked = command("gate", place / "out" / "audit.json", place / "gates.toml")
    assert "FAIL" in checked.out
    left_out = place / "left.toml"
    left_out.write_text(GATES.replace("membership.auc", "memorisation.difference"))
    refused = command("gate", place / "out" / "audit.json", left_out)
    assert refused.code == 2
    assert "memorisation was not computed: it compares values across records" in refused.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--epsilon", 0), "expected epsilon from 1e-06 to 20, got 0"),
        (("--epsilon", -1), "expected epsilon from 1e-06 to 20, got -1"),
        (("--epsilon", "inf"), "expected epsilon from 1e-06 to 20, got inf"),
        (("--epsilon", "nan"), "expected epsilon from 1e-06 to 20, got nan"),
        (("--epsilon", 1, "--delta", 0.1), "expected delta from 0 to below 1/"),
        (("--epsilon", 1, "--delta", "nan"), "expected delta from 0 to below 1/"),
        (("--delta", 1e-6), "--delta needs --epsilon"),
        (("--epsilon", 1, "--include-text"), "words cannot be noised"),
    ],
)
def test_nonsense_is_one_line_and_costs_nothing(
    command: Command, tiny_run: Path, tmp_path: Path, options: tuple[object, ...], named: str
) -> None:
    asked = ["--data", DATA, "--documents", 60, "--out", tmp_path / "out"]
    refused = command("audit", tiny_run, *asked, *options)
    assert refused.code == 2
    assert named in refused.err
    assert refused.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_exact_pieces_in_the_folder_are_refused(
    command: Command, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / ".audit-work").mkdir(parents=True)
    asked = ["--data", DATA, "--out", tmp_path / "out", "--epsilon", 1]
    refused = command("audit", tiny_run, *asked)
    assert refused.code == 2
    assert "holds exact pieces of an unfinished audit" in refused.err
