"""What is done to a model before it is trained: freezing, adapters, checkpointing, compiling."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_genmodels.config.fine_tuning import FineTuningConfig
from hf_genmodels.engine.optim import freeze
from hf_genmodels.errors import UserError, require_extra


def adapt_model(
    config: FineTuningConfig, model: PreTrainedModel, *, task_type: str
) -> PreTrainedModel:
    """Freeze, add adapters, recompute activations and compile, as the options say.

    Args:
        config: The run's options.
        model: A new or trained model.
        task_type: What peft calls the model's task, such as `CAUSAL_LM`.

    Raises:
        UserError: If a pattern or a target module names nothing.
    """
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    freeze(model, config.freeze)
    if config.lora.r:
        model = _with_adapters(model, config, task_type)
    if config.compile:
        model.compile()
    return model


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy with the adapters added to the weights, which loads without peft."""
    merge: Any = copy.deepcopy(model).merge_and_unload
    return merge()


def _with_adapters(
    model: PreTrainedModel, config: FineTuningConfig, task_type: str
) -> PreTrainedModel:
    peft = require_extra("peft", "lora")
    options = config.lora
    names = {
        name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    unknown = sorted(set(options.target_modules) - names)
    if unknown:
        raise UserError(
            f"--lora.target_modules {' '.join(unknown)}: the model has no such linear layer. "
            f"Choose from: {', '.join(sorted(names))}."
        )
    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=options.r,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=list(options.target_modules),
            task_type=task_type,
        ),
    )
