"""Votes over randomly shortened copies: the bound against enumeration, and what a vote tells."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from attnpriv import guarantees
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.runs.deletion import (
    ALPHA,
    Deletion,
    certify_votes,
    lower_share,
    vote_radii,
)
from attnpriv.runs.folder import Run, load_run
from attnpriv.work_folder import WorkFolder

Tokens = tuple[int, ...]
SHORT = "the card was charged"


def copies(tokens: Tokens, rate: float) -> dict[Tokens, float]:
    """The chance of every copy, by enumeration of all deletions."""
    found: dict[Tokens, float] = defaultdict(float)
    for kept in itertools.product((False, True), repeat=len(tokens)):
        chance = float(np.prod([1 - rate if keep else rate for keep in kept]))
        found[tuple(itertools.compress(tokens, kept))] += chance
    return found


def edited(tokens: Tokens, kinds: tuple[str, ...]) -> set[Tokens]:
    """All texts after edits of these kinds, one after the other, over two tokens."""
    found = {tokens}
    for kind in kinds:
        after = set()
        for text in found:
            for i in range(len(text) + (kind == "insertions")):
                if kind == "deletions":
                    after.add((*text[:i], *text[i + 1 :]))
                else:
                    rest = text[i:] if kind == "insertions" else text[i + 1 :]
                    after |= {(*text[:i], token, *rest) for token in (0, 1)}
        found = after
    return found


@pytest.mark.parametrize("rate", [0.3, 0.8])
def test_no_classifier_loses_more_than_the_bound_says(rate: float) -> None:
    rng = np.random.default_rng(0)
    kinds = ("substitutions", "deletions", "insertions")
    for _ in range(12):
        tokens = tuple(rng.integers(0, 2, 3).tolist())
        answers = defaultdict(lambda: bool(rng.random() < 0.8))

        def share(text: Tokens, of: Any = answers) -> float:
            return sum(chance for copy, chance in copies(text, rate).items() if of[copy])

        before = share(tokens)
        for count in (1, 2):
            for chosen in itertools.combinations_with_replacement(kinds, count):
                numbers = {kind: chosen.count(kind) for kind in kinds}
                least = guarantees.vote_share(before, rate, **numbers)
                for order in set(itertools.permutations(chosen)):
                    assert all(share(text) >= least - 1e-12 for text in edited(tokens, order))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_bound_is_attained_by_a_classifier_that_looks_for_foreign_tokens(count: int) -> None:
    rate, tokens = 0.7, (0, 0, 0)
    after = (1,) * count + tokens[count:]
    share = sum(chance for copy, chance in copies(after, rate).items() if 1 not in copy)
    assert share == pytest.approx(guarantees.vote_share(1.0, rate, substitutions=count))
    inserted = sum(c for copy, c in copies((1,) * count + tokens, rate).items() if 1 not in copy)
    assert inserted == pytest.approx(guarantees.vote_share(1.0, rate, insertions=count))


@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9, 0.95])
@pytest.mark.parametrize("share", [0.6, 0.9, 0.99, 0.9931])
def test_no_mixture_is_worse_than_as_many_substitutions(rate: float, share: float) -> None:
    for total in range(1, 9):
        worst = guarantees.vote_share(share, rate, substitutions=total)
        if worst <= 0:
            break
        for deletions in range(total + 1):
            for insertions in range(total - deletions + 1):
                kept = total - deletions - insertions
                assert worst <= 1e-12 + guarantees.vote_share(
                    share, rate, substitutions=kept, deletions=deletions, insertions=insertions
                )


def test_the_radius_is_that_of_the_closed_form() -> None:
    """Huang et al. 2024: the largest r with ``r < log(3/2 - s) / log p``."""
    for rate, share in itertools.product((0.5, 0.7, 0.9, 0.95), (0.6, 0.9, 0.99, 0.9931)):
        closed = np.log(1.5 - share) / np.log(rate)
        r = 0
        while guarantees.vote_share(share, rate, substitutions=r + 1) > 0.5:
            r += 1
        assert r == int(np.ceil(closed)) - 1


@pytest.mark.parametrize(("votes", "draws"), [(0, 10), (1, 10), (7, 10), (10, 10), (993, 1000)])
def test_the_lower_limit_is_that_of_an_exact_binomial_test(votes: int, draws: int) -> None:
    interval = binomtest(votes, draws).proportion_ci(1 - 2 * ALPHA, method="exact")
    assert lower_share(votes, draws, ALPHA) == pytest.approx(interval.low, abs=1e-12)


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    """Of ten classes; its head is made surer, or it would abstain from everything."""
    run = load_run(tiny_run)
    run.model.head.bias.data[3] += 1.0
    return run


def exact_share(run: Run, label: int, rate: float) -> float:
    """Of all copies of a short text, by enumeration and one text at a time."""
    first, *inner, last = run.tokenizer.encode(SHORT, 99).ids
    total = 0.0
    for copy, chance in copies(tuple(inner), rate).items():
        ids = torch.tensor([[first, *copy, last]])
        answer = run.model(ids, torch.ones_like(ids, dtype=torch.bool)).argmax()
        total += chance * bool(answer == label)
    return total


def test_a_vote_is_that_of_all_copies(run: Run) -> None:
    found = vote_radii(run, SHORT, Deletion(0.6, draws=600))
    assert found.label is not None
    exact = exact_share(run, found.label, 0.6)
    assert found.share <= exact
    assert found.votes / found.draws == pytest.approx(exact, abs=0.08)
    for kind, number in (("substitutions", found.edits), ("insertions", found.insertions),
                         ("deletions", found.deletions)):  # fmt: skip
        assert guarantees.vote_share(found.share, 0.6, **{kind: number}) > 0.5
        assert guarantees.vote_share(found.share, 0.6, **{kind: number + 1}) <= 0.5
    assert found.edits == found.substitutions <= found.insertions


def test_votes_depend_on_the_text_and_the_seed_alone(run: Run, tickets: Dataset) -> None:
    texts, deletion = [*tickets.records[:3]], Deletion(0.8, draws=50)
    forth = certify_votes(run, texts, deletion)
    assert certify_votes(run, texts[::-1], deletion) == forth[::-1]
    assert certify_votes(run, texts, replace(deletion, seed=1)) != forth


def test_without_a_clear_majority_it_abstains(tiny_run: Path, tickets: Dataset) -> None:
    run = load_run(tiny_run)
    found = vote_radii(run, tickets.records[0], Deletion(0.5, draws=20))
    # Twenty votes of twenty tell no more than 71 % of all, and ten classes share them.
    assert found.label is None or found.share > 0.5
    assert lower_share(13, 20, ALPHA) < 0.5
    run.model.head.weight.data.zero_()
    run.model.head.bias.data.zero_()
    run.model.head.bias.data[2] = 1.0
    sure = vote_radii(run, tickets.records[0], Deletion(0.9, draws=1000))
    assert (sure.label, sure.votes, sure.edits) == (2, 1000, 6)
    assert vote_radii(run, "", Deletion(0.9, draws=5)).label is None  # five votes prove nothing


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "between 0 and 1, got 0"),
        ({"rate": 1.0}, "between 0 and 1, got 1"),
        ({"rate": float("nan")}, "between 0 and 1, got nan"),
        ({"rate": 0.5, "draws": 0}, "at least 1 draw, got 0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Deletion(**values)


def test_interrupted_it_goes_on_to_the_same_result(
    run: Run, tickets: Dataset, tmp_path: Path
) -> None:
    texts, deletion = [*tickets.records[:4]], Deletion(0.8, draws=30)
    work = WorkFolder(tmp_path / "work", {})
    (tmp_path / "work").mkdir()

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify_votes(run, texts, deletion, work, stop)
    assert sorted(path.name for path in (tmp_path / "work").glob("0*")) == [
        "000000.json", "000001.json"
    ]  # fmt: skip
    assert certify_votes(run, texts, deletion, work) == certify_votes(run, texts, deletion)


def test_the_command(tiny_run: Path, tickets: Dataset, tmp_path: Path, command: Any) -> None:
    file, out = tmp_path / "lines.txt", tmp_path / "votes.json"
    file.write_text("\n".join(tickets.records[:2]) + "\n", encoding="utf-8")
    usual = ("certify", tiny_run, "--texts", file, "--deletion", 0.9, "--draws", 40)
    outcome = command(*usual, "--out", out)
    assert outcome.code == 0
    assert "abstentions:" in outcome.out
    told = json.loads(out.read_text(encoding="utf-8"))
    assert [row["draws"] for row in told["texts"]] == [40, 40]
    assert told["deletion"] == {"rate": 0.9, "draws": 40, "seed": 0}
    assert json.loads(command(*usual, "--json").out) == told
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    words = {word for text in tickets.records[:2] for word in text.split() if len(word) > 7}
    assert not [word for word in words if word in outcome.out + out.read_text(encoding="utf-8")]


def test_bad_input_to_the_command_is_one_error(
    tiny_run: Path, tmp_path: Path, command: Any
) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("hello\n", encoding="utf-8")
    for arguments, message in (
        (("--deletion", 0.9), "--deletion cannot be used without --texts"),
        (("--texts", file, "--draws", 9), "--draws cannot be used without --deletion"),
        (("--texts", file, "--deletion", 1.5), "between 0 and 1, got 1.5"),
        (("--texts", file, "--deletion", 0.9, "--resume"), "--resume needs the --out"),
        (("--texts", file, "--deletion", 0.9, "--resume", "--out", tmp_path / "o.json"),
         "there is none"),
    ):  # fmt: skip
        outcome = command("certify", tiny_run, *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err
