"""Every kind of task, read from one stack: pairs, windows, mentions, words, channels; parts of one text or many."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from stacknorm.bases.source import digest_files
from stacknorm.bundle import (
    ChannelSpec,
    HeadSpec,
    Manifest,
    MemberSpec,
    TaskSpec,
    WindowSpec,
    load_bundle,
    save_manifest,
)
from stacknorm.engine import Engine
from stacknorm.entities import Mention
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.pool import mean_pool, softmax
from stacknorm.spans.tags import head_tags
from tiny_bases import WIDTH, member_spec, write_base, write_stack

LONG = "acme profit falls the bank warns of loss oil rises gold surges up down misses cuts raises the profit of acme"
KINDS = {"sentiment": "single", "themes": "multi", "stance": "entity", "names": "spans"}
LABELS = {"themes": ("oil", "gold"), "stance": ("negative", "positive"), "names": ("company", "place")}
POOLINGS = {"themes": "cls", "stance": "entity", "names": "tokens"}


def add_heads(bundle: Path, spec: MemberSpec) -> MemberSpec:
    """A sentiment member that also answers a task of every other kind."""
    random = torch.Generator().manual_seed(len(spec.name))
    heads, tensors = dict(spec.heads), {}
    for task, labels in {"sentiment": spec.heads["sentiment"].labels, **LABELS}.items():
        own = head_tags(labels) if KINDS[task] == "spans" else labels
        width = 2 * WIDTH if KINDS[task] == "entity" else WIDTH
        tensors[f"{task}.weight"] = torch.randn(len(own), width, generator=random)
        tensors[f"{task}.bias"] = torch.randn(len(own), generator=random)
        heads[task] = HeadSpec(labels=own, pooling=POOLINGS.get(task, "mean"))
    save_file(tensors, bundle / spec.name / "heads.safetensors")
    return spec.model_copy(update={"heads": heads, "files": digest_files(bundle / spec.name, spec.files)})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Members of two families, each with a head of every kind."""
    root = tmp_path_factory.mktemp("reading")
    bases = {kind: write_base(root / kind, kind) for kind in ("bert", "roberta")}
    specs = [add_heads(root / "bundle", member_spec(root / "bundle", kind, base)) for kind, base in bases.items()]
    stack = write_stack(
        root / "bundle", [spec.model_copy(update={"heads": {"sentiment": spec.heads["sentiment"]}}) for spec in specs]
    )
    tasks = {
        task: TaskSpec(kind=KINDS[task], labels=labels, pool=mean_pool(2), calibrator=Identity(), best_member="bert")
        for task, labels in LABELS.items()
    }
    before = load_bundle(stack).manifest
    rewrite(stack, stack, tasks=dict(before.tasks) | tasks, members=tuple(specs))
    return stack


def rewrite(source: Path, out: Path, **changes: object) -> Path:
    manifest = load_bundle(source).manifest.model_copy(update=changes)
    save_manifest(out, Manifest.model_validate_json(manifest.model_dump_json()))
    return out


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return Engine.load(bundle, device="cpu", precision="fp32")


def mention(text: str, word: str) -> Mention:
    start = text.index(word)
    return Mention("symbol", word, start, start + len(word))


def test_a_stack_answers_every_kind_of_task_in_characters_of_the_text_as_given(engine: Engine) -> None:
    text = "oil &amp; gold https://t.co/x\n\nacme   bank falls"
    (found,) = engine.predict([text], [[mention(text, "gold"), mention(text, "bank"), mention(text, "t.co")]])
    assert list(found.tasks) == ["sentiment", "themes"]
    assert [text[entity.start : entity.end] for entity in found.entities] == ["gold", "bank"]
    assert all(sum(e.tasks["stance"].probabilities.values()) == pytest.approx(1) for e in found.entities)
    assert all(text[span.start : span.end].strip() == text[span.start : span.end] for span in found.spans["names"])


def test_a_text_beside_others_is_answered_as_it_is_alone(engine: Engine) -> None:
    texts = ["oil falls", "gold rises the bank", LONG, "acme"]
    mentions = [[mention(text, text.split()[0])] for text in texts]
    together = engine.predict(texts, mentions)
    for place, whole in enumerate(together):
        (alone,) = engine.predict([texts[place]], [mentions[place]])
        for task, answer in alone.tasks.items():
            assert list(whole.tasks[task].probabilities.values()) == pytest.approx(
                list(answer.probabilities.values()), abs=1e-5
            )
        assert [entity.entity for entity in whole.entities] == [entity.entity for entity in alone.entities]
        stances = [[e.tasks["stance"].probabilities["positive"] for e in p.entities] for p in (whole, alone)]
        assert stances[0] == pytest.approx(stances[1], abs=1e-5)
        assert [(s.start, s.end, s.label) for s in whole.spans["names"]] == [
            (s.start, s.end, s.label) for s in alone.spans["names"]
        ]


def test_an_entity_is_answered_for_by_its_own_words(engine: Engine) -> None:
    text = "acme profit falls oil rises"
    (found,) = engine.predict([text], [[mention(text, "acme"), mention(text, "oil")]])
    first, second = (entity.tasks["stance"].probabilities["positive"] for entity in found.entities)
    assert abs(first - second) > 1e-3


