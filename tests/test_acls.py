"""The least that each duty needs on the broker, as data, commands and the table of the docs."""

import shlex
from pathlib import Path

from worker.acls import Duty, Grant, list_grants, render_commands, render_table
from worker.settings import load_settings

DOCS = (Path(__file__).parents[1] / "docs" / "security.md").read_text()


def test_a_labeller_needs_transactions_only_where_it_uses_them() -> None:
    def resources(guarantee: str) -> set[str]:
        return {grant.resource for grant in list_grants(Duty.labeller, load_settings(processing_guarantee=guarantee))}

    assert resources("exactly_once") == {"topic", "group", "transactional-id"}
    assert resources("at_least_once") == {"topic", "group"}


def test_only_whoever_makes_topics_may_and_only_owners_write_outputs() -> None:
    settings = load_settings(topics={"prefix": "desk."})
    grants = {duty: list_grants(duty, settings) for duty in Duty}
    assert [duty for duty in Duty if any("Create" in grant.operations for grant in grants[duty])] == [Duty.topics]
    writers = {
        name: [duty for duty in Duty if any("Write" in each.operations for each in grants[duty] if each.name == name)]
        for name in ("desk.labelled", "desk.alerts", "desk.surge-state", "desk.actions")
    }
    assert writers == {
        "desk.labelled": [Duty.labeller], "desk.alerts": [Duty.detector], "desk.surge-state": [Duty.detector],
        "desk.actions": [Duty.responder],
    }  # fmt: skip


def test_commands_join_what_is_alike_and_quote_names() -> None:
    grants = [
        Grant("topic", "b", ("Read",)),
        Grant("topic", "a", ("Write",)),
        Grant("topic", "c", ("Read",)),
        Grant("transactional-id", "t-", ("Write",), prefixed=True),
    ]
    commands = [shlex.split(line)[8:] for line in render_commands(grants, "User:CN=the desk", "kafka:9093")]
    assert [" ".join(words) for words in commands] == [
        "--operation Read --topic b --topic c",
        "--operation Write --topic a",
        "--operation Write --resource-pattern-type prefixed --transactional-id t-",
    ]
    (line,) = render_commands(grants[:1], "User:CN=the desk", "kafka:9093")
    assert "--allow-principal 'User:CN=the desk'" in line


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    table = DOCS.split("<!-- acls -->\n")[1].split("\n<!-- /acls -->")[0]
    assert table == render_table(load_settings()), "paste the output of `stacknorm-worker acls --markdown`"
