"""Small encoders with random weights, as ``transformers`` makes, writes and runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnpriv.models.text import TextClassifier

WORDS = 61
PAD = 1


def random_encoder(kind: str, folder: Path, **change: Any) -> Any:
    """Write an encoder whose every weight is random, those of the norms too."""
    import transformers

    torch.manual_seed(0)
    wide = change.pop("wide", 40)
    shape = {
        "vocab_size": WORDS,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "hidden_dim" if kind == "distilbert" else "intermediate_size": wide,
        "max_position_embeddings": 302,  # more than our models take
        "initializer_range": 0.3,
        "pad_token_id": PAD,
    }
    config = transformers.AutoConfig.for_model(kind, **{**shape, **change})
    model = transformers.AutoModel.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, -0.5, 1.0)
    model.save_pretrained(folder)
    return model


def hidden_states(model: TextClassifier, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Those after the embeddings and after each layer of ours."""
    states = [model.embed(ids)]
    for block in model.blocks:
        states.append(block(states[-1], mask)[0])
    return states


@torch.no_grad()
def farthest_apart(model: TextClassifier, theirs: Any) -> float:
    """The largest difference of a hidden state, of texts of 1, 17 and most tokens at once."""
    longest = model.config.max_length
    ids = torch.randint(3, WORDS, (3, longest), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(longest) < torch.tensor([1, 17, longest])[:, None]
    ids = ids.where(mask, PAD)
    found = theirs(ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    ours = hidden_states(model, ids, mask)
    assert len(ours) == len(found) == model.config.layers + 1
    return max(
        float((mine - other)[mask].abs().max()) for mine, other in zip(ours, found, strict=True)
    )
