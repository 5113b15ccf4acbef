"""Small encoders with random weights, as ``transformers`` makes, writes and runs them."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from attnpriv.models.text import TextClassifier

WORDS = 61
PAD = 1
LETTERS = string.ascii_lowercase


def random_encoder(kind: str, folder: Path, auto: str = "AutoModel", **change: Any) -> Any:
    """Write an encoder whose every weight is random, those of the norms too.

    ``auto`` is the class of transformers that makes it, with or without a head.
    """
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
    model = getattr(transformers, auto).from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, -0.5, 1.0)
    model.save_pretrained(folder)
    return model


FAMILY_SIZES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 5, "num_hidden_layers": 5, "num_hidden_groups": 2},
    "electra": {"embedding_size": 16},
    "eurobert": {"num_key_value_heads": 3},
    "modernbert": {"local_attention": 4, "layer_types": None, "num_hidden_layers": 4},
}


def family_encoder(kind: str, folder: Path, auto: str = "AutoModel", **change: Any) -> Any:
    """``random_encoder`` of any family that ``harden`` knows, with attention that is sharp."""
    model = random_encoder(kind, folder, auto, **FAMILY_SIZES.get(kind, {}), **change)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def letters_tokenizer(folder: Path) -> None:
    """Write a tokenizer.json whose words are letters."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*names, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    assert len(words) <= WORDS
    tokenizer = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))


def lines_of_letters() -> list[str]:
    """400 texts of words of letters."""
    chance = random.Random(0)
    words = ["".join(chance.choices(LETTERS, k=chance.randint(1, 6))) for _ in range(50)]
    return [" ".join(chance.choices(words, k=chance.randint(1, 9))) for _ in range(400)]


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
