"""What the embedded example rests on, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from attnpriv.config import AttentionConfig
from attnpriv.data import Dataset
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.modality import Inputs, embed
from attnpriv.models.text import TextClassifier


@pytest.fixture(scope="module")
def inputs(tickets: Dataset) -> Inputs:
    modality = Text(HashTokenizer(4096), 64)
    return modality.collate(modality.read([*tickets.texts[:7], "", "one"]))


def test_only_what_has_a_place_in_the_text_is_content(inputs: Inputs) -> None:
    lengths = inputs.mask.sum(1).tolist()
    assert lengths[-2:] == [2, 3]
    for row, length in enumerate(lengths):
        expected = [0 < position < length - 1 for position in range(inputs.mask.shape[1])]
        assert inputs.content[row].tolist() == expected
    assert (inputs.blank == 0).all()


@pytest.mark.parametrize("clip", [None, 2.0])
def test_the_baseline_in_the_place_of_an_embedding_is_padding_in_the_place_of_a_token(
    make_model: Callable[[AttentionConfig], TextClassifier], inputs: Inputs, clip: float | None
) -> None:
    model = make_model(AttentionConfig(clip=clip))
    example = embed(model, inputs)
    drawn = torch.rand(23, *inputs.mask.shape, generator=torch.Generator().manual_seed(0))
    for share, each in enumerate(drawn):
        removed = inputs.content & (each < share / 22)
        changed = torch.where(removed, 0, inputs.values)
        x = example.without(torch.arange(len(removed)), removed)
        assert torch.equal(x, model.embed(changed))
        assert torch.equal(model.run(x, inputs.mask).outputs, model(changed, inputs.mask))
    assert torch.equal(example.baseline, model.embed(torch.where(inputs.content, 0, inputs.values)))


def test_a_row_alone_has_the_bits_that_it_has_among_others(
    model: TextClassifier, inputs: Inputs
) -> None:
    together = embed(model, inputs)
    for row, own in enumerate(together.rows()):
        length = int(inputs.mask[row].sum())
        assert torch.equal(own.x, model.embed(inputs.values[row : row + 1, :length]))
        assert own.mask.all()
