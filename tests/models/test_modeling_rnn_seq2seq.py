"""GenRNNSeq2SeqModel and its head: states, attention, padding, loss, outputs, files, training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    DynamicCache,
    EncoderDecoderCache,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_rnn_seq2seq import (
    GenRNNSeq2SeqForConditionalGeneration,
    GenRNNSeq2SeqModel,
)
from hf_genmodels.models.recurrent_cache import RecurrentCache
from tests.models.recurrent import LENGTHS, SIZES, VARIANTS, make_batch, make_labels, make_model


@pytest.fixture(params=VARIANTS)
def model(request):
    return make_model(**VARIANTS[request.param])


@pytest.fixture(params=["lstm general", "rnn dot feeding", "gru additive"])
def attending(request):
    return make_model(**VARIANTS[request.param])


# What is computed


@torch.no_grad()
def test_the_encoder_is_torchs_packed_lstm():
    model = make_model(encoder_layers=2)
    batch = make_batch()
    encoder = model.model.encoder
    lstm = nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)
    lstm.load_state_dict(encoder.stack.rnn.state_dict())
    outputs = encoder(**batch)
    for row, length in enumerate(LENGTHS):
        embeds = encoder.embed_tokens(batch["input_ids"][row : row + 1, :length])
        states, (hidden, cell) = lstm(embeds)
        assert_close(outputs.last_hidden_state[row, :length], states[0])
        assert outputs.last_hidden_state[row, length:].count_nonzero() == 0
        assert_close(outputs.final_hidden[row], hidden.view(2, 16))
        assert_close(outputs.final_cell[row], cell.view(2, 16))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_attention_follows_its_formula(kind):
    model = make_model(attention=kind, decoder_layers=1, cell="gru")
    source = make_batch((5,))["input_ids"]
    target = make_labels(1, 4)
    encoded = model.model.encoder(source)
    states = encoded.last_hidden_state[0]
    decoder = model.model.decoder
    first, _ = decoder.bridge(encoded.final_hidden, None)
    hidden, _ = decoder.stack.rnn(decoder.embed_tokens(target.clamp(min=0)), first)
    attention = decoder.stack.attention
    for place, state in enumerate(hidden[0]):
        if kind == "dot":
            scores = states @ state
        elif kind == "general":
            scores = states @ (attention.query_proj.weight @ state)
        else:
            compared = states @ model.model.encoder.key_proj.weight.T
            query = attention.query_proj.weight @ state
            scores = torch.tanh(query + compared) @ attention.score.weight[0]
        weights = scores.softmax(0)
        both = torch.cat([weights @ states, state])
        logits = model.lm_head.weight @ torch.tanh(decoder.stack.combine.weight @ both)
        outputs = model(source, decoder_input_ids=target.clamp(min=0), output_attentions=True)
        assert_close(outputs.cross_attentions[0][0, 0, place], weights, rtol=1e-4, atol=1e-5)
        assert_close(outputs.logits[0, place], logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_input_feeding_gives_the_next_step_what_was_attended_to():
    model = make_model(input_feeding=True, decoder_layers=1, cell="gru")
    source, target = make_batch((5,))["input_ids"], make_labels(1, 2).clamp(min=0)
    states = model.model(source, decoder_input_ids=target).last_hidden_state
    encoded = model.model.encoder(source)
    stack = model.model.decoder.stack
    hidden, _ = model.model.decoder.bridge(encoded.final_hidden, None)
    fed = torch.zeros(1, 16)
    for place in range(2):
        embed = model.model.decoder.embed_tokens(target[:, place])
        output, hidden = stack.rnn(torch.cat([embed, fed], -1)[:, None], hidden)
        weights = (encoded.last_hidden_state @ stack.attention.query_proj(output)[0].T).softmax(1)
        context = (weights * encoded.last_hidden_state).sum(1)
        fed = torch.tanh(stack.combine(torch.cat([context, output[:, 0]], -1)))
        assert_close(states[:, place], fed, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("encoder_layers", "first"), [(1, [0, 0]), (2, [0, 1]), (4, [2, 3])])
def test_the_decoder_begins_with_the_encoders_topmost_states(encoder_layers, first):
    model = make_model(encoder_layers=encoder_layers, decoder_layers=2)
    encoded = model.model.encoder(**make_batch())
    bridge = model.model.decoder.bridge
    hidden, cell = bridge(encoded.final_hidden, encoded.final_cell)
    for layer, source in enumerate(first):
        expected = torch.tanh(bridge.hidden_proj[layer](encoded.final_hidden[:, source]))
        assert_close(hidden[layer], expected)
        assert_close(cell[layer], bridge.cell_proj[layer](encoded.final_cell[:, source]))


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {"attention": "dot"},
        {"attention": "additive"},
        {"attention": "none"},
        {"input_feeding": True},
        {"bidirectional_encoder": False},
        {"cell": "gru"},
    ],
)
def test_every_switch_changes_the_function(fields):
    batch, labels = make_batch(), make_labels()
    plain, switched = make_model(), make_model(**fields)
    same = {n: p for n, p in plain.state_dict().items() if n in switched.state_dict()}
    same = {n: p for n, p in same.items() if p.shape == switched.state_dict()[n].shape}
    switched.load_state_dict(same, strict=False)
    logits = (made(**batch, labels=labels).logits for made in (plain, switched))
    assert not torch.allclose(*logits, atol=1e-2)


@torch.no_grad()
def test_no_token_sees_a_later_one(model):
    batch, target = make_batch(), make_labels().clamp(min=0)
    before = model(**batch, decoder_input_ids=target).logits
    target[:, 3] = 3 + (target[:, 3] - 2) % 30
    after = model(**batch, decoder_input_ids=target).logits
    assert_close(after[:, :3], before[:, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, 3:], before[:, 3:], atol=1e-3)


@torch.no_grad()
def test_dropout_acts_in_training_only():
    model = make_model(dropout=0.5, encoder_layers=2)
    batch, labels = make_batch(), make_labels()
    assert torch.equal(model(**batch, labels=labels).loss, model(**batch, labels=labels).loss)
    model.train()
    assert not torch.equal(model(**batch, labels=labels).loss, model(**batch, labels=labels).loss)


# Batches and padding


@torch.no_grad()
def test_a_padded_batch_equals_single_sentences(model):
    batch, target = make_batch(), make_labels().clamp(min=0)
    together = model(**batch, decoder_input_ids=target).logits
    for row, length in enumerate(LENGTHS):
        source = batch["input_ids"][row : row + 1, :length]
        alone = model(source, decoder_input_ids=target[row : row + 1]).logits
        assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_length_of_the_padding_and_what_stands_there_do_not_matter(model):
    batch, labels = make_batch(), make_labels()
    longer = {name: F.pad(tensor, (0, 3)) for name, tensor in batch.items()}
    longer["input_ids"][longer["attention_mask"] == 0] = 5
    before, after = (model(**given, labels=labels).logits for given in (batch, longer))
    assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_left_padding_is_refused_with_the_remedy(model):
    batch = {name: tensor.flip(1) for name, tensor in make_batch().items()}
    with pytest.raises(ValueError, match='padding_side = "right"'):
        model(**batch, labels=make_labels())
    with pytest.raises(ValueError, match='padding_side = "right"'):
        model.generate(**batch, max_new_tokens=3)


def test_an_empty_source_and_left_padding_of_the_target_are_refused():
    model, batch = make_model(), make_batch()
    batch["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="Row 1 of attention_mask has no token"):
        model(**batch, labels=make_labels())
    mask = torch.ones(3, 6).long()
    mask[0, 0] = 0
    with pytest.raises(ValueError, match="decoder_attention_mask begins with 0"):
        model(**make_batch(), labels=make_labels(), decoder_attention_mask=mask)


# Loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_plain_formula_over_tokens_that_count(model, smoothing):
    model.config.label_smoothing = smoothing
    batch, labels = make_batch(), make_labels()
    start = torch.full((3, 1), 1)
    inputs = torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == -100, 0)], 1)
    logits = model(**batch, decoder_input_ids=inputs).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)
    assert_close(model(**batch, labels=labels).loss, expected)
    chunked = model.train()(**batch, labels=labels)
    assert chunked.logits is None
    assert_close(chunked.loss, expected)
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert_close(model(**batch, labels=labels, label_smoothing=0.0).loss, plain)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("items", [7, torch.tensor(7)])
def test_the_loss_is_divided_by_the_given_number_of_tokens(training, items):
    model, batch, labels = make_model().train(training), make_batch(), make_labels()
    mean = model(**batch, labels=labels).loss
    divided = model(**batch, labels=labels, num_items_in_batch=items).loss
    assert_close(divided, mean * (labels != -100).sum() / 7)


def test_gradients_of_both_ways_to_the_loss_are_equal(model):
    batch, labels = make_batch(), make_labels()
    gradients = []
    for return_logits in (True, False):
        model.zero_grad()
        model.train()(**batch, labels=labels, return_logits=return_logits).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
        assert gradient.count_nonzero() > 0, name


@pytest.mark.parametrize(
    "variant", ["lstm additive feeding", "gru general feeding", "rnn dot feeding", "lstm none"]
)
def test_gradients_equal_finite_differences(variant):
    fields = VARIANTS[variant] | {"hidden_size": 4, "vocab_size": 29, "decoder_layers": 1}
    model = make_model(**fields | {"embedding_size": None, "tie_word_embeddings": True}).double()
    batch, labels = make_batch((3, 2)), make_labels(2, 3).clamp(max=28)
    parameters = dict(model.named_parameters())
    chosen = [n for n in parameters if "combine" in n or "bridge" in n or "attention" in n]
    chosen += ["model.decoder.stack.rnn.weight_hh_l0", "model.encoder.stack.rnn.bias_ih_l0"]

    def loss(*values):
        given = parameters | dict(zip(chosen, values, strict=True))
        outputs = torch.func.functional_call(model, given, (), {**batch, "labels": labels})
        return F.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())

    assert torch.autograd.gradcheck(loss, [parameters[name] for name in chosen])


# Outputs


@torch.no_grad()
def test_attention_weights_are_one_head_over_the_real_tokens(attending):
    batch, labels = make_batch(), make_labels()
    outputs = attending(**batch, labels=labels, output_attentions=True)
    (weights,) = outputs.cross_attentions
    assert weights.shape == (3, 1, 6, 7)
    assert_close(weights.sum(-1), torch.ones(3, 1, 6))
    for row, length in enumerate(LENGTHS):
        assert weights[row, ..., length:].count_nonzero() == 0
    assert attending(**batch, labels=labels).cross_attentions is None


@torch.no_grad()
def test_hidden_states_are_embeddings_and_last_states(model):
    batch, labels = make_batch(), make_labels()
    outputs = model(**batch, labels=labels, output_hidden_states=True)
    assert len(outputs.encoder_hidden_states) == len(outputs.decoder_hidden_states) == 2
    assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
    width = model.config.embedding_size
    assert [s.shape for s in outputs.decoder_hidden_states] == [(3, 6, width), (3, 6, 16)]
    assert_close(model.lm_head(outputs.decoder_hidden_states[-1]), outputs.logits)


@torch.no_grad()
def test_given_encoder_outputs_and_embeddings_change_nothing(model):
    batch, target = make_batch(), make_labels().clamp(min=0)
    expected = model(**batch, decoder_input_ids=target).logits
    encoded = model.get_encoder()(**batch)
    mask = batch["attention_mask"]
    given = model(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=target).logits
    assert torch.equal(given, expected)
    embeds = model.get_input_embeddings()(batch["input_ids"])
    target_embeds = model.model.decoder.embed_tokens(target)
    from_embeds = model(
        attention_mask=mask, inputs_embeds=embeds, decoder_inputs_embeds=target_embeds
    ).logits
    assert torch.equal(from_embeds, expected)


@torch.no_grad()
def test_chosen_logits_tuples_and_caches(model):
    batch, target = make_batch(), make_labels().clamp(min=0)
    outputs = model(**batch, decoder_input_ids=target)
    last = model(**batch, decoder_input_ids=target, logits_to_keep=1).logits
    assert_close(last, outputs.logits[:, -1:])
    assert outputs.past_key_values.get_seq_length() == 6
    assert model(**batch, decoder_input_ids=target, use_cache=False).past_key_values is None
    assert model(**batch, labels=target).past_key_values is None
    as_tuple = model(**batch, labels=target, return_dict=False)
    assert torch.equal(as_tuple[0], model(**batch, labels=target).loss)


def test_inputs_that_do_not_fit_are_refused():
    model, batch = make_model(), make_batch()
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        model(**batch)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(labels=make_labels())
    other = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with pytest.raises(ValueError, match="past_key_values is a EncoderDecoderCache"):
        model(**batch, decoder_input_ids=make_labels(), past_key_values=other)


# Initial weights, files, vocabulary


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_initial_weights_are_those_described(cell, tmp_path):
    config = GenRNNSeq2SeqConfig(
        **SIZES | {"cell": cell, "hidden_size": 64, "tie_word_embeddings": False}
    )
    model = GenRNNSeq2SeqForConditionalGeneration(config)
    model.save_pretrained(tmp_path, state_dict={"lm_head.weight": model.lm_head.weight})
    partly_loaded = GenRNNSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(partly_loaded.lm_head.weight, model.lm_head.weight)
    for made in (model, partly_loaded):
        rnn = made.model.decoder.stack.rnn
        for gate in rnn.weight_hh_l1.split(64):
            assert_close(gate @ gate.T, torch.eye(64), rtol=0, atol=1e-5)
        forget = rnn.bias_ih_l0[64:128] if cell == "lstm" else rnn.bias_ih_l0[:0]
        assert torch.all(forget == 1)
        assert rnn.bias_ih_l0.count_nonzero() == len(forget)
        assert rnn.bias_hh_l0.count_nonzero() == 0
        for table in (made.lm_head, made.get_input_embeddings()):
            assert table.weight.std().item() == pytest.approx(0.1, rel=0.1)
        bound = (6 / (64 + 128)) ** 0.5
        assert made.model.decoder.stack.combine.weight.abs().max() <= bound


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_a_saved_model_comes_back_bit_for_bit(model, tmp_path, dtype):
    model.to(dtype).save_pretrained(tmp_path)
    loaded, report = GenRNNSeq2SeqForConditionalGeneration.from_pretrained(
        tmp_path, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values())
    batch, labels = make_batch(), make_labels()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    expected, logits = (made(**batch, labels=labels).logits for made in (model, loaded))
    assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    headless = GenRNNSeq2SeqModel.from_pretrained(tmp_path, dtype=dtype)
    for name, weight in model.model.state_dict().items():
        assert torch.equal(headless.state_dict()[name], weight), name


@pytest.mark.parametrize(
    ("fields", "tables"),
    [
        ({}, ["model.embed_tokens"]),
        ({"tie_word_embeddings": False}, ["lm_head", "model.embed_tokens"]),
        (
            {"source_vocab_size": 29},
            ["model.decoder.embed_tokens", "model.encoder.embed_tokens"],
        ),
        (
            {"source_vocab_size": 29, "tie_word_embeddings": False},
            ["lm_head", "model.decoder.embed_tokens", "model.encoder.embed_tokens"],
        ),
    ],
)
def test_tables_are_one_where_they_should_be(fields, tables, tmp_path):
    model = make_model(**fields)
    model.save_pretrained(tmp_path)
    loaded = GenRNNSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    for made in (model, loaded):
        names = [name for name, _ in made.named_parameters()]
        found = [n.removesuffix(".weight") for n in names if "embed" in n or "lm_head" in n]
        assert sorted(found) == sorted(tables)


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_vocabulary_grows_on_all_sides(tied, tmp_path):
    model = make_model(tie_word_embeddings=tied)
    batch, labels = make_batch(), make_labels()
    before = model(**batch, labels=labels).logits
    model.resize_token_embeddings(50)
    assert_close(model(**batch, labels=labels).logits[..., :41], before)
    assert model.config.vocab_size == model.lm_head.out_features == 50
    assert model(torch.tensor([[49]]), labels=torch.tensor([[49]])).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = GenRNNSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch, labels=labels).logits, model(**batch, labels=labels).logits)
    with pytest.raises(ValueError, match="vocabularies of their own"):
        make_model(source_vocab_size=29).resize_token_embeddings(50)


# Training


def reversal(count: int, seed: int) -> list[dict[str, list[int]]]:
    """Return short sequences and their reverse, both ending with 2."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        length = int(torch.randint(2, 7, (), generator=generator))
        ids = torch.randint(3, 13, (length,), generator=generator).tolist()
        rows.append({"input_ids": [*ids, 2], "labels": [*ids[::-1], 2]})
    return rows


