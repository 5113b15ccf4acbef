"""Images over the same methods as texts, under the same policy, and files that are no images."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attnpriv.boxes import Box
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.inference import open_inference_pb2 as oip
from attnpriv.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.shapes import CnnConfig
from attnpriv.runs.card import ModelCard
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.training import train
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.budget.charging import Budget
from attnpriv_server.core import Core
from attnpriv_server.domain import (
    Code,
    ExplainRequest,
    ImageFile,
    PredictRequest,
    RefusedError,
    SummarizeRequest,
)
from attnpriv_server.models.repository import Repository
from attnpriv_server.policy import Role, read_policies
from attnpriv_server.telemetry import Telemetry
from tests.images import animated, bomb, encoded, many_scans
from tests.server.asking import answer_of, error_of

HEIGHT, WIDTH = 8, 16
PIXELS = load_dataset("digits:rows=9,beside=1").records
RIGHT = Box(8, 0, 16, 8, "DIGIT")
COLOUR = np.repeat(PIXELS[0], 3, 2)

# The label of the whole image is drawn; what is explained is what the redacted one gives.
DRAWN = """
[roles.everyone]
predict = { label = { read = "full", epsilon = 1 } }
budget = { epsilon = 2 }

[roles.everyone.explain]
tokens = { read = "redacted" }
attention = { read = "redacted" }
key = { epsilon = 1 }
"""
SUBSTITUTED = """
[roles.everyone]
predict = { label = { read = "substituted" }, probabilities = { read = "substituted" } }
"""


def role(content: str) -> Role:
    return read_policies(content.encode()).of("anybody")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads two digits side by side, with weights that tell images apart.

    Without noise, which is the operating system's: the costs of draws go with the weights.
    """
    path = tmp_path_factory.mktemp("served") / "digits"
    train(
        load_dataset("digits:rows=200,beside=1"),
        path,
        attention=AttentionConfig(clip=2.0),
        config=TrainConfig(trainable="head", steps=3, batch_size=100, head_learning_rate=0.02),
        privacy=None,
    )
    return path


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    run = load_run(folder)
    card = {**run.card.as_written, "private": True, "epsilon": 3.0, "delta": 1e-5}
    return replace(run, card=ModelCard.from_json(card))


@pytest.fixture(scope="module")
def both(run: Run, models: dict[str, Run]) -> dict[str, Run]:
    return {"digits": run, "private": models["private"]}


@pytest.fixture(scope="module")
def images(both: dict[str, Run], make_core) -> Iterator[Core]:
    core = make_core(both)
    yield core
    core.close()


def file_of(pixels: np.ndarray, *regions: Box) -> ImageFile:
    return ImageFile(encoded(pixels), regions)


def predict(core: Core, *files: ImageFile, **fields):
    return asyncio.run(answer_of(core, PredictRequest("digits", (), images=files, **fields)))


def explain(core: Core, file: ImageFile, **fields):
    return asyncio.run(answer_of(core, ExplainRequest("digits", "", image=file, **fields)))


def test_the_probabilities_are_those_of_the_run(images: Core, run: Run) -> None:
    found = predict(images, *map(file_of, PIXELS))

    expected = predict_probabilities(run, PIXELS)
    np.testing.assert_allclose([p.probabilities for p in found.predictions], expected, atol=1e-6)
    assert len({each.probabilities for each in found.predictions}) == len(PIXELS)
    assert found.redaction is None
    assert not any(each.truncated for each in found.predictions)


def test_an_explanation_has_one_entry_for_each_patch(images: Core, run: Run) -> None:
    found = explain(images, file_of(PIXELS[0], RIGHT))

    assert [token.box for token in found.tokens] == list(run.modality.places)
    assert sum(token.attention for token in found.tokens) == pytest.approx(1)
    hidden = [token.box[2] > 8 for token in found.tokens]
    assert [token.text for token in found.tokens] == ["[DIGIT]" if each else "" for each in hidden]
    assert [token.entity_types for token in found.tokens] == [
        ("DIGIT",) if each else () for each in hidden
    ]
    assert not any(token.offsets for token in found.tokens)
    assert found.special_tokens == ()
    assert max(token.attention for token in found.tokens) <= found.weight_bound < 1
    assert found.redaction.hidden_from_model
    assert found.redaction.entity_types == ()
    assert found.redaction.cannot_see == ("UNMARKED_REGIONS",)


def test_what_a_region_hides_changes_nothing_in_a_redacted_answer(images: Core) -> None:
    one, other = PIXELS[0], PIXELS[0].copy()
    other[:, 8:] = PIXELS[1][:, 8:]

    assert explain(images, file_of(one, RIGHT)) == explain(images, file_of(other, RIGHT))
    assert explain(images, file_of(one)) != explain(images, file_of(other))
    assert predict(images, file_of(one, RIGHT)) != predict(images, file_of(other, RIGHT))  # in full