def test_what_lies_beyond_the_limit_is_not_read_and_its_entities_are_left_out(engine: Engine) -> None:
    (found,) = engine.predict([LONG], [[mention(LONG, "oil"), Mention("symbol", "last", len(LONG) - 4, len(LONG))]])
    assert [entity.entity for entity in found.entities] == ["oil"]
    assert all(span.end < len(LONG) - 4 for span in found.spans["names"])


def test_windows_read_a_text_to_its_end_and_leave_short_ones_alone(
    engine: Engine, bundle: Path, tmp_path: Path
) -> None:
    whole = load_bundle(bundle).manifest
    rewrite(bundle, bundle, windows=WindowSpec(overlap_tokens=4, max_windows=4))
    windowed = Engine.load(bundle, device="cpu", precision="fp32")
    save_manifest(bundle, whole)
    last = Mention("symbol", "last", len(LONG) - 4, len(LONG))
    (found,) = windowed.predict([LONG], [[last]])
    assert [entity.entity for entity in found.entities] == ["last"]
    members = windowed.member_probabilities([LONG, "oil falls"])
    assert np.isfinite(members["names"]).all()
    plain = engine.member_probabilities([LONG, "oil falls"])
    assert members["sentiment"][:, 1] == pytest.approx(plain["sentiment"][:, 1], abs=1e-6)
    assert np.abs(members["sentiment"][:, 0] - plain["sentiment"][:, 0]).max() > 1e-3


def test_a_pair_is_read_together(engine: Engine) -> None:
    pair, alone = engine.predict([("acme falls", "oil"), "acme falls"])
    assert pair.tasks["sentiment"].probabilities != pytest.approx(alone.tasks["sentiment"].probabilities, abs=1e-4)


def test_tags_of_another_scheme_and_order_give_the_same_spans(engine: Engine, bundle: Path) -> None:
    """The same heads with their rows in another order, an O in the end, and I written as BILOU's L and I."""
    whole = load_bundle(bundle).manifest
    files = {member.name: (bundle / member.name / "heads.safetensors").read_bytes() for member in whole.members}
    order, members = (3, 4, 1, 2, 0), []
    for member in whole.members:
        tensors = load(files[member.name])
        save_file(
            {name: tensor[list(order)] if name.startswith("names.") else tensor for name, tensor in tensors.items()},
            bundle / member.name / "heads.safetensors",
        )
        tags = tuple(head_tags(LABELS["names"])[place].replace("I-", "L-") for place in order)
        heads = dict(member.heads) | {"names": HeadSpec(labels=tags, pooling="tokens")}
        digests = digest_files(bundle / member.name, member.files)
        members.append(member.model_copy(update={"heads": heads, "files": digests}))
    save_manifest(bundle, whole.model_copy(update={"members": tuple(members)}))
    shuffled = Engine.load(bundle, device="cpu", precision="fp32")
    for name, content in files.items():
        (bundle / name / "heads.safetensors").write_bytes(content)
    save_manifest(bundle, whole)
    found, plain = (one.predict([LONG])[0].spans["names"] for one in (shuffled, engine))
    assert [replace(span, probability=0) for span in found] == [replace(span, probability=0) for span in plain]
    assert [span.probability for span in found] == pytest.approx([span.probability for span in plain], abs=1e-6)


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_a_channel_is_one_more_member_that_reads_what_the_others_have_read(
    combine: str, engine: Engine, bundle: Path
) -> None:
    random = torch.Generator().manual_seed(3)
    width = 2 * WIDTH if combine == "concat" else WIDTH
    head = {"sentiment.weight": torch.randn(3, width, generator=random), "sentiment.bias": torch.zeros(3)}
    (bundle / "joined").mkdir(exist_ok=True)
    save_file(head, bundle / "joined" / "heads.safetensors")
    whole = load_bundle(bundle).manifest
    labels = HeadSpec(labels=("negative", "neutral", "positive"), pooling="mean")
    channel = ChannelSpec(
        name="joined",
        members=("bert", "roberta"),
        combine=combine,
        heads={"sentiment": labels},
        files=digest_files(bundle / "joined", ["heads.safetensors"]),
    )
    tasks = dict(whole.tasks) | {"sentiment": whole.tasks["sentiment"].model_copy(update={"pool": mean_pool(3)})}
    rewrite(bundle, bundle, channels=(channel,), tasks=tasks)
    joined = Engine.load(bundle, device="cpu", precision="fp32")
    save_manifest(bundle, whole)
    members = joined.member_probabilities(["oil falls", "acme"])["sentiment"]
    assert members.shape == (3, 2, 3)
    assert members[:2] == pytest.approx(engine.member_probabilities(["oil falls", "acme"])["sentiment"], abs=1e-6)
    features = [read_alone(joined, name) for name in ("bert", "roberta")]
    unit = [f / np.linalg.norm(f) for f in features]
    given = np.concatenate(unit) if combine == "concat" else unit[0] + unit[1]
    assert members[2, 0] == pytest.approx(softmax(given @ head["sentiment.weight"].double().numpy().T), abs=1e-5)
    assert not joined.predict(["oil falls"])[0].degraded


def read_alone(engine: Engine, name: str) -> np.ndarray:
    """The mean of a member's last states for `oil falls`, by hand."""
    (group, reader) = next((g, r) for r in engine._readers for g in r.groups if name in g.names)
    ids = torch.tensor([reader.tokenizer.encode("oil falls").ids])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        hidden = group.lower(input_ids=ids, attention_mask=mask).last_hidden_state
        return group.members[name].states(hidden, mask).mean(dim=1)[0].double().numpy()
