"""Int8 inference: close to fp32, smaller, and never mistaken for a model that can be saved."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_genmodels.models import inference
from hf_genmodels.models.inference import FbgemmProduct, Int8Linear, OneDNNProduct
from hf_genmodels.models.linear import Linear
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

MakeModel = Callable[..., GenGPTForCausalLM]
IDS = torch.arange(3, 27).view(2, 12)


@pytest.fixture(params=[FbgemmProduct, OneDNNProduct])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both implementations in turn."""
    if not request.param.is_available():
        pytest.skip("not in this build of torch")
    monkeypatch.setattr(inference, "PRODUCTS", (request.param,))


@torch.no_grad()
@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("shape", [(4, 6), (1, 3, 6), (2, 5, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_rounds_to_one_part_in_a_hundred(shape: tuple[int, ...], bias: bool) -> None:
    layer, states = Linear(6, 50, bias=bias), torch.randn(shape)
    expected = layer(states)
    output = Int8Linear(layer)(states)
    assert output.shape == expected.shape
    assert (output - expected).norm() < 0.02 * expected.norm()


@pytest.mark.usefixtures("product")
@torch.no_grad()
def test_fused_layers_give_their_outputs_side_by_side() -> None:
    layers, states = [Linear(16, size) for size in (8, 4, 4)], torch.randn(3, 16)
    separate = torch.cat([Int8Linear(layer)(states) for layer in layers], dim=-1)
    torch.testing.assert_close(Int8Linear(*layers)(states), separate, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("product")
@torch.no_grad()
def test_rows_of_zeros_and_of_very_different_sizes_keep_their_scale() -> None:
    layer, states = Linear(32, 3, bias=False), torch.randn(4, 32)
    layer.weight[0] = 0
    layer.weight[1] *= 1e-4
    output, expected = Int8Linear(layer)(states), layer(states)
    assert torch.equal(output[:, 0], torch.zeros(4))
    assert (output - expected)[:, 1].norm() < 0.05 * expected[:, 1].norm()


@pytest.mark.usefixtures("product")
@torch.no_grad()
def test_a_model_predicts_nearly_the_same(make_model: MakeModel, variant: dict[str, Any]) -> None:
    model = make_model(**variant)
    expected = F.log_softmax(model(input_ids=IDS).logits, dim=-1)
    assert model.quantize_int8() is model
    assert model.is_int8
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    output = F.log_softmax(model(input_ids=IDS).logits, dim=-1)
    divergence = F.kl_div(output, expected, log_target=True, reduction="sum") / IDS.numel()
    assert divergence < 0.1
    loss = model(input_ids=IDS, labels=IDS).loss
    torch.testing.assert_close(
        loss, F.nll_loss(output[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()), atol=1e-4, rtol=1e-4
    )


@pytest.mark.usefixtures("product")
def test_it_generates_greedily_by_sampling_and_by_beams(
    make_model: MakeModel, variant: dict[str, Any]
) -> None:
    model = make_model(**variant).quantize_int8()
    for options in ({}, {"do_sample": True, "num_return_sequences": 2}, {"num_beams": 3}):
        output = model.generate(IDS, max_new_tokens=6, min_new_tokens=6, **options)
        assert output.shape[1] == IDS.shape[1] + 6


@torch.no_grad()
def test_a_tied_embedding_stays_as_it_was(make_model: MakeModel) -> None:
    model = make_model(tie_word_embeddings=True)
    before = model.model.embed_tokens.weight.clone()
    model.quantize_int8()
    assert torch.equal(model.model.embed_tokens.weight, before)


def test_the_weights_are_given_back(make_model: MakeModel) -> None:
    model = make_model(hidden_size=64, tie_word_embeddings=False)
    names = {name for name, _ in model.named_parameters()}
    model.quantize_int8()
    assert not [name for name in names & dict(model.named_parameters()).keys() if "proj" in name]


def test_saving_is_refused_before_anything_is_written(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model().quantize_int8()
    for save in (
        lambda: model.save_pretrained(tmp_path / "folder"),
        lambda: model.model.save_pretrained(tmp_path / "folder"),
        model.state_dict,
        lambda: torch.save(model.state_dict(), io.BytesIO()),
    ):
        with pytest.raises(ValueError, match="int8 model cannot be saved"):
            save()
    assert not list(tmp_path.iterdir())


def test_training_loading_and_moving_are_refused(make_model: MakeModel) -> None:
    state = make_model().state_dict()
    model = make_model().quantize_int8()
    with pytest.raises(ValueError, match="cannot be trained"):
        model.train()
    with pytest.raises(ValueError, match="before quantize_int8"):
        model.load_state_dict(state)
    for move in (model.bfloat16, model.double, lambda: model.to("meta")):
        with pytest.raises(ValueError, match="CPU in fp32"):
            move()
    model.eval().to("cpu").float()
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.usefixtures("product")
@torch.no_grad()
def test_quantising_twice_or_copying_changes_nothing(make_model: MakeModel) -> None:
    model = make_model().quantize_int8()
    expected = model(input_ids=IDS).logits
    assert torch.equal(copy.deepcopy(model)(input_ids=IDS).logits, expected)
    assert torch.equal(model.quantize_int8()(input_ids=IDS).logits, expected)


@torch.no_grad()
def test_half_precision_checkpoints_become_int8_in_fp32(make_model: MakeModel) -> None:
    model = make_model().bfloat16().quantize_int8()
    assert model(input_ids=IDS).logits.dtype == torch.float32


def test_a_torch_without_int8_engine_says_so(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr(inference, "PRODUCTS", ())
    with pytest.raises(ValueError, match="Leave int8 out"):
        model.quantize_int8()
    assert not model.is_int8


def test_a_model_elsewhere_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="on meta"):
        make_model().to("meta").quantize_int8()


def test_the_engine_of_other_code_is_left_as_it_was(make_model: MakeModel) -> None:
    before = torch.backends.quantized.engine
    make_model().quantize_int8()
    assert torch.backends.quantized.engine == before