def test_black_stands_for_a_region_where_texts_have_public_values(make_core, both) -> None:
    core, black = make_core(both, role(SUBSTITUTED)), PIXELS[0].copy()
    black[:, 8:] = 0

    masked, seen = predict(core, file_of(PIXELS[0], RIGHT)), predict(core, file_of(black))
    core.close()

    assert masked == seen


def test_drawn_answers_are_charged_once(make_core, both, tmp_path: Path) -> None:
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    core = make_core(both, role(DRAWN), budget=budget)
    name = "as good as a random one"

    first = explain(core, file_of(PIXELS[0], RIGHT), request_id=name)
    again = explain(core, file_of(PIXELS[0], RIGHT), request_id=name)
    with pytest.raises(RefusedError) as conflict:
        explain(core, file_of(PIXELS[1], RIGHT), request_id=name)
    label = predict(core, file_of(PIXELS[0], RIGHT))
    with pytest.raises(RefusedError) as exhausted:
        predict(core, *(file_of(each, RIGHT) for each in PIXELS))
    core.close()

    assert first == again
    assert first.micro_epsilon == 1_000_000
    assert 0 <= first.drawn_token < len(first.tokens)
    assert label.micro_epsilon == 1_000_000
    assert conflict.value.status.code is Code.ALREADY_EXISTS
    assert exhausted.value.status.code is Code.RESOURCE_EXHAUSTED


def test_a_model_that_attends_to_nothing_explains_by_gradients(make_core, run: Run) -> None:
    torch.manual_seed(0)
    shape = CnnConfig(
        encoder="cnn-cbam",
        height=HEIGHT,
        width=WIDTH,
        channels=1,
        patch=2,
        num_labels=10,
        attention=AttentionConfig(clip=2.0),
    )
    model = CnnClassifier(shape).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight)
    core = make_core({"digits": replace(run, model=model, modality=shape.patches)})

    found = explain(core, file_of(PIXELS[0], RIGHT))
    core.close()

    assert all(token.attention is None for token in found.tokens)
    assert any(token.integrated_gradients for token in found.tokens)
    assert found.weight_bound is None
    assert found.integrated_gradients_withheld is None
    drawing = make_core({"digits": replace(run, model=model)}, role(DRAWN))
    with pytest.raises(RefusedError, match="draws a position by its attention, and this model"):
        explain(drawing, file_of(PIXELS[0], RIGHT))
    drawing.close()


GOOD = encoded(PIXELS[0])
NOT_WHOLE = "expected a PNG or JPEG image that is whole and undamaged"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected 1 to 1048576 bytes, got 0"),
        (GOOD + bytes(2**20), "expected 1 to 1048576 bytes, got"),
        (b"secret", NOT_WHOLE),
        (GOOD[: len(GOOD) // 2], NOT_WHOLE),
        (encoded(PIXELS[0], "BMP"), NOT_WHOLE),
        (encoded(PIXELS[0][:, :8]), "expected an image of 16 × 8 grey pixels, got 8 × 8 grey pix"),
        (encoded(COLOUR), "expected an image of 16 × 8 grey pixels, got 16 × 8 colour pixels"),
        (bomb(2000, 2000), "expected an image of 16 × 8 grey pixels, got 2000 × 2000 colour"),
        (bomb(3000, 3000), "expected at most 4194304 pixels, got 3000 × 3000"),
        (animated(COLOUR), "expected an image of one frame, got 2"),
        (many_scans(PIXELS[0][..., 0], 200), "expected a JPEG of at most 100 scans, got 206"),
        (encoded(PIXELS[0][..., 0].astype(np.uint16)), "8 bits a channel"),
    ],
)
def test_files_that_are_no_image_of_the_model(images: Core, content: bytes, message: str) -> None:
    for field, ask in (("images[1]", predict), ("image", explain)):
        files = [ImageFile(GOOD)] * (ask is predict) + [ImageFile(content)]
        with pytest.raises(RefusedError) as refused:
            ask(images, *files)
        status = refused.value.status
        assert status.code is Code.INVALID_ARGUMENT
        assert status.violations[0].field == field
        assert message in status.message


