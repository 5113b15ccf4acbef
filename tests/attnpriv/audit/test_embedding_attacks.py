from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.robustness import captum_attacks, embedding
from attnpriv.audit.robustness.batches import Answer, Batch, make_batch
from attnpriv.audit.robustness.captum_attacks import Attack, fgsm, pgd
from attnpriv.audit.robustness.embedding import embedding_attacks
from attnpriv.modality import embed
from attnpriv.models.text import TextClassifier


@pytest.fixture(scope="module")
def batch(model: TextClassifier, documents: Documents) -> Batch:
    example = embed(model, documents.inputs([0, 1, 2]))
    return make_batch(example, torch.tensor(documents.data.labels[:3]))


def answers(model: TextClassifier) -> Answer:
    return lambda x, mask: model.run(x, mask).outputs


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_perturbations_stay_in_the_ball_and_off_the_special_tokens(
    model: TextClassifier, batch: Batch, attack: Attack
) -> None:
    moved = attack(answers(model), batch, torch.full((3,), 0.03)) - batch.x
    assert float(moved.abs().max()) == pytest.approx(0.03, rel=1e-4)
    fixed = batch.movable == 0
    assert (moved[fixed] == 0).all()
    assert fixed[:, 0].all()
    assert fixed[~batch.mask].all()
    assert (moved[~fixed] != 0).float().mean() > 0.9


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_confident_documents_are_attacked_like_any_other(
    model: TextClassifier, batch: Batch, attack: Attack
) -> None:
    with torch.no_grad():
        logits = model.run(batch.x, batch.mask).outputs
        margin = float((logits[:, 0] - logits[:, 1:].amax(-1)).abs().min())
        confident = copy.deepcopy(model)
        confident.head.weight *= 30 / margin
        confident.head.bias *= 30 / margin
        labels = confident.run(batch.x, batch.mask).outputs.argmax(-1)
    sure = dataclasses.replace(batch, labels=labels)
    moved = attack(answers(confident), sure, torch.full((3,), 0.03)) - batch.x
    assert (moved[batch.movable > 0] != 0).float().mean() > 0.9


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_each_row_has_its_own_radius(model: TextClassifier, batch: Batch, attack: Attack) -> None:
    radii = torch.tensor([0.03, 0.0, 0.01])
    together = attack(answers(model), batch, radii)
    furthest = (together - batch.x).abs().amax((1, 2))
    assert furthest.tolist() == pytest.approx(radii.tolist(), rel=1e-4)
    for row in range(3):
        alone = attack(answers(model), batch.part(torch.tensor([row])), radii[row : row + 1])
        same = torch.isclose(alone[0], together[row], atol=1e-6)
        assert same.float().mean() > 0.995  # a gradient near 0 may round to the other sign


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_attacks_raise_the_loss(model: TextClassifier, batch: Batch, attack: Attack) -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        logits = model.run(x, batch.mask).outputs
        return torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")

    moved = attack(answers(model), batch, torch.full((3,), 0.01))
    assert (loss(moved) > loss(batch.x)).all()


def test_fgsm_is_the_sign_of_the_gradient(model: TextClassifier, batch: Batch) -> None:
    x = batch.x.clone().requires_grad_()
    logits = model.run(x, batch.mask).outputs
    torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum").backward()
    assert x.grad is not None
    expected = batch.x + 0.02 * x.grad.sign() * batch.movable
    same = torch.isclose(fgsm(answers(model), batch, torch.full((3,), 0.02)), expected)
    assert same.float().mean() > 0.995  # a gradient near 0 may round to the other sign


@pytest.fixture(scope="module")
def fitted(model: TextClassifier, documents: Documents) -> Documents:
    return labelled_by(model, documents)


def labelled_by(model: TextClassifier, documents: Documents) -> Documents:
    """The documents with the model's own predictions as labels: a clean accuracy of 1."""
    inputs = documents.inputs(range(len(documents)))
    labels = tuple(model(inputs.values, inputs.mask).argmax(-1).tolist())
    data = dataclasses.replace(documents.data, labels=labels)
    return dataclasses.replace(documents, data=data)


def test_accuracy_only_falls_and_controls_pass(model: TextClassifier, fitted: Documents) -> None:
    result = embedding_attacks(model, fitted, most=3)
    assert result.clean.value == 1.0
    accuracies = [result.clean.value, *(at.strongest.value or 0.0 for at in result.radii)]
    assert accuracies == sorted(accuracies, reverse=True)
    for at in result.radii:
        shares = [getattr(at, name).value or 0.0 for name in embedding.ATTACKS]
        assert shares == sorted(shares, reverse=True)
    assert result.null.passed
    assert result.positive.passed
    assert result.valid


def test_sampled_and_reproducible(model: TextClassifier, fitted: Documents) -> None:
    seen: list[tuple[int, int]] = []
    once = embedding_attacks(model, fitted, 1, seed=3, progress=lambda *at: seen.append(at))
    assert (once.documents, once.sampled_from, seen[-1]) == (1, len(fitted), (1, 1))
    assert embedding_attacks(model, fitted, 1, seed=3) == once


def test_a_broken_attack_fails_the_positive_control(
    model: TextClassifier, fitted: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captum_attacks, "STEP", -captum_attacks.STEP)  # PGD walks the wrong way
    result = embedding_attacks(model, fitted, 1)
    assert result.positive.measured > 0
    assert not result.positive.passed
    assert not result.valid


def test_an_attack_that_leaves_its_ball_fails_the_positive_control(
    model: TextClassifier, fitted: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "fgsm", lambda m, batch, radii: fgsm(m, batch, 3 * radii))
    batches = [
        make_batch(fitted.embedded(model, d), torch.tensor([fitted.data.labels[d]]))
        for d in range(20)
    ]
    assert not embedding._positive_control(batches, 0).passed


def test_a_model_that_no_attack_reaches_keeps_its_accuracy(
    model: TextClassifier, fitted: Documents
) -> None:
    deaf = copy.deepcopy(model)
    torch.nn.init.zeros_(deaf.head.weight)
    result = embedding_attacks(deaf, labelled_by(deaf, fitted), 1)
    assert all(at.l2 == result.clean for at in result.radii)
    assert result.least.unbroken == result.least.documents > 0
    assert set(result.least.scales) == {None}


def test_where_nothing_is_answered_rightly_nothing_is_attacked(
    model: TextClassifier, fitted: Documents
) -> None:
    wrong = tuple((label + 1) % 2 for label in fitted.data.labels)
    data = dataclasses.replace(fitted.data, labels=wrong)
    result = embedding_attacks(model, dataclasses.replace(fitted, data=data), 2)
    assert (result.clean.value, result.least.documents, result.least.scales) == (0.0, 0, ())
    assert result.valid


def test_records_without_content_fail_the_control_and_crash_nothing(
    model: TextClassifier, fitted: Documents
) -> None:
    """As texts are that normalisation leaves nothing of."""
    data = dataclasses.replace(fitted.data, texts=("",), labels=(0,), spans=((),))
    empty = prepare(fitted.modality, data, [()])
    result = embedding_attacks(model, empty, 1)
    assert result.positive.expected.endswith("no record has anything that can be moved")
    assert not result.valid
    assert result.null.passed
