"""Settings of a worker for a test on a broker: no model, and time-outs so short that a change of members is quick."""

from typing import Any

from worker.settings import Settings, load_settings


def load_trial_settings(bootstrap: str, prefix: str, partitions: int, **others: Any) -> Settings:
    """On topics and groups of its own, named by ``prefix``."""
    return load_settings(
        group_prefix=prefix.strip("."),
        kafka={
            "bootstrap_servers": bootstrap,
            "session_timeout_ms": 6000,
            "heartbeat_interval_ms": 500,
            "rebalance_timeout_ms": 6000,
            "transaction_timeout_ms": 10_000,
        },
        topics={"prefix": prefix, "partitions": partitions},
        engine={"kind": "deterministic"},
        **others,
    )
