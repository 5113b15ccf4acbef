"""RoBERTa and XLM-RoBERTa, small and with random weights, through all that reads their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from attnpriv.audit.documents import prepare
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.swapping import find_words
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, Texts, load_dataset
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.training import train as fit
from attnpriv_client import Client
from tests.attnpriv.data.trained_tokenizers import train
from tests.attnpriv.models.encoders import random_encoder

Serving = Callable[..., AbstractContextManager[str]]

DATA = "tickets:rows=90"
KINDS = {"roberta": "BPE as RoBERTa's", "xlm-roberta": "Unigram as XLM-RoBERTa's"}
TEXT = (
    "Hello,\nZoe\u0308 Mu\u0308ller (maria.keller@example.com) asks  for a reﬁll 👩\u200d👧. Thanks"
)
OPTIONS = AuditOptions(
    documents=18,
    members=18,
    ig_documents=2,
    ig_steps=3,
    faithfulness_documents=1,
    sensitivity_documents=1,
    counterfactual_documents=18,
    memorisation_documents=18,
    pgd_documents=1,
    text_attack_documents=1,
    examples=2,
    permutations=20,
    resamples=20,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(DATA)


@pytest.fixture(scope="module")
def runs(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for each kind, whose encoder stays as it was."""
    folder = tmp_path_factory.mktemp("encoders")
    for kind, tokenizer in KINDS.items():
        made = train(tokenizer, data.texts)
        random_encoder(kind, folder / kind, vocab_size=made.get_vocab_size())
        made.save(str(folder / kind / "tokenizer.json"))
        fit(
            data,
            folder / "runs" / kind,
            encoder=str(folder / kind),
            attention=AttentionConfig(clip=0.97),
            config=TrainConfig(steps=2),
            privacy=PrivacyConfig(epsilon=3.0, noise_seed=0),
        )
    return folder / "runs"


@pytest.fixture(
    scope="module", params=["redacting", pytest.param("telling", marks=pytest.mark.exhaustive)]
)
def client(
    request: pytest.FixtureRequest,
    runs: Path,
    serving: Serving,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Client, str]]:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    redacts = str(request.param == "redacting").lower()
    policy.write_text(
        f"redact_sensitive_tokens = {redacts}\nrestrict_non_private_models = false\n", "utf-8"
    )
    options = ("--policy", policy, "--precision", "float32", "--workers", 0)
    with serving(runs, *options) as target, Client(target) as found:
        yield found, request.param


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_as_the_run_folder_and_explains_in_the_text(
    client: tuple[Client, str], runs: Path, data: Dataset, kind: str
) -> None:
    asked, policy = client
    run = load_run(runs / kind)
    texts = [TEXT, *data.texts[:9]]
    expected = predict_probabilities(run, texts).argmax(1)
    answers = [each.label for each in asked.predict(kind, texts)]
    assert answers == [run.label_names[number] for number in expected]

    tokens = asked.explain(kind, TEXT).tokens
    if policy == "redacting":
        shown = "".join(token.text for token in tokens)
        assert any("[EMAIL_ADDRESS]" in token.text for token in tokens)
        assert not any(part in shown for part in ("maria", "keller", "example.com", "@"))
        return
    places = [token.offsets for token in tokens if token.offsets is not None]
    assert len(places) == len(tokens) == run.tokenizer.encode(TEXT, 256).size - 2
    assert [token.text for token in tokens] == [TEXT[start:end] for start, end in places]
    covered = {i for start, end in places for i in range(start, end)}
    assert all(i in covered or character.isspace() for i, character in enumerate(TEXT))


@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_swaps_and_hides_whole_values(runs: Path, data: Dataset, kind: str) -> None:
    run = load_run(runs / kind)
    (result,) = audit_runs([run], data, None, OPTIONS).results
    assert result.attention.certificate.holds
    found = result.counterfactual
    assert found.overall.entities > 0
    assert result.memorisation.held_out_entities > 0
    shown = [piece for each in result.examples for piece in each.pieces]
    assert any(piece.placeholder not in (None, "[CLS]", "[SEP]") for piece in shown)
    assert not any("@" in (piece.word or "") for piece in shown)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_what_stands_between_white_space(runs: Path, kind: str) -> None:
    """Tokens of white space alone, which byte-level BPE has, part words as white space does."""
    run = load_run(runs / kind)
    text = "one  two\n\nthree,four \t five"
    made = Texts("made", (text,), (0,), ("a", "b"))
    documents = prepare(run.modality, made, ((),))
    words = find_words(documents, 0)
    assert [word.value for word in words] == text.split()
    assert [word.mentions for word in words] == [(text.index(word),) for word in text.split()]
