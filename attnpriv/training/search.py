"""The runs of a search, which need nothing of one another, done here or by other processes."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attnpriv.jobs import Executor, Told
from attnpriv.jobs.threads import one_thread
from attnpriv.modality import Sample
from attnpriv.models.lora import merge_adapters
from attnpriv.privacy.ledger import Selection
from attnpriv.privacy.selection import RunCount
from attnpriv.randomness import KEY_BYTES, StepKeys, Stream
from attnpriv.training.loop import Training, run
from attnpriv.training.plan import Parts, Plan
from attnpriv.training.preparation import Classifier, augmented
from attnpriv.training.processes import Processes
from attnpriv.training.release import count_correct

OnRunStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Search:
    """All that is decided before the number of runs is drawn.

    Attributes:
        plans: one for each candidate, on the same rows; their untrained models are one.
        selection: what the whole of it spends.
        noise_seed: as in ``PrivacyConfig``.
    """

    plans: tuple[Plan, ...]
    selection: Selection
    noise_seed: int | None

    @property
    def parts(self) -> Parts:
        """The rows to train on and the validation rows."""
        return self.plans[0].parts

    @property
    def untrained(self) -> Classifier:
        """The model that all runs begin with."""
        return self.plans[0].classifier

    @cached_property
    def samples(self) -> list[Sample]:
        """What the model reads of the training rows."""
        return self.untrained.read(self.parts.rows)

    @cached_property
    def held_out_samples(self) -> list[Sample]:
        """The same of the validation rows."""
        return self.untrained.read(self.parts.held_out)

    @cached_property
    def features(self) -> Tensor:
        """What the untrained encoder makes of the training rows, once for all runs of a head."""
        return self.untrained.features(
            augmented(self.untrained, self.samples, self.plans[0].config)
        )

    @cached_property
    def held_out_features(self) -> Tensor:
        """The same of the validation rows."""
        return self.untrained.features(self.held_out_samples)

    def begin(self, plan: Plan, keys: StepKeys) -> Training:
        """A run before its first step."""
        features = self.features if plan.config.trainable == "head" else None
        return plan.begin(self.samples, keys, Processes(), features)

    def count_correct(self, plan: Plan) -> int:
        """How many validation rows a plan's model gets right by now: no ε covers it."""
        if plan.config.trainable == "head":
            features = self.held_out_features
        else:
            features = plan.classifier.features(self.held_out_samples)
        return count_correct(
            plan.classifier.model, features, torch.tensor(self.parts.held_out.labels)
        )


@dataclass(frozen=True)
class Attempt:
    """One run, or none: the untrained model, without a score.

    Attributes:
        number: of its candidate.
        plan: what was planned; its model is the trained one.
        score: how many validation rows it predicts correctly, with noise.
        skipped_records: as in ``TrainingResult``.
    """

    number: int
    plan: Plan
    score: float | None = None
    skipped_records: int = 0


@dataclass(frozen=True)
class Drawn:
    """What chance has given a run, before any run begins.

    Attributes:
        place: among the runs, from 0.
        number: of its candidate.
        key: of its coins and its noise.
        score_key: of the noise on its score.
    """

    place: int
    number: int
    key: bytes = field(repr=False)
    score_key: bytes = field(repr=False)


def draw(search: Search) -> list[Drawn]:
    """A random number of runs, each with a candidate and keys."""
    seed = search.noise_seed
    source = random.SystemRandom() if seed is None else random.Random(seed)
    runs = RunCount(search.selection.mean_runs, search.selection.distribution).draw(source)
    return [
        Drawn(
            place,
            source.randrange(len(search.plans)),
            source.randbytes(KEY_BYTES),
            source.randbytes(KEY_BYTES),
        )
        for place in range(runs)
    ]


def attempts(
    search: Search, executor: Executor | None, on_step: OnRunStep | None
) -> Iterator[tuple[Drawn, Attempt]]:
    """Draw runs and make them; each with its result, in any order where an executor makes them."""
    runs = draw(search)
    if executor is None:
        for drawn in runs:
            yield drawn, _attempt(search, drawn, on_step)
        return

    def note(_: Drawn, done: int, total: int) -> None:
        if on_step is not None:
            on_step(done, total)

    with executor.crew(SearchJob(search)) as crew:
        for drawn, content in crew(runs, note):
            yield drawn, _unpacked(search, drawn, content)


def _attempt(search: Search, drawn: Drawn, on_step: OnRunStep | None) -> Attempt:
    """One run, and its noised score."""
    plan = search.plans[drawn.number].with_own_model()
    training = search.begin(plan, StepKeys(drawn.key))
    steps = training.schedule.steps

    def report(step: int) -> None:
        if on_step is not None:
            on_step(step, steps)

    run(training, on_step=report)
    training.finish()
    merge_adapters(plan.classifier.model)
    score = torch.tensor([float(search.count_correct(plan))])
    Stream(drawn.score_key).add_normal_(score, search.selection.score_noise)
    return Attempt(drawn.number, plan, score.item(), training.skipped_records)


@dataclass(frozen=True)
class SearchJob:
    """What a process needs to make any run of a search; a piece is what was drawn for a run.

    Attributes:
        search: with the rows, the untrained model and, once computed, the features.
    """

    resumable = False  # what is kept of some runs would say how many there were

    search: Search

    def packed(self) -> SearchJob:
        """As ``jobs.Job.packed``: it names no files."""
        return self

    def begin(self) -> Callable[[Drawn, Told], bytes]:
        """As ``jobs.Job.begin``."""

        def make(drawn: Drawn, told: Told) -> bytes:
            with one_thread():
                return _packed(_attempt(self.search, drawn, told))

        return make


def _packed(attempt: Attempt) -> bytes:
    content = {
        "weights": attempt.plan.classifier.model.state_dict(),
        "score": attempt.score,
        "skipped_records": attempt.skipped_records,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _unpacked(search: Search, drawn: Drawn, content: bytes) -> Attempt:
    found: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    plan = search.plans[drawn.number].with_own_model()
    merge_adapters(plan.classifier.model)  # into what the run had made of them, which comes next
    plan.classifier.model.load_state_dict(found["weights"])
    return Attempt(drawn.number, plan, found["score"], found["skipped_records"])
