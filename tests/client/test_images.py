"""Images from the client's side: what is sent, and what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import numpy as np
import pytest

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_client import Image, InvalidRequestError, SensitiveBox
from tests.client.conftest import Echo
from tests.images import encoded

FILE = encoded(np.arange(128, dtype=np.uint8).reshape(8, 16))
BOX = SensitiveBox(8, 0, 16, 8, "DIGIT")
SENT = pb.Image(
    content=FILE,
    sensitive=[pb.SensitiveBox(left=8, top=0, right=16, bottom=8, entity_type="DIGIT")],
)


class Images(Echo):
    """Answers each image with the number of its regions, and refuses what is no PNG."""

    def predictions(self, request: pb.PredictRequest) -> pb.PredictResponse:
        found = [pb.Prediction(label=str(len(each.sensitive))) for each in request.images]
        return pb.PredictResponse(predictions=found, version="1")

    def Predict(self, request, context):  # noqa: N802
        if not all(each.content.startswith(b"\x89PNG") for each in request.images):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "images[0]: expected a PNG")
        return super().Predict(request, context)

    def Explain(self, request, context):  # noqa: N802
        self.requests.append(request)
        patches = list(map(_patch, range(8)))
        return pb.ExplainResponse(version="1", label_names=["a"], tokens=patches)


def _patch(number: int) -> pb.TokenExplanation:
    x, y = 4 * (number % 4), 4 * (number // 4)
    hidden = {"text": "[DIGIT]", "entity_types": ["DIGIT"]} if x >= 8 else {}
    return pb.TokenExplanation(
        attention=number / 28,
        box=pb.PatchBox(left=x, top=y, right=x + 4, bottom=y + 4),
        **hidden,
    )


@pytest.fixture
def echo() -> Images:
    return Images()


def test_images_and_regions_are_sent_as_they_are(ask, serve, echo) -> None:
    target = serve(echo)

    (found,) = ask(target, "predict_images", "m", [Image(FILE, (BOX,))])
    explained = ask(target, "explain_image", "m", Image(FILE, (BOX,)), "a")

    assert found.label == "1"
    assert list(echo.requests[0].images) == [SENT]
    assert (echo.requests[1].image, echo.requests[1].target_label) == (SENT, "a")
    assert [token.box for token in explained.tokens[:2]] == [(0, 0, 4, 4), (4, 0, 8, 4)]
    with pytest.raises(InvalidRequestError, match="expected a PNG"):
        ask(target, "predict_images", "m", [Image(b"secret")])
    with pytest.raises(InputError, match="expected 0 <= left < right"):
        ask(target, "predict_images", "m", [Image(FILE, (SensitiveBox(8, 0, 8, 8, "A"),))])


def test_an_image_says_nothing_of_what_it_holds() -> None:
    assert "PNG" not in repr(Image(FILE))


def test_the_command_asks_about_files(output, command, serve, echo, tmp_path: Path) -> None:
    path, damaged = tmp_path / "a.png", tmp_path / "b.png"
    path.write_bytes(FILE)
    damaged.write_bytes(b"secret")
    asked = ("--target", serve(echo), "--model", "m", "--image", str(path))

    labels = json.loads(output("predict", *asked, "--region", "8:0:16:8:DIGIT", "--json"))
    drawn = output("explain", *asked, "--region", "8:0:16:8:DIGIT")

    assert [each["label"] for each in labels["predictions"]] == ["1"]
    assert all(each.image == SENT for each in echo.requests if isinstance(each, pb.ExplainRequest))
    assert " 0 1xxxx\n 5 6xxxx" in "\n".join(line.rstrip() for line in drawn.splitlines())
    assert "x 12 to 15, y 4 to 7" in drawn
    assert "sums to 1 over all of them" in drawn
    for arguments, message in (
        (("predict", *asked, "--image", str(damaged)), f"{damaged}: INVALID_ARGUMENT: images[0]: "),
        (("predict", *asked, "a text"), "give either texts or --image"),
        (("predict", *asked, "--region", "8:0:16"), "expected --region LEFT:TOP:RIGHT:BOTTOM:TYPE"),
        (("predict", *asked[:4], "text", "--region", "0:0:1:1:A"), "--region needs --image"),
        (("explain", *asked, "a text"), "give either a text or --image"),
        (("explain", *asked[:4]), "give either a text or --image"),
        (("explain", *asked, "--sensitive", "0:1:A"), "--sensitive is for a text"),
        (("explain", *asked[:4], "--image", str(tmp_path / "none.png")), "cannot read"),
    ):
        outcome = command(*arguments)
        assert outcome.code == 2
        assert message in outcome.stderr.replace("\n", "")
