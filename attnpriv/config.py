"""The settings of a run, as frozen dataclasses that are checked when they are made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, cast, get_args

from attnpriv.errors import InputError

Kind = Literal["text", "image"]  # of the records that a model reads
Depth = Literal["quick", "standard", "thorough"]  # of an audit: how much it measures
ClipMode = Literal["clamp", "tanh", "norm", "relative"]
Score = Literal["dot_product", "additive"]
GateChoice = Literal["none", "se", "cbam"]
Pooling = Literal["mean", "cls", "layers", "places"]
Accountant = Literal["prv", "rdp"]
TrainableKind = Literal["head", "bias", "last", "lora", "all"]
Clipping = Literal["flat", "automatic"]
ClippingEngine = Literal["book_keeping", "hooks", "ghost"]
Sampler = Literal["poisson"]
Precision = Literal["float32", "bfloat16"]
Decay = Literal["constant", "linear", "cosine"]
RunDistribution = Literal["poisson", "geometric"]

# Encoders that begin with random weights: of texts, and of images.
SCRATCH, VIT = "scratch", "vit"
SCATTERING = "scattering"  # of images; nothing but its head has weights
CNNS: dict[str, GateChoice] = {"cnn": "none", "cnn-se": "se", "cnn-cbam": "cbam"}
DETECTOR = "detector"  # of objects in images
IMAGE_MODELS = (VIT, *CNNS, SCATTERING, DETECTOR)
UNTRAINED = (SCRATCH, *IMAGE_MODELS)

# Ways of drawing batches for which the accountants' ε does not hold, and why.
UNSOUND_SAMPLERS = {
    "shuffled": "the accountant's amplification does not hold for shuffled batches of fixed size, "
    "which can leak up to 10 times the ε of Poisson sampling (Chua et al. 2024, arXiv:2403.17673; "
    "arXiv:2411.10614)",
    "weighted": "each row has its own sampling rate, and ε would have to be computed as if every "
    "row had the largest one",
    "drop_last": "the batches have a fixed size and the rows of the last one are left out, "
    "so that no row joins a batch by a coin of its own",
    "fixed": "a batch of fixed size drawn without replacement has a different amplification, which "
    "holds for replacing a record, not for adding or removing one",
}


def _require(condition: bool, name: str, expected: str, got: object) -> None:
    if not condition:
        raise InputError(f"expected {name} {expected}, got {got!r}")


def _require_choice(name: str, got: str, literal: Any) -> None:
    choices = get_args(literal)
    _require(got in choices, name, f"to be one of {', '.join(choices)}", got)


def is_number(value: object) -> bool:
    """Whether the value is a real number that a float can hold; True and False are not."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def is_whole(value: object) -> bool:
    """Whether the value is of an integer type, NumPy's included; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


# What float32 and torch's generators can hold, with room for products of two.
LARGEST_COUNT = 10**9
LARGEST_SEED = 2**63 - 1
LARGEST = 1e6
SMALLEST = 1e-6  # for numbers that are divided by or that scale the noise


def require_count(name: str, value: object) -> None:
    """Raise InputError unless the value is a whole number from 1 to 1,000,000,000."""
    _require_whole(name, value, 1, LARGEST_COUNT)


def require_seed(name: str, value: object) -> None:
    """Raise InputError unless the value is a whole number from 0 to 2^63 − 1."""
    _require_whole(name, value, 0, LARGEST_SEED)


def _require_whole(name: str, value: object, least: int, most: int) -> None:
    fits = is_whole(value) and least <= cast(int, value) <= most
    _require(fits, name, f"to be a whole number from {least} to {most}", value)


def _require_number(name: str, value: object, most: float = math.inf, least: float = 0.0) -> None:
    above = f">= {least:g}" if least else "> 0"
    expected = f"{above} and finite" if most == math.inf else f"{above} and at most {most:g}"
    fits = _is_positive(value) and least <= cast(float, value) <= most
    _require(fits, name, expected, value)


def thirds(layers: int) -> tuple[int, ...]:
    """The last layers of the first third, the first two thirds and all layers, counted from 1."""
    return tuple(sorted({-(-layers * third // 3) for third in (1, 2, 3)}))


def _is_positive(value: object) -> bool:
    return is_number(value) and 0 < cast(float, value) < math.inf


@dataclass(frozen=True)
class AttentionConfig:
    """How attention logits are computed, and hardened before the softmax.

    Attributes:
        temperature: τ > 0, by which the clipped logits are divided; if τ is learned, its initial
            value.
        clip: c > 0, the largest absolute logit before the temperature. None leaves the logits
            unclipped, and then no certificate holds. Under ``relative``, c is half of the largest
            distance between two logits of a row.
        clip_mode: how ``clip`` is enforced. ``clamp`` cuts the logits; ``tanh`` bends them softly
            (``c·tanh(z/c)``); ``norm`` shortens the vectors behind a logit, so that it cannot
            exceed c: queries and keys by Cauchy-Schwarz, the vector of additive scores by Hölder.
            ``relative`` raises every logit that is more than 2c below the largest of its row; up to
            a shift, which the softmax ignores, that leaves the row within ±c.
        score: ``dot_product``, scaled by 1/√Dh, or ``additive``, the product of a learned vector
            with the tanh of query plus key (Bahdanau et al. 2015).
        temperature_floor: None keeps τ fixed. A number below ``temperature`` lets every head learn
            its own τ, which never falls below that number: a certificate at the floor holds before,
            during and after training.

    Raises:
        InputError: τ or c is not a positive finite number, the floor is not in (0, τ), or a mode is
            unknown. A clip of 0 is refused: it would make every row uniform and cut all gradients
            to queries and keys.

    A hardened forward pass is bounded, not differentially private: see docs/guarantees.md.
    """

    temperature: float = 1.0
    clip: float | None = None
    clip_mode: ClipMode = "clamp"
    score: Score = "dot_product"
    temperature_floor: float | None = None

    def __post_init__(self) -> None:
        _require_number("temperature", self.temperature)
        if self.clip is not None:
            _require_number("clip", self.clip)
        floor = self.temperature_floor
        if floor is not None:
            expected = f"> 0 and below temperature {self.temperature}"
            fits = _is_positive(floor) and floor < self.temperature
            _require(fits, "temperature_floor", expected, floor)
        _require_choice("clip_mode", self.clip_mode, ClipMode)
        _require_choice("score", self.score, Score)

    @property
    def logit_bound(self) -> float:
        """The c to use in the formulas of ``attnpriv.guarantees``: infinite without a clip."""
        return math.inf if self.clip is None else self.clip

    @property
    def smallest_temperature(self) -> float:
        """The τ for which these formulas hold whatever the heads learn."""
        return self.temperature if self.temperature_floor is None else self.temperature_floor


def check_computable(attention: AttentionConfig) -> None:
    """Raise InputError for values that the formulas allow, but float32 does not."""
    for name in ("temperature", "temperature_floor", "clip"):
        if getattr(attention, name) is not None:
            _require_number(name, getattr(attention, name), LARGEST, SMALLEST)


def check_divides(heads: int, dim: int) -> None:
    """Raise InputError unless the width of a model is a multiple of its number of heads."""
    _require(dim % heads == 0, "dim", f"to be divisible by {heads}", dim)


# The bound under which the encoder minilm-bounded was taught: any four of 32 tokens get at most
# 3.99 times their share of a row. On other encoders it costs accuracy (docs/benchmarks.md).
BOUNDED = AttentionConfig(clip=0.97)


USUAL_MULTIPLICITY = 4  # of augmentation


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a text classifier built from post-norm encoder blocks.

    Attributes:
        encoder: ``scratch``, ``minilm``, or the name under which a local encoder was loaded.
        vocab_size: number of token ids.
        dim: width D of a token vector.
        layers: number of encoder layers, each of which applies a block once.
        heads: number of attention heads H, a divisor of ``dim``.
        hidden_dim: width of the feed-forward layer.
        max_length: longest sequence in tokens; longer texts are cut.
        num_labels: number of classes K, at least 2.
        pooling: what the head reads: the ``mean`` over the visible tokens, the ``cls`` token, or
            ``layers``, the means after one third, two thirds and all of the blocks, side by side.
        norm_eps: ε of every layer norm.
        attention: how attention is hardened, the same in every layer.
        share_layers: every layer applies the same block (Universal Transformer, Dehghani et al.
            2019; ALBERT, Lan et al. 2020). That divides the number of weights in the blocks by
            ``layers``; the computation stays the same.
        relative_positions: in each head, a number for the distance of two tokens is added to their
            logit before the clip, besides the absolute positions (MPNet, Song et al. 2020,
            arXiv:2004.09297). These numbers come with a pretrained encoder and are never trained.
        isolated: tokens are encoded one by one, and one learned query a head attends to them
            (``models.words``). There is one layer; ``hidden_dim`` and ``pooling`` say nothing.
        normalise: texts are brought into one spelling before they are tokenised (``attnpriv.data.
            normalisation``), in training and wherever the model is used.

    Raises:
        InputError: a size is below 1, ``dim`` is not a multiple of ``heads``, or relative positions
            are combined with additive scores or the clip ``norm``, whose bounds they would break;
            or isolated tokens with additive scores, the clip ``relative``, or several layers.
    """

    encoder: str
    vocab_size: int
    dim: int
    layers: int
    heads: int
    hidden_dim: int
    max_length: int
    num_labels: int
    pooling: Pooling = "mean"
    norm_eps: float = 1e-12
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    share_layers: bool = False
    relative_positions: bool = False
    isolated: bool = False
    normalise: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "layers", "heads", "hidden_dim", "max_length"):
            _require(getattr(self, name) >= 1, name, ">= 1", getattr(self, name))
        _require(self.num_labels >= 2, "num_labels", ">= 2", self.num_labels)
        check_divides(self.heads, self.dim)
        _require_choice("pooling", self.pooling, Pooling)
        expected = "to be mean, cls or layers for texts, whose places differ"
        _require(self.pooling != "places", "pooling", expected, self.pooling)
        check_computable(self.attention)
        if self.relative_positions:
            score, clipped = self.attention.score, self.attention.clip is not None
            expected = "dot_product with this encoder, which has relative positions"
            _require(score == "dot_product", "score", expected, score)
            mode = self.attention.clip_mode
            expected = "other than norm with this encoder, whose relative positions it cannot bound"
            _require(not clipped or mode != "norm", "clip_mode", expected, mode)
        if self.isolated:
            score, clipped = self.attention.score, self.attention.clip is not None
            expected = "dot_product with encoder words"
            _require(score == "dot_product", "score", expected, score)
            mode = self.attention.clip_mode
            expected = "other than relative with encoder words: there one token moves all logits"
            _require(not clipped or mode != "relative", "clip_mode", expected, mode)
            _require(self.layers == 1, "layers", "1 with encoder words", self.layers)

    @property
    def kind(self) -> Kind:
        """What the model reads."""
        return "text"

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images that the model reads; None for texts."""
        return None

    @property
    def pretrained(self) -> bool:
        """Whether the encoder came trained."""
        return self.encoder not in UNTRAINED

    @property
    def pooled_layers(self) -> tuple[int, ...]:
        """The layers, counted from 1, after which the hidden states are pooled for the head."""
        if self.pooling == "layers":
            return thirds(self.layers)
        return (self.layers,)

    @property
    def features(self) -> int:
        """How many numbers the head reads of a text."""
        return self.dim * len(self.pooled_layers)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The inverse of ``to_dict``; raises InputError on missing or unknown fields."""
        try:
            return cls(**{**values, "attention": AttentionConfig(**values["attention"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"the model configuration is not usable: {error}") from error


@dataclass(frozen=True)
class PrivacyConfig:
    """The differential privacy to train under, and the mechanism that provides it.

    Attributes:
        epsilon: the target ε > 0; the run never spends more.
        delta: δ in (0, 1); once the data is known, it must also be below 1/N.
        max_grad_norm: C, the L2 norm to which each record's gradient is clipped. The small default
            clips nearly every record, which suits Adam, since Adam undoes the scale.
        accountant: ``prv`` (tight) or ``rdp`` (looser).
        noise_multiplier: σ. None takes the smallest σ with which all steps stay within ε. With a
            given σ, the run stops before the step that would exceed ε.
        clipping: ``flat`` shortens gradients longer than C; ``automatic`` brings every gradient
            near norm C (Bu et al. 2023, arXiv:2206.07136).
        clipping_engine: what computes the sum of clipped gradients: ``book_keeping`` (ours), or
            Opacus's ``hooks`` or ``ghost``. They agree, and differ in time, memory and the layers
            they support.
        sampler: ``poisson`` is the only way of drawing batches for which the accountants' ε holds.
        noise_seed: None draws the key of sampling and noise from the operating system. A number
            makes the run repeatable, and voids ε against anyone who knows or guesses it.
    """

    epsilon: float
    delta: float = 1e-5
    max_grad_norm: float = 0.1
    accountant: Accountant = "prv"
    noise_multiplier: float | None = None
    clipping: Clipping = "flat"
    clipping_engine: ClippingEngine = "book_keeping"
    sampler: Sampler = "poisson"
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        _require_number("epsilon", self.epsilon, LARGEST)
        _require(is_number(self.delta) and 0 < self.delta < 1, "delta", "in (0, 1)", self.delta)
        _require_number("max_grad_norm", self.max_grad_norm, LARGEST, SMALLEST)
        if self.noise_multiplier is not None:
            _require_number("noise_multiplier", self.noise_multiplier, LARGEST)
        if self.noise_seed is not None:
            require_seed("noise_seed", self.noise_seed)
        _require_choice("accountant", self.accountant, Accountant)
        _require_choice("clipping", self.clipping, Clipping)
        _require_choice("clipping_engine", self.clipping_engine, ClippingEngine)
        if self.sampler in UNSOUND_SAMPLERS:
            reason = UNSOUND_SAMPLERS[self.sampler]
            raise InputError(f"expected sampler poisson, got {self.sampler!r}: {reason}")
        _require_choice("sampler", self.sampler, Sampler)


@dataclass(frozen=True)
class Augmentation:
    """How the copies of a training record differ from it; see ``attnpriv.training.augmentation``.

    Attributes:
        kind: ``deletion`` of tokens, or ``shift`` of images.
        amount: the chance of each token, or the number of pixels.
    """

    kind: Literal["deletion", "shift"]
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}"


def parse_augmentation(value: str) -> Augmentation:
    """Read ``deletion:RATE`` or ``shift:PIXELS``.

    >>> parse_augmentation("deletion:0.3")
    Augmentation(kind='deletion', amount=0.3)

    Raises:
        InputError: the value has another form, or its number is out of range.
    """
    match value.split(":"):
        case ["deletion", rate] if (chance := _number(rate)) is not None and 0 < chance < 1:
            return Augmentation("deletion", chance)
        case ["shift", pixels] if _is_count(pixels):
            return Augmentation("shift", int(pixels))
    raise InputError(
        "expected augmentation to be deletion:RATE, with a rate between 0 and 1, or shift:PIXELS, "
        f"with at least 1 pixel, got {value!r}"
    )


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        trainable: what is trained: ``all``; the head alone (``head``); or the head and a part of
            the encoder: every bias (``bias``), the last K blocks (``last:K``), or adapters of rank
            R on every block (``lora:R``) or on the last K (``lora:R:last:K``).
        steps: number of optimizer steps, each with a batch drawn by Poisson sampling. None takes
            200 if only the head is trained, which is cheap, and 100 otherwise.
        batch_size: expected batch size B; the sampling rate is q = B/N. None takes half of the
            training rows if only the head is trained (at most 4,096), else a quarter (at most
            1,024).
        learning_rate: Adam's step size for the encoder.
        head_learning_rate: Adam's step size for the classifier head, whose inputs have norm 1.
        ema_decay: decay of the exponential moving average of the weights. The average is what is
            saved.
        warmup: share of the steps over which the learning rates rise to their values.
        decay: how the learning rates change after the warm-up: they fall to 0 along a line
            (``linear``) or half a cosine (``cosine``), or stay (``constant``).
        precision: dtype of the encoder's forward and backward pass; norms, clipping, noise and
            weights are always float32.
        micro_batch_tokens: most tokens in one forward and backward pass through the encoder. It
            bounds memory; results change by rounding only.
        seed: seed of the split, of the initial weights and, without privacy, of the sampling.
        train_size: the share of the rows to train on, a float in (0, 1), or their number, an int;
            the rest is held out. ``attnpriv.data.splits`` says how rows are chosen.
        augmentation: how the copies of each record differ from it, ``deletion:RATE`` for texts or
            ``shift:PIXELS`` for images; None makes no copies.
        augmentation_multiplicity: K, each record and its copies counted, whose gradients are
            averaged before they are clipped (De et al. 2022, arXiv:2204.13650). None takes 4 with
            augmentation.
    """

    trainable: str = "head"
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float = 1e-3
    head_learning_rate: float = 0.15
    ema_decay: float = 0.95
    warmup: float = 0.0
    decay: Decay = "constant"
    precision: Precision = "float32"
    micro_batch_tokens: int = 512
    seed: int = 0
    train_size: float = 0.8
    augmentation: str | None = None
    augmentation_multiplicity: int | None = None

    def __post_init__(self) -> None:
        parse_trainable(self.trainable)
        self._check_augmentation()
        for name in ("learning_rate", "head_learning_rate"):
            _require_number(name, getattr(self, name), LARGEST)
        for name in ("steps", "batch_size"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_count("micro_batch_tokens", self.micro_batch_tokens)
        require_seed("seed", self.seed)
        for name in ("ema_decay", "warmup"):
            value = getattr(self, name)
            _require(is_number(value) and 0 <= value < 1, name, "in [0, 1)", value)
        _require_choice("decay", self.decay, Decay)
        _require_choice("precision", self.precision, Precision)
        count = isinstance(self.train_size, int)
        _require(
            self.train_size >= 1 if count else 0 < self.train_size < 1,
            "train_size",
            "to be a share below 1, such as 0.8, or a whole number of rows",
            self.train_size,
        )

    def _check_augmentation(self) -> None:
        multiplicity = self.augmentation_multiplicity
        if self.augmentation is not None:
            parse_augmentation(self.augmentation)
        if multiplicity is not None:
            require_count("augmentation_multiplicity", multiplicity)
            with_copies = self.augmentation is not None and multiplicity > 1
            expected = "of at least 2, and an augmentation to make copies by"
            _require(with_copies, "augmentation_multiplicity", expected, multiplicity)

    @property
    def multiplicity(self) -> int:
        """K: how many rows of a batch make one record."""
        if self.augmentation is None:
            return 1
        return self.augmentation_multiplicity or USUAL_MULTIPLICITY


@dataclass(frozen=True)
class BoundingConfig:
    """How a bounded copy of an encoder is made.

    Attributes:
        steps: number of optimizer steps.
        batch_tokens: most tokens in a batch, padding counted.
        learning_rate: the largest; it rises over the first steps, then falls along half a cosine.
        precision: of the forward and backward passes; weights and losses are always float32.
        max_length: tokens to which texts are cut.
        seed: of the order of the texts and the choice of those held out.
    """

    steps: int = 3000
    batch_tokens: int = 1600
    learning_rate: float = 3e-4
    precision: Precision = "float32"
    max_length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "max_length"):
            require_count(name, getattr(self, name))
        _require_number("learning_rate", self.learning_rate, LARGEST)
        _require_choice("precision", self.precision, Precision)
        require_seed("seed", self.seed)
        least = f"at least max_length {self.max_length}"
        _require(self.batch_tokens >= self.max_length, "batch_tokens", least, self.batch_tokens)


@dataclass(frozen=True)
class Trainable:
    """The part of a model that is trained; the head always is.

    Attributes:
        kind: ``head``, ``bias``, ``last``, ``lora`` or ``all``.
        rank: rank R of the adapters; None without adapters.
        last: number of blocks at the end that are trained or adapted; None if blocks do not matter.
    """

    kind: TrainableKind
    rank: int | None = None
    last: int | None = None


def parse_trainable(value: str) -> Trainable:
    """Read ``head``, ``bias``, ``last:K``, ``lora:R``, ``lora:R:last:K`` or ``all``.

    >>> parse_trainable("lora:8:last:2")
    Trainable(kind='lora', rank=8, last=2)

    Raises:
        InputError: the value has another form, or K or R is not a number of at least 1.
    """
    match value.split(":"):
        case ["head" | "bias" | "all" as kind]:
            return Trainable(kind)
        case ["last", last] if _is_count(last):
            return Trainable("last", last=int(last))
        case ["lora", rank] if _is_count(rank):
            return Trainable("lora", rank=int(rank))
        case ["lora", rank, "last", last] if _is_count(rank) and _is_count(last):
            return Trainable("lora", rank=int(rank), last=int(last))
    raise InputError(
        "expected trainable to be head, bias, last:K, lora:R, lora:R:last:K or all, "
        f"with K >= 1 and R >= 1, got {value!r}"
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) >= 1
