"""Behaviour of torch, accelerate, safetensors and transformers that exact resumes depend on.

When one of these fails after an upgrade, resumes are no longer exact, and this says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from hf_genmodels.engine.checkpoint import FULL


def state() -> torch.Tensor:
    return torch.get_rng_state()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_with_a_generator_leaves_the_global_stream_alone(num_workers: int):
    before = state()
    loader = DataLoader(range(8), num_workers=num_workers, generator=torch.Generator())
    assert len(list(loader)) == 8
    assert torch.equal(before, state())


def test_a_loader_without_one_moves_it():
    """The reason for the one above: once this fails, own generators are no longer needed."""
    before = state()
    list(DataLoader(range(8)))
    assert not torch.equal(before, state())


def test_the_random_state_is_all_there_is_to_it():
    """Normal numbers are drawn in pairs; the second one of a pair must be part of the state."""
    torch.manual_seed(0)
    torch.randn(1)
    saved = state()
    expected = [torch.randn(3), torch.rand(3), torch.randperm(5), nn.Dropout(0.5)(torch.ones(9))]
    torch.manual_seed(1)
    torch.set_rng_state(saved)
    again = [torch.randn(3), torch.rand(3), torch.randperm(5), nn.Dropout(0.5)(torch.ones(9))]
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))


def network() -> Any:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    return layers.to(memory_format=torch.channels_last)


def test_loading_weights_keeps_the_order_in_memory_and_the_parameters_themselves():
    ours = network()
    parameters = list(ours.parameters())
    strides = [p.stride() for p in parameters]
    saved = {name: t.contiguous() for name, t in network().state_dict().items()}
    set_model_state_dict(ours, saved, options=FULL)
    assert all(a is b for a, b in zip(parameters, ours.parameters(), strict=True))
    assert [p.stride() for p in ours.parameters()] == strides
    assert ours[1].num_batches_tracked.dtype == torch.int64


def trained(steps: int, rate: float) -> tuple[Any, torch.optim.Optimizer, LambdaLR]:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for _ in range(steps):
        model(torch.ones(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model, optimizer, schedule


def test_an_optimizer_state_is_named_tensors_and_plain_numbers():
    model, optimizer, schedule = trained(2, 0.1)
    saved = get_optimizer_state_dict(model, optimizer, options=FULL)
    assert saved["state"].keys() == dict(model.named_parameters()).keys()
    assert {type(v) for entry in saved["state"].values() for v in entry.values()} == {torch.Tensor}
    assert all(isinstance(name, str) for g in saved["param_groups"] for name in g["params"])
    plain = (bool, int, float, str, list, tuple, type(None))
    assert all(isinstance(v, plain) for g in saved["param_groups"] for v in g.values())
    assert all(isinstance(v, (*plain, dict)) for v in schedule.state_dict().values())


def test_loading_an_optimizer_state_restores_moments_counts_and_rates():
    model, optimizer, _ = trained(2, 0.1)
    saved = get_optimizer_state_dict(model, optimizer, options=FULL)
    again, other, _ = trained(0, 0.5)
    set_model_state_dict(again, get_model_state_dict(model, options=FULL), options=FULL)
    set_optimizer_state_dict(again, other, saved, options=FULL)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for name, value in optimizer.state[theirs].items():
            assert torch.equal(other.state[ours][name], value)
    assert all(not p.grad.any() for p in again.parameters() if p.grad is not None)


def test_safetensors_keep_every_bit(tmp_path: Path):
    values = {
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "half": torch.tensor([1.0, 3.1415926]).to(torch.bfloat16),
        "none": torch.empty(0, 3),
    }
    save_file(values, tmp_path / "file.safetensors")
    for name, loaded in load_file(tmp_path / "file.safetensors").items():
        assert loaded.dtype == values[name].dtype
        assert loaded.shape == values[name].shape
        assert torch.equal(loaded.view(torch.uint8), values[name].view(torch.uint8))


def test_accelerate_prepares_a_model_without_drawing_random_numbers():
    accelerator = Accelerator(cpu=True)
    before = state()
    model = nn.Linear(2, 2)
    drawn = state()
    prepared, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert not torch.equal(before, drawn)
    assert torch.equal(drawn, state())
    assert accelerator.unwrap_model(prepared) is model


def test_accelerate_steps_the_schedule_only_where_it_is_asked_to():
    """Schedules are not handed to accelerate, which would step them once for every process."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=1)
    model = nn.Linear(2, 2)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    schedule = LambdaLR(optimizer.optimizer, lambda step: 1 / (1 + step))
    for expected in (1.0, 0.5):
        assert schedule.get_last_lr() == [expected]
        accelerator.backward(model(torch.ones(1, 2)).sum())
        optimizer.step()
        schedule.step()


def test_generation_in_a_forked_stream_leaves_the_global_one_alone():
    before = state()
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        torch.multinomial(torch.ones(9), 3)
    assert torch.equal(before, state())


def test_saving_a_model_draws_nothing_and_changes_nothing(tmp_path: Path):
    from hf_genmodels import GenGPTConfig, GenGPTForCausalLM

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    model = GenGPTForCausalLM(GenGPTConfig(vocab_size=11, **sizes))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = state()
    model.save_pretrained(tmp_path)
    assert torch.equal(before, state())
    assert all(torch.equal(weights[name], t) for name, t in model.state_dict().items())
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(weights[name], t) for name, t in loaded.items())
