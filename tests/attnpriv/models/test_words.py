"""Words one by one: what pools them, and what their certificate promises, on the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from attnpriv.attention import Packing
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.edits import EditCertifier
from attnpriv.models.text import pack_batch
from attnpriv.models.words import WordsClassifier

CONFIG = ModelConfig(
    encoder="words",
    vocab_size=7,
    dim=5,
    layers=1,
    heads=1,
    hidden_dim=1,
    max_length=11,
    num_labels=3,
    attention=AttentionConfig(clip=1.0),
    isolated=True,
)


def model_of(seed: int, config: ModelConfig = CONFIG, scale: float = 2.0) -> WordsClassifier:
    torch.manual_seed(seed)
    model = WordsClassifier(config)
    rows = torch.randn(config.vocab_size, config.dim)
    model.words.weight.data.copy_(torch.nn.functional.normalize(rows, dim=-1))
    for parameter in model.fast_parameters():
        parameter.data.normal_(std=scale)
    return model.requires_grad_(False).eval()


def text(*tokens: int) -> Encoding:
    """Ids 0 and 1 begin and end each text; here they are words too."""
    places = tuple((i, i + 1) for i in range(len(tokens)))
    return Encoding((0, *tokens, 1), (None, *places, None))


def label(model: WordsClassifier, tokens: tuple[int, ...]) -> int:
    """What the model itself answers, in float32, reading no more than its length."""
    ids = torch.tensor([text(*tokens[: model.config.max_length - 2]).ids])
    return int(model(ids, torch.ones_like(ids, dtype=torch.bool)).argmax())


def labels(model: WordsClassifier, texts: list[tuple[int, ...]]) -> set[int]:
    ids = torch.tensor([(0, *tokens, 1) for tokens in texts])
    return set(model(ids, torch.ones_like(ids, dtype=torch.bool)).argmax(1).tolist())


def substituted(tokens: tuple[int, ...], count: int, vocabulary: int) -> Iterator[tuple[int, ...]]:
    for places in itertools.combinations(range(len(tokens)), count):
        for words in itertools.product(range(vocabulary), repeat=count):
            changed = list(tokens)
            for place, word in zip(places, words, strict=True):
                changed[place] = word
            yield tuple(changed)


@pytest.mark.parametrize("mode", ["clamp", "tanh", "norm"])
def test_substitutions_are_those_of_an_exhaustive_search_on_the_model(mode: str) -> None:
    attention = AttentionConfig(clip=1.0, clip_mode=mode, temperature=0.8)  # type: ignore[arg-type]
    rng, found, hidden = np.random.default_rng(0), [], 0
    for seed in range(20):
        model = model_of(seed, replace(CONFIG, attention=attention, vocab_size=5))
        certifier = EditCertifier(model)
        for _ in range(3):
            tokens = tuple(rng.integers(0, 5, rng.integers(1, 4)).tolist())
            radius, answer = certifier.substitutions(text(*tokens)), label(model, tokens)
            for count in range(1, radius + 1):
                assert labels(model, list(substituted(tokens, count, 5))) == {answer}
            if 0 < radius < len(tokens):
                beyond = list(substituted(tokens, radius + 1, 5))
                hidden += labels(model, beyond) == {answer}
            found.append(radius)
    assert hidden == 0
    assert set(found) == {0, 1, 2, 3}


@pytest.mark.parametrize("heads", [2, 3])
def test_with_several_heads_no_substitution_within_the_radius_changes_the_answer(
    heads: int,
) -> None:
    rng, found = np.random.default_rng(3), []
    shape = replace(CONFIG, vocab_size=5, dim=6, heads=heads, attention=AttentionConfig(clip=0.7))
    for seed in range(15):
        model = model_of(seed, shape)
        certifier = EditCertifier(model)
        tokens = tuple(rng.integers(0, 5, 3).tolist())
        radii, answer = certifier.radii(text(*tokens)), label(model, tokens)
        assert radii.substitutions == 0 or radii.label == answer
        for count in range(1, radii.substitutions + 1):
            assert labels(model, list(substituted(tokens, count, 5))) == {answer}
        deleted = itertools.combinations(tokens, 3 - min(radii.deletions, 3))
        assert radii.deletions == 0 or {label(model, each) for each in deleted} == {answer}
        reached = set(edited(tokens, 5))
        assert radii.edits == 0 or {label(model, each) for each in reached} == {answer}
        found.append(radii.substitutions)
    assert set(found) >= {0, 1}


def test_several_heads_pool_their_parts_of_the_vectors() -> None:
    model = model_of(0, replace(CONFIG, dim=6, heads=3))
    ids = torch.tensor([[0, 2, 3, 1]])
    seen = model.run(model.embed(ids), torch.ones_like(ids, dtype=torch.bool), need_maps=True)
    weights, words = seen.maps[0].weights[0, :, 0], model.words.weight[ids[0]]
    by_hand = torch.cat([weights[h] @ words[:, 2 * h : 2 * h + 2] for h in range(3)])
    torch.testing.assert_close(seen.features[0], by_hand)
    assert model.attention_shape == (1, 3)
    for h in range(3):
        logits = (words[:, 2 * h : 2 * h + 2] @ model.blocks[0].query.weight[h, 0]).clamp(-1, 1)
        torch.testing.assert_close(weights[h], logits.softmax(0))
    certifier = EditCertifier(model)
    margins = [certifier.margin(text(2, 3), k) for k in range(3)]
    logits = model(ids, torch.ones_like(ids, dtype=torch.bool))[0].double()
    for k, margin in enumerate(margins):
        assert abs(float(logits[k] - without(logits[None], k).max()) - margin) < certifier.slack


def test_no_mixture_of_edits_within_the_radius_changes_the_answer() -> None:
    rng, certified = np.random.default_rng(1), 0
    for seed in range(30):
        model = model_of(seed, replace(CONFIG, vocab_size=3, max_length=6))
        certifier = EditCertifier(model)
        tokens = tuple(rng.integers(0, 3, rng.integers(1, 5)).tolist())
        radii, answer = certifier.radii(text(*tokens)), label(model, tokens)
        assert radii.filled == (len(tokens) == 4)
        reached = {tokens}
        for _ in range(min(radii.edits, 2)):
            reached |= {new for each in reached for new in edited(each, 3)}
        read = {tokens[:4] for tokens in reached}
        assert radii.edits == 0 or {label(model, each) for each in read} == {answer}
        certified += radii.edits > 0
        assert radii.edits <= min(radii.deletions, radii.insertions) or len(tokens) < radii.edits
        assert radii.edits <= radii.substitutions or radii.substitutions == len(tokens)
    assert certified > 5


def edited(tokens: tuple[int, ...], vocabulary: int) -> Iterator[tuple[int, ...]]:
    for place in range(len(tokens) + 1):
        before, after = tokens[:place], tokens[place:]
        yield (*before, *after[1:])
        for word in range(vocabulary):
            yield (*before, word, *after)
            yield (*before, word, *after[1:])


def beam_attack(model: WordsClassifier, tokens: tuple[int, ...], width: int) -> int | None:
    """Substitutions after which the answer has changed, by a beam search on the logits alone."""
    answer, beam = label(model, tokens), [tokens]
    for count in range(1, len(tokens) + 1):
        tried = [
            (*each[:place], word, *each[place + 1 :])
            for each in beam
            for place in range(len(tokens))
            for word in range(model.config.vocab_size)
        ]
        ids = torch.tensor([(0, *each, 1) for each in tried])
        logits = model(ids, torch.ones_like(ids, dtype=torch.bool))
        ahead = logits[:, answer] - without(logits, answer).max(1).values
        if ahead.min() < 0:
            return count
        beam = [tried[i] for i in ahead.argsort()[:width].tolist()]
    return None


def without(logits: Tensor, column: int) -> Tensor:
    return torch.cat([logits[:, :column], logits[:, column + 1 :]], dim=1)


@pytest.mark.parametrize("width", [1, 8])
def test_greedy_and_beam_search_never_cross_the_radius_and_meet_it_between_two_classes(
    width: int,
) -> None:
    rng, met, shape = np.random.default_rng(2), [], replace(CONFIG, vocab_size=30, num_labels=2)
    for seed in range(12):
        model = model_of(seed, shape, scale=1.0)
        certifier = EditCertifier(model)
        tokens = tuple(rng.integers(0, 30, 9).tolist())
        radius, broken = certifier.substitutions(text(*tokens)), beam_attack(model, tokens, width)
        assert (broken or 10) > radius
        if radius:
            met.append((broken or 10) == radius + 1)
    # Greedy choices go wrong where they change the sum of the weights; the wider beam makes it up.
    assert len(met) > 5
    assert np.mean(met) == 1 if width > 1 else np.mean(met) > 0.8


def test_the_slack_is_more_than_float32_moves_a_margin() -> None:
    for seed in range(3):
        model = model_of(seed, replace(CONFIG, dim=384, vocab_size=64, max_length=64), scale=1.0)
        certifier, rng = EditCertifier(model), np.random.default_rng(seed)
        for _ in range(20):
            tokens = rng.integers(0, 64, 62).tolist()
            ids = torch.tensor([text(*tokens).ids])
            logits = model(ids, torch.ones_like(ids, dtype=torch.bool))[0].double()
            for one in range(3):
                margin = float(logits[one] - without(logits[None], one).max())
                assert abs(margin - certifier.margin(text(*tokens), one)) < certifier.slack
        assert certifier.slack < 0.1


def test_order_does_not_matter_and_without_a_query_all_tokens_weigh_alike() -> None:
    model = model_of(0)
    ids = torch.tensor([[0, 2, 3, 4, 1], [0, 4, 2, 3, 1]])
    logits = model(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(logits[0], logits[1])
    model.blocks[0].query.weight.zero_()
    seen = model.run(model.embed(ids), torch.ones_like(ids, dtype=torch.bool), need_maps=True)
    torch.testing.assert_close(seen.features[0], model.words.weight[ids[0]].mean(0))
    torch.testing.assert_close(seen.maps[0].weights, torch.full((2, 1, 5, 5), 0.2))


def test_packed_texts_get_the_answers_of_padded_ones() -> None:
    model, encodings = model_of(0), [text(2, 3, 4), text(5), text(6, 2, 2, 3, 4, 5)]
    ids, packing = pack_batch(encodings, 0)
    assert isinstance(packing, Packing)
    states, weights = model.encode(model.embed(ids, packing), packing)
    assert weights is None
    alone = [
        model(torch.tensor([e.ids]), torch.ones(1, len(e.ids), dtype=torch.bool)) for e in encodings
    ]
    torch.testing.assert_close(model.head(model.pool(states, packing)), torch.cat(alone))


def test_what_is_trained_is_the_query_and_the_head_and_every_record_is_clipped() -> None:
    model = model_of(3)
    model.select_trainable("head")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    model.select_trainable("all")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"head.weight", "head.bias", "blocks.0.query.weight"}
    for other in "bias", "last:1", "lora:2":
        with pytest.raises(InputError, match="expected trainable head or all with encoder words"):
            model.select_trainable(other)


@pytest.mark.parametrize(
    "change",
    [
        {"attention": AttentionConfig(clip=1.0, clip_mode="relative")},
        {"attention": AttentionConfig(score="additive")},
        {"layers": 2},
    ],
)
def test_shapes_without_a_certificate_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="with encoder words"):
        replace(CONFIG, **change)  # type: ignore[arg-type]
