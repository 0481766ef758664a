"""Parameter groups, Muon with AdamW, schedules and freezing."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_genmodels.config.optim import SCHEDULES, OptimConfig, ScheduleConfig
from hf_genmodels.engine import muon as muon_module
from hf_genmodels.engine.muon import MuonAdamW, orthogonalize
from hf_genmodels.engine.optim import (
    build_optimizer,
    build_schedule,
    default_learning_rate,
    freeze,
    learning_rates,
    lr_factor,
    parameter_groups,
)
from hf_genmodels.errors import UserError


class TinyLM(nn.Module):
    """An embedding, a block with two matrices, a norm and a head, tied on request."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(24, 8, bias=False)
        self.mix = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        if tied:
            self.lm_head.weight = self.embed.weight

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, ids):
        x = self.embed(ids)
        return self.lm_head(self.norm(x + self.down(F.relu(self.up(x)) * self.mix(x))))


def make_model(tied=False):
    torch.manual_seed(0)
    return TinyLM(tied)


def train(model, optimizer, schedule=None, steps=5, first=0):
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 11, (4, 9), generator=generator)
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        losses.append(loss.item())
    return losses


def names(groups):
    return {group: [name for name, _ in members] for group, members in groups.items()}


def test_every_parameter_is_sorted_by_what_it_is():
    assert names(parameter_groups(make_model())) == {
        "hidden": ["up.weight", "down.weight", "mix.weight"],
        "head": ["lm_head.weight"],
        "embeddings": ["embed.weight"],
        "vectors": ["up.bias", "mix.bias", "norm.weight", "norm.bias"],
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_tied_weight_appears_once_and_counts_as_the_head(name):
    model = make_model(tied=True)
    assert "embeddings" not in names(parameter_groups(model))
    optimizer = build_optimizer(model, OptimConfig(name=name))
    ids = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(model.parameters()))


def test_only_matrices_decay_and_embeddings_on_request():
    def decays(**options):
        optimizer = build_optimizer(make_model(), OptimConfig(weight_decay=0.3, **options))
        return {group["name"]: group["weight_decay"] for group in optimizer.param_groups}

    assert decays() == {"hidden": 0.3, "head": 0.3, "embeddings": 0.0, "vectors": 0.0}
    assert decays(decay_embeddings=True)["embeddings"] == 0.3
    assert decays(name="muon", muon_weight_decay=0.02)["hidden"] == 0.02


def test_plain_adamw_is_torchs_fused_one():
    optimizer = build_optimizer(make_model(), OptimConfig(lr=1e-3))
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["fused"]
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_muon_only_takes_the_hidden_matrices():
    optimizer = build_optimizer(make_model(), OptimConfig(name="muon"))
    kinds = {group["name"]: group["kind"] for group in optimizer.param_groups}
    assert kinds == {"hidden": "muon", "head": "adamw", "embeddings": "adamw", "vectors": "adamw"}


def test_default_rates_follow_size_and_explicit_ones_win():
    assert default_learning_rate(85_000_000) == pytest.approx(6e-4)
    assert default_learning_rate(3_000_000) > default_learning_rate(300_000_000)
    assert default_learning_rate(0) == 4e-3
    model = make_model()
    rates = learning_rates(model, OptimConfig(name="muon"))
    assert rates == {"hidden": 0.02, "head": 4e-3, "embeddings": 0.1, "vectors": 4e-3}
    tuned = learning_rates(model, OptimConfig(name="muon"), fine_tuning=True)
    assert tuned == pytest.approx({name: rate / 10 for name, rate in rates.items()})
    given = OptimConfig(name="muon", lr=1.0, muon_lr=2.0, embedding_lr=3.0, head_lr=4.0)
    expected = {"hidden": 2.0, "head": 4.0, "embeddings": 3.0, "vectors": 1.0}
    assert learning_rates(model, given, fine_tuning=True) == expected


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64), (8, 3, 3, 3)])
@pytest.mark.parametrize("scale", ["spectral", "rms"])
def test_muon_equals_its_definition_with_an_svd(shape, scale):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    config = OptimConfig(
        name="muon",
        muon_steps=10,
        muon_scale=scale,
        muon_precision="float32",
        muon_weight_decay=0.1,
    )
    group = {"params": [weight], "name": "hidden", "kind": "muon", "lr": 0.1, "weight_decay": 0.1}
    optimizer = MuonAdamW([group], config)
    expected, average = weight.detach().clone(), torch.zeros_like(weight)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        average = 0.95 * average + 0.05 * weight.grad
        update = (0.05 * weight.grad + 0.95 * average).flatten(1)
        left, _, right = torch.linalg.svd(update, full_matrices=False)
        rows, columns = update.shape
        factor = (
            max(1, rows / columns) ** 0.5
            if scale == "spectral"
            else 0.2 * max(rows, columns) ** 0.5
        )
        expected = expected * (1 - 0.01) - 0.1 * factor * (left @ right).view(shape)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (48, 16), (16, 48)])
