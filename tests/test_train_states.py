from pathlib import Path

import pytest
import torch

from stacknorm.encoder.trunk import load_encoder, take_lower
from stacknorm.errors import DataError
from stacknorm.training.states import States, allocate, compute_states
from tiny_bases import WIDTH, write_base

TOKENS = [[2, 5, 6, 3], [2, 7, 3], [2, 8, 9, 10, 11, 3]]


def states(root: Path, flat: torch.Tensor) -> States:
    done: list[int] = []
    found = compute_states(
        take_lower(load_encoder(write_base(root)), 2),
        TOKENS,
        flat,
        pad_id=0,
        batch_tokens=12,
        advance=done.append,
        precision="fp32",
    )
    assert sum(done) == len(TOKENS)
    return found


def test_states_are_those_of_each_text_by_itself_padded_and_masked(tmp_path: Path) -> None:
    found = states(tmp_path / "base", allocate(13, WIDTH, tmp_path / "unused"))
    hidden, mask = found.batch([1, 0], 5)
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert hidden[0, 3:].abs().sum() == 0
    lower = take_lower(load_encoder(tmp_path / "base"), 2)
    with torch.no_grad():
        alone = lower(input_ids=torch.tensor([TOKENS[1]]), attention_mask=torch.ones(1, 3)).last_hidden_state[0]
    assert torch.allclose(hidden[0, :3], alone, rtol=1e-2, atol=1e-2)
    assert not (tmp_path / "unused").exists()


def test_large_states_lie_in_a_file_and_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "work" / "states.bin"
    on_disk = states(tmp_path / "base", allocate(13, WIDTH, file, in_memory_bytes=100))
    assert file.stat().st_size == 13 * WIDTH * 2
    in_memory = states(tmp_path / "base", allocate(13, WIDTH, tmp_path / "unused"))
    assert torch.equal(on_disk.batch([0, 1, 2], 6)[0], in_memory.batch([0, 1, 2], 6)[0])


def test_states_that_no_disk_holds_are_refused_with_what_they_need(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bytes free; the states of the frozen layers need 2,251,799,813,685,248"):
        allocate(1 << 40, 1024, tmp_path / "states.bin")
