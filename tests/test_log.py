"""What libraries log comes out in our shape, and does not flood."""

import logging

import pytest
import structlog

from worker.log import configure_logging


def test_a_library_that_complains_again_and_again_is_heard_once_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure_logging("info", "json")
        library = logging.getLogger("some.client")
        for number in range(3):
            library.error("cannot reach node %s", number)
        library.error("another thing")
        library.info("unheard")
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert '"message":"cannot reach node 0"' in lines[0]
    assert '"library":"some.client"' in lines[0]