@pytest.mark.parametrize(
    ("scale", "theirs"), [("spectral", "original"), ("rms", "match_rms_adamw")]
)
def test_muon_equals_torchs_muon_when_both_orthogonalize_alike(shape, scale, theirs, monkeypatch):
    """torch's own Newton-Schulz is bfloat16 only; momentum, decay and scales are compared exactly."""
    monkeypatch.setattr(
        "torch.optim._muon._zeropower_via_newtonschulz",
        lambda matrix, *_: orthogonalize(matrix[None])[0],
    )
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    twin = nn.Parameter(weight.detach().clone())
    group = {"params": [weight], "name": "hidden", "kind": "muon", "lr": 0.02, "weight_decay": 0.1}
    config = OptimConfig(name="muon", muon_precision="float32", muon_scale=scale)
    optimizer = MuonAdamW([group], config)
    reference = torch.optim.Muon([twin], lr=0.02, weight_decay=0.1, adjust_lr_fn=theirs)
    for _ in range(4):
        weight.grad = torch.randn_like(weight)
        twin.grad = weight.grad.clone()
        optimizer.step()
        reference.step()
        torch.testing.assert_close(weight, twin, atol=1e-6, rtol=1e-5)


def test_muons_adamw_part_equals_torchs_adamw_to_the_bit():
    model, twin = make_model(), make_model()
    config = OptimConfig(
        name="muon", muon_lr=0.0, muon_weight_decay=0.0, lr=1e-2, embedding_lr=1e-2
    )
    optimizer = build_optimizer(model, config)
    hidden = {"up.weight", "down.weight", "mix.weight"}
    freeze(twin, sorted(hidden))
    reference = build_optimizer(twin, OptimConfig(lr=1e-2))
    assert train(model, optimizer) == train(twin, reference)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_restored_optimizer_continues_to_the_bit(name):
    config, schedule_config = OptimConfig(name=name), ScheduleConfig(warmup_steps=3)
    model = make_model()
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, schedule_config, 20)
    train(model, optimizer, schedule, steps=6)
    weights = copy.deepcopy(model.state_dict())
    state, schedule_state = copy.deepcopy(optimizer.state_dict()), schedule.state_dict()
    expected = train(model, optimizer, schedule, steps=6, first=6)

    restored = make_model()
    restored.load_state_dict(weights)
    optimizer = build_optimizer(restored, config)
    schedule = build_schedule(optimizer, schedule_config, 20)
    state["param_groups"] = json.loads(json.dumps(state["param_groups"]))
    optimizer.load_state_dict(state)
    schedule.load_state_dict(json.loads(json.dumps(schedule_state)))
    assert train(restored, optimizer, schedule, steps=6, first=6) == expected
    for one, other in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_holds_only_tensors_and_json(name):
    model = make_model()
    optimizer = build_optimizer(model, OptimConfig(name=name))
    train(model, optimizer, steps=1)
    state = optimizer.state_dict()
    json.dumps(state["param_groups"])
    for entries in state["state"].values():
        assert all(isinstance(value, torch.Tensor) for value in entries.values())


def test_two_runs_are_equal_to_the_bit():
    runs = []
    for _ in range(2):
        model = make_model()
        runs.append(train(model, build_optimizer(model, OptimConfig(name="muon")), steps=8))
    assert runs[0] == runs[1]


def test_muon_learns():
    model = make_model()
    optimizer = build_optimizer(model, OptimConfig(name="muon", lr=0.05))
    ids = torch.arange(9).repeat(4, 1)
    for _ in range(60):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1.0  # log 11 = 2.4 at the start


def test_batching_does_not_change_the_update(monkeypatch):
    def run():
        model = make_model()
        config = OptimConfig(name="muon", muon_precision="float32")
        train(model, build_optimizer(model, config), steps=3)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    together = run()
    monkeypatch.setattr(muon_module, "BATCH_ELEMENTS", 1)
    torch.testing.assert_close(run(), together, atol=1e-5, rtol=1e-4)


def test_parameters_without_gradient_are_left_alone():
    model = make_model()
    optimizer = build_optimizer(model, OptimConfig(name="muon"))
    before = copy.deepcopy(model.state_dict())
    model.up(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"up.weight", "up.bias"}


