"""Every metric, declared in one place. The process-wide Prometheus registry, served by health.py."""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)

RECORDS = Counter("stacknorm_records_total", "Raw records finished, by what became of them", ["outcome"])
DEGRADED = Counter("stacknorm_degraded_total", "Events labelled without a member that failed or was late")
ABSTAINED = Counter("stacknorm_abstained_total", "Events without labels: no text, or an unknown language")
DEAD_LETTERS = Counter("stacknorm_dead_letters_total", "Records sent to the dead-letter topic, by kind", ["kind"])
UNITS = Counter(
    "stacknorm_units_total", "Transaction units, by outcome: committed, retried, dropped", ["role", "outcome"]
)
UNIT_RECORDS = Histogram("stacknorm_unit_records", "Records in a committed unit", ["role"], buckets=SIZES)
LABEL_SECONDS = Histogram("stacknorm_label_seconds", "Time to label a unit", buckets=SECONDS)
COMMIT_SECONDS = Histogram("stacknorm_commit_seconds", "Time to send and commit a unit", ["role"], buckets=SECONDS)
LATENCY_SECONDS = Histogram(
    "stacknorm_latency_seconds",
    "From the raw record's timestamp to the commit of its event",
    buckets=(*SECONDS, 120, 600),
)
BACKLOG_BYTES = Gauge("stacknorm_backlog_bytes", "Raw bytes fetched and not yet in a unit")
BACKLOG_RECORDS = Gauge("stacknorm_backlog_records", "Raw records fetched and not yet in a unit")
SECONDS_PER_RECORD = Gauge("stacknorm_seconds_per_record", "What a record takes to label, as units are cut by it")
STILL_SECONDS = Gauge("stacknorm_still_seconds", "How long the worst partition with a backlog has not moved")
LAG_RECORDS = Gauge("stacknorm_lag_records", "Raw records behind the end of each owned partition", ["partition"])
LOOP_LAG_SECONDS = Histogram(
    "stacknorm_loop_lag_seconds", "How late the event loop, and so heartbeats, ran each half second", buckets=SECONDS
)
PRODUCER_REPLACED = Counter(
    "stacknorm_producer_replaced_total", "Producers closed and started anew, by cause", ["role", "cause"]
)
ALERTS = Counter("stacknorm_alerts_total", "Revisions of alerts, by status", ["status"])
NOTIFIED = Counter("stacknorm_notify_sent_total", "Revisions of alerts that arrived, by receiver", ["receiver"])
NOTIFY_REFUSED = Counter(
    "stacknorm_notify_refused_total", "Revisions of alerts that a receiver refused for good", ["receiver"]
)
NOTIFY_RETRIED = Counter(
    "stacknorm_notify_retried_total", "Attempts that failed and are made again, by receiver", ["receiver"]
)
NOTIFY_OLDEST_SECONDS = Gauge(
    "stacknorm_notify_oldest_unsent_seconds",
    "How long the oldest revision waits that should have been sent",
    ["receiver"],
)
DETECTOR_KEYS = Gauge("stacknorm_detector_keys", "Keys in the detector's state, by the shard that owns them", ["shard"])
DETECTOR_LEARNING = Gauge(
    "stacknorm_detector_learning", "1 while the detector is learning and nothing may fire", ["shard"]
)
MERGE_CLOCK_SECONDS = Gauge(
    "stacknorm_merge_clock_seconds", "The merge clock of each shard, as seconds since the epoch", ["shard"]
)
