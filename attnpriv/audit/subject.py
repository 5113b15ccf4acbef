"""What an audit looks at: options, rows, and one run with its documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from attnpriv.audit.checklist.files import Checklist, default_checklist
from attnpriv.audit.documents import Documents, partly_sensitive, prepare, sample
from attnpriv.audit.gradients import Explained, Gradients
from attnpriv.audit.leakage.shadow_folder import ShadowModels
from attnpriv.audit.statistics import Floats
from attnpriv.config import Depth, require_count, require_seed
from attnpriv.data.records import Dataset, Span
from attnpriv.errors import InputError
from attnpriv.planted import is_planted
from attnpriv.runs.canaries import Canaries
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector

if TYPE_CHECKING:
    from attnpriv.audit.attention import AttentionAccumulator
    from attnpriv.audit.leakage.served import ServedAnswers

Spans = Mapping[int, tuple[Span, ...]]
Progress = Callable[[int, int], None]
"""Called with what is done and the total."""
# What the expected end of an audit is told by: how many times as long as a forward pass one takes
# with its backward pass, how many points a path of integrated gradients needs, and how many
# entities a document holds.
FORTH_AND_BACK, USUAL_POINTS, USUAL_ENTITIES = 3, 100, 2
OfRows = Literal["members", "non-members"]
"""Training rows that are known, and held-out rows whose text is no training row's."""
OfModel = Literal["layers", "tokens one by one", "self-attention", "spatial gates", "feature maps"]
"""A model with layers that tokens pass through, or one that reads them one by one; with attention
between positions, with gates that weigh positions, or with feature maps over a grid of them."""
OfData = Literal["texts", "images", "personal data"]
"""Records whose words can be replaced by others, those whose pixels can be moved, or held-out ones
with parts that are sensitive."""
Given = Literal["shadows", "canaries", "answers"]
"""What is no part of a run, and was or was not given with it."""
Need = OfRows | OfModel | OfData | Literal[Given, "secrets", "halves", "half"]
NO_LAYERS = "the model reads tokens one by one: it has no layers that they pass through"
IN_CONTEXT = "the model reads each position in its context, where one of them moves all others"
NO_ATTENTION = "the model has no attention between positions"
NO_GATES = "the model has no gates that weigh positions"
NO_FEATURE_MAPS = "the model has no feature maps over a grid of positions"
NO_PERSONAL_DATA = "no held-out record holds personal data beside something else"
NO_TEXTS = "it reads words or replaces them, and these records are images"
NO_IMAGES = "it moves pixels, and these records are texts"
LEAST = 8  # different records of a kind, for attacks that are fitted to some and used on others
TOO_FEW = f"it needs at least {LEAST} different records that were trained on and as many others"
TOO_FEW_HELD_OUT = f"it needs at least {LEAST} different records that were not trained on"
NO_SHADOWS = (
    "no shadow models of this run were given: attnpriv shadows trains them, and --shadows takes "
    "their folder"
)
NO_ANSWERS = (
    "no audit of a server's answers was given: attnpriv-client audit --out makes one, and "
    "--answers takes its file"
)
SKIPPED = "it was skipped: --skip"
NO_CANARIES = "the run has no canaries: attnpriv train --canaries plants them"
NO_COINS = (
    "the run has canaries, and the hidden file with their coins is not beside its folder, or not "
    "readable"
)
NO_SECRETS = (
    "no secrets were planted in the training data: attnpriv data plant makes such data, and no "
    "model that is meant for use should be trained on it"
)


NO_SIZES = ("depth", "seed", "skip", "budget_minutes")  # all other options are sizes


@dataclass(frozen=True)
class AuditOptions:
    """How much to measure; ``at`` makes the three named choices.

    Attributes:
        depth: the name of the choice that the other values started from.
        documents: held-out rows at most, for utility, attention and as non-members.
        members: training rows at most, for the membership test and as seen documents.
        ig_documents: of the held-out rows with personal data, how many get integrated gradients,
            conductance and occlusion.
        ig_steps: points on each path, before those of integrated gradients are refined.
        faithfulness_documents: how many have their tokens removed by rank.
        sensitivity_documents: how many are explained under noise.
        counterfactual_documents: of the rows with personal data, how many have it swapped.
        memorisation_documents: training rows at most, and as many held-out ones, likewise.
        pgd_documents: of the held-out rows, how many are attacked by moves of their embeddings, and
            images also by moves of their pixels.
        text_attack_documents: of the held-out rows, how many have their text edited.
        explanation_documents: training rows at most, and as many held-out ones, whose attention and
            attributions are attacked.
        inversion_documents: of the held-out rows, how many an attacker knows or tries to read.
        full_sample_tokens: where the held-out documents have more tokens than this on average, the
            samples of gradients, removals, noise, swaps and attacks shrink in proportion: the work
            on one document grows faster than its length.
        examples: documents shown token by token.
        permutations: of the sensitivity labels, for the null.
        resamples: of the bootstrap.
        seed: of every sample, null and bootstrap.
        skip: measures that are not run, by their names.
        budget_minutes: what the sizes of the leakage measures were planned for; None where they
            are those of the depth.
    """

    depth: Depth = "standard"
    documents: int = 1200
    members: int = 1200
    ig_documents: int = 32
    ig_steps: int = 20
    faithfulness_documents: int = 24
    sensitivity_documents: int = 4
    counterfactual_documents: int = 100
    memorisation_documents: int = 100
    pgd_documents: int = 40
    text_attack_documents: int = 24
    explanation_documents: int = 600
    inversion_documents: int = 400
    full_sample_tokens: int = 64
    examples: int = 4
    permutations: int = 1000
    resamples: int = 1000
    seed: int = 0
    skip: tuple[str, ...] = ()
    budget_minutes: float | None = None

    def __post_init__(self) -> None:
        require_seed("seed", self.seed)
        for name, value in asdict(self).items():
            if name not in NO_SIZES and not (name == "examples" and value == 0):
                require_count(name, value)

    @classmethod
    def at(cls, depth: Depth, **values: Any) -> AuditOptions:
        """The options of a depth; the given values replace its own."""
        return cls(**{"depth": depth, **SIZES[depth], **values})

    @property
    def draws(self) -> dict[str, int]:
        """How often nulls and bootstraps draw, and the seed."""
        return {
            "permutations": self.permutations,
            "resamples": self.resamples,
            "seed": self.seed,
        }


