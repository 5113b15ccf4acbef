"""Texts laid end to end against the same texts with padding."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnpriv.attention import MultiHeadSelfAttention, Packing
from attnpriv.config import AttentionConfig, ModelConfig, Pooling
from attnpriv.data.text import pad_batch
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier, pack_batch

LENGTHS = ((1,), (2, 3), (17, 5, 9, 17, 2), (64, 7, 33, 31, 8, 66, 1), (13,) * 11)
MODES = {
    "plain": AttentionConfig(),
    "clamp": AttentionConfig(clip=0.97),
    "tanh": AttentionConfig(temperature=2.0, clip=2.0, clip_mode="tanh"),
    "relative": AttentionConfig(clip=0.97, clip_mode="relative"),
    "norm": AttentionConfig(clip=1.5, clip_mode="norm"),
    "additive": AttentionConfig(clip=1.0, score="additive"),
}

lengths_of_texts = st.lists(st.integers(1, 70), min_size=1, max_size=20)


@given(lengths_of_texts)
def test_every_token_has_its_place_and_its_position(lengths: list[int]) -> None:
    packing = Packing(lengths)

    assert packing.texts.tolist() == [text for text, n in enumerate(lengths) for _ in range(n)]
    assert packing.positions[: packing.tokens].tolist() == [i for n in lengths for i in range(n)]
    assert packing.starts.tolist() == [sum(lengths[:text]) for text in range(len(lengths))]
    assert len(packing.positions) % 8 == 0
    assert 0 <= len(packing.positions) - sum(lengths) < 8


@given(lengths_of_texts)
def test_groups_hold_every_token_once_with_its_own_text_and_little_padding(
    lengths: list[int],
) -> None:
    packing = Packing(lengths)
    tokens = [
        group.sources.flatten() if group.mask is None else group.sources[group.mask]
        for group in packing.groups
    ]

    assert sorted(torch.cat(tokens).tolist()) == list(range(sum(lengths)))
    for group in packing.groups:
        counts = torch.tensor(lengths)[packing.texts[group.sources[:, 0]]]
        mask = torch.arange(int(counts.max())) < counts[:, None]
        assert (group.mask is None) == bool(mask.all())
        assert group.mask is None or torch.equal(group.mask, mask)
        assert 2 * counts.min() > counts.max()
        for sources, count in zip(group.sources.tolist(), counts.tolist(), strict=True):
            first = sources[0]  # of the text, and what stands in its padding: no other text's token
            assert packing.positions[first] == 0
            assert sources[:count] == list(range(first, first + count))
            assert set(sources[count:]) <= {first}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_padded_comes_back(dtype: torch.dtype) -> None:
    packing = Packing((5, 2, 11, 6))
    x = torch.randn(len(packing.positions), 3).to(dtype)
    padded = packing.pad(x)
    back = packing.unpad(padded)

    for group in packing.groups:
        assert torch.equal(group.part(padded), x[group.sources])
    assert torch.equal(back[: packing.tokens], x[: packing.tokens])
    for filling in back[packing.tokens :]:
        assert (filling == x[: packing.tokens]).all(-1).any()


def test_a_token_comes_back_from_its_own_place_and_not_from_the_padding() -> None:
    packing = Packing((5, 2, 11, 6))
    padded = torch.zeros(len(packing.pad(packing.positions)), 1)
    for group in packing.groups:
        own = torch.ones_like(group.sources) if group.mask is None else group.mask
        group.part(padded).copy_(own[..., None])

    assert packing.unpad(padded).all()


@pytest.mark.every_pair
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_and_its_gradient_are_those_of_padded_texts(
    lengths: Sequence[int], mode: str, causal: bool
) -> None:
    torch.manual_seed(0)
    attention = MultiHeadSelfAttention(24, 3, MODES[mode], causal=causal).double()
    packing = Packing(lengths)
    x = torch.randn(len(packing.positions), 24, dtype=torch.float64, requires_grad=True)
    padded, mask = laid_out(x, lengths)

    found, _ = attention(x, packing)
    expected, _ = attention(padded, mask)

    torch.testing.assert_close(found[: packing.tokens], expected[mask], rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(expected[mask])
    of_packed = torch.autograd.grad((found[: packing.tokens] * weights).sum(), x)[0]
    of_padded = torch.autograd.grad((expected[mask] * weights).sum(), x)[0]
    torch.testing.assert_close(of_packed, of_padded, rtol=1e-9, atol=1e-11)


def laid_out(x: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The same tokens [B, T, D] with padding that is not zero, and their mask."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    padded = torch.ones(*mask.shape, x.shape[-1], dtype=x.dtype)
    return padded.masked_scatter(mask[..., None], x[: sum(lengths)]), mask


@pytest.mark.every_pair
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("pooling", ["layers", "mean", "cls"])
@pytest.mark.parametrize("relative_positions", [False, True])
def test_a_model_gives_packed_texts_the_logits_of_padded_ones(
    lengths: Sequence[int], pooling: Pooling, relative_positions: bool
) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=50,
        dim=24,
        layers=3,
        heads=3,
        hidden_dim=32,
        max_length=70,
        num_labels=4,
        pooling=pooling,
        attention=MODES["clamp"],
        relative_positions=relative_positions,
    )
    model = TextClassifier(config).double()
    for bias in model.buffers():
        torch.nn.init.normal_(bias)
    torch.nn.init.normal_(model.head.weight)
    texts = [tuple(torch.randint(1, 50, (length,)).tolist()) for length in lengths]
    encodings = [Encoding(ids, ((0, 0),) * len(ids)) for ids in texts]

    ids, packing = pack_batch(encodings, 0)
    states, _ = model.encode(model.embed(ids, packing), packing)
    found = model.head(model.pool(states, packing))

    expected = model(*pad_batch(encodings, 0))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_weights_of_packed_texts_and_texts_without_tokens_are_refused() -> None:
    attention = MultiHeadSelfAttention(8, 2, AttentionConfig())
    with pytest.raises(InputError, match="expected padded texts with need_weights=True"):
        attention(torch.zeros(8, 8), Packing((3, 2)), need_weights=True)
    with pytest.raises(InputError, match="expected at least one token in each text, got 0"):
        Packing((3, 0))
