"""Small tokenisers of every kind that pretrained encoders have, trained from a few lines."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from attnpriv.data import PretrainedTokenizer

LINES = (
    "the quick brown fox jumps over the lazy dog, and the dog is not amused",
    "a good film and a bad film: 1234567 people saw them, anna@example.com did not",
    "Zoë Müller aus der Straße: ein naïves Café in Köln, großartig",
    "你好 世界 这家餐厅的服务非常好",
    "مرحبا بالعالم",
    "Hello world. It is fine... really",
)
NAMES = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BERT_NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# As SentencePiece compiles it for these rules, in its notation: 200B 20; A0 20; 9 20; A 20; FB01
# 66 69; FB03 66 66 69; 65 301 E9; FF1C 3C; FF1E 3E; 2026 2E 2E 2E; BD 31 2044 32; AD and 1 to
# nothing.
CHARSMAP = base64.b64decode(Path(__file__).with_name("charsmap.b64").read_text())


def word_piece(lowercase: bool, lines: Iterable[str]) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=list(BERT_NAMES), show_progress=False
    )
    made.train_from_iterator(lines, trainer)
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def unigram(
    normalizer: normalizers.Normalizer,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    lines: Iterable[str],
) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=160, special_tokens=list(NAMES), unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(lines, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return made


def byte_pairs(prefix: bool, trim: bool, lines: Iterable[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(NAMES),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(lines, trainer)
    made.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trim, add_prefix_space=prefix
    )
    return made


def composed_byte_pairs(lines: Iterable[str]) -> Tokenizer:
    made = byte_pairs(prefix=False, trim=False, lines=lines)
    made.normalizer = normalizers.NFC()
    return made


def _as_xlm_roberta(lines: Iterable[str]) -> Tokenizer:
    split, mark = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()
    return unigram(normalizers.Precompiled(CHARSMAP), pre_tokenizers.Sequence([split, mark]), lines)


KINDS: dict[str, Callable[[Iterable[str]], Tokenizer]] = {
    "WordPiece, uncased": lambda lines: word_piece(True, lines),
    "WordPiece, cased": lambda lines: word_piece(False, lines),
    "Unigram as XLM-RoBERTa's": _as_xlm_roberta,
    "Unigram, NFKC": lambda lines: unigram(normalizers.NFKC(), pre_tokenizers.Metaspace(), lines),
    "Unigram, without accents": lambda lines: unigram(
        normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()]),
        pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
        lines,
    ),
    "BPE as RoBERTa's": lambda lines: byte_pairs(prefix=False, trim=True, lines=lines),
    "BPE with a space in front": lambda lines: byte_pairs(prefix=True, trim=True, lines=lines),
    "BPE, untrimmed": lambda lines: byte_pairs(prefix=True, trim=False, lines=lines),
    "BPE, composed": composed_byte_pairs,
}


def train(kind: str, lines: Iterable[str] = LINES) -> Tokenizer:
    return KINDS[kind](lines)


def ours(tokenizer: Tokenizer) -> PretrainedTokenizer:
    """As it is read from a file, which is not the object that was trained."""
    return PretrainedTokenizer.from_bytes(tokenizer.to_str().encode(), "tokenizer.json")
