"""Builds the engine that settings ask for; the only place that loads a stack."""

from worker.deterministic import DeterministicEngine
from worker.labeller import Engine, check_engine
from worker.settings import EngineSettings


def load_engine(settings: EngineSettings) -> Engine:
    """Load and try the engine; takes seconds.

    Raises:
        StacknormError: the bundle cannot be loaded or trusted.
        Misconfigured: its tasks and labels are not those of events.
    """
    engine = _build(settings)
    check_engine(engine)
    return engine


def _build(settings: EngineSettings) -> Engine:
    if settings.kind == "deterministic":
        return DeterministicEngine(settings.deterministic_seconds_per_text)
    from stacknorm.engine import Engine as Stack  # noqa: PLC0415 -- torch takes seconds to import

    return Stack.load(
        settings.bundle,
        settings.device,
        settings.precision,
        settings.form,
        language_guard=settings.language_guard,
        aliases=settings.aliases,
        member_timeout_seconds=settings.member_timeout_seconds,
    )
