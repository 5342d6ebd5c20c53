import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from stacknorm.encoder.initialise import init_encoder, init_head, prior_bias
from stacknorm.encoder.trunk import ARCHITECTURES, load_encoder
from tiny_bases import tiny_config

shares = st.lists(st.integers(1, 1000), min_size=2, max_size=20).map(lambda n: [count / sum(n) for count in n])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_encoder_from_its_configuration_alone_is_the_same_for_the_same_seed(kind: str, tmp_path: Path) -> None:
    config = tiny_config(kind)
    model = init_encoder(config, 7)
    ids = torch.tensor([[2, 5, 6, 3]])
    first = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    again = init_encoder(config, 7)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    other = init_encoder(config, 8)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert torch.isfinite(first).all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    loaded = load_encoder(tmp_path)
    assert torch.equal(loaded(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state, first)


def test_random_weights_leave_the_callers_random_numbers_as_they_are() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    init_encoder(tiny_config("bert"), 1)
    init_head("single", 16, 3, seed=1)
    assert torch.equal(torch.rand(2), expected)


@given(shares)
def test_a_head_that_starts_from_priors_says_them_of_an_empty_text(given_: list[float]) -> None:
    nothing = torch.zeros(1, 4)
    single = init_head("single", 4, len(given_), seed=0, priors=given_)(nothing)
    multi = init_head("multi", 4, len(given_), seed=0, priors=given_)(nothing)
    assert single.softmax(dim=1)[0].tolist() == pytest.approx(given_, abs=1e-6)
    assert multi.sigmoid()[0].tolist() == pytest.approx(given_, abs=1e-6)


def test_a_head_without_priors_prefers_no_label_and_can_be_trained() -> None:
    head = init_head("single", 64, 3, seed=5)
    assert head.bias.tolist() == [0, 0, 0]
    assert 0.01 < float(head.weight.detach().std()) < 0.03
    assert torch.equal(head.weight, init_head("multi", 64, 3, seed=5).weight)
    assert all(weight.requires_grad for weight in head.parameters())


@pytest.mark.parametrize("priors", [[0.5, 0.5], [0.0, 0.5, 0.5], [1.0, 1.0, 1.0], [0.2, 0.3, float("nan")]])
def test_priors_that_are_no_shares_of_each_label_are_refused(priors: list[float]) -> None:
    with pytest.raises(ValueError, match="priors must be 3 shares between 0 and 1"):
        prior_bias("single", priors, 3)
