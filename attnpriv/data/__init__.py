"""Named sources, files, tokenisation, and the mapping from character spans to tokens."""

from attnpriv.data.files import read_file
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.data.records import Dataset, Span, Texts
from attnpriv.data.saving import save_dataset
from attnpriv.data.sources import SOURCES, load_dataset
from attnpriv.data.spans import sensitive_tokens
from attnpriv.data.splits import split_indices
from attnpriv.data.tickets import make_tickets
from attnpriv.data.tokenisation import Encoding, HashTokenizer, Tokenizer

__all__ = [
    "SOURCES",
    "Dataset",
    "Encoding",
    "HashTokenizer",
    "PretrainedTokenizer",
    "Span",
    "Texts",
    "Tokenizer",
    "load_dataset",
    "make_tickets",
    "read_file",
    "save_dataset",
    "sensitive_tokens",
    "split_indices",
]
