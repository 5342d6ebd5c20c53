"""Writing what a person did, or undid."""

from schemas.events import AlertAction
from worker.kafka.sink import Writer
from worker.records import OutRecord
from worker.settings import Settings


async def send(settings: Settings, action_id: str, action: AlertAction | None) -> None:
    """Write an action, or with None undo it; returns once the broker has it.

    Raises:
        WorkerError: as `translate` says; it may have been written all the same.
    """
    value = None if action is None else action.to_json()
    writer = Writer(settings.kafka, "alerts")
    await writer.start()
    try:
        await writer.write([OutRecord(settings.topic_names.actions, action_id.encode(), value, 0)])
    finally:
        await writer.stop()
