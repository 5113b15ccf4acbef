"""Makes a core of files and options, whatever carries its calls: our own server, or Ray Serve."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from attnpriv_server.access import Access, names_in
from attnpriv_server.domain import Precision
from attnpriv_server.limits import Limits, load_limits
from attnpriv_server.queueing import Batching

if TYPE_CHECKING:
    from attnpriv.sensitive import Rules
    from attnpriv_server.budget.charging import Budget
    from attnpriv_server.core import Core
    from attnpriv_server.policy import Policies
    from attnpriv_server.telemetry import Telemetry

MEGABYTE = 1024 * 1024
# A thread that waits for the interpreter asks for it back after this long, in place of 5 ms: each
# step of a forward pass would otherwise wait that long behind the event loop.
SWITCH_SECONDS = 0.0001


@dataclass(frozen=True)
class Settings:
    """What a core is made of; the options of ``attnpriv-server`` say what each is.

    Attributes:
        models: folder of run folders.
        policy: file, or None for the safe policy.
        principals: file, or None to let anyone ask for anything.
        budget: URL of the database, or None where no answer is drawn.
        detection: file, or None for what is found anyway.
        limits: file, or None for the defaults.
        precision: of predictions.
        threads: of one forward pass.
        memory_budget: megabytes of loaded models, or None for no limit.
        batching: of predictions.
    """

    models: Path
    policy: Path | None = None
    principals: Path | None = None
    budget: str | None = None
    detection: Path | None = None
    limits: Path | None = None
    precision: Precision = "auto"
    threads: int = 1
    memory_budget: int | None = None
    batching: Batching = field(default_factory=Batching)


@dataclass(frozen=True)
class Rulebook:
    """What can be read at once, before anything is imported that takes seconds."""

    access: Access
    policies: Callable[[], Policies]
    limits: Limits

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Read the files of principals, of policies and of limits.

        Raises:
            InputError: one of them cannot be used.
        """
        path = settings.principals
        return cls(
            Access.anonymous() if path is None else Access.from_file(path),
            _policies(settings.policy, path, can_charge=settings.budget is not None),
            Limits() if settings.limits is None else load_limits(settings.limits),
        )


def read_detection(settings: Settings) -> Rules | None:
    """The rules for personal data, if there is a file.

    Raises:
        InputError: it cannot be used.
    """
    if settings.detection is None:
        return None
    from attnpriv.sensitive import load_rules  # PyTorch comes with it

    return load_rules(settings.detection)


@contextmanager
def opened(
    settings: Settings,
    book: Rulebook,
    rules: Rules | None,
    processes: int = 0,
) -> Iterator[Core]:
    """A core with its models loaded, in a process that is made for it.

    Logs become JSON lines on stderr. The collector of garbage may be off while this starts, and
    is on afterwards.

    Args:
        settings: what it is made of.
        book: what was read of them.
        rules: for personal data.
        processes: that compute predictions; 0 leaves that to this one.

    Raises:
        InputError: the models or the database cannot be used.
    """
    from attnpriv_server.telemetry import Telemetry, configure_logging

    configure_logging()
    from attnpriv_server.methods import METHODS
    from attnpriv_server.workers import Workers

    memory = None if settings.memory_budget is None else settings.memory_budget * MEGABYTE
    with ExitStack() as stack:
        telemetry = stack.enter_context(closing(Telemetry(METHODS)))
        pool = None
        if processes:  # first, so that they import PyTorch while this process does
            pool = stack.enter_context(Workers(processes, settings.threads, telemetry))
        # Then this: a database that cannot be reached should not take a whole start to be named.
        budget = None if settings.budget is None else _budget(settings.budget, telemetry)
        import torch

        from attnpriv.sensitive import Rules
        from attnpriv_server.core import Core
        from attnpriv_server.detecting import LateDetector, load_the_rest
        from attnpriv_server.memory import keep_freed_memory
        from attnpriv_server.models.repository import Repository

        sys.setswitchinterval(SWITCH_SECONDS)
        torch.set_num_threads(settings.threads)
        keep_freed_memory()
        repository = Repository(
            settings.models, settings.precision, memory, telemetry, workers=pool
        )
        detector = LateDetector(rules or Rules())
        core = Core(
            repository,
            book.access,
            book.policies,
            book.limits,
            settings.batching,
            telemetry,
            max(processes, 1),
            detector,
            budget,
        )
        stack.enter_context(repository)
        # What is there by now stays, modules above all. Looking through it for garbage would hold
        # up every call for a third of a second, again and again.
        gc.freeze()
        gc.enable()
        load_the_rest(detector)
        yield core


def _budget(url: str, telemetry: Telemetry) -> Budget:
    from attnpriv_server.budget.charging import Budget

    return Budget.open(url, telemetry)


def _policies(
    policy: Path | None, principals: Path | None, can_charge: bool
) -> Callable[[], Policies]:
    """The policies in force, whenever it is called."""
    from attnpriv_server.policy import Policies
    from attnpriv_server.policy.files import watched_policies

    if policy is None:
        safe = Policies()
        return lambda: safe
    return watched_policies(policy, principals, names_in, can_charge).get
