"""Losses, gradients, Trainer, adapters."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM


@pytest.fixture
def labels(input_ids):
    """Labels of which some do not count."""
    labels = input_ids.clone()
    labels[0, 3:6] = -100
    labels[1, 0] = -100
    return labels


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_and_gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), gradients(model)


def assert_same(first, second, tolerance=1e-6):
    assert_close(first[0], second[0], rtol=tolerance, atol=tolerance)
    assert first[1].keys() == second[1].keys()
    for name, gradient in first[1].items():
        scale = max(1.0, second[1][name].abs().max().item())
        assert_close(gradient / scale, second[1][name] / scale, rtol=0, atol=tolerance, msg=name)


def train_a_little(model, rows, steps=20):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Loss


@pytest.mark.parametrize(
    "options",
    [{}, {"num_items_in_batch": 7}, {"num_items_in_batch": torch.tensor(7)}],
    ids=["mean", "int", "tensor"],
)
@pytest.mark.parametrize("how", ["labels", "shift_labels"])
def test_the_chunked_loss_equals_the_plain_one(
    make_model, variant, input_ids, labels, options, how
):
    model = make_model(**variant).train()
    given = {"labels": labels}
    if how == "shift_labels":
        given = {"shift_labels": F.pad(labels[:, 1:], (0, 1), value=-100)}
    inputs = {"input_ids": input_ids, **given, **options}
    chunked = loss_and_gradients(model, **inputs, return_logits=False)
    plain = loss_and_gradients(model, **inputs, return_logits=True)
    assert_same(chunked, plain, tolerance=2e-6)  # rounding: a loss of 15 is not a mean
    by_hand = F.cross_entropy(
        model(input_ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    count = options.get("num_items_in_batch", (labels[:, 1:] != -100).sum())
    assert_close(chunked[0], (by_hand / count).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", ["head", "body"])
def test_the_chunked_loss_with_frozen_parts(make_model, input_ids, frozen):
    model = make_model(tie_word_embeddings=False).train()
    (model.lm_head if frozen == "head" else model.model).requires_grad_(False)
    inputs = {"input_ids": input_ids, "labels": input_ids}
    chunked = loss_and_gradients(model, **inputs)
    assert_same(chunked, loss_and_gradients(model, **inputs, return_logits=True))
    assert ("lm_head.weight" in chunked[1]) == (frozen == "body")


def test_logits_come_with_the_loss_in_evaluation_and_not_in_training(make_model, input_ids):
    model = make_model()
    evaluated = model(input_ids, labels=input_ids)
    assert evaluated.logits.shape == (2, 12, 97)
    trained = model.train()(input_ids, labels=input_ids)
    assert trained.logits is None
    assert_close(trained.loss, evaluated.loss, rtol=1e-6, atol=1e-6)
    assert model(input_ids).logits is not None
    assert model.eval()(input_ids, labels=input_ids, return_logits=False).logits is None


@pytest.mark.parametrize("spoil", ["hook", "other class", "replaced forward"])
def test_a_head_that_is_more_than_its_weight_is_called(make_model, input_ids, spoil):
    model = make_model(tie_word_embeddings=False).train()
    if spoil == "hook":
        model.lm_head.register_forward_hook(lambda *given: 2 * given[-1])
    elif spoil == "other class":
        model.lm_head = torch.nn.Sequential(model.lm_head, torch.nn.Hardtanh())
    else:
        plain = model.lm_head.forward
        model.lm_head.forward = lambda states: 2 * plain(states)
    loss = model(input_ids, labels=input_ids).loss
    expected = model(input_ids, labels=input_ids, return_logits=True).loss
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("training", [True, False])
def test_autocast_to_bf16_stays_close(make_model, variant, input_ids, training):
    model = make_model(**variant, hidden_size=64).train(training)
    exact = model(input_ids, labels=input_ids).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids, labels=input_ids).loss
    assert loss.dtype == torch.float
    assert_close(loss, exact, rtol=0.05, atol=0.05)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Gradients


def test_every_parameter_gets_a_gradient(make_model, variant, input_ids):
    model = make_model(**variant).train()
    _, found = loss_and_gradients(model, input_ids=input_ids, labels=input_ids)
    for name, _ in model.named_parameters():
        assert found[name].count_nonzero() > 0, name


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(make_model, variant, input_ids, reentrant):
    model = make_model(**variant, residual_dropout=0.2).train()
    inputs = {"input_ids": input_ids, "labels": input_ids}
    torch.manual_seed(0)
    expected = loss_and_gradients(model, **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    torch.manual_seed(0)
    assert_same(loss_and_gradients(model, **inputs), expected)


def test_packed_documents_give_the_gradients_of_single_ones(make_model, variant, input_ids):
    model = make_model(**variant).train()
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None].expand(2, -1)
    labels = input_ids.clone()
    labels[:, 5] = -100  # the first token of the second document has no predecessor
    packed = loss_and_gradients(
        model, input_ids=input_ids, labels=labels, position_ids=positions, num_items_in_batch=20
    )
    model.zero_grad()
    loss = 0.0
    for part in (input_ids[:, :5], input_ids[:, 5:]):
        loss = loss + model(part, labels=part, num_items_in_batch=20).loss
    loss.backward()
    assert_same(packed, (loss.detach(), gradients(model)), 1e-5)


def test_accumulated_micro_batches_equal_the_whole_batch(make_model, variant, input_ids, labels):
    model = make_model(**variant).train()
    count = (labels[:, 1:] != -100).sum()
    whole = loss_and_gradients(model, input_ids=input_ids, labels=labels)
    model.zero_grad()
    total = torch.zeros(())
    for ids, targets in zip(input_ids[:, None], labels[:, None], strict=True):
        loss = model(ids, labels=targets, num_items_in_batch=count).loss
        loss.backward()
        total += loss.detach()
    assert_same((total, gradients(model)), whole)


def test_a_few_steps_learn_two_rows_by_heart(make_config, variant, input_ids):
    model = GenGPTForCausalLM(make_config(**variant, zero_init_residual=True)).train()
    losses = train_a_little(model, input_ids, steps=60)
    assert losses[-1] < losses[0] / 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_training_step_is_one_graph_and_equal(make_model, variant, input_ids):
    model = make_model(**variant).train()
    inputs = {"input_ids": input_ids, "labels": input_ids}
    expected = loss_and_gradients(model, **inputs)
    torch.compiler.reset()  # graphs of other models count against the limit of recompilations
    compiled = torch.compile(model, fullgraph=True)
    model.zero_grad()
    loss = compiled(**inputs).loss
    loss.backward()
    assert_same((loss.detach(), gradients(model)), expected, 1e-5)


@torch.no_grad()
def test_the_forward_pass_is_one_graph(make_model, variant, input_ids):
    model = make_model(**variant)
    torch.compiler.reset()  # graphs of other models count against the limit of recompilations
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert_close(compiled(input_ids).logits, model(input_ids).logits, rtol=1e-5, atol=1e-5)
    loss = compiled(input_ids, labels=input_ids).loss
    assert_close(loss, model(input_ids, labels=input_ids).loss, rtol=1e-5, atol=1e-5)


# transformers.Trainer


def trainer_for(model, rows, folder, **settings):
    arguments = TrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        seed=3,
        **settings,
    )
    data = [{"input_ids": row, "labels": labels} for row, labels in rows]
    return Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)


@pytest.fixture
def rows():
    """Eight rows with different numbers of labels that count."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randint(3, 97, (8, 12), generator=generator)
    labels = rows.clone()
    for index in range(8):
        labels[index, : index + 1] = -100
    return list(zip(rows, labels, strict=True))


