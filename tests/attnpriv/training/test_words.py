"""Encoder ``words`` from the training to the certificate that the command prints."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attnpriv.audit.certified import CertifiedResult, certified_accuracy
from attnpriv.audit.documents import prepare
from attnpriv.audit.noising import Audited
from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness.text_edits import Neighbours
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.audit.subject import NO_LAYERS
from attnpriv.config import BOUNDED, AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.errors import InputError
from attnpriv.models.pretrained import load_pretrained
from attnpriv.models.words import WordsClassifier, token_vectors
from attnpriv.report.chapters import CHAPTERS, findings
from attnpriv.runs.edits import certified_substitutions, certify_texts, edit_certifier
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import encode_texts, predict_probabilities
from attnpriv.training import train


@pytest.fixture(scope="module")
def run(tickets: Dataset, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("words") / "words"
    train(
        tickets,
        out,
        encoder=f"words:{tiny_encoder}",
        config=TrainConfig(trainable="all", steps=30, batch_size=100),
        privacy=PrivacyConfig(epsilon=8.0, accountant="rdp", noise_seed=0),
    )
    return load_run(out)


def test_query_and_head_are_trained_privately_and_the_vectors_stay(
    run: Run, tiny_encoder: Path
) -> None:
    assert isinstance(run.model, WordsClassifier)
    assert run.card.encoder == run.model.config.encoder == f"words:{tiny_encoder.name}"
    assert run.card.attention.clip == BOUNDED.clip
    privacy = run.card.privacy
    assert privacy is not None
    assert privacy.epsilon <= 8
    tokenizer = PretrainedTokenizer.from_file(tiny_encoder / "tokenizer.json")
    table = token_vectors(load_pretrained(tiny_encoder, 2), tokenizer)
    torch.testing.assert_close(run.model.words.weight, table)
    for weight in run.model.fast_parameters():
        assert weight.abs().max() > 0


def test_vectors_have_norm_one_and_unknown_stands_for_what_no_text_produces(
    tiny_encoder: Path,
) -> None:
    tokenizer = PretrainedTokenizer.from_file(tiny_encoder / "tokenizer.json")
    table = token_vectors(load_pretrained(tiny_encoder, 2), tokenizer)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(len(table)))
    assert tokenizer.unknown_id is not None
    never = sorted({*range(len(table))} - {*tokenizer.producible().tolist()})
    assert never == [0, 2, 3]  # [PAD], [CLS], [SEP]
    assert (table[never] == table[tokenizer.unknown_id]).all()
    assert len(torch.unique(table, dim=0)) == len(table) - len(never)


def test_certified_answers_are_the_answers_of_the_run(run: Run, tickets: Dataset) -> None:
    texts = [*tickets.texts[:40], ""]
    radii = certify_texts(run, texts)
    answers = predict_probabilities(run, texts).argmax(1).tolist()
    assert [each.label for each in radii if each.edits] == [
        answer for answer, each in zip(answers, radii, strict=True) if each.edits
    ]
    encodings = encode_texts(run, texts)
    assert [certified_substitutions(run, each) for each in encodings] == [
        each.substitutions for each in radii
    ]
    assert [each.filled for each in radii] == [each.size == 23 for each in encodings]
    assert any(each.filled for each in radii)
    assert {each.substitutions for each in radii} >= {0, 1}


def test_an_audit_measures_all_but_what_needs_layers(run: Run, tickets: Dataset) -> None:
    few = AuditOptions(
        documents=12, members=12, ig_documents=1, ig_steps=4, faithfulness_documents=1,
        sensitivity_documents=1, counterfactual_documents=2, memorisation_documents=2,
        pgd_documents=1, text_attack_documents=1, permutations=20, resamples=20, examples=1,
    )  # fmt: skip
    (result,) = audit_runs([run], tickets, options=few).results
    missing = [name for name, each in vars(result).items() if each == NotRun(NO_LAYERS)]
    assert missing == ["flow", "conductance", "explanation_attacks", "inversion"]
    assert isinstance(result.certified, CertifiedResult)
    assert (result.certified.documents, result.certified.valid) == (12, True)
    assert result.attention.certificate.holds is True
    assert "neighbouring words" in {family.name for family in result.text_attacks.families}
    assert result.text_attacks.within is not None
    assert result.text_attacks.within.passed
    said = {finding.measure: finding for finding in findings(result)}
    reason = "The model reads tokens one by one: it has no layers that they pass through."
    assert [said[name].text for name in missing] == [reason] * 4
    assert all(block for chapter in CHAPTERS for block in chapter.body([result], False))


@pytest.mark.exhaustive
def test_several_heads_are_trained_and_certified_from_below(
    tickets: Dataset, tiny_encoder: Path, tmp_path: Path
) -> None:
    usual = {"config": TrainConfig(trainable="all", steps=5), "privacy": None}
    train(tickets, tmp_path / "run", encoder=f"words:{tiny_encoder}", heads=2, **usual)
    run = load_run(tmp_path / "run")
    assert run.model.config.heads == 2
    texts = tickets.texts[:20]
    result = certified_accuracy(
        run.model,
        edit_certifier(run),
        prepare(run.modality, tickets.subset([*range(20)]), [()] * 20),
        0,
    )
    assert result.valid
    assert [r.label for r in certify_texts(run, texts) if r.edits] == [
        label
        for label, r in zip(
            predict_probabilities(run, texts).argmax(1), certify_texts(run, texts), strict=True
        )
        if r.edits
    ]
    with pytest.raises(InputError, match="only encoder words takes a number of heads"):
        train(tickets, tmp_path / "other", heads=2, **usual)


def test_neighbouring_words_are_the_nearest_in_the_table_of_the_encoder(run: Run) -> None:
    tokenizer = run.tokenizer
    assert isinstance(tokenizer, PretrainedTokenizer)
    neighbours = Neighbours(run.model, tokenizer)
    vectors = run.model.words.weight.double()
    found = 0
    for word, number in list(tokenizer.words.items())[:20]:
        cosines = {w: float(vectors[number] @ vectors[i]) for w, i in tokenizer.words.items()}
        del cosines[word]
        nearest = sorted(cosines, key=lambda each, of=cosines: -of[each])[:4]
        edits = list(neighbours.edits(word, (0, len(word)), np.random.default_rng(0)))
        assert [edit.text for edit in edits] == [each for each in nearest if cosines[each] >= 0.4]
        assert all(tokenizer.encode(edit.text, 9).size == 3 for edit in edits)
        found += len(edits)
    assert found
    assert not list(neighbours.edits("qqqq", (0, 4), np.random.default_rng(0)))


def test_an_audit_under_an_epsilon_refuses_such_a_run(run: Run, tickets: Dataset) -> None:
    with pytest.raises(InputError, match="reads tokens one by one .*audit it without --epsilon"):
        Audited.of([run], tickets, AuditOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": TrainConfig(trainable="bias")}, "expected trainable head or all"),
        ({"pooling": "mean"}, "encoder words has a pooling of its own"),
        ({"share_layers": True}, "only the encoder scratch can share its layers"),
        ({"attention": AttentionConfig(clip=1.0, clip_mode="relative")}, "other than relative"),
        ({"encoder": "words:nowhere"}, "expected encoder scratch, .* or a folder, got 'nowhere'"),
    ],
)
def test_what_does_not_go_with_words_is_refused(
    tickets: Dataset, tiny_encoder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    usual = {"encoder": f"words:{tiny_encoder}", "config": TrainConfig(trainable="all")}
    with pytest.raises(InputError, match=message):
        train(tickets, tmp_path / "run", privacy=None, **{**usual, **options})


def test_a_run_without_layers_teaches_nobody(
    run: Run, tickets: Dataset, tiny_encoder: Path, tmp_path: Path
) -> None:
    usual = {"config": TrainConfig(trainable="all", steps=1), "privacy": None}
    train(tickets, tmp_path / "plain", encoder=f"words:{tiny_encoder}", **usual)
    with pytest.raises(InputError, match="expected a teacher with layers, got 'plain'"):
        train(tickets, tmp_path / "student", distil_from=tmp_path / "plain", **usual)


def test_the_command_prints_radii_and_no_text(
    run: Run, tickets: Dataset, tmp_path: Path, command: Any
) -> None:
    file = tmp_path / "data.tsv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        rows = zip(tickets.texts[:12], tickets.labels[:12], strict=True)
        named = ((text, tickets.label_names[label]) for text, label in rows)
        csv.writer(opened, delimiter="\t", lineterminator="\n").writerows(
            [("text", "label"), *named]
        )
    outcome = command("certify", run.path, "--texts", file, "--json")
    told = json.loads(outcome.out)
    radii = certify_texts(run, tickets.texts[:12])
    assert [row["substitutions"] for row in told["texts"]] == [e.substitutions for e in radii]
    assert [row["edits"] for row in told["certified"]] == [0, 1, 2, 3, 5, 10]
    right = [e.label == label for e, label in zip(radii, tickets.labels, strict=False)]
    assert told["certified"][0]["substitutions"]["value"] == pytest.approx(sum(right) / 12)
    assert "text" not in told["texts"][0]
    shown = command("certify", run.path, "--texts", file, "--show-texts", "--json")
    assert json.loads(shown.out)["texts"][3]["text"] == tickets.texts[3]


def test_the_command_takes_lines_without_labels(run: Run, tmp_path: Path, command: Any) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("my card was charged twice\n\nthanks\n", encoding="utf-8")
    outcome = command("certify", run.path, "--texts", file)
    assert outcome.code == 0
    assert "how many edits leave the answer as it is" in outcome.out
    assert "texts that are answered alike, whatever is edited" in outcome.out
    assert "charged" not in outcome.out


def test_bad_input_is_one_error(run: Run, tmp_path: Path, command: Any, private_run: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    for arguments, message in (
        ((run.path, "--texts", empty), "expected at least one text, got none"),
        ((run.path, "--texts", tmp_path / "no.txt"), "expected a file of texts in UTF-8"),
        ((run.path, "--texts", empty, "--keys", 3), "--keys cannot be used with --texts"),
        ((run.path, "--show-texts"), "--show-texts cannot be used without --texts"),
    ):
        outcome = command("certify", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err
    empty.write_text("hello\n", encoding="utf-8")
    outcome = command("certify", private_run, "--texts", empty)
    assert outcome.code == 2
    assert "expected a run trained with --encoder words, got 'private'" in outcome.err
