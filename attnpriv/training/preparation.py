"""What a training works on: a model with what reads for it, records, an optimizer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnpriv.attention.bound import Bound
from attnpriv.config import (
    CNNS,
    DETECTOR,
    IMAGE_MODELS,
    SCATTERING,
    SCRATCH,
    VIT,
    AttentionConfig,
    ModelConfig,
    Pooling,
    TrainConfig,
    parse_augmentation,
    parse_trainable,
)
from attnpriv.data.modalities import AnyModality
from attnpriv.data.normalisation import NormalisingTokenizer
from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.data.records import Dataset
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.data.unknown import NOTICEABLE
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.building import build_model
from attnpriv.models.classifier import AttentionClassifier, pooled_features
from attnpriv.models.pretrained import (
    MINILM,
    WORDS,
    classifier_of,
    encoder_folder,
    file_sha256,
    open_encoder,
    own_attention,
    source_of_words,
)
from attnpriv.models.shapes import CnnConfig, DetectorConfig, ScatteringConfig, VisionConfig
from attnpriv.models.text import TextClassifier, TextModel
from attnpriv.models.words import WordsClassifier, token_vectors
from attnpriv.runs.folder import TOKENIZER, WEIGHTS
from attnpriv.training.augmentation import copies_of
from attnpriv.training.batches import (
    HeadRecords,
    Records,
    SampleRecords,
    UpperRecords,
    states_size,
)
from attnpriv.training.distillation import TaughtRecords

# How images are cut: into at most that many patches along the shorter side.
PATCHES_ACROSS, SMALLEST_PATCH = 8, 2
DETECTOR_ACROSS = 16  # patches, and half as many cells
CELLS_ACROSS = 14  # likewise, of a convolutional network, whose cost grows with their number alone
# The encoder from scratch: small enough for two cores, wide enough for a few thousand texts.
SCRATCH_SHAPE: dict[str, Any] = {
    "vocab_size": 8192,
    "dim": 128,
    "layers": 2,
    "heads": 4,
    "hidden_dim": 256,
    "max_length": 256,
}
READABLE = 0.5  # no larger share of the characters of the training texts may be unknown
ADVICE = (
    "for texts in a language that the encoder does not know, use --encoder scratch, whose "
    "tokeniser reads every script, or the folder of a multilingual encoder (these figures are "
    "private data: they are shown here and written nowhere)"
)
Warn = Callable[[str], None]
LARGEST_CACHE = 2**30  # bytes of hidden states that are kept rather than computed in every step


@dataclass(frozen=True)
class Classifier:
    """A model and what reads records for it.

    Attributes:
        model: the classifier.
        modality: how the model reads records.
        tokenizer_file: the vocabulary file of a pretrained encoder.
        bound: how its encoder is bounded, if it was taught under a bound.
    """

    model: AttentionClassifier
    modality: AnyModality
    tokenizer_file: Path | None = None
    bound: Bound | None = None

    def read(self, data: Dataset) -> list[Sample]:
        """What the model sees of each record."""
        return [*self.modality.read(data.records)]

    def features(self, samples: Sequence[Sample]) -> Tensor:
        """The vectors that the head sees."""
        return pooled_features(self.model, self.modality, samples)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator starts from a seed here, and is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_classifier(
    encoder: str,
    attention: AttentionConfig | None,
    pooling: Pooling | None,
    share_layers: bool,
    num_labels: int,
    pixels: tuple[int, int, int] | None = None,
    normalise: bool = False,
    heads: int | None = None,
) -> Classifier:
    """The untrained classifier; what is new of it is drawn from torch's generator.

    Without ``attention``, the encoder has ``own_attention``. With ``pixels``, height, width and
    channels, it reads images. Without ``pooling``, the head reads ``layers`` of texts and
    ``places`` of images. With ``normalise``, texts are read in one spelling. ``heads`` is for
    encoder ``words`` alone, which has one otherwise.

    Raises:
        InputError: there is no such encoder, or it does not go with the other options.
    """
    if pixels is not None:
        if normalise:
            raise InputError("only texts can be normalised, and this data holds images")
        if heads is not None:
            raise InputError("only encoder words takes a number of heads, and it reads texts")
        return _image_classifier(encoder, attention, pooling, share_layers, num_labels, pixels)
    if encoder in IMAGE_MODELS:
        raise InputError(f"expected an encoder of texts, got {encoder}, which reads images")
    shape = (encoder, attention, pooling or "layers", share_layers, num_labels)
    built = _text_classifier(*shape, heads)
    return _normalising(built) if normalise else built


def _normalising(built: Classifier) -> Classifier:
    model, text = built.model, built.modality
    assert isinstance(model, TextModel)
    assert isinstance(text, Text)
    model.config = dataclasses.replace(model.config, normalise=True)
    modality = Text(NormalisingTokenizer(text.tokenizer), text.max_length)
    return dataclasses.replace(built, modality=modality)


def _text_classifier(
    encoder: str,
    attention: AttentionConfig | None,
    pooling: Pooling,
    share_layers: bool,
    num_labels: int,
    heads: int | None,
) -> Classifier:
    words = source_of_words(encoder)
    if heads is not None and words is None:
        raise InputError(f"only encoder words takes a number of heads, got encoder {encoder!r}")
    if encoder == SCRATCH:
        shape = ModelConfig(
            encoder=encoder,
            num_labels=num_labels,
            attention=attention or AttentionConfig(),
            pooling=pooling,
            share_layers=share_layers,
            **SCRATCH_SHAPE,
        )
        text = Text(HashTokenizer(shape.vocab_size), shape.max_length)
        return Classifier(TextClassifier(shape), text)
    if share_layers:
        raise InputError(f"only the encoder scratch can share its layers, got encoder {encoder!r}")
    if words is not None:
        attention = attention or own_attention(encoder)
        return _words_classifier(words, attention, pooling, num_labels, heads or 1)
    source = open_encoder(encoder)
    model = classifier_of(source, num_labels, attention, pooling)
    file = source.folder / TOKENIZER
    tokenizer = PretrainedTokenizer.from_file(file)
    tokenizer.check_ids(model.config.vocab_size)
    return Classifier(model, Text(tokenizer, model.config.max_length), file, source.bound)


def _image_classifier(
    encoder: str,
    attention: AttentionConfig | None,
    pooling: Pooling | None,
    share_layers: bool,
    num_labels: int,
    pixels: tuple[int, int, int],
) -> Classifier:
    if encoder not in (SCRATCH, *IMAGE_MODELS):
        expected = ", ".join(IMAGE_MODELS)
        raise InputError(f"expected one of the models {expected} for images, got {encoder!r}")
    if share_layers and encoder not in (SCRATCH, VIT):
        raise InputError(f"only the models scratch and {VIT} share their layers, got {encoder!r}")
    height, width, channels = pixels
    own = {"share_layers": share_layers} if encoder in (SCRATCH, VIT) else {}
    shape = _image_shape(
        encoder,
        height=height,
        width=width,
        channels=channels,
        num_labels=num_labels,
        attention=attention or AttentionConfig(),
        pooling=pooling or "places",
        **own,
    )
    return Classifier(build_model(shape), shape.patches)


def _image_shape(
    encoder: str, **common: Any
) -> VisionConfig | CnnConfig | ScatteringConfig | DetectorConfig:
    across = min(common["height"], common["width"])
    if encoder in CNNS:
        return CnnConfig(encoder=encoder, patch=-(-across // CELLS_ACROSS), **common)
    if encoder == DETECTOR:
        return DetectorConfig(patch=-(-across // DETECTOR_ACROSS), **common)
    patch = max(SMALLEST_PATCH, -(-across // PATCHES_ACROSS))
    if encoder == SCATTERING:
        return ScatteringConfig(patch=patch, dim=patch**2 * common["channels"], **common)
    return VisionConfig(patch=patch, **common)


def _words_classifier(
    encoder: str, attention: AttentionConfig, pooling: Pooling, num_labels: int, heads: int
) -> Classifier:
    if pooling != "layers":
        raise InputError(f"encoder words has a pooling of its own, got pooling {pooling!r}")
    folder = encoder_folder(encoder)
    file = folder / TOKENIZER
    digests = [file_sha256(each) for each in (folder / WEIGHTS, file)]
    name, max_length, vectors = _vectors_of(encoder, *digests)
    shape = ModelConfig(
        encoder=WORDS if encoder == MINILM else f"{WORDS}:{name}",
        vocab_size=len(vectors),
        dim=vectors.shape[1],
        layers=1,
        heads=heads,
        hidden_dim=1,
        max_length=max_length,
        num_labels=num_labels,
        attention=attention,
        isolated=True,
    )
    model = WordsClassifier(shape)
    model.words.weight.data.copy_(vectors)
    return Classifier(model, Text(PretrainedTokenizer.from_file(file), max_length), file)


@lru_cache(maxsize=1)
def _vectors_of(encoder: str, *digests: str) -> tuple[str, int, Tensor]:
    """An encoder's name, its longest text and the vectors of its tokens.

    They take half a minute with MiniLM, and a study or a search asks for them again and again. The
    digests are of its files, so that another content is another encoder.
    """
    source = open_encoder(encoder)
    tokenizer = PretrainedTokenizer.from_file(source.folder / TOKENIZER)
    reader = classifier_of(source, 2)
    tokenizer.check_ids(reader.config.vocab_size)
    return source.name, reader.config.max_length, token_vectors(reader, tokenizer)


def check_known(
    classifier: Classifier, data: Dataset, samples: Sequence[Any], warn: Warn | None
) -> None:
    """Refuse training texts most of which the encoder has no words for, and warn where some is.

    Args:
        classifier: what is to be trained.
        data: the records to train on.
        samples: what the classifier reads of them.
        warn: called with one sentence. It holds exact figures about the texts, which no ε covers.

    Raises:
        InputError: more than half of the characters are unknown.
    """
    encoder = classifier.model.config.encoder
    unknown = classifier.modality.unknown(data.records, samples)
    if unknown.share > READABLE:
        raise InputError(
            f"expected training texts that encoder {encoder} can read, but {unknown}; {ADVICE}"
        )
    if warn is not None and unknown.share > NOTICEABLE:
        warn(f"encoder {encoder} cannot read all of the training texts: {unknown}; {ADVICE}")


def weights_sha256(model: AttentionClassifier) -> str:
    """The SHA-256 over all weights of a model."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def make_records(
    classifier: Classifier,
    samples: Sequence[Sample],
    labels: Tensor,
    config: TrainConfig,
    features: Tensor | None = None,
    teacher: AttentionClassifier | None = None,
) -> Records:
    """Training records in the form that suits what is trained.

    Args:
        classifier: what is trained.
        samples: what the classifier reads of the records.
        labels: their classes.
        config: names the trained part.
        features: what the head sees of the samples and their copies, where it is alone to be
            trained and somebody has run the frozen encoder already.
        teacher: what the records are learned from besides their labels, if anything.
    """
    model, modality, copies = classifier.model, classifier.modality, config.multiplicity
    if teacher is None and features is None:
        samples = augmented(classifier, samples, config)
    passes = (modality, samples, labels, config.micro_batch_tokens, config.precision)
    if teacher is not None:
        return TaughtRecords(teacher, model, *passes)
    if config.trainable == "head":
        features = classifier.features(samples) if features is None else features
        return HeadRecords(model.head, features, labels, copies)
    last = parse_trainable(config.trainable).last
    if last is None or states_size(samples, model.config.dim) > LARGEST_CACHE:
        return SampleRecords(model, *passes, copies)
    assert isinstance(model, BlocksClassifier)  # no other has blocks to choose from
    return UpperRecords(model, model.config.layers - last, *passes, copies)


def augmented(
    classifier: Classifier, samples: Sequence[Sample], config: TrainConfig
) -> list[Sample]:
    """Each sample followed by its copies, where the training makes any; see ``copies_of``."""
    kind = None if config.augmentation is None else parse_augmentation(config.augmentation)
    return copies_of(classifier.modality, samples, kind, config.multiplicity, config.seed)


def make_optimizer(model: AttentionClassifier, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam, with a learning rate for the head and one for the rest of what is trained."""
    fast = [p for p in model.fast_parameters() if p.requires_grad]
    chosen = set(fast)
    encoder = [p for p in model.parameters() if p.requires_grad and p not in chosen]
    groups = [
        {"params": fast, "lr": config.head_learning_rate},
        {"params": encoder, "lr": config.learning_rate},
    ]
    return torch.optim.Adam(group for group in groups if group["params"])