def test_trainer_trains_and_evaluates(make_config, variant, rows, tmp_path):
    model = GenGPTForCausalLM(make_config(**variant))
    trainer = trainer_for(
        model, rows, tmp_path, max_steps=5, per_device_train_batch_size=4, eval_strategy="steps"
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    predictions = trainer.predict(trainer.eval_dataset)
    assert predictions.predictions.shape == (8, 12, 97)


def test_trainer_with_accumulation_equals_the_full_batch(make_model, variant, rows, tmp_path):
    first = make_model(**variant)
    second = copy.deepcopy(first)
    trainer_for(first, rows, tmp_path, max_steps=2, per_device_train_batch_size=8).train()
    trainer_for(
        second,
        rows,
        tmp_path,
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    ).train()
    for name, parameter in first.named_parameters():
        assert_close(second.get_parameter(name), parameter, rtol=1e-4, atol=1e-5, msg=name)


def test_trainer_with_gradient_checkpointing(make_config, rows, tmp_path):
    model = GenGPTForCausalLM(make_config())
    trainer = trainer_for(
        model,
        rows,
        tmp_path,
        max_steps=2,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
    )
    trainer.train()
    assert len([entry for entry in trainer.state.log_history if "loss" in entry]) == 2


# LoRA


@pytest.mark.parametrize(
    "targets", [["q_proj", "v_proj"], "all-linear", ["q_proj", "lm_head"]], ids=str
)
def test_lora_trains_and_merges(make_model, variant, input_ids, targets):
    if targets == ["q_proj", "lm_head"]:
        variant["tie_word_embeddings"] = False
    model = make_model(**variant)
    before = {name: p.clone() for name, p in model.named_parameters()}
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    losses = train_a_little(adapted.train(), input_ids)
    assert losses[-1] < losses[0]
    adapted.eval()
    logits = adapted(input_ids).logits
    merged = adapted.merge_and_unload()
    assert type(merged) is GenGPTForCausalLM
    assert_close(merged(input_ids).logits, logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(merged.model.embed_tokens.weight, before["model.embed_tokens.weight"])
    assert not torch.equal(
        merged.model.layers[0].attn.q_proj.weight, before["model.layers.0.attn.q_proj.weight"]
    )


def test_lora_loss_is_the_plain_one_and_only_adapters_get_gradients(make_model, input_ids):
    adapted = get_peft_model(
        make_model(), LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    ).train()
    inputs = {"input_ids": input_ids, "labels": input_ids}
    chunked = loss_and_gradients(adapted, **inputs)
    assert all("lora_" in name for name in chunked[1])
    assert_same(chunked, loss_and_gradients(adapted, **inputs, return_logits=True))


@torch.no_grad()
def test_torch_exports_the_forward_pass(make_model, variant, input_ids):
    model = make_model(**variant)
    exported = torch.export.export(model, (input_ids,), {"use_cache": False}).module()
    logits = exported(input_ids, use_cache=False).logits
    assert_close(logits, model(input_ids).logits, rtol=1e-5, atol=1e-5)