SIZES: dict[Depth, dict[str, Any]] = {
    "quick": {
        "documents": 200,
        "members": 200,
        "ig_documents": 6,
        "faithfulness_documents": 6,
        "sensitivity_documents": 1,
        "counterfactual_documents": 24,
        "memorisation_documents": 24,
        "pgd_documents": 6,
        "text_attack_documents": 6,
        "explanation_documents": 100,
        "inversion_documents": 100,
        "examples": 2,
    },
    "standard": {},
    "thorough": {
        "documents": 5000,
        "members": 5000,
        "ig_documents": 128,
        "faithfulness_documents": 96,
        "sensitivity_documents": 16,
        "counterfactual_documents": 400,
        "memorisation_documents": 400,
        "pgd_documents": 160,
        "text_attack_documents": 96,
        "explanation_documents": 2000,
        "inversion_documents": 1200,
        "full_sample_tokens": 512,
        "permutations": 10_000,
        "resamples": 4000,
    },
}
"""What each depth changes of the defaults."""


@dataclass(frozen=True)
class Rows:
    """Row numbers that a run is audited on.

    Attributes:
        members: sampled training rows; None where this is not the data trained on.
        held_out: sampled rows that were not trained on.
        repeated: those of them whose text also is a training row, and so are no non-members.
        left_out: how many rows may have been trained on, in other data than that.
    """

    members: tuple[int, ...] | None
    held_out: tuple[int, ...]
    repeated: frozenset[int]
    left_out: int = 0

    def lack(self, need: OfRows) -> str | None:
        """Why a need of a measure is not met by these rows; None where it is."""
        if self.members is None:
            return (
                "this is not the data trained on, so no row is known to be a member; "
                f"{self.left_out} rows may have been trained on and were left out"
            )
        if need == "non-members" and len(self.repeated) == len(self.held_out):
            return "every held-out text is also a training row, so there are no non-members"
        return None


def choose_rows(run: Run, data: Dataset, options: AuditOptions) -> Rows:
    """A seeded sample of the rows that the run was trained on, and of those it was not.

    Raises:
        InputError: no row is known not to have been trained on.
    """
    split = run.split(data)
    train, held_out = split.trained, split.held_out
    if not held_out:
        raise InputError(
            f"{data.name} is not the data that {run.name} was trained on, and each of its rows may "
            "have been trained on: audit with the data of the training (runs of earlier versions, "
            "and those with a number of rows as train_size, can tell the rows of no other data)"
        )
    rows = tuple(held_out[i] for i in sample(len(held_out), options.documents, options.seed))
    if not train:
        return Rows(None, rows, frozenset(), left_out=len(split.unknown))
    keys = data.keys
    known = {keys[row] for row in train}
    return Rows(
        tuple(train[i] for i in sample(len(train), options.members, options.seed)),
        rows,
        frozenset(row for row in rows if keys[row] in known),
    )


