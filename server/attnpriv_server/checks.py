"""What a request is refused for before any model is looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnpriv.boxes import Box
from attnpriv.spans import Span
from attnpriv.visible import has_visible
from attnpriv_server.asking import record_path, refuse_input
from attnpriv_server.domain import ExplainRequest, ImageFile, PredictRequest, SummarizeRequest
from attnpriv_server.limits import Limits
from attnpriv_server.summaries import check_question

ENTITY_TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def check_predict(request: PredictRequest, limits: Limits) -> None:
    """Raise RefusedError, with the field, for what no model could answer."""
    if request.images:
        if request.texts or request.sensitive:
            refuse_input("images", "expected no texts beside images")
        _check_images("images", request.images, limits)
        return
    _check_texts("texts", request.texts, limits.texts, limits)
    _check_sensitive(request)


def check_explain(request: ExplainRequest, limits: Limits) -> None:
    """As ``check_predict``."""
    if request.image is not None:
        if request.text or request.sensitive:
            refuse_input("image", "expected no text beside an image")
        _check_images("image", (request.image,), limits)
        return
    _check_texts("text", (request.text,), 1, limits)
    _check_spans("sensitive", request.sensitive, len(request.text))


def check_summarize(request: SummarizeRequest, limits: Limits) -> None:
    """As ``check_predict``."""
    _check_texts("texts", request.texts, limits.summary_texts, limits)
    check_question(request)


def _check_texts(field: str, texts: Sequence[str], most: int, limits: Limits) -> None:
    if not 1 <= len(texts) <= most:
        refuse_input(field, f"expected 1 to {most} texts, got {len(texts)}")
    for index, text in enumerate(texts):
        path = record_path(field, index)
        size = len(text.encode())
        if size > limits.text_bytes:
            refuse_input(path, f"expected at most {limits.text_bytes} bytes, got {size}")
        if not has_visible(text):
            refuse_input(
                path, "expected a text, got nothing but white space or invisible characters"
            )


def _check_sensitive(request: PredictRequest) -> None:
    if len(request.sensitive) not in (0, len(request.texts)):
        refuse_input(
            "sensitive",
            f"expected none, or one for each of {len(request.texts)} texts, "
            f"got {len(request.sensitive)}",
        )
    for index, (text, spans) in enumerate(zip(request.texts, request.sensitive, strict=False)):
        _check_spans(f"sensitive[{index}].spans", spans, len(text))


def _check_spans(field: str, spans: Sequence[Span], length: int) -> None:
    for index, span in enumerate(spans):
        path = f"{field}[{index}]"
        if not span.start < span.end <= length:
            refuse_input(path, "expected start < end, and both within the text")
        _check_type(path, span.entity_type)


def _check_images(field: str, images: Sequence[ImageFile], limits: Limits) -> None:
    if len(images) > limits.texts:
        refuse_input(field, f"expected 1 to {limits.texts} images, got {len(images)}")
    for index, image in enumerate(images):
        path, size = record_path(field, index), len(image.content)
        if not 1 <= size <= limits.image_bytes:
            refuse_input(path, f"expected 1 to {limits.image_bytes} bytes, got {size}")
        _check_boxes(f"{path}.sensitive", image.sensitive)


def _check_boxes(field: str, boxes: Sequence[Box]) -> None:
    for index, box in enumerate(boxes):
        path = f"{field}[{index}]"
        if not (box.left < box.right and box.top < box.bottom):
            refuse_input(path, "expected left < right and top < bottom")
        _check_type(path, box.entity_type)


def _check_type(path: str, entity_type: str) -> None:
    if not ENTITY_TYPE.fullmatch(entity_type):
        refuse_input(
            f"{path}.entity_type",
            "expected 1 to 64 capital letters, digits and underscores, a letter first",
        )
