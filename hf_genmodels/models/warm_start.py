"""Start an encoder-decoder from a trained language model of the family gen_gpt.

A language model's block is a decoder's block without cross-attention, and an encoder's block that
looks backwards only: its embeddings, norms, self-attentions and MLPs can be taken over. Everything
else, the cross-attention above all, starts new and is learned in fine-tuning (Rothe et al. 2020,
"Leveraging Pre-trained Checkpoints for Sequence Generation Tasks", arXiv:1907.12461).
"""

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

SAME_FIELDS = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "hidden_act",
    "position_embedding",
    "rope_theta",
    "norm",
    "norm_eps",
    "norm_affine",
    "use_bias",
    "qk_norm",
    "attention_scale",
)
TAKEN_FIELDS = (
    *SAME_FIELDS,
    "vocab_size",
    "max_position_embeddings",
    "logit_softcap",
    "attention_dropout",
    "residual_dropout",
    "embedding_dropout",
    "initializer_range",
    "embedding_init_range",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def fields_from_gpt(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields of a `GenSeq2SeqConfig` whose stacks a language model fits.

    Args:
        config: Configuration of the language model.

    Returns:
        Fields of the new configuration; both stacks are as deep as the language model.

    Raises:
        ValueError: If the language model is not of the family gen_gpt.
    """
    check_family(config)
    return {name: getattr(config, name) for name in TAKEN_FIELDS} | {
        "encoder_layers": config.num_hidden_layers,
        "decoder_layers": config.num_hidden_layers,
        "norm_position": "pre",
        "scale_embedding": False,
    }


def check_family(config: PreTrainedConfig) -> None:
    """Refuse what is not a language model of ours.

    Raises:
        ValueError: With what was given.
    """
    if config.model_type != "gen_gpt":
        raise ValueError(
            "Encoders and decoders start from language models of the family gen_gpt, not from "
            f"{config.model_type!r}. A GPT-2 checkpoint becomes one with "
            "GenGPTForCausalLM.from_gpt2."
        )


def find_misfits(config: PreTrainedConfig, source: PreTrainedConfig, side: str) -> list[str]:
    """Return what keeps a language model from becoming one side of an encoder-decoder.

    Args:
        config: Configuration of the encoder-decoder.
        source: Configuration of the language model.
        side: `encoder` or `decoder`.

    Returns:
        One text for every field that differs, with both values; empty if the model fits.
    """
    is_decoder = side == "decoder"
    vocab_size = config.vocab_size
    if not is_decoder and config.source_vocab_size is not None:
        vocab_size = config.source_vocab_size
    pairs = {name: (getattr(config, name), getattr(source, name)) for name in SAME_FIELDS}
    if config.position_embedding != "rotary":
        del pairs["rope_theta"]
    pairs |= {
        f"{side}_layers": (getattr(config, f"{side}_layers"), source.num_hidden_layers),
        "vocabulary": (vocab_size, source.vocab_size),
        "norm_position": (config.norm_position, "pre"),
        "scale_embedding": (config.scale_embedding, False),
        "num_value_embeddings": (0, source.num_value_embeddings),
    }
    if is_decoder:
        for name in ("logit_softcap", "tie_word_embeddings"):
            pairs[name] = (getattr(config, name), getattr(source, name))
    misfits = [
        f"{name} is {ours} here and {theirs} there"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    longest, available = config.max_position_embeddings, source.max_position_embeddings
    if config.position_embedding == "learned" and longest > available:
        misfits.append(f"max_position_embeddings is {longest} here and only {available} there")
    return misfits


class WarmStartMixin:
    """Adds `load_encoder` and `load_decoder` to a model with `model.encoder` and `model.decoder`."""

    config: PreTrainedConfig
    model: Any
    lm_head: nn.Module

    def load_encoder(self, language_model: nn.Module) -> list[str]:
        """Take the encoder's weights from a language model, in place.

        With a shared vocabulary the embedding becomes the decoder's too.

        Args:
            language_model: A `GenGPTForCausalLM` or `GenGPTModel`.

        Returns:
            Names of the parameters that were taken over, without `model.`; all others are as they
            were.

        Raises:
            ValueError: If the model does not fit; it names everything that differs.
        """
        return self._load_stack("encoder", language_model)

    def load_decoder(self, language_model: nn.Module) -> list[str]:
        """Take the decoder's weights, and an untied head's, from a language model, in place.

        With a shared vocabulary the embedding becomes the encoder's too. The cross-attentions stay
        as they were: new.

        Args:
            language_model: A `GenGPTForCausalLM`, or a `GenGPTModel` if the head is tied.

        Returns:
            Names of the parameters that were taken over, without `model.`; all others are as they
            were.

        Raises:
            ValueError: If the model does not fit; it names everything that differs.
        """
        names = self._load_stack("decoder", language_model)
        if not self.config.tie_word_embeddings:
            head = language_model.get_output_embeddings()
            self.lm_head.load_state_dict(head.state_dict())
            names.append("lm_head.weight")
        return names

    def _load_stack(self, side: str, language_model: nn.Module) -> list[str]:
        source = language_model.config
        check_family(source)
        misfits = find_misfits(self.config, source, side)
        needs_head = side == "decoder" and not self.config.tie_word_embeddings
        if needs_head and language_model.get_output_embeddings() is None:
            misfits.append("the head is not tied here, and the model given has no head")
        if misfits:
            raise ValueError(
                f"The language model does not fit the {side}: {'; '.join(misfits)}. "
                "GenSeq2SeqConfig.from_gpt(language_model.config) makes a configuration that fits."
            )
        state = language_model.base_model.state_dict()
        if "embed_positions.weight" in state:
            rows = self.config.max_position_embeddings
            state["embed_positions.weight"] = state["embed_positions.weight"][:rows]
        getattr(self.model, side).load_state_dict(state, strict=False)
        return [f"{side}.{name}" for name in state]


__all__ = ["WarmStartMixin", "fields_from_gpt", "find_misfits"]
