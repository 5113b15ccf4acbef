from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data import Dataset, Texts, load_dataset, make_tickets, save_dataset
from attnpriv.errors import InputError
from attnpriv.labels import label_name, likeness
from attnpriv.visible import has_visible

SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet"]
TICKETS = make_tickets(rows=300)


def content(dataset: Dataset) -> tuple[object, ...]:
    return dataset.texts, dataset.labels, dataset.label_names, dataset.spans


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dataset", [TICKETS, replace(TICKETS, spans=None)], ids=["spans", "plain"])
def test_what_is_saved_is_read_back_without_options(
    tmp_path: Path, suffix: str, dataset: Dataset
) -> None:
    path = tmp_path / f"mine{suffix}"
    save_dataset(dataset, path)
    loaded = load_dataset(str(path))
    assert loaded.name == "mine"
    assert content(loaded) == content(dataset)
    assert loaded.fingerprint() == dataset.fingerprint()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def is_read_as_it_is(name: str) -> bool:
    try:
        return label_name(name) == name
    except InputError:
        return False


@given(
    st.lists(st.text().filter(has_visible), min_size=2, max_size=4),
    st.lists(
        st.text(max_size=9).filter(is_read_as_it_is), min_size=2, max_size=2, unique_by=likeness
    ).map(sorted),
)
def test_any_text_and_label_survive(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], names: list[str]
) -> None:
    labels = tuple(i % 2 for i in range(len(texts)))
    dataset = Texts("any", tuple(texts), labels, tuple(names))
    folder = tmp_path_factory.mktemp("any")
    for suffix in (".csv", ".jsonl", ".parquet"):
        save_dataset(dataset, folder / f"any{suffix}")
        assert content(load_dataset(str(folder / f"any{suffix}"))) == content(dataset)


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\r"])
def test_tsv_refuses_what_it_cannot_hold(tmp_path: Path, text: str) -> None:
    dataset = Texts("a", ("fine", text), (0, 1), ("x", "y"))
    with pytest.raises(InputError, match=r"row 3 has a tab or a line end.*use \.csv"):
        save_dataset(dataset, tmp_path / "a.tsv")
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"a\.csv exists already"):
        save_dataset(TICKETS, path)
    assert path.read_text() == "mine"
    save_dataset(TICKETS, path, overwrite=True)
    assert content(load_dataset(str(path))) == content(TICKETS)


def test_a_link_is_as_good_as_its_file_and_a_pipe_holds_nothing_to_lose(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file.csv", tmp_path / "link.csv", tmp_path / "pipe.csv"
    link.symlink_to(file)
    save_dataset(TICKETS, link)
    with pytest.raises(InputError, match=r"link\.csv exists already"):
        save_dataset(TICKETS, link)
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    save_dataset(TICKETS, pipe)
    reader.join(30)
    assert received == [file.read_bytes()]
    assert (link.is_symlink(), pipe.is_fifo()) == (True, True)


def test_a_place_that_cannot_be_written_is_refused_and_left_clean(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*No such file"):
        save_dataset(TICKETS, tmp_path / "none" / "a.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*Is a directory"):
        save_dataset(TICKETS, tmp_path / "folder.csv", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.csv"]


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file ending in \.csv, .* got '.*a\.xlsx'"):
        save_dataset(TICKETS, tmp_path / "a.xlsx")