FILE = ImageFile(GOOD)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (PredictRequest("digits", ("a",), images=(FILE,)), "images: expected no texts beside"),
        (PredictRequest("digits", (), images=(FILE,) * 129), "images: expected 1 to 128 images"),
        (PredictRequest("digits", ("a",)), "texts: expected images, which this model reads"),
        (PredictRequest("private", (), images=(FILE,)), "images: expected texts, which this mod"),
        (ExplainRequest("digits", "a", image=FILE), "image: expected no text beside an image"),
        (ExplainRequest("digits", "a"), "text: expected images, which this model reads"),
        (ExplainRequest("private", "", image=FILE), "image: expected texts, which this model"),
        (SummarizeRequest("digits", ("a",), ("labels",)), "the policy withholds summaries"),
    ],
)
def test_the_wrong_kind_of_record(images: Core, request_, message: str) -> None:
    with pytest.raises(RefusedError, match="^" + message.replace("[", r"\[")):
        asyncio.run(answer_of(images, request_))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (Box(8, 0, 17, 8, "DIGIT"), "sensitive[0]: expected a box inside 16 × 8 pixels"),
        (Box(8, 0, 16, 9, "DIGIT"), "sensitive[0]: expected a box inside 16 × 8 pixels"),
        (Box(8, 0, 8, 8, "DIGIT"), "sensitive[0]: expected left < right and top < bottom"),
        (Box(8, 0, 16, 8, "my aunt"), "sensitive[0].entity_type: expected 1 to 64 capital"),
    ],
)
def test_regions_that_are_none(images: Core, box: Box, message: str) -> None:
    with pytest.raises(RefusedError) as refused:
        explain(images, file_of(PIXELS[0], box))
    assert refused.value.status.message.startswith(f"image.{message}")


def test_summaries_are_of_texts(make_core, both, tmp_path: Path) -> None:
    budget = Budget.open(f"sqlite:///{tmp_path}/budget.db", Telemetry())
    rules = """
    [roles.everyone]
    summarize = { epsilon = 1, labels = { read = "full" } }
    budget = { epsilon = 2 }
    """
    core = make_core(both, role(rules), budget=budget)
    with pytest.raises(RefusedError, match="model: expected a model of texts, got one of images"):
        asyncio.run(answer_of(core, SummarizeRequest("digits", ("a",), ("labels",))))
    core.close()


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The same with some bytes changed, a stretch cut out or put in twice."""
    changed = bytearray(content)
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0 | 1:
                changed[place] = dice.randrange(256)
            case 2:
                del changed[place : place + dice.randint(1, 9)]
            case 3:
                changed[place:place] = changed[place : place + dice.randint(1, 99)]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def test_no_mutated_file_gets_anything_but_an_answer_or_a_refusal(images: Core) -> None:
    dice = random.Random(0)
    valid = [encoded(PIXELS[0], kind) for kind in ("PNG", "JPEG")]
    valid += [encoded(PIXELS[0], "JPEG", progressive=True), animated(COLOUR)]
    outcomes: set[tuple[str, object]] = set()

    async def ask() -> None:
        for _ in range(600):
            file = ImageFile(mutated(dice.choice(valid), dice))
            try:
                found = await answer_of(images, PredictRequest("digits", (), images=(file,)))
                outcomes.add(("answered", len(found.predictions)))
            except RefusedError as refusal:
                outcomes.add((refusal.status.code, refusal.status.violations[0].field))

    asyncio.run(ask())
    assert outcomes == {("answered", 1), (Code.INVALID_ARGUMENT, "images[0]")}


def test_a_folder_of_images_is_served(folder: Path) -> None:
    with Repository(folder.parent, "float32") as repository:
        loaded = repository.loaded(repository.find("digits", None))

    assert loaded.version.pixels == (HEIGHT, WIDTH, 1)
    np.testing.assert_array_equal(loaded.backend.decode([GOOD]), PIXELS[:1])


def test_images_go_over_the_wire(serve, make_core, both) -> None:
    channel = serve(make_core(both))
    stub, standard = AttnprivServiceStub(channel), GRPCInferenceServiceStub(channel)
    region = pb.SensitiveBox(left=8, top=0, right=16, bottom=8, entity_type="DIGIT")
    image = pb.Image(content=GOOD, sensitive=[region])
    request = pb.PredictRequest(model="digits", images=[image])

    answer = stub.Predict(request)
    (streamed,) = stub.PredictStream(iter([pb.PredictStreamRequest(number=3, request=request)]))
    explained = stub.Explain(pb.ExplainRequest(model="digits", image=image))
    listed = {each.name: each for each in stub.ListModels(pb.ListModelsRequest()).models}
    damaged = pb.PredictRequest(model="digits", images=[pb.Image(content=b"secret")])
    code, details = error_of(lambda: stub.Predict(damaged))
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    inferred = standard.ModelInfer(
        oip.ModelInferRequest(
            model_name="digits", inputs=[{**tensor, "contents": {"bytes_contents": [GOOD]}}]
        )
    )
    metadata = standard.ModelMetadata(oip.ModelMetadataRequest(name="digits"))

    assert streamed.response == answer
    assert explained.tokens[-1].text == "[DIGIT]"
    assert explained.tokens[-1].box == pb.PatchBox(left=14, top=6, right=16, bottom=8)
    assert not listed["private"].HasField("image_size")
    assert listed["digits"].image_size == pb.ImageSize(height=HEIGHT, width=WIDTH, channels=1)
    assert (code, details) == ("INVALID_ARGUMENT", f"images[0]: {NOT_WHOLE}")
    outputs = {each.name: each.contents for each in inferred.outputs}
    assert list(outputs["probabilities"].fp32_contents) == list(answer.predictions[0].probabilities)
    assert [each.name for each in metadata.inputs] == ["image"]
