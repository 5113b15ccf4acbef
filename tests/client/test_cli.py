"""The attnpriv-client command against a real server."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from attnpriv.runs.prediction import predict_probabilities
from attnpriv_client import render
from attnpriv_client.domain import (
    Explanation,
    ModelCard,
    ModelSummary,
    Prediction,
    Redaction,
    TokenExplanation,
)
from attnpriv_client.render import explanation_view

TEXT = "Mail [bold]jane.doe@example.com\x1b[31m at once"


def test_predict_reads_files_of_more_texts_than_one_request_takes(
    output, target, run, tmp_path
) -> None:
    texts = [f"message number {n} about a parcel" for n in range(150)]
    file = tmp_path / "texts.txt"
    file.write_bytes("\r\n".join(texts).encode("utf-8-sig"))

    found = json.loads(
        output("predict", "--target", target, "--model", run.name, "--file", str(file), "--json")
    )

    expected = [run.label_names[i] for i in predict_probabilities(run, texts).argmax(1)]
    assert [each["label"] for each in found["predictions"]] == expected


def test_predict_from_arguments_and_from_stdin_agree(output, target, run) -> None:
    options = ("predict", "--target", target, "--model", run.name, "--json")

    from_arguments = output(*options, "one text", "another text")
    from_stdin = output(*options, "-", stdin=b"one text\nanother text\n")

    assert from_arguments == from_stdin


def test_a_file_becomes_a_file_with_an_answer_or_an_error_in_each_line(
    command, target, run, tmp_path
) -> None:
    texts = [f"message number {n}" for n in range(70)]
    texts[40] = " "
    file, answers = tmp_path / "texts.txt", tmp_path / "answers.jsonl"
    file.write_text("\n".join(texts))

    done = command(
        *("predict", "--target", target, "--model", run.name),
        *("--file", str(file), "--output", str(answers)),
    )

    assert done.code == 2
    assert f"1 of 70 lines in {answers} hold an error instead" in done.stderr
    assert "line 41: INVALID_ARGUMENT: expected a text" in done.stderr
    records = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [record["line"] for record in records] == list(range(1, 71))
    assert records[40]["error"]["code"] == "INVALID_ARGUMENT"
    texts[40] = "x"
    expected = [run.label_names[i] for i in predict_probabilities(run, texts).argmax(1)]
    assert [r["label"] for r in records if r["line"] != 41] == expected[:40] + expected[41:]


def test_tables_are_readable_and_harmless(output, target, run) -> None:
    predicted = output("predict", "--target", target, "--model", run.name, TEXT)
    explained = output("explain", "--target", target, "--model", run.name, TEXT)

    assert "[bold]" in predicted
    assert "[EMAIL_ADDRESS]" in explained
    assert "cannot see: AGE" in explained
    assert "certified: no single attention weight exceeds" in explained
    assert "integrated gradients: sum to" in explained
    assert "\x1b" not in predicted + explained


NAME = r"[/x] [bold]b\[/]"


def test_no_name_is_read_as_markup() -> None:
    prediction = Prediction(NAME, {NAME: 0.5}, False, NAME)
    summary = ModelSummary(NAME, True, 1.0, 1e-5, (NAME,), NAME, (NAME,))
    token = TokenExplanation(NAME, (NAME,), 0.3, (), 0.2, None)
    redaction = Redaction(NAME, (), (NAME,), True)
    views = (
        render.predictions_table([NAME], [prediction]),
        render.explanation_view(Explanation(NAME, prediction, NAME, (token,), (), redaction, 0.5)),
        render.models_table([summary]),
        render.card_table(
            ModelCard(summary, NAME, 1, None, "clamp", "dot", None, NAME, (NAME,), (NAME,), {})
        ),
        render.written(3, Path(f"runs/{NAME}")),
    )

    for view in views:
        shown = io.StringIO()
        Console(file=shown, width=200).print(view)
        assert NAME in shown.getvalue()


@pytest.mark.parametrize(("encoding", "bar"), [("utf-8", "█" * 20), ("ascii", "#" * 20)])
def test_bars_are_of_what_the_terminal_knows(encoding, bar) -> None:
    token = TokenExplanation("word", (), 0.3, (), 0.2, None)
    prediction = Prediction("label", None, False, "1")
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)

    Console(file=shown, width=100).print(
        render.explanation_view(Explanation("1", prediction, "label", (token,), (), None, None))
    )

    shown.seek(0)
    assert f" {bar} " in shown.read()


def test_explain_as_json(output, target, run) -> None:
    options = ("explain", "--target", target, "--model", run.name, "--json")

    found = json.loads(output(*options, "--label", run.label_names[1], "-", stdin=b"a\ntext"))

    assert found["target_label"] == run.label_names[1]
    assert [token["text"] for token in found["special_tokens"]] == ["[CLS]", "[SEP]"]
    assert found["tokens"][0]["text"] == "a"
    assert found["integrated_gradients_error"] >= 0
    assert found["integrated_gradients_withheld"] is None


def test_gradients_that_did_not_converge_are_told_with_the_reason(capsys) -> None:
    token = TokenExplanation("a", (), 1.0, (1.0,), None, None)
    explanation = Explanation(
        version="1",
        prediction=Prediction("yes", None, False, "1"),
        target_label="yes",
        tokens=(token,),
        special_tokens=(),
        redaction=None,
        weight_bound=None,
        integrated_gradients_error=3.0,
        integrated_gradients_withheld="their numerical integration is off by up to 3",
    )
    Console(width=200).print(explanation_view(explanation))
    shown = capsys.readouterr().out
    assert "no integrated gradients: their numerical integration is off by up to 3" in shown
    assert "sum to" not in shown


def test_models_as_tables_and_as_json(output, target, run) -> None:
    assert run.name in output("models", "--target", target)
    assert "statement" in output("models", run.name, "--target", target)
    card = json.loads(output("models", run.name, "--target", target, "--json"))
    assert card["raw"]["statement"] == run.card.statement


def test_health_of_the_server_and_of_a_model(output, target, run) -> None:
    assert output("health", "--target", target) == "serving\n"
    assert output("health", run.name, "--target", target) == "serving\n"


def test_health_where_nobody_answers(command) -> None:
    done = command("health", "--target", "127.0.0.1:1", "--attempts", "1")

    assert (done.code, done.stderr) == (1, "")
    assert done.stdout.startswith("unreachable: UNAVAILABLE")


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["predict", "--model", "MODEL"], b"", "give either texts, or - to read stdin, or --file"),
        (["predict", "--model", "MODEL", "-"], b"a\n\nb\n", "line 2 has no visible character"),
        (["predict", "--model", "MODEL", "-"], b"", "line 1 has no visible character"),
        (
            ["predict", "--model", "MODEL", "-"],
            b"a\nb\xff",
            "line 2: invalid UTF-8 at byte 1",
        ),
        (
            ["predict", "--model", "MODEL", "-"],
            b"x" * 2**21,
            "stdin, line 1: expected a line of at most 1048576 bytes",
        ),
        (["predict", "--model", "MODEL", "--file", "/none"], b"", "cannot read /none"),
        (
            ["predict", "--model", "MODEL", "--output", "/x", "a"],
            b"",
            "give either texts, or - to read stdin, or --file",
        ),
        (["predict", "--model", "nobody", "text"], b"", "NOT_FOUND: unknown model"),
        (["predict", "--model", "MODEL", "a", " "], b"", "text 2: INVALID_ARGUMENT: "),
        (["explain", "--model", "MODEL", "--label", "x", "a"], b"", "unknown label"),
        (["explain", "--model", "MODEL", "-"], b"\xff", "invalid UTF-8 in stdin at byte 0"),
        (["models", "nobody"], b"", "NOT_FOUND"),
        (["models", "MODEL", "--version", "none"], b"", "NOT_FOUND"),
        (["health", "nobody"], b"", "NOT_FOUND"),
        (["models", "--tls-key", "/none"], b"", "give both a client certificate and its key"),
        (["models", "--token-file", "/none"], b"", "cannot read /none"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command, target, run, arguments, stdin, message
) -> None:
    named = [run.name if each == "MODEL" else each for each in arguments]

    done = command(*named, "--target", target, stdin=stdin)

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_server_that_cannot_be_reached_is_one_line_too(command) -> None:
    done = command("models", "--target", "127.0.0.1:1")

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: UNAVAILABLE: ")
    assert done.stderr.count("\n") == 1
