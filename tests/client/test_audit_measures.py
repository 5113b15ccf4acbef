"""The parts of the audit from outside: numbers against second implementations and by hand."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from attnpriv.audit import statistics as offline
from attnpriv.data import read_file
from attnpriv.data.records import Span as LibrarySpan
from attnpriv.data.spans import sensitive_tokens
from attnpriv.errors import InputError
from attnpriv.estimates import percentile_interval
from attnpriv_client import Explanation, Prediction, TokenExplanation
from attnpriv_client.audit.alignment import align, overlaps
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.effects import Measured, Statistics, changes
from attnpriv_client.audit.faithfulness import faithfulness
from attnpriv_client.audit.lift import lift
from attnpriv_client.audit.membership import membership, utility
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.rewriting import Pool, cut, draw_words, join, mentions, rewrite
from attnpriv_client.audit.rows import Row, Span, read_rows, with_classes
from attnpriv_client.audit.statistics import auc, bootstrap_ratios, sign_flip_p_value
from attnpriv_client.domain import ModelCard, ModelSummary, Redaction

TOL = 1e-9


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.integers(1, 29))
def test_auc_is_the_librarys(values, cut_at) -> None:
    positive, negative = values[:cut_at], values[cut_at:]
    if not negative:
        return

    found = auc(positive, negative)

    expected = offline.auc(np.array(positive, float), np.array(negative, float))
    assert found.value == pytest.approx(expected.value, abs=TOL)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=TOL)


def test_the_bootstrap_has_the_spread_of_the_librarys() -> None:
    rng = np.random.default_rng(5)
    tops, bottoms = rng.exponential(size=(2, 80))

    found = bootstrap_ratios([list(tops)], list(bottoms), seed=1)[0]

    resampled = offline.bootstrap_ratios(tops[:, None], bottoms, 4000, 1)[:, 0]
    expected = percentile_interval(tops.sum() / bottoms.sum(), resampled)
    assert found.value == pytest.approx(expected.value)
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.1 * width)
    assert found.high == pytest.approx(expected.high, abs=0.1 * width)


def test_ratios_over_nothing_are_undefined() -> None:
    assert bootstrap_ratios([[0.0, 0.0]], [0.0, 0.0], seed=1)[0].value is None


def test_signs_are_flipped_as_often_as_a_coin_says() -> None:
    # All 5 signs must be plus for a sum as large: 1 of 32 draws.
    assert sign_flip_p_value([1.0] * 5, 8000, seed=1) == pytest.approx(1 / 32, abs=0.006)
    assert sign_flip_p_value([0.0] * 5, 100, seed=1) == 1.0


def test_ties_that_rounding_turns_leave_the_p_value_of_flipped_signs() -> None:
    rng = random.Random(3)
    exact = [0.25] * 9 + [-0.25] * 4 + [0.0] * 7  # many draws have the observed sum
    expected = sign_flip_p_value(exact, 1000, seed=1)
    for _ in range(10):
        rounded = [each + rng.choice((-1, 0, 1)) * 2**-23 for each in exact]
        assert sign_flip_p_value(rounded, 1000, seed=1) == expected


def token(text: str, *kinds: str, **scores) -> TokenExplanation:
    known = {"attention": None, "layer_attention": (), "integrated_gradients": None}
    return TokenExplanation(text, kinds, **{**known, "offsets": None, **scores})


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        (
            "mail jo@x.com or call",
            [token("mail"), token("[E]", "E"), token("or"), token("call")],
            [(0, 4), (5, 13), (14, 16), (17, 21)],
        ),
        # A shown word may stand in hidden text as well; what follows tells which it is.
        (
            "at a@b.org or at home",
            [token("at"), token("[E]", "E"), token("or"), token("at"), token("home")],
            [(0, 2), (3, 10), (11, 13), (14, 16), (17, 21)],
        ),
        ("Al Bo", [token("[P]", "P"), token("[P]", "P")], [(0, 5), (0, 5)]),
        ("x 0800", [token("x"), token("[N]", "N")], [(0, 1), (2, 6)]),
        ("cancel", [token("can"), token("cel")], [(0, 3), (3, 6)]),
        ("a b", [token("a"), token("c")], None),
        ("a b", [token("a"), token("[P]", "P"), token("b")], None),  # nothing is left to hide
    ],
)
def test_entries_are_found_in_their_text(text, tokens, expected) -> None:
    assert align(text, tokens, truncated=False) == (None if expected is None else tuple(expected))


def test_an_answer_to_a_beginning_need_not_reach_the_end() -> None:
    shown, hidden = [token("mail"), token("me")], [token("mail"), token("[E]", "E")]

    assert align("mail me soon", shown, truncated=False) is None
    assert align("mail me soon", shown, truncated=True) == ((0, 4), (5, 7))
    assert align("mail a@b.org", hidden, truncated=True) is None


def test_offsets_beyond_the_text_are_not_believed() -> None:
    assert align("ab", [token("ab", offsets=(0, 2))], truncated=False) == ((0, 2),)
    assert align("ab", [token("ab", offsets=(0, 9))], truncated=False) is None


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.integers(0, 8), st.integers(1, 4))
def test_what_overlaps_is_the_librarys_rule(extent, start, length) -> None:
    span = (start, start + length, "X")

    assert overlaps(extent, [Span(*span)]) == sensitive_tokens([extent], [LibrarySpan(*span)])[0]


TEXT = "Write to Bob at bob@x.org, says Bob"
SPANS = [Span(9, 12, "PERSON"), Span(16, 25, "EMAIL"), Span(32, 35, "PERSON")]


def test_pieces_are_the_text_with_values_and_words_marked() -> None:
    pieces = cut(TEXT, SPANS)

    assert join(pieces) == TEXT
    assert [p.text for p in pieces if p.kind == ""] == ["Write", "to", "at", "says"]
    found = {(value.kind, value.text): at for value, at in mentions(pieces).items()}
    assert set(found) == {("PERSON", "Bob"), ("EMAIL", "bob@x.org")}
    assert len(found["PERSON", "Bob"]) == 2


def test_a_swap_replaces_every_mention_and_nothing_else() -> None:
    pieces = cut(TEXT, SPANS)
    value, positions = next(iter(mentions(pieces).items()))

    swapped = rewrite(pieces, dict.fromkeys(positions, "Eve"))

    assert value.text == "Bob"
    assert join(swapped) == "Write to Eve at bob@x.org, says Eve"


def test_spans_that_overlap_are_left_alone() -> None:
    pieces = cut("ab cd ef", [Span(0, 5, "A"), Span(3, 8, "B")])

    assert mentions(pieces) == {}
    assert join(pieces) == "ab cd ef"


def test_values_come_from_other_rows_with_the_nearest_length() -> None:
    row = cut("Hi Bob", [Span(3, 6, "P")])
    others = [cut(name, [Span(0, len(name), "P")]) for name in ("Maximilian", "Eve", "BOB", "Lena")]
    pool, value = Pool([row, *others]), row[2]

    assert pool.draw(value, {"bob"}, random.Random(0)) == "Eve"
    assert pool.draw(value, {"bob", "eve"}, random.Random(0)) == "Lena"
    assert Pool([row]).draw(value, {"bob"}, random.Random(0)) is None


@given(st.integers(1, 30), st.integers(0, 5))
def test_words_are_drawn_until_they_have_enough_characters(characters, seed) -> None:
    pieces = cut("one three five seventy-1", [])
    pool = Pool([pieces, cut("two eight four forty-two", [])])
    own = {piece.text for piece in pieces}

    drawn = draw_words(pieces, characters, pool, own, random.Random(seed))

    if characters > 21:
        assert drawn is None
    else:
        sizes = [len(pieces[i].text) for i in drawn]
        assert sum(sizes) >= characters > sum(sizes[:-1])
        assert all(len(pieces[i].text) == len(value) for i, value in drawn.items())
        assert not own & set(drawn.values())


def test_changes_by_hand_and_by_scipy() -> None:
    before, after = {"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.1, "b": 0.9, "c": 0.0}

    found = changes(("a", before), ("b", after))

    assert (found.drop, found.change, found.flip) == pytest.approx((0.6, 0.6, 1.0))
    distance = jensenshannon(list(before.values()), list(after.values()), base=2)
    assert found.divergence == pytest.approx(distance**2)
    assert changes(("a", None), ("a", None)).flip == 0.0


def test_means_are_over_values_and_the_excess_is_paired() -> None:
    still, moved = (
        changes(("a", {"a": 0.5, "b": 0.5}), ("a", {"a": p, "b": 1 - p})) for p in (0.5, 0.1)
    )
    measured = [
        Measured(0, "A", True, (moved, still, still, still)),
        Measured(0, "A", False, (still, still, moved, still)),
        Measured(2, "B", True, (moved, moved, still, still)),
    ]
    statistics = Statistics(3, Counter(A=5, B=1), released=True, seed=1)

    kind, everything = statistics.effect(measured, "A"), statistics.effect(measured, None)

    assert (kind.entities, kind.documents, kind.same_length, kind.left_out) == (2, 1, 1, 3)
    assert kind.swap.change.value == pytest.approx(0.2)
    assert kind.excess.value == pytest.approx(0.0)
    assert everything.excess.value == pytest.approx(0.4 / 3)
    assert everything.mask.drop.value == pytest.approx(0.4 / 3)


def predicted(p: float) -> Prediction:
    return Prediction("yes" if p > 0.5 else "no", {"no": 1 - p, "yes": p}, False, "1")


def answered(text: str, spans: list[Span], tokens: list[TokenExplanation], p=0.9) -> Answered:
    redacted = any(each.entity_types for each in tokens)
    redaction = Redaction("d", ("E",), (), False) if redacted else None
    explanation = Explanation("1", predicted(p), "yes", tuple(tokens), (), redaction, None)
    extents = align(text, tokens, truncated=False)
    return Answered(Row(1, text, None, tuple(spans)), predicted(p), explanation, extents)


def scored(words: str, layers: list[tuple[float, ...]], gradients: list[float]) -> list:
    return [
        token(word, layer_attention=scores, attention=scores[-1], integrated_gradients=gradient)
        for word, scores, gradient in zip(words.split(), layers, gradients, strict=True)
    ]


def test_lift_by_hand() -> None:
    # "b" is one of 4 tokens; of attention it has 2/5 and 1/5 in the layers, of |IG| 3/6.
    tokens = scored("a b c d", [(1, 2), (2, 1), (1, 1), (1, 1)], [1.0, -3.0, 1.0, 1.0])

    found = lift([answered("a b c d", [Span(2, 3, "E")], tokens)] * 3, seed=1)

    attention, gradients = found.scores
    assert attention.lift.value == pytest.approx(((2 / 5 + 1 / 5) / 2) / (1 / 4))
    assert gradients.lift.value == pytest.approx((3 / 6) / (1 / 4))
    assert (found.documents, found.tokens, found.sensitive_tokens) == (3, 12, 3)
    assert (found.hidden_entries, attention.hidden_share) == (0, 0.0)
    assert not found.valid  # three documents are too few to find anything


def test_an_answer_without_converged_gradients_takes_neither_score_from_the_others() -> None:
    whole = scored("a b c d", [(1, 2), (2, 1), (1, 1), (1, 1)], [1.0, -3.0, 1.0, 1.0])
    without = [replace(each, integrated_gradients=None) for each in whole]
    spans = [Span(2, 3, "E")]

    found = lift([answered("a b c d", spans, tokens) for tokens in (whole, without, whole)], seed=1)

    assert [each.score for each in found.scores] == ["attention", "integrated_gradients"]
    assert found.documents == 2
    alone = lift([answered("a b c d", spans, without)] * 2, seed=1)
    assert [each.score for each in alone.scores] == ["attention"]
    assert alone.documents == 2


def test_lift_finds_what_is_planted_and_nothing_in_noise() -> None:
    rng = random.Random(2)
    words, spans = "a b c d e f g", [Span(0, 1, "E"), Span(6, 7, "E")]

    def found(weight: float):
        documents = []
        for _ in range(60):
            values = [rng.random() * (weight if i in (0, 3) else 1) for i in range(7)]
            documents.append(answered(words, spans, scored(words, [(v,) for v in values], values)))
        return lift(documents, seed=1)

    planted, noise = found(3.0), found(1.0)
    assert planted.valid
    assert planted.scores[0].lift.low > planted.scores[0].null_high
    assert planted.scores[0].p_value < 0.01
    assert noise.scores[0].null_low < noise.scores[0].lift.value < noise.scores[0].null_high


def test_ties_that_rounding_turns_leave_the_p_value_of_a_lift() -> None:
    rng = random.Random(3)
    exact = [0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.5]  # many draws weigh as much

    def p_value(noise: float) -> float:
        documents = []
        for _ in range(12):
            values = [value * (1 + noise * rng.choice((-1, 0, 1))) for value in exact]
            tokens = scored("a b c d e f g", [(v,) for v in values], values)
            documents.append(answered("a b c d e f g", [Span(0, 1, "E"), Span(8, 9, "E")], tokens))
        return lift(documents, seed=1).scores[0].p_value

    expected = p_value(0.0)
    assert expected > 0.01
    assert [p_value(2**-23) for _ in range(10)] == [expected] * 10


def test_hidden_entries_are_no_part_of_the_lift() -> None:
    tokens = scored("a [E] b", [(1.0,), (6.0,), (3.0,)], [0.0] * 3)
    hidden = TokenExplanation("[E]", ("E",), 6.0, (6.0,), 0.0, None)
    row = answered(
        "a xxxxxx b", [Span(2, 8, "E"), Span(9, 10, "P")], [tokens[0], hidden, tokens[2]]
    )

    found = lift([row] * 2, seed=1)

    assert found.scores[0].lift.value == pytest.approx((3 / 4) / (1 / 2))
    assert found.scores[0].hidden_share == pytest.approx(6 / 10)
    assert found.hidden_characters == pytest.approx(6 / 8)
    assert (found.tokens, found.hidden_entries) == (4, 2)


def test_where_all_personal_data_is_hidden_there_is_no_lift() -> None:
    tokens = [TokenExplanation("[E]", ("E",), 1.0, (1.0,), 0.0, None)]

    found = lift([answered("secret", [Span(0, 6, "E")], tokens)], seed=1)

    assert found.scores[0].lift.value is None
    assert found.scores[0].hidden_share == 1.0
    assert not found.valid


def ask_nothing(texts, what):
    raise AssertionError(f"{what} asks about {len(list(texts))} texts")


def test_membership_orders_rows_by_the_log_odds_of_their_label() -> None:
    def row(label: str, p: float, member: bool, text: str) -> Answered:
        return Answered(Row(1, text, label, None, member), predicted(p))

    members = [row("yes", 0.9, True, f"m{n}") for n in range(30)]
    others = [row("no", 0.2 + 0.01 * n, False, f"o{n}") for n in range(30)]
    twice = [row("yes", 0.9, flag, "both") for flag in (True, False)]

    found = membership([*members, *others, *twice], None, ask_nothing, seed=1)

    # log(.9/.1) is above log((1-p)/p) for all p from .2 on
    assert log(9) > log(0.8 / 0.2)
    assert (found.members, found.non_members, found.repeated) == (30, 30, 1)
    assert (found.auc.value, found.auc.low) == (1.0, 0.9)
    assert found.valid
    assert found.judgement.verdict == "FOUND"
    assert found.judgement.figures[0].allowed is None
    assert utility(members).accuracy.value == 1.0

    for epsilon, verdict in ((1.0, "BEYOND THE CLAIM"), (3.0, "INCONCLUSIVE"), (None, "FOUND")):
        judged = membership([*members, *others], card_of(epsilon), ask_nothing, seed=1).judgement
        assert judged.verdict == verdict  # the AUC is 0.9 to 1; allowed are 0.73 and 0.95
        assert (judged.claim is None) == (epsilon is None)


def card_of(epsilon: float | None) -> ModelCard:
    private = epsilon is not None
    delta = 1e-5 if private else None
    summary = ModelSummary("mail", private, epsilon, delta, ("no", "yes"), "1", ("1",))
    return ModelCard(summary, "scratch", 1.0, None, "clamp", "dot_product", None, "", (), (), {})


def test_rows_whose_released_decimals_sum_to_the_same_are_tied() -> None:
    """As float32 come, 0.1 + 0.3 is more than 0.2 + 0.2, and 0.7 + 0.1 not quite 0.5 + 0.3."""

    def row(member: bool, text: str, *p: float) -> Answered:
        released = dict(zip("abcd", map(float, np.float32(p)), strict=False))
        return Answered(Row(1, text, "a", None, member), Prediction("a", released, False, "1"))

    for ours, theirs in (
        ((0.6, 0.1, 0.3), (0.6, 0.2, 0.2)),
        ((0.2, 0.7, 0.1), (0.2, 0.5, 0.3)),
        ((0.4, 0.1, 0.2, 0.3), (0.4, 0.3, 0.2, 0.1)),
        ((0.994, 0.001, 0.005), (0.994, 0.002, 0.004)),
    ):
        members = [row(True, f"m{n}", *ours) for n in range(30)]
        others = [row(False, f"o{n}", *theirs) for n in range(30)]
        assert membership([*members, *others], None, ask_nothing, seed=1).auc.value == 0.5
    apart = [row(True, "m1", 0.6, 0.39), row(True, "m2", 0.6, 0.39)]
    more = [row(False, "o1", 0.6, 0.4), row(False, "o2", 0.6, 0.4)]
    found = membership([*apart, *more], None, ask_nothing, seed=1)
    assert found.auc.value == 1.0, "what differs is no tie"


def test_neighbouring_float32_are_no_tie() -> None:
    values = [np.float32(0.1)]
    for _ in range(20):
        values.append(np.nextafter(values[-1], np.float32(1)))

    def row(member: bool, n: int) -> Answered:
        others = float(values[n])
        released = {"a": 0.75, "b": others}
        return Answered(Row(1, str(n), "a", None, member), Prediction("a", released, False, "1"))

    rows = [row(n % 2 == 0, n) for n in range(21)]
    # Of the 11 even numbers and the 10 odd ones, the lower probability is the higher score.
    above = sum(m < o for m in range(0, 21, 2) for o in range(1, 21, 2))
    assert membership(rows, None, ask_nothing, seed=1).auc.value == pytest.approx(above / 110)


def test_membership_of_too_few_is_invalid_or_not_run() -> None:
    rows = [
        Answered(Row(n, f"t{n}", "yes", None, n < 3), predicted(0.1 * n + 0.1)) for n in range(6)
    ]

    few = membership(rows, None, ask_nothing, seed=1)
    assert not few.valid
    assert few.judgement.verdict == "INCONCLUSIVE"
    with pytest.raises(NotRunError, match="2 members and 2 non-members, got 3 and 1"):
        membership(rows[:4], None, ask_nothing, seed=1)


def test_faithfulness_by_hand() -> None:
    """The answer hangs on one word, which attention ranks first and gradients last."""
    documents = []
    for n in range(12):
        words = [f"w{n}", "key", *(f"x{i}" for i in range(8))]
        random.Random(n).shuffle(words)
        scores = [10.0 if word == "key" else 1.0 for word in words]
        flipped = [11.0 - score for score in scores]
        text = " ".join(words)
        tokens = scored(text, [(score,) for score in scores], flipped)
        documents.append(answered(text, [], tokens, p=0.9))
    asked = []

    def ask(texts, what):
        asked.extend(texts := list(texts))
        return {text: predicted(0.9 if "key" in text.split() else 0.3) for text in texts}

    found = faithfulness(documents, ask, seed=1)

    by_attention, by_gradients = found.rankings[:2]
    assert [each.value for each in by_attention.comprehensiveness] == pytest.approx([0.6] * 5)
    assert [each.value for each in by_attention.sufficiency] == pytest.approx([0.0] * 5)
    assert [each.value for each in by_gradients.comprehensiveness] == pytest.approx([0.0] * 5)
    assert by_gradients.sufficiency_aopc.value == pytest.approx(0.6)
    assert found.valid
    # 1, 5 and 10 % of 10 words are one word, 20 % two, 50 % five
    assert {len(text.split()) for text in asked} == {1, 2, 5, 8, 9}


def read(tmp_path, name: str, content: str | bytes) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(path)


SPAN = {"start": 0, "end": 2, "entity_type": "X"}


def test_the_same_rows_from_each_format(tmp_path) -> None:
    spans = json.dumps([SPAN])
    quoted = spans.replace('"', '""')
    jsonl = json.dumps({"text": "ab c", "label": 1, "spans": [SPAN], "member": True, "more": 3})

    rows = [
        read(tmp_path, "a.jsonl", jsonl),
        read(tmp_path, "a.csv", f'text,Label,spans,member\r\nab c,1,"{quoted}",True\r\n'),
        read(tmp_path, "a.tsv", f"\ufeffTEXT\tlabel\tspans\tmember\nab c\t1\t{spans}\t1\n"),
    ]

    found = [(r.text, r.label, r.spans, r.member) for (r,) in rows]
    assert found == [("ab c", "1", (Span(0, 2, "X"),), True)] * 3


def test_what_is_not_there_is_unknown(tmp_path) -> None:
    (row,) = read(tmp_path, "a.csv", "text,spans,label,member\nhello,,,\n")

    assert row == Row(2, "hello", None, None, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", "x", "expected a file ending in .jsonl, .csv, .tsv"),
        ("a.csv", "", "expected at least one row"),
        ("a.jsonl", "[1]", "row 1 is not a JSON object"),
        ("a.jsonl", '{"text": "a"}\n{', "row 2 is not a JSON object"),
        ("a.jsonl", '{"label": "a"}', "row 1: expected one column named text, got 0"),
        ("a.csv", "text,Text\na,b\n", "row 2: expected one column named text, got 2"),
        ("a.csv", "text,label\na\n", "row 2 has 1 columns, expected 2"),
        ("a.csv", 'text\n"a', "is malformed CSV"),
        ("a.jsonl", b"\xff", "invalid UTF-8 at byte 0 (line 1)"),
        ("a.jsonl", '{"text": " "}', "row 1: the text is empty or has no visible"),
        ("a.jsonl", '{"text": 7}', "row 1: expected a text, got int"),
        ("a.jsonl", '{"text": "a", "label": [1]}', "row 1: expected a label that is a string or a"),
        ("a.jsonl", '{"text": "a", "member": 7}', "row 1: expected member to be true or false"),
        ("a.jsonl", '{"text": "a", "spans": 7}', "row 1: expected a list of spans"),
        ("a.csv", "text,spans\na,{\n", "row 2: the spans are not JSON"),
        ("a.jsonl", json.dumps({"text": "a", "spans": [SPAN]}), "0 <= start < end <= 1, got 0 to"),
        ("a.jsonl", '{"text": "a", "spans": [{"start": 0}]}', "row 1: expected spans with whole"),
    ],
)
def test_bad_files_are_refused_by_row(tmp_path, name, content, message) -> None:
    with pytest.raises(InputError) as refused:
        read(tmp_path, name, content)

    assert message in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "labels",
    [
        ["ham", "spam", "HAM", ' "Ham"', "ham\u200b", "sp\u0061m"],
        ["ham", "eggs"],
        ["ham", "nan"],
        ["ham", " "],
        ["ham", "\u200b"],
        ["ham", "a\u0001b"],
        ["ham", "x" * 101],
        ["ham", 1.0, 1, "1", "01", True],
        ["ham", 2],
        ["ham", False],
        ["ham", ["ham"]],
        ["ham", float("inf")],
        ["ham", {}],
    ],
    ids=repr,
)
def test_labels_are_read_as_attnpriv_audit_reads_them(tmp_path, labels) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    path.write_text("\n".join(map(json.dumps, records)))
    names = ["spam", "ham", "1", "true"]

    def ours() -> list[str]:
        return [row.label for row in with_classes(read_rows(path), names)]

    def theirs() -> list[str]:
        data = read_file(path, label_names=names)
        return [names[label] for label in data.labels]

    def outcome(read: Callable[[], list[str]]) -> list[str] | str:
        try:
            return read()
        except InputError as error:
            return str(error).removeprefix(f"{path}: ")

    if labels[1] == " ":  # a label may be missing here
        assert outcome(ours) == ["ham", None]
    else:
        assert outcome(ours) == outcome(theirs)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_rows(tmp_path / "none.csv")