class Rows(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@pytest.fixture
def small_tokenizer():
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, 13)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


@pytest.mark.parametrize("variant", ["gru additive", "rnn dot feeding"])
def test_the_trainer_teaches_it_to_reverse_short_sequences(variant, small_tokenizer, tmp_path):
    torch.manual_seed(0)
    fields = VARIANTS[variant] | {"hidden_size": 48, "vocab_size": 13, "embedding_size": None}
    fields |= {"tie_word_embeddings": True, "encoder_layers": 1, "decoder_layers": 1}
    model = GenRNNSeq2SeqForConditionalGeneration(GenRNNSeq2SeqConfig(**SIZES | fields))
    collator = DataCollatorForSeq2Seq(small_tokenizer, model=model)
    steps = 130
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=32,
        gradient_accumulation_steps=2,
        learning_rate=8e-3,
        lr_scheduler_type="cosine",
        max_steps=steps,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    rows = Rows(reversal(64 * steps, 0))
    Trainer(model, arguments, train_dataset=rows, data_collator=collator).train()
    test = reversal(200, 1)
    batch = collator([dict(row) for row in test])
    model.eval()
    ids = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_length=9)
    exact = [
        row["labels"] == ids[i, 1 : 1 + len(row["labels"])].tolist() for i, row in enumerate(test)
    ]
    assert sum(exact) / len(test) > 0.95


def test_a_cache_of_its_own_keeps_to_what_a_cache_is():
    cache = RecurrentCache()
    assert cache.get_seq_length() == 0
    assert cache.batch_size == -1
    assert cache.get_max_length() == -1
    cache.write({"hidden": torch.arange(3)[:, None]}, 2)
    assert (cache.batch_size, cache.get_seq_length()) == (3, 2)
    cache.batch_repeat_interleave(2)
    assert cache.states["hidden"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    cache.reorder_cache(torch.tensor([5, 0, 2]))
    assert cache.states["hidden"][:, 0].tolist() == [2, 0, 1]
    cache.batch_select_indices(torch.tensor([2]))
    assert cache.states["hidden"][:, 0].tolist() == [1]
    cache.crop(0)
    with pytest.raises(ValueError, match="cannot be rolled back"):
        cache.crop(1)
    with pytest.raises(ValueError, match="holds states, not keys"):
        cache.update(None, None, 0)
    cache.reset()
    assert (cache.batch_size, cache.get_seq_length()) == (-1, 0)
