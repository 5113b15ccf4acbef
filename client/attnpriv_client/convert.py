"""From domain to wire and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from uuid import uuid4

from grpc_health.v1 import health_pb2

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv_client.domain import (
    Explanation,
    Image,
    ModelCard,
    ModelSummary,
    Prediction,
    Redaction,
    SensitiveBox,
    SensitiveSpan,
    TokenExplanation,
)
from attnpriv_client.errors import ServiceError
from attnpriv_client.status import from_status


def new_request_id() -> str:
    """An id under which a request is charged once, however often it is sent."""
    return str(uuid4())


def predict_request(
    model: str,
    texts: Sequence[str],
    version: str | None,
    request_id: str,
    sensitive: Sequence[Sequence[SensitiveSpan]] = (),
) -> pb.PredictRequest:
    """Ask for the labels of texts; the newest version answers if none is named.

    Raises:
        InputError: a single string was given instead of a sequence, a string is not valid Unicode,
            or a span is empty.
    """
    if isinstance(texts, str):
        raise InputError("expected a sequence of texts, got a single string")
    with unicode_only():
        return pb.PredictRequest(
            model=model,
            texts=texts,
            version=version,
            request_id=request_id,
            sensitive=[pb.SensitiveSpans(spans=map(_span, spans)) for spans in sensitive],
        )


def predict_images_request(
    model: str, images: Sequence[Image], version: str | None, request_id: str
) -> pb.PredictRequest:
    """Ask for the labels of images.

    Raises:
        InputError: a string is not valid Unicode, or a box is empty.
    """
    with unicode_only():
        return pb.PredictRequest(
            model=model, images=map(_image, images), version=version, request_id=request_id
        )


def streamed_id(stream_id: str, number: int, texts: Sequence[str]) -> str:
    """The id of a request of a stream: the same when it is sent again, another with fewer texts."""
    return f"{stream_id}-{number}-{len(texts)}"


def stream_request(
    number: int, model: str, texts: Sequence[str], version: str | None, stream_id: str
) -> pb.PredictStreamRequest:
    """The same, as one request of a stream."""
    request = predict_request(model, texts, version, streamed_id(stream_id, number, texts))
    return pb.PredictStreamRequest(number=number, request=request)


def explain_request(
    model: str,
    text: str,
    target_label: str | None,
    version: str | None,
    request_id: str,
    sensitive: Sequence[SensitiveSpan] = (),
) -> pb.ExplainRequest:
    """Ask for the explanation of one text.

    Raises:
        InputError: a string is not valid Unicode.
    """
    with unicode_only():
        return pb.ExplainRequest(
            model=model,
            text=text,
            target_label=target_label,
            version=version,
            request_id=request_id,
            sensitive=map(_span, sensitive),
        )


def explain_image_request(
    model: str, image: Image, target_label: str | None, version: str | None, request_id: str
) -> pb.ExplainRequest:
    """Ask for the explanation of one image.

    Raises:
        InputError: a string is not valid Unicode, or a box is empty.
    """
    with unicode_only():
        return pb.ExplainRequest(
            model=model,
            image=_image(image),
            target_label=target_label,
            version=version,
            request_id=request_id,
        )


def model_request(name: str, version: str | None) -> pb.GetModelRequest:
    """Ask for the card of a model.

    Raises:
        InputError: the name is not valid Unicode.
    """
    with unicode_only():
        return pb.GetModelRequest(name=name, version=version)


def health_request(model: str | None) -> health_pb2.HealthCheckRequest:
    """Ask whether a model, or the server if no model is named, answers.

    Raises:
        InputError: the name is not valid Unicode.
    """
    with unicode_only():
        return health_pb2.HealthCheckRequest(service=model or "")


def byte_size(text: str) -> int:
    """Length of a text in bytes on the wire.

    Raises:
        InputError: it is not valid Unicode.
    """
    with unicode_only():
        return len(text.encode())


def predictions(response: pb.PredictResponse) -> tuple[Prediction, ...]:
    """One prediction per text or image, in the order of the request."""
    charge = response.micro_epsilon / max(1, len(response.predictions))
    return tuple(
        replace(_prediction(each, response.label_names, response.version), micro_epsilon=charge)
        for each in response.predictions
    )


def stream_answer(
    response: pb.PredictStreamResponse,
) -> tuple[int, tuple[Prediction, ...] | ServiceError]:
    """The number of a request of a stream, and its predictions or its error."""
    if response.HasField("error"):
        return response.number, from_status(response.error)
    return response.number, predictions(response.response)


def explanation(response: pb.ExplainResponse) -> Explanation:
    """The explanation of one text or image."""
    has = response.HasField
    return Explanation(
        version=response.version,
        prediction=(
            _prediction(response.prediction, response.label_names, response.version)
            if has("prediction")
            else None
        ),
        target_label=response.target_label,
        tokens=tuple(map(_token, response.tokens)),
        special_tokens=tuple(map(_token, response.special_tokens)),
        redaction=redaction(response.redaction) if has("redaction") else None,
        weight_bound=response.weight_bound if has("weight_bound") else None,
        integrated_gradients_error=(
            response.integrated_gradients_error if has("integrated_gradients_error") else None
        ),
        integrated_gradients_withheld=(
            response.integrated_gradients_withheld if has("integrated_gradients_withheld") else None
        ),
        drawn_token=response.drawn_token if has("drawn_token") else None,
        micro_epsilon=response.micro_epsilon,
    )


def models(response: pb.ListModelsResponse) -> tuple[ModelSummary, ...]:
    """The models that a server serves."""
    return tuple(map(_summary, response.models))


def model_card(response: pb.GetModelResponse) -> ModelCard:
    """The card of one model."""
    card = response.model
    return ModelCard(
        summary=_summary(card.summary),
        encoder=card.encoder,
        temperature=card.attention.temperature,
        clip=card.attention.clip if card.attention.HasField("clip") else None,
        clip_mode=card.attention.clip_mode,
        score=card.attention.score,
        temperature_floor=_floor(card.attention),
        statement=card.statement,
        not_covered=tuple(card.not_covered),
        warnings=tuple(card.warnings),
        raw=json.loads(card.json),
    )


def is_serving(response: health_pb2.HealthCheckResponse) -> bool:
    """Whether the server, or the model asked about, answers requests."""
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def unicode_only() -> Iterator[None]:
    """Refuse lone surrogates, which cannot be sent; undecodable command lines contain them."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InputError(f"expected valid Unicode, got a lone surrogate at {error.start}") from None


