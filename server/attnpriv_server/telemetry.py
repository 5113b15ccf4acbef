"""What operators learn of a running server: metrics, traces and logs.

Claim: no text that a caller chose gets into any of them. A string is written only where it belongs
to a set that the server fixed (its methods, lanes and status codes, and the models in its folder);
any other becomes ``other``. What a library says is never written, only where in it that was. Not
covered: where calls are few, sums tell how many tokens a text had, and traces keep the 128-bit
identifier that a caller may send.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    Summary,
)

import attnpriv
from attnpriv.errors import InputError
from attnpriv_server.domain import Code

PACKAGE = "attnpriv_server"
OTHER = "other"
CODES = frozenset({"OK", "UNKNOWN", *(code.value for code in Code)})
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})
LANES = frozenset({"predict", "explain"})
CHARGES = frozenset({"charged", "repeated", "exhausted", "conflict", "unit", "store"})
DROP_REASONS = frozenset({"deadline", "cancelled", "failed"})

# A small batch takes milliseconds, an explanation seconds, and a queue may be longer still.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

logger = logging.getLogger(__name__)


class Telemetry:
    """The metrics and the traces of one server; cheap, and safe in every thread.

    Two of them in one process share nothing. ``docs/operations.md`` lists the metrics.

    Args:
        methods: those that are served, such as ``/package.Service/Method``.
        tracer_provider: makes the spans. By default they go to the OTLP collector that
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` names; without it none are recorded.

    Raises:
        InputError: a variable of OpenTelemetry's has a value that cannot be used.

    Attributes:
        registry: what ``/metrics`` shows.
    """

    def __init__(
        self, methods: Collection[str] = (), tracer_provider: trace.TracerProvider | None = None
    ) -> None:
        self.registry = CollectorRegistry()
        self._metrics = _Metrics(self.registry)
        self._methods = frozenset(methods)
        self._loaded: set[tuple[str, str]] = set()
        self._models: set[str] = set()
        self._versions: set[str] = set()
        self._metrics.models_loaded.set_function(lambda: len(self._loaded))
        self._exporting = _exporting_provider() if tracer_provider is None else None
        provider = tracer_provider or self._exporting or trace.NoOpTracerProvider()
        self._tracer = provider.get_tracer(PACKAGE, attnpriv.__version__)

    def call_finished(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended; the span around this gets its status code too."""
        method, code = _known(method, self._methods), _known(code, CODES)
        self._metrics.calls.labels(method, code).inc()
        self._metrics.call_seconds.labels(method).observe(seconds)
        span = trace.get_current_span()
        span.set_attribute("rpc.response.status_code", code)
        if code in FAULTS:
            span.set_status(trace.StatusCode.ERROR)

    def batch_finished(self, lane: str, model: str, rows: int, tokens: int, seconds: float) -> None:
        """Record a batch that was computed.

        Args:
            lane: the lane that computed it.
            model: the model's name.
            rows: number of texts.
            tokens: number of tokens of all texts.
            seconds: time it took.
        """
        lane = _known(lane, LANES)
        self._metrics.batch_rows.labels(lane).observe(rows)
        self._metrics.batch_tokens.labels(lane).observe(tokens)
        self._metrics.batch_seconds.labels(lane, _known(model, self._models)).observe(seconds)

    def waited(self, lane: str, seconds: float) -> None:
        """Record how long a row waited before it was computed."""
        self._metrics.wait_seconds.labels(_known(lane, LANES)).observe(seconds)

    def refused(self, lane: str) -> None:
        """Count a request that found the queue full, or had to make room in it."""
        self._metrics.refused.labels(_known(lane, LANES)).inc()

    def dropped(self, lane: str, reason: str) -> None:
        """Count a request that left the queue uncomputed, for one of ``DROP_REASONS``."""
        self._metrics.dropped.labels(_known(lane, LANES), _known(reason, DROP_REASONS)).inc()

    def watch_queue(self, lane: str, rows: Callable[[], int]) -> None:
        """Ask ``rows`` how many rows wait whenever the metrics are read."""
        self._metrics.queue_rows.labels(_known(lane, LANES)).set_function(rows)

    def charge_finished(self, outcome: str, seconds: float) -> None:
        """Count a charge to a privacy budget by one of ``CHARGES``, never by whose budget it is."""
        outcome = _known(outcome, CHARGES)
        self._metrics.budget_charges.labels(outcome).inc()
        self._metrics.budget_charge_seconds.labels(outcome).observe(seconds)

    def worker_died(self) -> None:
        """Count a worker process that ended without being told to."""
        self._metrics.worker_deaths.inc()

    def model_loaded(self, model: str, version: str, seconds: float, memory_bytes: int) -> None:
        """Record a loaded model of the repository; from now on its name may be written."""
        self._models.add(model)
        self._versions.add(version)
        self._loaded.add((model, version))
        self._metrics.load_seconds.labels(model).observe(seconds)
        self._metrics.memory_bytes.labels(model, version).set(memory_bytes)

    def model_unloaded(self, model: str, version: str) -> None:
        """Record that a model is no longer in memory."""
        self._loaded.discard((model, version))
        self._metrics.memory_bytes.remove(model, version)

    def load_failed(self, model: str) -> None:
        """Count a failed load of a model in the repository, never of one that a caller guessed."""
        self._models.add(model)
        self._metrics.load_failures.labels(model).inc()

    def look_failed(self) -> None:
        """Count a look at the folder of models that failed, so that nothing changed."""
        self._metrics.look_failures.inc()

    @contextmanager
    def span(
        self, name: str, parent: Mapping[str, str] | None = None, **attributes: str | int | float
    ) -> Iterator[None]:
        """Trace the block, inside the span that is open around it.

        An exception leaves the name of its type in the span and goes on. Its message and its
        traceback may quote a request and stay out.

        Args:
            name: a constant of the code, or the method that was called.
            parent: metadata of a call, whose ``traceparent`` (W3C Trace Context) becomes the
                parent. Its ``tracestate`` and baggage may hold any text and are not read.
            attributes: numbers, and names that the server fixed.
        """
        with self._tracer.start_as_current_span(
            _known(name, self._methods) if "/" in name else name,
            context=None if parent is None else _remote(parent),
            kind=trace.SpanKind.INTERNAL if parent is None else trace.SpanKind.SERVER,
            attributes={key: self._attribute(value) for key, value in attributes.items()},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                raise

    def close(self) -> None:
        """Send the collector what spans are left; a provider that was given is left alone."""
        if self._exporting is not None:
            self._exporting.shutdown()

    def _attribute(self, value: str | int | float) -> str | int | float:
        if not isinstance(value, str):
            return value
        sets = (self._methods, self._models, self._versions, CODES, LANES)
        return value if any(value in names for names in sets) else OTHER


class _Metrics:
    """The metrics by name; labels in the order in which ``Telemetry`` gives them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": PACKAGE, "registry": registry}
        ProcessCollector(registry=registry)
        Info("build", "Version of the server.", **ours).info({"version": attnpriv.__version__})
        # Calls
        self.calls = Counter("calls", "Calls answered.", ["method", "code"], **ours)
        self.call_seconds = Histogram(
            "call_seconds", "Time from request to answer.", ["method"], buckets=SECONDS, **ours
        )
        # Queues
        self.queue_rows = Gauge("queue_rows", "Rows that wait.", ["lane"], **ours)
        self.wait_seconds = Histogram(
            "wait_seconds", "Time of a row in the queue.", ["lane"], buckets=SECONDS, **ours
        )
        self.refused = Counter("refused", "Requests refused by a full queue.", ["lane"], **ours)
        self.dropped = Counter(
            "dropped", "Requests that left the queue uncomputed.", ["lane", "reason"], **ours
        )
        # Batches
        self.batch_seconds = Histogram(
            "batch_seconds", "Time to compute.", ["lane", "model"], buckets=SECONDS, **ours
        )
        self.batch_rows = Histogram(
            "batch_rows", "Rows of a batch.", ["lane"], buckets=ROWS, **ours
        )
        self.batch_tokens = Histogram(
            "batch_tokens", "Tokens of a batch.", ["lane"], buckets=TOKENS, **ours
        )
        self.worker_deaths = Counter("worker_deaths", "Workers that died.", **ours)
        # Budget
        self.budget_charges = Counter(
            "budget_charges", "Charges to privacy budgets.", ["outcome"], **ours
        )
        self.budget_charge_seconds = Histogram(
            "budget_charge_seconds",
            "Time until a charge is durable or refused.",
            ["outcome"],
            buckets=SECONDS,
            **ours,
        )
        # Models
        self.models_loaded = Gauge("models_loaded", "Model versions in memory.", **ours)
        self.memory_bytes = Gauge(
            "model_memory_bytes", "Memory of a loaded model.", ["model", "version"], **ours
        )
        self.load_seconds = Summary("model_load_seconds", "Time to load.", ["model"], **ours)
        self.load_failures = Counter("model_load_failures", "Failed loads.", ["model"], **ours)
        self.look_failures = Counter(
            "models_look_failures", "Looks at the folder of models that failed.", **ours
        )


def _known(value: str, names: Container[str]) -> str:
    """The value if it is one of the names, else ``other``: callers must add no time series."""
    return value if value in names else OTHER


def _remote(metadata: Mapping[str, str]) -> Context:
    """The context of a caller's span; empty where it sent none, or none that is well-formed."""
    carrier = {"traceparent": metadata.get("traceparent", "")}
    return TraceContextTextMapPropagator().extract(carrier)


def _exporting_provider() -> TracerProvider | None:
    """Exports to the collector that the standard environment variables name, if any.

    Raises:
        InputError: one of them has a value that cannot be used.
    """
    to_nobody = os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if to_nobody or not any(os.environ.get(name) for name in OTLP_ENDPOINTS):
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    try:
        provider = TracerProvider(resource=_resource())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except Exception as error:  # each variable has errors of its own
        raise InputError(f"cannot use the OTEL_ environment variables: {error}") from error
    return provider


def _resource() -> Resource:
    """The resource that the environment describes, under our name where it gives none."""
    named = OTELResourceDetector().detect().attributes.get(SERVICE_NAME)
    return Resource.create(None if named else {SERVICE_NAME: "attnpriv-server"})


class JsonLines(logging.Formatter):
    """One JSON object per record: the ``fields`` that our own code gave it, and never a message.

    A message of another library may quote a text, so of it only its origin is written.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record in one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **_fields(record),
        }
        return json.dumps(line)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    if record.name.partition(".")[0] == PACKAGE and hasattr(record, "fields"):
        return dict(record.fields)
    fields = {"at": f"{record.filename}:{record.lineno}"}
    if record.exc_info and record.exc_info[0]:
        fields["error"] = record.exc_info[0].__name__
    return fields


def configure_logging() -> None:
    """Make every line on stderr a ``JsonLines`` one, Python's own notices included."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger(PACKAGE).setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a record that cannot be written would be printed whole
    threading.excepthook = _log_uncaught
    sys.unraisablehook = _log_uncaught


def _log_uncaught(caught: Any) -> None:
    """Log what Python would print with its message: an error that ends a thread or a destructor."""
    if caught.exc_value is not None:
        log_defect(caught.exc_value)


def log_defect(error: BaseException) -> None:
    """Log where an unexpected error was raised; its message could quote a text, so not that."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
    logger.error("defect", extra={"fields": {"error": type(error).__name__, "at": place}})
