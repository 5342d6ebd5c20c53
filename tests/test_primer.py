"""The primer's file: what is written is what is read, and what is no primer is refused by name."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import KeyType, StackRef
from surge_streams import START
from worker.check import check_primer
from worker.errors import Misconfigured
from worker.primer import ArchiveSpan, KeyPrior, Primer, Volume, read_primer, write_primer
from worker.settings import Settings, load_settings
from worker.surge.exposure import FLAT, HOURS, WHOLE
from worker.surge.rules import Prior, Rules

NIGHT = ((500,) * 12 + (1500,) * 12) * 7
AMOUNTS = st.floats(0, 1e9)


def make_primer(**changed: object) -> Primer:
    given = {
        "stack": StackRef(name="test", digest="d1"),
        "archive": ArchiveSpan(first=START, last=START, days=20.0, stories=9000, keyed_negatives=8000),
        "negatives_a_day": Volume(proposed=400.0, low=350.0, high=450.0),
        "priors": {KeyType.market: KeyPrior(mean_a_day=7.0, a0=0.6)},
        "profiles": {KeyType.entity: NIGHT},
        "baselines": {"entity:symbol:ACME": (10.0, 40.0, 12.5)},
    }
    return Primer.model_validate(given | changed)


@pytest.mark.parametrize("name", ["primer.json", "primer.json.gz"])
@given(baselines=st.dictionaries(st.text(), st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), max_size=5))
def test_what_is_written_is_what_is_read_to_the_last_bit(tmp_path_factory, name, baselines):
    path = tmp_path_factory.mktemp("primer") / name
    primer = make_primer(baselines=baselines)
    write_primer(primer, path)
    assert read_primer(path) == primer
    assert read_primer(path).digest == primer.digest
    before = path.read_bytes()
    write_primer(read_primer(path), path)
    assert path.read_bytes() == before


def test_the_order_of_keys_changes_nothing():
    one, other = ({"b": (1, 2, 3), "a": (4, 5, 6)}, {"a": (4, 5, 6), "b": (1, 2, 3)})
    assert make_primer(baselines=one).encode() == make_primer(baselines=other).encode()


def test_the_rules_take_what_was_learned_and_leave_the_rest():
    rules = make_primer().apply(Rules())
    assert rules.priors.market == Prior(7.0, 0.6)
    assert rules.priors.entity == Rules().priors.entity
    assert rules.profiles.entity.weights == NIGHT
    assert rules.profiles.market == FLAT
    assert rules.primed is not None
    assert rules.primed.stack_digest == "d1"


def test_every_number_of_a_primer_names_another_rule_version():
    changes = (
        {"baselines": {"entity:symbol:ACME": (10.0, 40.0, 12.6)}},
        {"profiles": {}},
        {"priors": {}},
        {"stack": StackRef(name="test", digest="d2")},
    )
    versions = [make_primer(**each).apply(Rules()).version for each in changes]
    assert len({*versions, make_primer().apply(Rules()).version, Rules().version}) == 6


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no primer of version 1: the file: Invalid JSON"),
        (b'{"version": 2}', "version: Input should be 1"),
        (orjson.dumps(orjson.loads(make_primer().encode()) | {"extra": 1}), "extra: Extra inputs"),
        (
            orjson.dumps(orjson.loads(make_primer().encode()) | {"profiles": {"entity": [WHOLE] * (HOURS - 1)}}),
            "profiles: .* a profile is 168 whole thousandths",
        ),
        (
            orjson.dumps(orjson.loads(make_primer().encode()) | {"baselines": {"a": [-1, 0, 0]}}),
            "baselines.a.0: Input should be greater than or equal to 0",
        ),
    ],
)
def test_what_is_no_primer_is_refused_by_file_and_place(tmp_path: Path, content, problem):
    path = tmp_path / "primer.json"
    path.write_bytes(content)
    with pytest.raises(Misconfigured, match=rf"primer {path} .*{problem}"):
        read_primer(path)
    assert str(path) in (check_primer(settings(path)).problem or "")


def test_a_file_that_is_missing_or_cut_is_refused_by_name(tmp_path: Path):
    with pytest.raises(Misconfigured, match=r"none\.json cannot be read: .*; `stacknorm-worker backfill` makes one"):
        _ = settings(tmp_path / "none.json").rules
    path = tmp_path / "cut.json.gz"
    write_primer(make_primer(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Misconfigured, match=r"cut\.json\.gz cannot be read"):
        read_primer(path)


def settings(path: Path | None, **surge: float) -> Settings:
    return load_settings(surge={"primer": path, **surge})


def test_a_setting_leads_to_the_rules(tmp_path: Path):
    write_primer(make_primer(), tmp_path / "primer.json")
    found = settings(tmp_path / "primer.json", budget_a_day=3.0)
    assert found.rules == make_primer().apply(Rules(budget_a_day=3.0))
    assert found.rules is found.rules
    assert found.rules_without_primer == Rules(budget_a_day=3.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (400.0, None),
        (790.0, None),
        (201.0, None),
        (20_000.0, "alerts come later than they need to; set surge.negatives_a_day = 400"),
        (100.0, "too many false alerts; set surge.negatives_a_day = 400"),
    ],
)
def test_a_volume_far_from_the_archives_is_said_with_its_mend_and_changes_nothing(tmp_path: Path, given, said):
    write_primer(make_primer(), tmp_path / "primer.json")
    found = settings(tmp_path / "primer.json", negatives_a_day=given)
    finding = check_primer(found)
    assert finding.problem is None
    assert (said is None) == ("note:" not in finding.detail)
    assert said is None or said in finding.detail
    assert found.rules.negatives_a_day == given


def test_check_says_what_it_means_to_have_no_primer():
    assert "learns for three days" in check_primer(settings(None)).detail
