"""attnpriv-client summarize against a real server with a real budget."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from attnpriv_client.domain import GroupSummary, LabelSummary, NoisedNumber, Summary
from attnpriv_client.render import summary_view

POLICY = """
[roles.everyone]
budget = { epsilon = 2 }
summarize = { epsilon = 1, labels = { read = "full" }, attention = { read = "redacted" } }
"""


@pytest.fixture(scope="module")
def target(run_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("summaries")
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    with run_server("--policy", policy, "--budget", f"sqlite:///{folder}/budget.db") as address:
        yield address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"call +44 7911 12345{n % 10}, order {n}\n" for n in range(40)))
    return path


def test_a_file_is_summarised_once_for_its_price(command, output, target, run, file) -> None:
    asked = ("summarize", "--target", target, "--model", run.name, "--file", str(file))
    once = (*asked, "--word", "order", "--request-id", "an id of sixteen characters", "--json")

    first = output(*once)
    table = output(*asked, "--figure", "labels")

    found = json.loads(first)
    assert (found["texts"], found["micro_epsilon"]) == (40, 1_000_000)
    assert [label["label"] for label in found["labels"]] == list(run.label_names)
    assert found["groups"][-1]["name"] == "order"
    assert found["groups"][-1]["attention"]["noise"] > 0
    assert all(label["count"]["noise"] > 0 for label in found["labels"])
    assert output(*once) == first
    assert run.label_names[0] in table
    assert "charged to your privacy budget: ε = 1" in table
    refused = command(*asked)
    assert refused.code == 2
    assert "the privacy budget has not enough left for 1000000 micro-epsilon" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--figure", "rollout"), "expected figures among labels, attention, attribution"),
        (("--figure", "attribution"), "the policy withholds attribution from summaries"),
        (("--figure", "labels", "--by-label"), "by_label: expected labels and a mean"),
        (("--cap", "7"), "cap: expected a number from 0.01 to 1"),
        (("--request-id", "7"), "request_id: "),
    ],
)
def test_what_cannot_be_answered_is_one_line(command, target, run, file, options, message) -> None:
    done = command(
        *("summarize", "--target", target, "--model", run.name, "--file", str(file)), *options
    )

    assert done.code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_view_says_what_is_exact_and_what_is_not() -> None:
    number = NoisedNumber(0.125, 0.1, 0.15, 0.01)
    summary = Summary(
        "1",
        500,
        (LabelSummary("[b]", NoisedNumber(7, 0, 20.2, 5), number, None),),
        (GroupSummary("PERSON", False, number, None), GroupSummary("refund", True, number, number)),
        None,
        1_500_000,
    )
    shown = io.StringIO()
    Console(file=shown, width=120).print(summary_view(summary))

    for part in ("[b]", "7 [0, 20]", "PERSON", '"refund"', "0.1250 [0.1000, 0.1500]", "500 texts"):
        assert part in shown.getvalue()
    assert "ε = 1.5" in shown.getvalue()
