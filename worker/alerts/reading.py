"""Reading alerts and actions as they are now."""

from worker.alerts.board import Board, make_board
from worker.kafka.connection import Place
from worker.settings import Settings
from worker.sinks.tail import open_reader


async def read_board(settings: Settings) -> Board:
    """All alerts with what people did about them, up to what is committed now."""
    topics = settings.topic_names
    async with open_reader(settings, "alerts") as reader:
        alerts = await reader.read_newest(Place(topics.alerts, 0))
        return make_board(alerts, await reader.read_newest(Place(topics.actions, 0)))
