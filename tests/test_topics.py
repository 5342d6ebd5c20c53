"""A topic that differs is named together with its mend; harmless differences are left alone."""

from worker.topics import Topics, TopicState, describe_retention, find_differences, plan_topics

SPECS = {spec.name: spec for spec in plan_topics(Topics(), 6, archive=False)}


def state(name: str, **changes) -> TopicState:
    spec = SPECS[name]
    return TopicState(name, changes.pop("partitions", spec.partitions), 1, {**spec.config, **changes.pop("config", {})})


def test_a_topic_as_planned_has_no_differences():
    assert all(find_differences(spec, state(name)) == [] for name, spec in SPECS.items())


def test_a_missing_topic_says_how_to_make_it():
    assert find_differences(SPECS["news.raw"], None) == [
        "topic news.raw does not exist: run `stacknorm-worker topics create`"
    ]


def test_a_changed_number_of_partitions_is_refused_with_the_mend():
    (problem,) = find_differences(SPECS["news.labelled"], state("news.labelled", partitions=3))
    assert problem.startswith("topic news.labelled has 3 partitions, not 6: set topics.partitions")


def test_every_shard_has_a_partition_of_the_state():
    spec = next(each for each in plan_topics(Topics(), 6, archive=False, shards=4) if each.name == "news.surge-state")
    (problem,) = find_differences(spec, state("news.surge-state"))
    assert problem == (
        "topic news.surge-state has 1 partitions, not 4: set surge.shards to match if the detector has not begun yet, "
        "else begin anew (docs/operations.md)"
    )


def test_a_deleting_changelog_is_refused():
    (problem,) = find_differences(
        SPECS["news.surge-state"], state("news.surge-state", config={"cleanup.policy": "delete"})
    )
    assert "cleanup.policy=delete, not compact" in problem
    assert "--add-config 'cleanup.policy=[compact]'" in problem


def test_retention_is_told_in_words():
    assert describe_retention(state("news.raw")) == "7 days"
    assert describe_retention(state("news.raw", config={"retention.ms": "-1"})) == "for ever"
    assert describe_retention(state("news.surge-state")) == "the newest of each key"


def test_keeping_records_longer_and_stamping_on_arrival_are_fine():
    kept = state("news.raw", config={"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"})
    assert find_differences(SPECS["news.raw"], kept) == []


def test_an_archive_needs_raw_records_kept_whatever_their_age():
    raw = plan_topics(Topics("x."), 6, archive=True)[0]
    live = TopicState("x.raw", 6, 1, dict(SPECS["news.raw"].config))
    assert [p for p in find_differences(raw, live) if "retention.ms" in p]
