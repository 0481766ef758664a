"""Memory estimates and numbers for people."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_genmodels.engine.estimate import (
    estimate_memory,
    format_bytes,
    format_count,
    format_duration,
)


def make_model(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 500, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **options)).train()


def test_every_part_follows_from_the_model():
    model = make_model()
    weights = sum(p.numel() * 4 for p in model.parameters())
    estimate = estimate_memory(model, "adamw", 4, 128, chunked_loss=False)
    assert estimate["weights"] == pytest.approx(weights, rel=0.1)
    assert estimate["gradients"] == weights
    assert estimate["optimizer"] == 2 * weights
    assert estimate["logits"] == 4 * 4 * 128 * 500 * 4
    assert estimate["total"] == sum(v for name, v in estimate.items() if name != "total")


def test_activations_are_those_that_autograd_keeps():
    model = make_model()
    estimate = estimate_memory(model, "adamw", 2, 64)
    floats = estimate["activations"] / (2 * 64 * 2 * 32 * 4)  # a token, a layer and a unit of width
    assert 30 < floats < 80
    assert estimate_memory(model, "adamw", 4, 64)["activations"] == 2 * estimate["activations"]


def test_checkpointing_freezing_chunks_and_averages_change_the_right_parts():
    model = make_model()
    plain = estimate_memory(model, "adamw", 4, 128, chunked_loss=False)
    assert estimate_memory(model, "adamw", 400, 128)["logits"] == 24 << 20
    averaged = estimate_memory(model, "adamw", 4, 128, chunked_loss=False, ema=True)
    assert averaged["optimizer"] - plain["optimizer"] == plain["gradients"]
    model.activation_checkpointing_enable()
    assert estimate_memory(model, "adamw", 4, 128)["activations"] < plain["activations"] / 2
    model.transformer.wte.weight.requires_grad_(False)
    frozen = estimate_memory(model, "adamw", 4, 128)
    assert plain["gradients"] - frozen["gradients"] == 500 * 32 * 4
    assert frozen["optimizer"] == 2 * frozen["gradients"]


def test_muon_keeps_one_state_for_hidden_matrices():
    model = make_model()
    hidden = sum(p.numel() * 4 for n, p in model.named_parameters() if ".h." in n and p.ndim == 2)
    adamw = estimate_memory(model, "adamw", 1, 64)["optimizer"]
    workspace = 5 * hidden
    assert estimate_memory(model, "muon", 1, 64)["optimizer"] == adamw - hidden + workspace


def test_estimating_leaves_the_model_and_the_random_stream_alone():
    model = make_model()
    state = torch.random.get_rng_state()
    estimate_memory(model, "adamw", 1, 64)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.7, "1.00 k"),
        (5_312_000, "5.31 M"),
        (124_439_808, "124 M"),
        (2e12, "2.00 T"),
    ],
)
def test_counts_are_short(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(12, "12 B"), (1380e6, "1.38 GB"), (999_999_999, "1.00 GB"), (21_300_000, "21.3 MB")],
)
def test_sizes_are_short(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (4.21, "4.2 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.8, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (90_000, "1 d 01 h"),
        (float("inf"), "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_durations_are_short(seconds, text):
    assert format_duration(seconds) == text