def test_freeze_reports_what_it_froze_and_the_optimizer_leaves_it_out():
    model = make_model()
    assert freeze(model, ["up.*", "embed*"]) == ["embed.weight", "up.weight", "up.bias"]
    trained = [name for members in names(parameter_groups(model)).values() for name in members]
    assert set(trained) == {
        "down.weight", "mix.weight", "mix.bias", "norm.weight", "norm.bias", "lm_head.weight"
    }  # fmt: skip


def test_freeze_refuses_a_pattern_that_matches_nothing_and_shows_names():
    with pytest.raises(UserError, match=r"'layers\.0\.\*' matches no parameter.*embed\.weight"):
        freeze(make_model(), ["layers.0.*"])


def test_freezing_everything_is_refused_and_changes_nothing():
    model = make_model()
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(model, ["*"])
    assert all(p.requires_grad for p in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(UserError, match="No parameter is left to train"):
        build_optimizer(model, OptimConfig())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("max_steps", [1, 2, 100])
@pytest.mark.parametrize("warmup_steps", [None, 0, 10, 1000])
def test_every_schedule_starts_above_zero_and_stays_in_range(name, max_steps, warmup_steps):
    config = ScheduleConfig(name=name, warmup_steps=warmup_steps, min_lr_ratio=0.1)
    factors = [lr_factor(config, step, max_steps) for step in range(max_steps + 3)]
    assert factors[0] > 0
    assert all(0 < factor <= 1 for factor in factors)


def test_the_corners_of_each_schedule():
    def factor(name, step, **options):
        return lr_factor(ScheduleConfig(name=name, warmup_steps=10, **options), step, 110)

    for name in SCHEDULES:
        assert factor(name, 0) == pytest.approx(1 / 11)
        assert factor(name, 4) == pytest.approx(5 / 11)
        assert factor(name, 10) == 1.0
    assert factor("constant", 500) == 1.0
    assert factor("cosine", 60) == pytest.approx(0.5)
    assert factor("linear", 60) == pytest.approx(0.5)
    assert factor("cosine", 110) == pytest.approx(0.0)
    assert factor("linear", 110, min_lr_ratio=0.1) == pytest.approx(0.1)
    assert factor("wsd", 88, decay_fraction=0.2) == 1.0
    assert factor("wsd", 99, decay_fraction=0.2) == pytest.approx(0.5)
    assert factor("wsd", 109, decay_fraction=0.2) == pytest.approx(1 / 22)
    assert factor("wsd", 110, decay_fraction=0.2, min_lr_ratio=0.3) == pytest.approx(0.3)
    assert factor("wsd", 109, decay_fraction=0.0) == 1.0
    assert factor("wsd", 999) == 0.0
    assert factor("inverse_sqrt", 43) == pytest.approx(0.5)  # four times the 11 steps of its peak


def test_the_schedule_scales_every_group_from_the_first_step():
    optimizer = build_optimizer(make_model(), OptimConfig(name="muon"))
    peaks = [group["lr"] for group in optimizer.param_groups]
    build_schedule(optimizer, ScheduleConfig(warmup_steps=3), 40)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([peak / 4 for peak in peaks])
    assert [group["initial_lr"] for group in optimizer.param_groups] == peaks


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(name="moun"), "Did you mean 'muon'"),
        (lambda: OptimConfig(lr=-1), r"--optim.lr is -1"),
        (lambda: OptimConfig(beta2=1.0), r"--optim.beta2 is 1.0"),
        (lambda: OptimConfig(muon_steps=2), "--optim.muon_steps"),
        (lambda: OptimConfig(muon_precision="fp8"), "float32, bfloat16"),
        (lambda: ScheduleConfig(name="cosin"), "Did you mean 'cosine'"),
        (lambda: ScheduleConfig(warmup_steps=-1), "--schedule.warmup_steps"),
        (lambda: ScheduleConfig(decay_fraction=1.5), "--schedule.decay_fraction"),
    ],
)
def test_impossible_options_are_refused_with_the_flag(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_parameters_sharded_by_fsdp2_get_the_same_updates(name):
    config = OptimConfig(name=name, muon_precision="float32")
    plain, sharded = make_model(), make_model()
    train(plain, build_optimizer(plain, config), steps=3)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        train(sharded, build_optimizer(sharded, config), steps=3)
        for one, other in zip(plain.parameters(), sharded.parameters(), strict=True):
            torch.testing.assert_close(one.detach(), other.full_tensor().detach())
    finally:
        torch.distributed.destroy_process_group()
