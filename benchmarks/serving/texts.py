"""The model that is served, and the two mixes of texts that it is asked about."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts
from attnpriv.training import train

TEXTS = 512  # of a mix
BLOCKS = 8
MEDIAN_TOKENS, SPREAD = 40, 0.9  # of the long-tailed mix, whose lengths are log-normal
SHORTEST = 8


def make_run(path: Path) -> None:
    """Train a hardened MiniLM a little, so that its labels differ from text to text."""
    train(
        load_dataset("tickets:rows=300"),
        path,
        encoder="minilm",
        attention=AttentionConfig(clip=0.97),
        config=TrainConfig(steps=50),
        privacy=None,
    )


def read_texts(path: Path) -> tuple[str, list[str]]:
    """What the texts are, and they: real messages, or synthetic tickets where there is no file."""
    if path.is_file():
        return "sms", list(load_dataset(str(path), text_column=1, label_column=0).texts)
    return "tickets", list(load_dataset("tickets:rows=2000").texts)


def make_mixes(run: Run, name: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """The texts as they are, and ``long``: joined and cut to log-normal lengths of tokens."""
    dice = random.Random(0)
    texts = [text for text in texts if text.strip()]
    dice.shuffle(texts)
    long = list(_long_texts(run, texts, dice))
    return {
        mix: _evened(run, chosen, dice) for mix, chosen in ((name, texts[:TEXTS]), ("long", long))
    }


def lengths(run: Run, texts: Sequence[str]) -> list[int]:
    """How many tokens the model reads of each text."""
    return [len(encoding.ids) for encoding in encode_texts(run, texts)]


def _long_texts(run: Run, texts: Sequence[str], dice: random.Random) -> Iterator[str]:
    longest = run.model.config.max_length
    for _ in range(TEXTS):
        wanted = round(dice.lognormvariate(math.log(MEDIAN_TOKENS), SPREAD))
        wanted = min(max(wanted, SHORTEST), longest)
        text = dice.choice(texts)
        while len((encoding := run.tokenizer.encode(text, wanted)).ids) < wanted:
            text += " " + dice.choice(texts)
        yield text[: encoding.end]


def _evened(run: Run, texts: Sequence[str], dice: random.Random) -> list[str]:
    """The texts in an order of which every eighth has about the lengths of the whole.

    So servers that get through few and through many of them in a measurement get the same work.
    """
    order = sorted(range(len(texts)), key=lengths(run, texts).__getitem__)
    blocks = [[texts[row] for row in order[start::BLOCKS]] for start in range(BLOCKS)]
    for block in blocks:
        dice.shuffle(block)
    return [text for block in blocks for text in block]