@dataclass(frozen=True)
class Subject:
    """One run and the rows it is audited on.

    Attributes:
        run: the run.
        data: all rows.
        rows: those it is audited on.
        spans: the personal data in each of them.
        options: how much to measure.
        shadows: the shadow models of the run, if there are any.
        canaries: the coins of the run, if it has any.
        checklist: behavioural tests.
        served: the audit of the answers of a server of the run, if there is one.
    """

    run: Run
    data: Dataset
    rows: Rows
    spans: Spans
    options: AuditOptions
    shadows: ShadowModels | None = None
    canaries: Canaries | None = None
    checklist: Checklist = field(default_factory=default_checklist)
    served: ServedAnswers | None = None

    @cached_property
    def documents(self) -> Documents:
        """The held-out rows, tokenised."""
        return self._prepare(self.rows.held_out)

    @cached_property
    def members(self) -> Documents:
        """The training rows, tokenised; none where this is not the data trained on."""
        return self._prepare(self.rows.members or ())

    @property
    def unseen(self) -> list[int]:
        """The documents whose text is no training row's, which are the non-members."""
        return [d for d, row in enumerate(self.rows.held_out) if row not in self.rows.repeated]

    @property
    def different_members(self) -> list[int]:
        """The training rows that hold anything, without copies, by their numbers in ``members``."""
        members = self.rows.members or ()
        return self._different(range(len(members)), members, self.members)

    @property
    def different_unseen(self) -> list[int]:
        """The non-members that hold anything, without copies, by their numbers in ``documents``."""
        return self._different(self.unseen, self.rows.held_out, self.documents)

    def _different(
        self, numbers: Iterable[int], rows: Sequence[int], documents: Documents
    ) -> list[int]:
        keys = self.data.keys
        different = {keys[rows[n]]: n for n in numbers if documents.has_content(n)}
        return [*different.values()]

    @property
    def other_training_texts(self) -> list[str]:
        """Those of the training rows that were not sampled."""
        sampled = {*(self.rows.members or ())}
        trained = self.run.split(self.data).trained
        return [self.data.records[row] for row in trained if row not in sampled]

    def spans_of(self, rows: Sequence[int] | None) -> list[tuple[Span, ...]]:
        """The personal data in rows, in their order."""
        return [self.spans[row] for row in rows or ()]

    def not_run(self, measure: str, needs: Sequence[Need]) -> str | None:
        """Why a measure with these needs is not run: it is skipped, or it lacks something."""
        return SKIPPED if measure in self.options.skip else self.lack(needs)

    def lack(self, needs: Sequence[Need]) -> str | None:
        """Why the first of a measure's needs that is not met is not; None where all are."""
        return next((lack for need in needs if (lack := self._lack(need))), None)

    def _lack(self, need: Need) -> str | None:
        model = self.run.model
        isolated = model.config.isolated
        match need:
            case "layers":
                return NO_LAYERS if isolated else None
            case "self-attention":
                return None if model.attention_shape[0] else NO_ATTENTION
            case "spatial gates":
                return None if model.gated_layers else NO_GATES
            case "feature maps":
                return NO_FEATURE_MAPS if model.feature_maps is None else None
            case "texts":
                return None if self.data.kind == "text" else NO_TEXTS
            case "images":
                return None if self.data.kind == "image" else NO_IMAGES
            case "personal data":
                return None if partly_sensitive(self.documents) else NO_PERSONAL_DATA
            case "tokens one by one":
                return None if isolated else IN_CONTEXT
            case "shadows":
                return NO_SHADOWS if self.shadows is None else None
            case "answers":
                return NO_ANSWERS if self.served is None else None
            case "canaries":
                if self.canaries is not None:
                    return None
                return NO_CANARIES if self.run.card.canaries is None else NO_COINS
            case "secrets":
                trained = self.run.split(self.data).trained
                planted = any(is_planted(self.data.keys[row]) for row in trained)
                return None if planted else NO_SECRETS
            case "halves":
                fewest = min(len(self.different_members), len(self.different_unseen))
                return TOO_FEW if fewest < LEAST else None
            case "half":
                return TOO_FEW_HELD_OUT if len(self.different_unseen) < LEAST else None
            case _:
                return self.rows.lack(need)

    @cached_property
    def mean_length(self) -> float:
        """Tokens of a held-out row, on average."""
        return fmean(sample.size for sample in self.documents.samples)

    def affordable(self, most: int) -> int:
        """How many documents of a sample to take: all of it, or fewer where documents are long."""
        share = self.options.full_sample_tokens / self.mean_length
        return max(1, min(most, int(most * share)))

    def taken(self, most: int) -> int:
        """How many held-out rows a sample has, where there may be fewer than it can afford."""
        return min(self.affordable(most), len(self.documents))

    def _prepare(self, rows: Sequence[int]) -> Documents:
        return prepare(self.run.modality, self.data.subset(rows), self.spans_of(rows))


@dataclass(frozen=True)
class Answers:
    """What a run answers.

    Attributes:
        held_out: class probabilities of the held-out rows, [documents, K].
        members: those of the training rows.
        explained: integrated gradients of the predicted classes, as far as they are computed.
    """

    held_out: Floats
    members: Floats
    explained: Explained = field(default_factory=dict, kw_only=True, repr=False)

    @property
    def targets(self) -> list[int]:
        """The predicted class of each held-out row."""
        targets: list[int] = self.held_out.argmax(1).tolist()
        return targets

    def gradients(self, subject: Subject) -> Gradients:
        """The integrated gradients of the predicted classes of the held-out rows."""
        run, steps = subject.run, subject.options.ig_steps
        return Gradients(run.model, subject.documents, self.targets, steps, self.explained)


@dataclass(frozen=True)
class Pass(Answers):
    """What one pass over the held-out rows gave.

    Attributes:
        attention: and what else was collected document by document.
        detector: finds personal data that nobody marked, to hide it in examples.
    """

    attention: AttentionAccumulator
    detector: Detector | None
