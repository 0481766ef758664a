"""`genmodels train seq2seq`, from pairs to the folder and through interruptions."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests import runs

DROPOUT = {"model__residual_dropout": 0.1}
# Attention is computed in the same order by one process after the other.
RESUMES: dict[str, dict[str, Any]] = {
    "transformer, accumulation, average, workers": {
        **DROPOUT,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "num_workers": 2,
    },
    "muon, bf16, consistency": {
        **DROPOUT,
        "optim__name": "muon",
        "mixed_precision": "bf16",
        "loss__consistency": "js",
    },
    "rnn": {"architecture": "rnn", "rnn__hidden_size": 16, "rnn__dropout": 0.1},
    "refinement, bidirectional, separate vocabularies": {
        **DROPOUT,
        "model__cross_attention": "bidirectional",
        "model__refinement_decoder": "true",
        "separate_vocabularies": "true",
    },
}
STOPS = {3: signal.SIGTERM, 8: signal.SIGINT}


def train(train_file: Path, folder: Path, **options: Any) -> runs.Outcome:
    return runs.call(runs.tiny_translation(train_file, output_dir=folder, **options)).succeeded()


def evaluations(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if "eval_loss" in line]


def test_a_run_leaves_a_model_a_report_and_a_card(pair_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    output = train(pair_file, folder, translate__num_pairs=3, eval_every=5).output
    assert "BLEU" in output
    results = json.loads((folder / "report" / "results.json").read_text())
    assert len(results["translations"]) == 3
    assert results["eval_bleu_signature"].startswith("nrefs:1")
    for name in ("loss_curve.png", "attention.png", "translations.md"):
        assert (folder / "report" / name).stat().st_size > 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "report/attention.png" in card
    assert "chrF" in card
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    batch = tokenizer(["the river ran", "boats"], return_tensors="pt", padding=True)
    assert batch.input_ids[0, -1] == tokenizer.eos_token_id
    assert batch.attention_mask[1, -1] == 0
    assert model.generate(**batch, max_new_tokens=5).shape[0] == 2


def test_training_lowers_the_loss_and_logs_the_share_of_padding(pair_file: Path, tmp_path: Path):
    train(pair_file, tmp_path / "run", max_steps=60, eval_every=60, optim__lr=0.01)
    lines = [dict(line) for line in runs.losses(tmp_path / "run")]
    trained = [line for line in lines if "loss" in line]
    assert trained[-1]["loss"] < trained[0]["loss"] - 1.5
    assert 0 <= trained[-1]["padding"] < 0.3


@pytest.mark.parametrize("case", RESUMES)
def test_losses_and_weights_after_stops_are_those_of_a_run_without(
    case: str, pair_file: Path, tmp_path: Path
):
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    runs.run(runs.tiny_translation(pair_file, output_dir=whole, **RESUMES[case]), log).succeeded()
    command = runs.tiny_translation(pair_file, output_dir=parts, **RESUMES[case])
    for step, number in STOPS.items():
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (step, number)}
        outcome = runs.run(command, log, **stop).succeeded()
        assert f"stopped after step {step}: {number.name}" in outcome.output
        command = ["train", "seq2seq", "--resume", str(parts)]
    assert "going on after step 8" in runs.run(command, log).succeeded().output
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)


def test_every_loss_is_logged_by_itself(tmp_path: Path):
    rows = [
        json.loads(line) | {"author": f"a{n % 3}"}
        for n, line in enumerate(runs.pairs(60).splitlines())
    ]
    file = tmp_path / "groups.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {
        "group_column": "author",
        "loss__contrastive_weight": 0.5,
        "loss__unlikelihood_weight": 0.25,
        "loss__consistency": "kl",
        "max_steps": 3,
        "model__residual_dropout": 0.1,
    }
    train(file, tmp_path / "run", **options)
    line = dict(runs.losses(tmp_path / "run")[0])
    whole = line["cross_entropy"] + line["consistency"]
    whole += 0.5 * line["contrastive"] + 0.25 * line["unlikelihood"]
    assert line["loss"] == pytest.approx(whole, rel=1e-5)
    assert min(line[name] for name in ("consistency", "contrastive", "unlikelihood")) > 0


def test_the_best_weights_by_bleu_are_published_and_the_run_ends_early(
    pair_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    options = {
        "metric_for_best": "bleu",
        "translate__num_pairs": 3,
        "early_stopping_patience": 2,
        "eval_every": 1,
        "max_steps": 12,
        "optim__lr": 1e-12,
    }
    output = train(pair_file, folder, **options).output
    assert "validation has not improved since step 1" in output
    assert "Best validation bleu" in output
    assert json.loads((folder / "report" / "results.json").read_text())["step"] == 3


def test_the_mean_of_the_last_checkpoints_is_published_if_it_is_better(
    pair_file: Path, tmp_path: Path
):
    from safetensors.torch import load_file

    folder = tmp_path / "run"
    options = {"average_checkpoints": 3, "save_every": 2, "eval_every": 10, "optim__lr": 0.05}
    output = train(pair_file, folder, **options).output
    assert "average of 3 checkpoints" in output
    saved = [
        load_file(folder / "checkpoints" / f"step-{n:06d}" / "model.safetensors")
        for n in (6, 8, 10)
    ]
    published = load_file(folder / "model.safetensors")
    name = "model.decoder.layers.0.mlp.up_proj.weight"
    mean = torch.stack([weights[name] for weights in saved]).mean(0)
    losses = [
        float(line.split("validation loss ")[1].split()[0])
        for line in output.splitlines()
        if "validation loss " in line and line.startswith("step")
    ]
    expected = mean if losses[-1] < losses[-2] else saved[-1][name]
    assert torch.allclose(published[name], expected, atol=1e-6)


def test_a_trained_model_is_fine_tuned_with_its_own_tokenizer(pair_file: Path, tmp_path: Path):
    base = tmp_path / "base"
    train(pair_file, base)
    tuned = {"model_name_or_path": base, "freeze": ["model.encoder.*"], "max_steps": 3}
    train(pair_file, tmp_path / "tuned", **tuned)
    assert (tmp_path / "tuned" / "tokenizer.json").read_bytes() == (
        base / "tokenizer.json"
    ).read_bytes()
    before = AutoModelForSeq2SeqLM.from_pretrained(base).state_dict()
    after = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "tuned").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith("model.encoder.layers") for name in changed)


def test_a_trained_model_is_not_given_another_tokenizer(pair_file: Path, tmp_path: Path):
    base, other = tmp_path / "base", tmp_path / "other"
    train(pair_file, base, max_steps=1)
    train(pair_file, other, max_steps=1, tokenizer_vocab_size=280)
    options = {"model_name_or_path": base, "tokenizer_name": other}
    outcome = runs.call(runs.tiny_translation(pair_file, output_dir=tmp_path / "run", **options))
    assert "is not the tokenizer that" in outcome.error
    assert not (tmp_path / "run").exists()


def test_adapters_are_merged_into_what_is_published(pair_file: Path, tmp_path: Path):
    base = tmp_path / "base"
    train(pair_file, base)
    train(pair_file, tmp_path / "tuned", model_name_or_path=base, lora__r=2, max_steps=3)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "tuned")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert (tmp_path / "tuned" / "adapter").is_dir()


def test_a_dry_run_says_what_would_be_and_writes_nothing(pair_file: Path, tmp_path: Path):
    output = train(pair_file, tmp_path / "run", dry_run="true").output
    for word in ("parameters", "memory", "estimated time", "tokens a step"):
        assert word in output
    assert not (tmp_path / "run").exists()


def test_two_text_files_are_trained_on_line_by_line(tmp_path: Path):
    rows = [json.loads(line) for line in runs.pairs(60).splitlines()]
    for side in ("source", "target"):
        lines = "".join(row[side] + "\n" for row in rows)
        (tmp_path / f"{side}.txt").write_text(lines, encoding="utf-8")
    files = {f"train_{side}_file": tmp_path / f"{side}.txt" for side in ("source", "target")}
    runs.call(runs.tiny_translation(output_dir=tmp_path / "run", max_steps=2, **files)).succeeded()


BAD = {
    "nothing to train on": ({}, "Give the pairs in one way"),
    "unknown section key": ({"model__hiden_size": 3}, "model.hidden_size"),
    "heads": ({"model__num_attention_heads": 3}, "does not divide"),
    "budget": ({"batch_tokens": 20}, "--batch_tokens is 20, but a pair may have 40 tokens"),
    "groups": ({"loss__contrastive_weight": 1}, "--group_column"),
    "metric": ({"metric_for_best": "bleu"}, "--translate.num_pairs"),
    "two starts": (
        {"model_name_or_path": "a", "decoder_from": "b"},
        "Give --model_name_or_path or --decoder_from, not both",
    ),
    "no Transformer": ({"architecture": "rnn", "decoder_from": "b"}, "--architecture rnn"),
    "positions": ({"model__max_position_embeddings": 16}, "--model.max_position_embeddings 16"),
    "sample": ({"train_file": "sample:poem/train.jsonl"}, "Did you mean 'poems/train.jsonl'?"),
    "language": (
        {
            "train_file": "sample:english_spanish/train.parquet",
            "source_lang": "en",
            "target_lang": "fr",
        },
        "es",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_said_before_any_work(case: str, pair_file: Path, tmp_path: Path):
    options, words = dict(BAD[case][0]), BAD[case][1]
    file = options.pop("train_file", None if case == "nothing to train on" else pair_file)
    folder = tmp_path / "run"
    outcome = runs.call(runs.tiny_translation(file, output_dir=folder, **options))
    assert words in outcome.error
    assert not folder.exists()


def test_a_run_goes_on_only_with_what_it_began_with(pair_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (2, signal.SIGTERM)}
    command = runs.tiny_translation(pair_file, output_dir=folder)
    runs.run(command, tmp_path / "log", **stop).succeeded()
    for flags, words in (
        (["--seed", "3"], "seed"),
        (["--batch_tokens", "100"], "batch_tokens"),
        (["--loss.label_smoothing", "0.3"], "label_smoothing"),
        (["--model.hidden_size", "48"], "model.hidden_size"),
    ):
        outcome = runs.call(["train", "seq2seq", "--resume", folder, *flags])
        assert words in outcome.error


def test_a_second_decoder_is_trained_on_a_frozen_first_pass(pair_file: Path, tmp_path: Path):
    base, refined = tmp_path / "base", tmp_path / "refined"
    train(pair_file, base)
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (2, signal.SIGTERM)}
    command = runs.tiny_translation(pair_file, output_dir=refined, refine_from=base, max_steps=4)
    runs.run(command, tmp_path / "log", **stop).succeeded()
    runs.call(["train", "seq2seq", "--resume", refined]).succeeded()
    before = AutoModelForSeq2SeqLM.from_pretrained(base).state_dict()
    model = AutoModelForSeq2SeqLM.from_pretrained(refined)
    assert model.config.refinement_decoder
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    line = dict(runs.losses(refined)[0])
    assert line["loss"] == line["refinement_loss"]


def test_the_decoder_begins_with_a_language_model(
    tmp_path: Path, pair_file: Path, train_file: Path
):
    lm = tmp_path / "lm"
    runs.call(runs.tiny_run(train_file, output_dir=lm, max_steps=2)).succeeded()
    from hf_genmodels import GenGPTForCausalLM

    trained = GenGPTForCausalLM.from_pretrained(lm)
    fields = {
        name: getattr(trained.config, name)
        for name in ("hidden_size", "num_attention_heads", "position_embedding", "norm", "hidden_act",
                     "use_bias", "qk_norm", "norm_affine", "max_position_embeddings")
    }  # fmt: skip
    fields |= {"norm_position": "pre", "decoder_layers": trained.config.num_hidden_layers,
               "tie_word_embeddings": trained.config.tie_word_embeddings, "scale_embedding": "false"}  # fmt: skip
    options = {f"model__{name}": str(value).lower() for name, value in fields.items()}
    options |= {
        "decoder_from": lm,
        "max_steps": 1,
        "optim__lr": 1e-9,
        "max_source_length": 32,
        "max_target_length": 32,
    }
    train(pair_file, tmp_path / "run", **options)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    ours = model.model.decoder.layers[0].attn.q_proj.weight
    assert torch.allclose(ours, trained.model.layers[0].attn.q_proj.weight, atol=1e-6)
    outcome = runs.call(
        runs.tiny_translation(
            pair_file, output_dir=tmp_path / "bad", decoder_from=lm, model__hidden_size=64
        )
    )
    assert "hidden_size" in outcome.error
