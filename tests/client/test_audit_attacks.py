"""Attacks on answers: numbers against the library's, a leak that each must find, and a null."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from attnpriv.audit.leakage import fitting as offline_fitting
from attnpriv.audit.leakage import likelihood
from attnpriv.audit.leakage.scores import score_attack as offline_score_attack
from attnpriv.audit.leakage.shadow_folder import Settings, write_answers, write_settings
from attnpriv.audit.statistics import auc_difference
from attnpriv.data.planting import plant
from attnpriv.data.records import Texts
from attnpriv.errors import InputError
from attnpriv.planted import is_planted
from attnpriv.rates import exact_interval
from attnpriv.shadow_answers import ANSWERS, NAMES
from attnpriv.verdicts import make_claim
from attnpriv_client import Explanation, Prediction, TokenExplanation
from attnpriv_client.audit import attributes, explanation_attacks, hidden_words
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.attributes import Seen
from attnpriv_client.audit.explained import attention_maps, attributions
from attnpriv_client.audit.exposure import exposure
from attnpriv_client.audit.fitting import fitted_scores, fitted_word_scores, half_of
from attnpriv_client.audit.guessing import NEVER, Guesser
from attnpriv_client.audit.hidden_words import Place
from attnpriv_client.audit.leaks import leaks_of
from attnpriv_client.audit.membership import COPIES, membership
from attnpriv_client.audit.results import NotRun, NotRunError
from attnpriv_client.audit.rows import Row
from attnpriv_client.audit.scoring import score_attack
from attnpriv_client.audit.shadow_answers import read_shadow_answers
from attnpriv_client.audit.shadow_attacks import Record, attack, scores_of
from attnpriv_client.audit.statistics import auc_gain, resampled_areas
from tests.attnpriv.audit.worlds import World

WORDS = ("delta", "echo", "golf", "hotel", "india", "kilo", "lima")


@pytest.mark.parametrize("n", [1, 7, 60, 1201])
@pytest.mark.parametrize("error", [0.025, 0.0005])
def test_exact_intervals_are_those_of_the_beta_distribution(n, error) -> None:
    for found in {0, 1, n // 3, n}:
        low = beta.ppf(error, found, n - found + 1) if found else 0.0
        high = beta.isf(error, found + 1, n - found) if found < n else 1.0
        assert exact_interval(found, n, error) == pytest.approx((low, high), abs=1e-10)


def test_figures_of_an_attack_are_the_librarys() -> None:
    rng = np.random.default_rng(2)
    ours, theirs, other = rng.normal(0.5, 1, 130), rng.normal(0, 1, 110), rng.normal(0, 1, 240)
    groups = ours.tolist(), theirs.tolist()
    claim = make_claim(1.0, 1e-5, "pure", [(1.0, 1e-5)])

    found, expected = (
        score_attack(groups, claim, attacks=4),
        offline_score_attack(ours, theirs, claim, attacks=4),
    )

    assert found.tpr == expected.tpr
    assert found.tpr[0].not_reported is None
    assert found.auc.low == pytest.approx(expected.auc.low, abs=1e-12)
    assert found.judgement.verdict == expected.judgement.verdict
    for own, library in zip(found.judgement.figures, expected.judgement.figures, strict=True):
        assert (own.low, own.high) == pytest.approx((library.low, library.high), abs=1e-12)
    *_, gain = auc_difference((ours, theirs), (other[:130], other[130:]))
    own = auc_gain(groups, (other[:130].tolist(), other[130:].tolist()))
    assert (own.value, own.low) == pytest.approx((gain.value, gain.low), abs=1e-12)
    areas = resampled_areas(*groups, seed=1)
    assert np.mean(areas) == pytest.approx(expected.auc.value, abs=0.01)
    half = (expected.auc.high - expected.auc.low) / 2
    assert np.std(areas) * 1.96 == pytest.approx(half, rel=0.1)


def test_regressions_are_the_librarys() -> None:
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(60, 9)), rng.normal(size=(20, 9))
    truth = known[:, 0] + rng.normal(size=60) > 0
    ours = fitted_scores(known.tolist(), truth.tolist(), asked.tolist())
    assert ours == pytest.approx(offline_fitting.fitted_scores(known, truth, asked), abs=0.02)
    texts = [" ".join(rng.choice(WORDS, 9)) for _ in range(60)]
    ours = fitted_word_scores(texts, truth.tolist(), texts[:9])
    theirs = offline_fitting.fitted_word_scores(texts, truth, texts[:9])
    assert ours == pytest.approx(theirs, abs=0.02)
    assert sum(half_of(9, 1)) == 4


def records_of(world: World) -> list[Record]:
    seen = world.seen
    columns = zip(seen.target, seen.shadows.T, seen.inside.T, world.members, strict=True)
    return [
        Record(float(t), tuple(s.tolist()), tuple(i.tolist()), bool(m)) for t, s, i, m in columns
    ]


@pytest.mark.parametrize("models", [12, 64])
def test_shadow_attacks_give_the_librarys_scores_and_find_what_they_must(models) -> None:
    world = World(models)
    records = records_of(world)
    usable = [record for record in records if record.usable]
    seen = world.seen.of(world.seen.usable)

    scores = scores_of(usable)

    for name, theirs in zip(NAMES, (likelihood.lira(seen), likelihood.lira_offline(seen),
                                    likelihood.ratio(seen), likelihood.ratio_offline(seen)),
                            strict=True):  # fmt: skip
        assert scores[name] == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    found = attack(records, None, seed=1)
    assert (found.valid, found.judgement.verdict) == (True, "FOUND")
    assert all(each.gain.low > 0 for each in found.attacks.values())
    assert found.members + found.non_members + found.left_out == 400


def test_shadow_attacks_find_nothing_in_a_random_split() -> None:
    records, rng = records_of(World(16)), random.Random(5)
    flags = [record.member for record in records]
    rng.shuffle(flags)
    mixed = [replace(each, member=flag) for each, flag in zip(records, flags, strict=True)]
    found = attack(mixed, None, seed=1)
    assert (found.valid, found.judgement.verdict) == (True, "NOT FOUND")
    with pytest.raises(NotRunError, match="16 shadow models are too few"):
        attack([replace(each, member=True) for each in records], None, seed=1)


@pytest.fixture
def folder(tmp_path):
    """A folder of three shadow models of five rows."""
    data = Texts("d", ("a", "b", "c", "d", "e"), (0, 1, 0, 1, 0), ("no", "yes"))
    (tmp_path / ANSWERS).mkdir()
    write_settings(tmp_path, Settings("mail", {}, data.fingerprint(), 3, 0))
    for n in range(3):
        inside = np.arange(5) % 3 == n
        write_answers(tmp_path, n, np.arange(5) * 0.5 - n, inside)
    return tmp_path


ROWS = [Row(n, text, ("no", "yes")[n % 2]) for n, text in enumerate("abcde")]


def test_answers_of_shadow_models_are_read_as_they_were_written(folder) -> None:
    found = read_shadow_answers(folder)
    assert [list(each) for each in found.log_odds][2] == [-2.0, -1.5, -1.0, -0.5, 0.0]
    assert [list(each) for each in found.inside][1] == [False, True, False, False, True]
    found.check(ROWS, "rows.csv")
    for rows in (ROWS[::-1], ROWS[:4], [replace(ROWS[0], label="yes"), *ROWS[1:]]):
        with pytest.raises(InputError, match="rows.csv: expected all rows of the data"):
            found.check(rows, "rows.csv")


def test_folders_that_hold_no_shadow_models_are_refused(folder) -> None:
    first = folder / ANSWERS / "0000.safetensors"
    content = first.read_bytes()
    for broken in (b"", content[:-3], content[:20], b"\xff" * 40):
        first.write_bytes(broken)
        with pytest.raises(InputError, match="does not hold the answers of a shadow model"):
            read_shadow_answers(folder)
    first.unlink()
    with pytest.raises(InputError, match="1 of the 3 shadow models"):
        read_shadow_answers(folder)
    settings = folder / "settings.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "format": 2}))
    with pytest.raises(InputError, match="expected format 1, got 2"):
        read_shadow_answers(folder)
    settings.write_text("[]")
    with pytest.raises(InputError, match="cannot be read as its settings"):
        read_shadow_answers(folder)


def labelled(texts: int, member: bool) -> list[Answered]:
    return [
        Answered(
            Row(n, f"{member} {n} " + " ".join(WORDS), "yes", None, member),
            Prediction("yes", None, False, "1"),
        )
        for n in range(texts)
    ]


def test_labels_of_copies_tell_members_where_labels_of_texts_do_not() -> None:
    rows = [*labelled(40, True), *labelled(40, False)]
    asked: list[str] = []

    def predict(known: Callable[[str], bool]):
        def ask(texts, what):
            asked.extend(texts := list(texts))
            return {
                text: Prediction("yes" if known(text) else "no", None, False, "1") for text in texts
            }

        return ask

    found = membership(rows, None, predict(lambda text: "True" in text), seed=1)
    assert (found.by, found.valid, found.judgement.verdict) == ("labels", True, "FOUND")
    assert len(asked) == 80 * COPIES
    assert all(len(text.split()) == len(WORDS) + 1 for text in asked)
    nothing = membership(
        rows, None, predict(lambda text: random.Random(text).random() < 0.5), seed=1
    )
    assert nothing.judgement.verdict == "NOT FOUND"


def test_secrets_that_a_model_knows_are_exposed_and_others_are_not() -> None:
    data = plant(Texts("d", ("x", "y"), (0, 1), ("no", "yes")), 12, (1, 3))
    rows = [
        Row(n, text, data.label_names[label], None, True)
        for n, (text, label) in enumerate(zip(data.texts, data.labels, strict=True))
    ]
    known = {row.text: row.label for row in rows if is_planted(row.text)}

    def ask(knows: bool):
        def answer(text: str) -> Prediction:
            p = random.Random(text).uniform(0.3, 0.7)
            if knows and text in known:
                p = 0.99 if known[text] == "yes" else 0.01
            return Prediction("yes", {"no": 1 - p, "yes": p}, False, "1")

        return lambda texts, what: {text: answer(text) for text in texts}

    found = exposure(rows, None, ask(True), ("no", "yes"), seed=1)
    assert [(each.repetitions, each.secrets) for each in found.levels] == [(1, 12), (3, 12)]
    assert {each.exposure.value for each in found.levels} == {7.0}
    assert (found.valid, found.judgement.verdict) == (True, "FOUND")
    nothing = exposure(rows, None, ask(False), ("no", "yes"), seed=1)
    assert (nothing.valid, nothing.judgement.verdict) == (True, "NOT FOUND")
    with pytest.raises(NotRunError, match="no row that the model was trained on is a planted"):
        exposure(rows[:2], None, ask(True), ("no", "yes"), seed=1)


def test_a_guesser_names_the_word_that_its_numbers_follow() -> None:
    rows = [(float(n % 3), 0.0) for n in range(60)]
    words = [WORDS[n % 3] for n in range(60)]
    guesser = Guesser(rows, words)
    assert [guesser.rank((float(n), 0.0), WORDS[n]) for n in range(3)] == [0, 0, 0]
    assert guesser.rank((0.0, 0.0), "unknown") == NEVER


def test_hidden_words_are_named_where_scores_follow_them() -> None:
    rng = random.Random(4)

    def documents(leak: float) -> list[tuple[Place, ...]]:
        found = []
        for _ in range(80):
            word = rng.choice(WORDS)
            scores = (leak * WORDS.index(word) + rng.gauss(0, 0.3), rng.gauss(0, 1))
            found.append((Place(word, (1.0, float(rng.randrange(9))), scores),))
        return found

    leaky = hidden_words.measure(documents(1.0), seed=1)
    assert (leaky.fitted, leaky.documents, leaky.words, leaky.known) == (40, 40, 40, 1.0)
    assert (leaky.valid, leaky.judgement.verdict) == (True, "FOUND")
    assert leaky.top1.value - leaky.by_type_top1.value == pytest.approx(leaky.top1_gain.value)
    nothing = hidden_words.measure(documents(0.0), seed=1)
    assert (nothing.valid, nothing.judgement.verdict) == (True, "NOT FOUND")


def test_attributes_are_guessed_where_numbers_follow_them() -> None:
    rng = random.Random(6)

    def rows(leak: float) -> list[Seen]:
        found = []
        for _ in range(60):
            holds = rng.random() < 0.5
            numbers = [leak * holds + rng.gauss(0, 0.5), rng.gauss(0, 1)]
            types = frozenset({"DATE"} if holds else ())
            found.append(Seen(types, "yes", {"attention": numbers}))
        return found

    leaky = attributes.measure(rows(3.0), rows(3.0), seed=1)
    (guess,) = leaky.guesses
    assert (leaky.valid, guess.judgement.verdict, guess.entity_type) == (True, "FOUND", "DATE")
    assert guess.accuracy.value - guess.by_label.value == pytest.approx(guess.gain.value)
    nothing = attributes.measure(rows(0.0), rows(0.0), seed=1)
    assert (nothing.valid, nothing.judgement.verdict) == (True, "NOT FOUND")


def explained(n: int, member: bool, leak: float) -> Answered:
    rng = random.Random(f"{n} {member}")
    values = [rng.random() for _ in range(9)]
    values[0] += leak * member
    total = sum(values)
    tokens = [
        TokenExplanation(
            f"w{i}", (), value / total, (value / total,) * 2, rng.gauss(0.5, 0.1), None
        )
        for i, value in enumerate(values)
    ]
    answer = Prediction("yes", {"no": 0.4, "yes": 0.6}, False, "1")
    text = " ".join([*rng.choices(WORDS, k=9), str(rng.random())])
    explanation = Explanation("1", answer, "yes", tuple(tokens), (), None, None)
    return Answered(Row(n, text, "yes", None, member), answer, explanation)


def test_attention_that_differs_for_members_is_found_and_other_scores_are_not() -> None:
    def found(leak: float):
        rows = [explained(n, member, leak) for n in range(60) for member in (True, False)]
        return explanation_attacks.explanation_attacks(rows, None, seed=1)

    leaky, nothing = found(9.0), found(0.0)
    assert (leaky.fitted, leaky.members, leaky.non_members) == (60, 30, 30)
    assert leaky.valid
    assert leaky.attacks["attention"].judgement.verdict == "FOUND"
    assert leaky.attacks["attributions"].judgement.verdict == "NOT FOUND"
    assert leaky.loss.auc.value == 0.5
    assert (nothing.valid, nothing.judgement.verdict) == (True, "NOT FOUND")


def test_scores_that_were_withheld_from_some_tokens_count_as_nothing() -> None:
    answered = explained(1, True, 0.0).explanation
    bare = replace(
        answered.tokens[3], attention=None, layer_attention=(), integrated_gradients=None
    )
    tokens = (*answered.tokens[:3], bare, *answered.tokens[4:])
    partly = replace(answered, tokens=tokens)
    assert [len(layer) for layer in attention_maps(partly)] == [1, 1]
    assert attention_maps(partly)[0][0][3] == attributions(partly)[3] == 0.0
    assert attention_maps(replace(answered, tokens=(bare,))) == []
    assert attributions(replace(answered, tokens=(bare,))) == []


def test_each_attack_has_its_entry_whether_it_ran_or_not() -> None:
    found = attack(records_of(World(12)), None, seed=1)
    reasons = (NotRun("membership", "why not"), NotRun("exposure", "no secrets"))
    leaks = {each.attack: each for each in leaks_of({"shadow_attacks": found}, reasons)}
    assert leaks["rmia"].value == found.attacks["rmia"].auc
    assert leaks["rmia"].verdict == "FOUND"
    assert (leaks["membership"].not_run, leaks["membership"].value) == ("why not", None)
    assert leaks["exposure"].not_run == "no secrets"
    assert leaks["attention"].not_run == "the policy withholds these scores"
