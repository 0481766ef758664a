"""The loss, its gradients, and the ways of training the encoder-decoder."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch.testing import assert_close
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from tests.models.transformer import VARIANTS, make_batch, make_labels, make_model


@pytest.fixture(params=VARIANTS)
def model(request):
    return make_model(**VARIANTS[request.param])


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_and_gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), gradients(model)


def reference(model, labels, smoothing, divisor=None, **batch):
    """The loss in plain operations on all logits."""
    model.zero_grad()
    logits = model(
        **batch, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)
    ).logits
    total = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing, reduction="sum"
    )
    loss = total / (labels.ne(-100).sum() if divisor is None else divisor)
    loss.backward()
    return loss.detach(), gradients(model)


def assert_same(ours, theirs):
    assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name in ours[1]:
        assert_close(ours[1][name], theirs[1][name], rtol=1e-4, atol=1e-5, msg=name)


# The loss


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("divisor", [None, 23])
def test_loss_and_gradients_are_those_of_the_formula(model, training, smoothing, divisor):
    model.train(training)
    model.config.label_smoothing = smoothing
    inputs = make_batch() | {"labels": make_labels()}
    options = {} if divisor is None else {"num_items_in_batch": divisor}
    ours = loss_and_gradients(model, **inputs, **options)
    assert_same(ours, reference(model, smoothing=smoothing, divisor=divisor, **inputs))
    outputs = model(**inputs)
    assert (outputs.logits is None) == training
    assert outputs.past_key_values is None


def test_smoothing_can_be_asked_for_in_the_call():
    model = make_model(label_smoothing=0.2).train()
    inputs = make_batch() | {"labels": make_labels()}
    for smoothing in (0.0, 0.1):
        ours = loss_and_gradients(model, label_smoothing=smoothing, **inputs)
        assert_same(ours, reference(model, smoothing=smoothing, **inputs))
    assert model(**inputs).loss > model(**inputs, label_smoothing=0.0).loss


def test_accumulated_gradients_equal_those_of_one_batch(model):
    model.train()
    batch, labels = make_batch(), make_labels()
    whole = loss_and_gradients(model, **batch, labels=labels)
    count, total = labels.ne(-100).sum(), 0.0
    model.zero_grad()
    for row in range(3):
        part = {name: rows[row : row + 1] for name, rows in batch.items()}
        loss = model(**part, labels=labels[row : row + 1], num_items_in_batch=count).loss
        loss.backward()
        total += loss.detach()
    assert_same((total, gradients(model)), whole)


def test_a_batch_without_labels_that_count_has_no_loss():
    model = make_model().train()
    labels = torch.full((3, 4), -100)
    loss, grads = loss_and_gradients(model, **make_batch(), labels=labels)
    assert loss == 0
    assert all(grad.count_nonzero() == 0 for grad in grads.values())


def test_gradients_do_not_depend_on_padding(model):
    model.train()
    labels = make_labels()
    plain = loss_and_gradients(model, **make_batch(), labels=labels)
    wider = F.pad(labels, (0, 3), value=-100)
    assert_same(loss_and_gradients(model, **make_batch(width=11), labels=wider), plain)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(model, use_reentrant):
    model.train()
    inputs = make_batch() | {"labels": make_labels()}
    plain = loss_and_gradients(model, **inputs)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert_same(loss_and_gradients(model, **inputs), plain)


def test_eager_and_sdpa_have_the_same_gradients(model):
    model.train()
    inputs = make_batch() | {"labels": make_labels()}
    sdpa = loss_and_gradients(model, **inputs)
    model.set_attn_implementation("eager")
    assert_same(loss_and_gradients(model, **inputs), sdpa)


def test_the_forward_pass_is_one_graph():
    for fields in ({}, VARIANTS["bidirectional rotary"]):
        torch.compiler.reset()
        model = make_model(**fields)
        inputs = make_batch() | {"labels": make_labels()}
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert_close(compiled(**inputs).loss, model(**inputs).loss)


# Trainer and adapters


def pairs(count=24):
    """Sources and targets, which are the sources backwards."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for _ in range(count):
        length = int(torch.randint(1, 6, (1,), generator=generator))
        tokens = torch.randint(3, 12, (length,), generator=generator).tolist()
        rows.append(
            {
                "input_ids": [*tokens, 2],
                "attention_mask": [1] * (length + 1),
                "labels": [*tokens[::-1], 2],
            }
        )
    return rows


def trainer(model, folder, **settings):
    vocabulary = {f"t{index}": index for index in range(41)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t3")), pad_token="t0"
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        seed=3,
        **settings,
    )
    return Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs(),
        eval_dataset=pairs(),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
    )


def test_the_trainer_trains_it_and_evaluates_it_by_generating(tmp_path):
    model = make_model(label_smoothing=0.1)
    run = trainer(
        model,
        tmp_path,
        max_steps=80,
        per_device_train_batch_size=12,
        learning_rate=5e-3,
        predict_with_generate=True,
        generation_max_length=8,
    )
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before / 2
    predictions = run.predict(pairs()).predictions
    right = sum(
        row["labels"] == ids[1 : 1 + len(row["labels"])].tolist()
        for row, ids in zip(pairs(), predictions, strict=True)
    )
    assert right >= 8


def test_the_trainer_trains_and_evaluates_a_refinement_model(tmp_path):
    model = make_model(refinement_decoder=True, refinement_layers=1)
    run = trainer(model, tmp_path, max_steps=10, per_device_train_batch_size=12, learning_rate=5e-3)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before
    assert run.predict(pairs()).predictions[0].shape[0] == 24


def test_accumulation_in_the_trainer_equals_one_large_batch(tmp_path):
    start = make_model()
    losses = []
    for size, steps in ((12, 1), (3, 4)):
        run = trainer(
            copy.deepcopy(start),
            tmp_path,
            max_steps=2,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            learning_rate=1e-3,
        )
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_lora_adapters_are_trained_alone_and_merged(tmp_path):
    model = make_model()
    inputs = make_batch() | {"labels": make_labels()}
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="SEQ_2_SEQ_LM")
    )
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = adapted(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    generated = adapted.generate(**make_batch(), max_new_tokens=5, do_sample=False)
    merged = adapted.merge_and_unload()
    assert torch.equal(
        merged.generate(**make_batch(), max_new_tokens=5, do_sample=False), generated
    )
