"""The messages of ``attnpriv.v1`` as requests of the core, and the core's answers as messages.

Beside this, only ``wire`` touches them, to read the number of a stream's request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from google.protobuf.message import Message

from attnpriv.boxes import Box
from attnpriv.release.summary import Noised
from attnpriv.spans import Span
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_server.domain import (
    ExplainRequest,
    Explanation,
    GetModelRequest,
    GroupSummary,
    ImageFile,
    LabelSummary,
    ListModelsRequest,
    Model,
    Models,
    Prediction,
    Predictions,
    PredictRequest,
    Redaction,
    Request,
    Response,
    Status,
    SummarizeRequest,
    TextsSummary,
    Token,
)
from attnpriv_server.status import to_message

# Of a card's attention; the temperatures of every head are in the card's JSON.
HARDENING = {field.name for field in pb.Attention.DESCRIPTOR.fields}

# What each method asks.
REQUESTS: dict[str, type[Request]] = {
    "Predict": PredictRequest,
    "PredictStream": PredictRequest,
    "Explain": ExplainRequest,
    "Summarize": SummarizeRequest,
    "ListModels": ListModelsRequest,
    "GetModel": GetModelRequest,
}


def to_domain(message: Message) -> Request:
    """What a request message asks for.

    Raises:
        TypeError: it is not one of the service's request messages.
    """
    match message:
        case pb.PredictRequest():
            return PredictRequest(
                message.model,
                tuple(message.texts),
                _version(message),
                _request_id(message),
                tuple(_spans(each.spans) for each in message.sensitive),
                tuple(map(_image, message.images)),
            )
        case pb.ExplainRequest():
            target = message.target_label if message.HasField("target_label") else None
            return ExplainRequest(
                message.model,
                message.text,
                target,
                _version(message),
                _request_id(message),
                _spans(message.sensitive),
                _image(message.image) if message.HasField("image") else None,
            )
        case pb.SummarizeRequest():
            return SummarizeRequest(
                message.model,
                tuple(message.texts),
                tuple(map(_figure, message.figures)),
                message.by_label,
                tuple(message.words),
                message.cap if message.HasField("cap") else None,
                _version(message),
                _request_id(message),
            )
        case pb.ListModelsRequest():
            return ListModelsRequest()
        case pb.GetModelRequest():
            return GetModelRequest(message.name, _version(message))
        case _:
            raise TypeError(f"not a request: {type(message).__name__}")


def to_wire(response: Response) -> Message:
    """The message that carries an answer.

    Raises:
        TypeError: no message of the service carries it.
    """
    match response:
        case Predictions():
            return _predictions(response)
        case Explanation():
            return _explanation(response)
        case TextsSummary():
            return _texts_summary(response)
        case Models():
            return pb.ListModelsResponse(models=map(_summary, response.models))
        case Model():
            return pb.GetModelResponse(model=_card(response))
        case _:
            raise TypeError(f"no message for {type(response).__name__}")


def to_streamed(number: int, answer: Response | Status) -> pb.PredictStreamResponse:
    """The answer to one request of a stream."""
    if isinstance(answer, Status):
        return pb.PredictStreamResponse(number=number, error=to_message(answer))
    assert isinstance(answer, Predictions)
    return pb.PredictStreamResponse(number=number, response=_predictions(answer))


def _version(message: Any) -> str | None:
    return message.version if message.HasField("version") else None


def _request_id(message: Any) -> str | None:
    return message.request_id if message.HasField("request_id") else None


def _figure(number: int) -> str:
    """The name of a figure by its number; a number that none has becomes a name that none has."""
    found = pb.Figure.DESCRIPTOR.values_by_number.get(number)
    return "" if found is None else found.name.removeprefix("FIGURE_").lower()


def _spans(spans: Iterable[pb.SensitiveSpan]) -> tuple[Span, ...]:
    return tuple(Span(each.start, each.end, each.entity_type) for each in spans)


def _image(image: pb.Image) -> ImageFile:
    boxes = (
        Box(each.left, each.top, each.right, each.bottom, each.entity_type)
        for each in image.sensitive
    )
    return ImageFile(image.content, tuple(boxes))


def _predictions(predictions: Predictions) -> pb.PredictResponse:
    return pb.PredictResponse(
        label_names=predictions.label_names,
        predictions=map(_prediction, predictions.predictions),
        version=predictions.version,
        redaction=_redaction(predictions.redaction),
        micro_epsilon=predictions.micro_epsilon,
    )


def _prediction(prediction: Prediction) -> pb.Prediction:
    return pb.Prediction(
        label=prediction.label,
        probabilities=prediction.probabilities,
        truncated=prediction.truncated,
        certified_substitutions=prediction.certified_substitutions,
    )


def _explanation(explanation: Explanation) -> pb.ExplainResponse:
    prediction = explanation.prediction
    return pb.ExplainResponse(
        label_names=explanation.label_names,
        prediction=None if prediction is None else _prediction(prediction),
        target_label=explanation.target_label or "",  # empty where it is withheld
        tokens=map(_token, explanation.tokens),
        special_tokens=map(_token, explanation.special_tokens),
        redaction=_redaction(explanation.redaction),
        weight_bound=explanation.weight_bound,
        version=explanation.version,
        integrated_gradients_error=explanation.integrated_gradients_error,
        integrated_gradients_withheld=explanation.integrated_gradients_withheld,
        micro_epsilon=explanation.micro_epsilon,
        drawn_token=explanation.drawn_token,
    )


def _token(token: Token) -> pb.TokenExplanation:
    return pb.TokenExplanation(
        text=token.text,
        entity_types=token.entity_types,
        attention=token.attention,
        layer_attention=token.layer_attention,
        head_attention=[pb.HeadAttention(heads=heads) for heads in token.head_attention or ()],
        rollout=token.rollout,
        integrated_gradients=token.integrated_gradients,
        offsets=None
        if token.offsets is None
        else pb.Offsets(start=token.offsets[0], end=token.offsets[1]),
        box=None if token.box is None else _box(token.box),
    )


def _box(box: tuple[int, int, int, int]) -> pb.PatchBox:
    left, top, right, bottom = box
    return pb.PatchBox(left=left, top=top, right=right, bottom=bottom)


def _texts_summary(summary: TextsSummary) -> pb.SummarizeResponse:
    return pb.SummarizeResponse(
        version=summary.version,
        texts=summary.texts,
        labels=map(_label_summary, summary.labels),
        groups=map(_group_summary, summary.groups),
        redaction=_redaction(summary.redaction),
        micro_epsilon=summary.micro_epsilon,
    )


def _label_summary(summary: LabelSummary) -> pb.LabelSummary:
    return pb.LabelSummary(
        label=summary.label,
        count=_noised(summary.count),
        attention=_noised(summary.attention),
        attribution=_noised(summary.attribution),
    )


def _group_summary(summary: GroupSummary) -> pb.GroupSummary:
    message = pb.GroupSummary(
        attention=_noised(summary.attention), attribution=_noised(summary.attribution)
    )
    if summary.is_word:
        message.word = summary.name
    else:
        message.entity_type = summary.name
    return message


def _noised(number: Noised | None) -> pb.NoisedNumber | None:
    if number is None or number.value is None:
        return None
    return pb.NoisedNumber(**asdict(number))


def _redaction(redaction: Redaction | None) -> pb.Redaction | None:
    if redaction is None:
        return None
    return pb.Redaction(
        detector=redaction.detector,
        entity_types=redaction.entity_types,
        cannot_see=redaction.cannot_see,
        hidden_from_model=redaction.hidden_from_model,
    )


def _summary(model: Model) -> pb.ModelSummary:
    card = model.card
    return pb.ModelSummary(
        name=card.name,
        private=card.private,
        epsilon=card.epsilon,
        delta=card.delta,
        label_names=card.label_names,
        version=model.version,
        versions=model.versions,
        image_size=_image_size(model.pixels),
    )


def _image_size(pixels: tuple[int, int, int] | None) -> pb.ImageSize | None:
    if pixels is None:
        return None
    height, width, channels = pixels
    return pb.ImageSize(height=height, width=width, channels=channels)


def _card(model: Model) -> pb.ModelCard:
    card = model.card
    return pb.ModelCard(
        summary=_summary(model),
        encoder=card.encoder,
        attention=pb.Attention(**{name: getattr(card.attention, name) for name in HARDENING}),
        statement=card.statement,
        not_covered=card.not_covered,
        warnings=card.warnings,
        json=json.dumps(_without_fingerprint(card.as_written), ensure_ascii=False),
    )


def _without_fingerprint(card: Mapping[str, Any]) -> dict[str, Any]:
    data = {key: value for key, value in card["data"].items() if key != "fingerprint"}
    return {**card, "data": data}