def _span(span: SensitiveSpan) -> pb.SensitiveSpan:
    if not 0 <= span.start < span.end < 2**32:
        raise InputError(f"expected 0 <= start < end, got {span.start} and {span.end}")
    return pb.SensitiveSpan(start=span.start, end=span.end, entity_type=span.entity_type)


def _image(image: Image) -> pb.Image:
    return pb.Image(content=image.content, sensitive=map(_box, image.sensitive))


def _box(box: SensitiveBox) -> pb.SensitiveBox:
    if not (0 <= box.left < box.right < 2**32 and 0 <= box.top < box.bottom < 2**32):
        raise InputError(
            f"expected 0 <= left < right and 0 <= top < bottom, got {box.left}, {box.top}, "
            f"{box.right}, {box.bottom}"
        )
    return pb.SensitiveBox(**asdict(box))


def _floor(attention: pb.Attention) -> float | None:
    return attention.temperature_floor if attention.HasField("temperature_floor") else None


def _prediction(prediction: pb.Prediction, label_names: Sequence[str], version: str) -> Prediction:
    values = prediction.probabilities
    return Prediction(
        label=prediction.label,
        probabilities=dict(zip(label_names, values, strict=True)) if values else None,
        truncated=prediction.truncated,
        version=version,
        certified_substitutions=(
            prediction.certified_substitutions
            if prediction.HasField("certified_substitutions")
            else None
        ),
    )


def _token(token: pb.TokenExplanation) -> TokenExplanation:
    gradients = token.integrated_gradients
    return TokenExplanation(
        text=token.text,
        entity_types=tuple(token.entity_types),
        attention=token.attention if token.HasField("attention") else None,
        layer_attention=tuple(token.layer_attention),
        integrated_gradients=gradients if token.HasField("integrated_gradients") else None,
        offsets=(token.offsets.start, token.offsets.end) if token.HasField("offsets") else None,
        rollout=token.rollout if token.HasField("rollout") else None,
        head_attention=tuple(tuple(layer.heads) for layer in token.head_attention),
        box=_corners(token.box) if token.HasField("box") else None,
    )


def _corners(box: pb.PatchBox) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right, box.bottom


def redaction(message: pb.Redaction) -> Redaction:
    """What was done about personal data."""
    return Redaction(
        detector=message.detector,
        entity_types=tuple(message.entity_types),
        cannot_see=tuple(message.cannot_see),
        hidden_from_model=message.hidden_from_model,
    )


def _summary(summary: pb.ModelSummary) -> ModelSummary:
    return ModelSummary(
        name=summary.name,
        private=summary.private,
        epsilon=summary.epsilon if summary.HasField("epsilon") else None,
        delta=summary.delta if summary.HasField("delta") else None,
        label_names=tuple(summary.label_names),
        version=summary.version,
        versions=tuple(summary.versions),
        image_size=_image_size(summary.image_size) if summary.HasField("image_size") else None,
    )


def _image_size(size: pb.ImageSize) -> tuple[int, int, int]:
    return size.height, size.width, size.channels
