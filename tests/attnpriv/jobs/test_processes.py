import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from attnpriv.errors import InputError
from attnpriv.jobs import ProcessPool, Told


@dataclass(frozen=True)
class Squares:
    """Squares numbers; -1 raises and -2 takes its process with it."""

    resumable = True

    def packed(self) -> "Squares":
        return self

    def begin(self) -> Callable[[int, Told], bytes]:
        return _square


def _square(number: int, told: Told) -> bytes:
    if number == -1:
        raise InputError("expected a number from 0, got -1")
    if number == -2:
        os._exit(9)
    told(number, 10)
    return b"%d" % number**2


def test_pieces_come_back_with_their_results_and_say_how_far_they_are() -> None:
    notes = set()
    with ProcessPool(2).crew(Squares()) as crew:
        done = dict(crew(range(5), lambda *said: notes.add(said)))
        again = dict(crew([7], lambda *said: notes.add(said)))
    assert done == {0: b"0", 1: b"1", 2: b"4", 3: b"9", 4: b"16"}
    assert again == {7: b"49"}
    assert notes == {(number, number, 10) for number in (0, 1, 2, 3, 4, 7)}


def test_what_a_piece_raises_arrives() -> None:
    with ProcessPool(2).crew(Squares()) as crew, pytest.raises(InputError, match="got -1"):
        list(crew([3, -1], lambda *_: None))


class Once(Squares):
    """The same as work of which nothing is kept."""

    resumable = False


@pytest.mark.parametrize(
    ("job", "words"),
    [(Squares(), "--resume and fewer --processes goes on"), (Once(), "fewer --processes begins")],
)
def test_a_process_that_dies_is_said_in_words(job: Squares, words: str) -> None:
    with (
        pytest.raises(InputError, match=f"the same command with {words}"),
        ProcessPool(2).crew(job) as crew,
    ):
        list(crew([-2], lambda *_: None))


def test_no_process_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least one process, got 0"):
        ProcessPool(0)
