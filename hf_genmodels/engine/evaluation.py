"""Validation of a language model, and the texts it writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hf_genmodels.config.run import SampleConfig
from hf_genmodels.engine.mean_loss import MeanLoss
from hf_genmodels.engine.run import Run

IGNORED = -100


@torch.no_grad()
def evaluate_language_model(
    run: Run,
    model: nn.Module,
    batches: Iterable[dict[str, torch.Tensor]],
    bytes_per_token: float,
) -> dict[str, float]:
    """Return validation loss, perplexity and bits per byte with their intervals; see `MeanLoss`.

    Args:
        run: The run.
        model: The prepared model; its mode is restored.
        batches: This rank's part of the validation windows.
        bytes_per_token: UTF-8 bytes of the text per token.
    """
    was_training = model.training
    model.eval()
    losses = MeanLoss()
    for batch in batches:
        batch = {name: tensor.to(run.accelerator.device) for name, tensor in batch.items()}
        counted = int((batch["labels"] != IGNORED).sum())
        output = model(**batch, use_cache=False, return_logits=False, num_items_in_batch=1)
        losses.add(output.loss.item(), counted)
    model.train(was_training)
    return losses.over_ranks(run, bytes_per_token)


@torch.no_grad()
def sample_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    config: SampleConfig,
    *,
    seed: int,
) -> list[str]:
    """Return a continuation of every prompt, without disturbing torch's random state.

    Args:
        model: The model; its mode is restored. If it is sharded, all processes call this.
        tokenizer: Its tokenizer.
        prompts: Beginnings; an empty one starts a new document.
        config: How to draw.
        seed: Seed of the draws.
    """
    was_training = model.training
    model.eval()
    room = model.config.max_position_embeddings - 1
    settings = GenerationConfig(
        do_sample=True,
        max_new_tokens=min(config.max_new_tokens, room),
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts: list[str] = []
    generate: Any = model.generate
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for prompt in prompts:
            ids = tokenizer(prompt, return_tensors="pt").input_ids if prompt else None
            if ids is None or not ids.shape[1]:
                ids = torch.tensor([[tokenizer.eos_token_id]])
            ids = ids[:, -(room - settings.max_new_tokens + 1) :].to(model.device)
            output: Any = generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=settings,
                synced_gpus=isinstance(model, FSDPModule),
            )
            text = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
            texts.append(str(text))
    model.train(was_training)
    return texts
