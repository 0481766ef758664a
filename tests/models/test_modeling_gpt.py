"""GenGPTModel and GenGPTForCausalLM: switches, attention, packing, outputs, files."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM, GenGPTModel

ATTENTION = ["eager", "sdpa"]
PARTS = ((0, 5), (5, 12))  # two documents in twelve tokens


def packed_positions() -> torch.LongTensor:
    return torch.cat([torch.arange(end - start) for start, end in PARTS])[None]


# Switches


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {"position_embedding": "sinusoidal"},
        {"position_embedding": "rotary"},
        {"norm": "rmsnorm"},
        {"hidden_act": "relu2"},
        {"qk_norm": True},
        {"attention_scale": 8.0},
        {"logit_softcap": 1.0},
        {"num_value_embeddings": 1},
        {"norm_eps": 1.0},
        {"position_embedding": "rotary", "rope_theta": 10.0},
    ],
)
def test_every_switch_changes_the_function(make_model, input_ids, fields):
    plain = make_model(**({"position_embedding": "rotary"} if "rope_theta" in fields else {}))
    switched = make_model(**fields)
    switched.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(switched(input_ids).logits, plain(input_ids).logits, atol=1e-2)


@torch.no_grad()
def test_logits_stay_below_the_soft_cap_and_small_ones_are_left_alone(make_model, input_ids):
    plain, capped = make_model(), make_model(logit_softcap=2.0)
    capped.load_state_dict(plain.state_dict())
    logits = plain(input_ids).logits
    assert logits.abs().max() > 2
    assert_close(capped(input_ids).logits, 2 * torch.tanh(logits / 2))
    assert capped(input_ids).logits.abs().max() < 2


@torch.no_grad()
def test_value_embeddings_belong_to_the_last_layers_and_to_single_tokens(make_model, input_ids):
    model = make_model(num_value_embeddings=2)
    assert [layer.attn.value_mix is not None for layer in model.model.layers] == [False, True, True]
    before = model(input_ids).logits
    model.model.value_embeddings[0].weight[input_ids[0, 6]] += 1
    changed = (model(input_ids).logits != before).any(-1)
    first = (input_ids[0] == input_ids[0, 6]).nonzero()[0].item()
    assert not changed[0, :first].any()
    assert changed[0, first:].all()


@torch.no_grad()
@pytest.mark.parametrize("name", ["attention_dropout", "residual_dropout", "embedding_dropout"])
def test_each_dropout_acts_in_training_only(make_model, input_ids, name):
    model = make_model(**{name: 0.5})
    assert torch.equal(model(input_ids).logits, model(input_ids).logits)
    model.train()
    assert not torch.equal(model(input_ids).logits, model(input_ids).logits)


@torch.no_grad()
def test_zero_init_makes_blocks_the_identity_and_the_first_loss_ln_vocabulary(
    make_config, input_ids
):
    config = make_config(
        zero_init_residual=True, zero_init_head=True, tie_word_embeddings=False, use_bias=False
    )
    model = GenGPTForCausalLM(config)
    states = model(input_ids, output_hidden_states=True, labels=input_ids).hidden_states
    assert torch.equal(states[0], states[2])
    loss = model(input_ids, labels=input_ids).loss
    assert loss.item() == pytest.approx(math.log(config.vocab_size), abs=1e-5)


# Initial weights


def initial_std(config, name: str) -> float:
    if name == "embed_tokens":
        return config.embedding_init_range or config.initializer_range
    if name.endswith(("o_proj", "down_proj")):
        return config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
    return config.initializer_range


def check_initial_weights(model):
    for name, parameter in model.model.named_parameters():
        module = name.rpartition(".")[0]
        if name.endswith("bias"):
            assert parameter.count_nonzero() == 0, name
        elif name.endswith("value_mix"):
            assert torch.all(parameter == 0.5), name
        elif "norm" in module:
            assert torch.all(parameter == 1), name
        else:
            expected = initial_std(model.config, module)
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(parameter.mean().item()) < expected / 10, name


@pytest.mark.parametrize("fields", [{}, {"embedding_init_range": 0.5, "num_value_embeddings": 1}])
def test_initial_weights_are_those_of_gpt2(make_config, fields):
    check_initial_weights(GenGPTForCausalLM(make_config(hidden_size=64, **fields)))


def test_initial_weights_are_right_when_a_checkpoint_lacks_some(make_config, tmp_path):
    config = make_config(hidden_size=64, num_value_embeddings=1, norm="rmsnorm")
    model = GenGPTForCausalLM(config)
    kept = model.model.layers[0].attn.q_proj.weight
    state = {
        "model.layers.0.attn.q_proj.weight": kept,
        "model.layers.0.attn.o_proj.bias": 1 + 0 * kept[0],
    }
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, report = GenGPTForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert "model.layers.0.attn.o_proj.weight" in report["missing_keys"]
    assert torch.equal(loaded.model.layers[0].attn.q_proj.weight, kept)
    bias = loaded.model.layers[0].attn.o_proj.bias
    assert torch.all(bias == 1)
    bias.data.zero_()
    check_initial_weights(loaded)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


# Attention


@torch.no_grad()
@pytest.mark.parametrize("kind", ["none", "left padding", "right padding", "4-D"])
def test_eager_and_sdpa_agree(make_model, variant, input_ids, kind):
    model = make_model(**variant)
    mask = torch.ones_like(input_ids)
    mask[0, slice(0, 4) if kind == "left padding" else slice(8, None)] = 0
    real = mask.bool() if "padding" in kind else torch.ones_like(mask).bool()
    if kind == "4-D":
        mask = torch.full((2, 1, 12, 12), torch.finfo(torch.float).min).triu(1)
        mask[..., 3] = torch.finfo(torch.float).min
        mask[..., 3, 3] = 0
    logits = {}
    for implementation in ATTENTION:
        model.set_attn_implementation(implementation)
        logits[implementation] = model(
            input_ids, attention_mask=None if kind == "none" else mask
        ).logits[real]
    assert_close(logits["sdpa"], logits["eager"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_boolean_4d_mask_means_the_same_to_eager_and_sdpa(make_model, input_ids):
    model = make_model()
    mask = torch.ones(2, 1, 12, 12).tril().bool()
    mask[..., 4:, 2] = False
    logits = {}
    for implementation in ATTENTION:
        model.set_attn_implementation(implementation)
        logits[implementation] = model(input_ids, attention_mask=mask).logits
    assert_close(logits["sdpa"], logits["eager"], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits["sdpa"], model(input_ids).logits, atol=1e-3)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_flex_attention_agrees_with_sdpa(make_model, input_ids):
    model = make_model(hidden_size=64)
    expected = model(input_ids).logits
    model.set_attn_implementation("flex_attention")
    assert_close(model(input_ids).logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ATTENTION)
def test_no_token_sees_a_later_one(make_model, variant, input_ids, implementation):
    model = make_model(**variant)
    model.set_attn_implementation(implementation)
    before = model(input_ids).logits
    input_ids[:, 7] = 3 + (input_ids[:, 7] - 2) % 90
    after = model(input_ids).logits
    assert_close(after[:, :7], before[:, :7], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(after[:, 7:], before[:, 7:], atol=1e-3)


def test_the_capabilities_that_transformers_asks_for_are_declared():
    assert GenGPTForCausalLM._supports_sdpa
    assert GenGPTForCausalLM._supports_flash_attn
    assert GenGPTForCausalLM._supports_flex_attn
    assert GenGPTForCausalLM._supports_attention_backend
    assert GenGPTForCausalLM._can_compile_fullgraph
    assert GenGPTForCausalLM.main_input_name == "input_ids"
    names = list(inspect.signature(GenGPTForCausalLM.forward).parameters)
    assert names[:7] == [
        "self", "input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds",
        "labels",
    ]  # fmt: skip


# Packed documents


@torch.no_grad()
@pytest.mark.parametrize("implementation", ATTENTION)
@pytest.mark.parametrize("use_cache", [None, True, False])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("with_mask", [False, True], ids=["no mask", "mask of ones"])
def test_packed_documents_equal_single_ones(
    make_model, variant, input_ids, implementation, use_cache, training, with_mask
):
    model = make_model(**variant).train(training)
    model.set_attn_implementation(implementation)
    mask = torch.ones_like(input_ids) if with_mask else None
    packed = model(
        input_ids, attention_mask=mask, position_ids=packed_positions(), use_cache=use_cache
    ).logits
    for start, end in PARTS:
        single = model(input_ids[:, start:end]).logits
        assert_close(packed[:, start:end], single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ATTENTION)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_no_gradient_flows_between_packed_documents(
    make_model, input_ids, implementation, training
):
    model = make_model(position_embedding="rotary").train(training)
    model.set_attn_implementation(implementation)
    embeds = model.get_input_embeddings()(input_ids).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, position_ids=packed_positions()).logits
    logits[:, PARTS[1][0] :].square().sum().backward()
    assert embeds.grad[:, : PARTS[0][1]].count_nonzero() == 0
    assert embeds.grad[:, PARTS[1][0] :].count_nonzero() > 0


def test_a_packed_row_may_be_longer_than_a_document_may_be(make_model):
    model = make_model(max_position_embeddings=8)
    ids = torch.randint(3, 97, (1, 14))
    positions = torch.arange(14)[None] % 7
    assert model(ids, position_ids=positions).logits.shape == (1, 14, 97)


# Outputs


def test_logits_to_keep_are_the_last_or_the_chosen_ones(make_model, variant, input_ids):
    model = make_model(**variant)
    logits = model(input_ids).logits
    assert_close(model(input_ids, logits_to_keep=1).logits, logits[:, -1:])
    chosen = torch.tensor([2, 5])
    assert_close(model(input_ids, logits_to_keep=chosen).logits, logits[:, chosen])


def test_hidden_states_and_attentions_have_their_shapes_and_order(make_model, variant, input_ids):
    model = make_model(**variant)
    model.set_attn_implementation("eager")
    outputs = model(input_ids, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == 4
    assert all(states.shape == (2, 12, 32) for states in outputs.hidden_states)
    assert len(outputs.attentions) == 3
    assert all(weights.shape == (2, 4, 12, 12) for weights in outputs.attentions)
    assert_close(outputs.attentions[1].sum(-1), torch.ones(2, 4, 12))
    headless = model.model(input_ids, output_hidden_states=True)
    assert torch.equal(headless.hidden_states[-1], headless.last_hidden_state)
    assert torch.equal(outputs.hidden_states[-1], headless.last_hidden_state)


def test_hidden_states_are_those_of_gpt2(make_gpt2, input_ids, tmp_path):
    gpt2 = make_gpt2()
    gpt2.save_pretrained(tmp_path)
    ours = GenGPTForCausalLM.from_gpt2(tmp_path)
    theirs = gpt2(input_ids, output_hidden_states=True).hidden_states
    states = ours(input_ids, output_hidden_states=True).hidden_states
    assert_close(states, theirs, rtol=1e-4, atol=1e-5)


def test_tuples_hold_what_the_output_holds(make_model, input_ids):
    model = make_model()
    options = {"labels": input_ids, "output_hidden_states": True}
    outputs = model(input_ids, **options)
    as_tuple = model(input_ids, return_dict=False, **options)
    assert list(outputs) == ["loss", "logits", "past_key_values", "hidden_states"]
    assert torch.equal(as_tuple[0], outputs.loss)
    assert torch.equal(as_tuple[1], outputs.logits)
    assert all(map(torch.equal, as_tuple[3], outputs.hidden_states))


def test_a_row_does_not_depend_on_the_others_in_its_batch(make_model, variant, input_ids):
    model = make_model(**variant)
    together = model(input_ids).logits
    assert_close(together[:1], model(input_ids[:1]).logits, rtol=1e-5, atol=1e-5)


def test_embeddings_instead_of_tokens_give_the_same(make_model, input_ids):
    model = make_model()
    embeds = model.get_input_embeddings()(input_ids)
    assert torch.equal(model(inputs_embeds=embeds).logits, model(input_ids).logits)


def test_value_embeddings_need_the_tokens_and_take_embeddings_beside_them(
    make_model, modern, input_ids
):
    model = make_model(**modern)
    embeds = model.get_input_embeddings()(input_ids)
    with pytest.raises(ValueError, match="looked up by token: it needs input_ids"):
        model(inputs_embeds=embeds)
    logits = model(input_ids, inputs_embeds=2 * embeds).logits
    assert not torch.allclose(logits, model(input_ids).logits)
    assert_close(model(input_ids, inputs_embeds=embeds).logits, model(input_ids).logits)


def test_tokens_and_embeddings_at_once_or_neither_are_refused(make_model, input_ids):
    model = make_model()
    embeds = model.get_input_embeddings()(input_ids)
    for given in ({}, {"input_ids": input_ids, "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**given)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_a_text_beyond_the_last_position_is_refused_with_both_lengths(make_model, kind):
    model = make_model(position_embedding=kind, max_position_embeddings=8)
    with pytest.raises(ValueError, match="9 tokens is longer than max_position_embeddings=8"):
        model(torch.full((1, 9), 5))
    with pytest.raises(ValueError, match="9 tokens is longer than max_position_embeddings=8"):
        model.generate(torch.full((1, 6), 5), max_new_tokens=9, eos_token_id=None, do_sample=False)


def test_rotary_positions_have_no_last_one(make_model):
    model = make_model(position_embedding="rotary", max_position_embeddings=8)
    assert model(torch.full((1, 20), 5)).logits.isfinite().all()


# Files


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_a_saved_model_comes_back_bit_for_bit(make_model, variant, input_ids, tmp_path, dtype):
    model = make_model(**variant).to(dtype)
    model.save_pretrained(tmp_path)
    loaded, report = GenGPTForCausalLM.from_pretrained(
        tmp_path, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values())
    assert torch.equal(loaded(input_ids).logits, model(input_ids).logits)
    headless = GenGPTModel.from_pretrained(tmp_path, dtype=dtype)
    states = headless(input_ids).last_hidden_state
    assert torch.equal(states, model.model(input_ids).last_hidden_state)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_stays_tied_and_is_written_once(make_model, input_ids, tmp_path, tied):
    make_model(tie_word_embeddings=tied).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert ("lm_head.weight" in weights.keys()) is not tied  # noqa: SIM118
        assert "model.embed_tokens.weight" in weights.keys()  # noqa: SIM118
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied


def test_the_headless_model_gets_its_head_from_a_headless_checkpoint(make_model, tmp_path):
    model = make_model()
    model.model.save_pretrained(tmp_path)
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_tables_that_are_not_saved_are_right_after_loading(make_model, tmp_path):
    model = make_model(position_embedding="sinusoidal")
    model.save_pretrained(tmp_path)
    assert "model.embed_positions.table" not in model.state_dict()
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.model.embed_positions.table, model.model.embed_positions.table)


def test_other_shapes_in_a_checkpoint_are_refused_unless_allowed(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        GenGPTForCausalLM.from_pretrained(tmp_path, vocab_size=50)
    loaded = GenGPTForCausalLM.from_pretrained(
        tmp_path, vocab_size=50, ignore_mismatched_sizes=True
    )
    assert loaded.lm_head.weight.shape == (50, 32)


def test_auto_classes_load_a_folder_without_remote_code(make_model, input_ids, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).model_type == "gen_gpt"
    assert type(AutoModel.from_pretrained(tmp_path)) is GenGPTModel
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids).logits, model(input_ids).logits)


# Vocabulary


@pytest.mark.parametrize("size", [120, 60])
def test_all_tables_follow_a_new_vocabulary(make_model, variant, input_ids, tmp_path, size):
    model = make_model(**variant)
    ids = input_ids.clamp(max=59)
    before = model(ids).logits
    assert model.resize_token_embeddings(size) is model.get_input_embeddings()
    assert model.config.vocab_size == model.lm_head.out_features == size
    assert all(len(table.weight) == size for table in model.model.value_embeddings)
    kept = min(size, 97)
    assert_close(model(ids).logits[..., :kept], before[..., :kept], rtol=1e-5, atol=1e-5)
    assert model(torch.full((1, 3), size - 1)).logits.isfinite().all()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (
        model.config.tie_word_embeddings
    )
    model.save_pretrained(tmp_path)
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_frozen_table_stays_frozen_and_multiples_are_kept(make_model, modern):
    model = make_model(**modern)
    model.model.value_embeddings[0].requires_grad_(False)
    model.resize_token_embeddings(98, pad_to_multiple_of=64)
    assert [len(table.weight) for table in model.model.value_embeddings] == [128, 128]
    frozen = [not table.weight.requires_grad for table in model.model.value_embeddings]
    assert frozen == [True, False]
    assert model.resize_token_embeddings() is model.get_input_embeddings()
