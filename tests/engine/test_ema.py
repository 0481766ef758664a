"""The moving average of the weights."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from hf_genmodels.engine.ema import EMA
from hf_genmodels.errors import UserError


class Net(nn.Module):
    """Two tied matrices, a frozen one, a norm with statistics, and a buffer that is not saved."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def make_net():
    torch.manual_seed(0)
    return Net()


def add(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(value)
        model.norm.running_mean.add_(value)


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_decay_warms_up_and_then_holds():
    model = make_net()
    ema, expected = EMA(model, 0.5), model.embed.weight.detach().clone()
    for update in range(12):
        add(model, 1.0)
        ema.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.embed.weight.detach()
    torch.testing.assert_close(ema.state_dict()["average.embed.weight"], expected)


def test_tied_weights_are_held_once_and_frozen_ones_not_at_all():
    assert set(EMA(make_net(), 0.9).state_dict()) == {
        "average.embed.weight",
        "average.norm.weight",
        "average.norm.bias",
        "average.norm.running_mean",
        "average.norm.running_var",
        "average.norm.num_batches_tracked",
        "num_updates",
    }


def test_applying_swaps_weights_and_buffers_and_keeps_ties():
    model = make_net()
    ema = EMA(model, 0.99)
    start = snapshot(model)
    add(model, 1.0)
    ema.update(model)
    with ema.applied_to(model) as applied:
        assert applied is model
        assert model.head.weight is model.embed.weight
        torch.testing.assert_close(model.embed.weight, start["embed.weight"] + 0.9)
        assert torch.equal(model.norm.running_mean, start["norm.running_mean"] + 1.0)
    assert torch.equal(model.norm.running_mean, start["norm.running_mean"] + 1.0)


def test_the_models_own_weights_come_back_to_the_bit_after_an_exception():
    model = make_net()
    ema = EMA(model, 0.9)
    add(model, 0.1)
    own, average = snapshot(model), {name: t.clone() for name, t in ema.state_dict().items()}

    def evaluate_and_fail():
        with ema.applied_to(model):
            add(model, 5.0)
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        evaluate_and_fail()
    assert own["embed.weight"].equal(model.embed.weight)
    assert own["norm.running_mean"].equal(model.norm.running_mean)
    assert_equal(ema.state_dict(), average)


def test_state_survives_safetensors_and_continues_to_the_bit():
    model = make_net()
    ema = EMA(model, 0.9)
    for _ in range(3):
        add(model, 0.3)
        ema.update(model)
    restored = EMA(make_net(), 0.9)
    restored.load_state_dict(load(save(ema.state_dict())))
    add(model, 0.3)
    ema.update(model)
    restored.update(model)
    assert_equal(ema.state_dict(), restored.state_dict())


def test_the_state_of_another_model_is_refused():
    ema = EMA(make_net(), 0.9)
    with pytest.raises(UserError, match="another model"):
        ema.load_state_dict(EMA(nn.Linear(2, 2), 0.9).state_dict())


def test_a_wrapped_model_is_refused():
    model = make_net()
    with pytest.raises(ValueError, match="unwrapped model"):
        EMA(model, 0.9).update(nn.Sequential(model))


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match="ema_decay"):
        EMA(make_net(), decay)
