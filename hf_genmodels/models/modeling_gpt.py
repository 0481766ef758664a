"""GPT-2-style decoder-only language model, a first-class transformers model.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", with the switches of
[`GenGPTConfig`]. Read from top to bottom: block, base class, headless model, language model.

Shapes are written with these letters: B batch, T tokens, D hidden_size, V vocabulary.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin, GPT2LMHeadModel, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import (
    create_causal_mask,
    find_packed_sequence_indices,
    packed_sequence_mask_function,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import SelfAttention
from .configuration_gpt import GenGPTConfig
from .convert_gpt2 import fields_from_gpt2, weights_from_gpt2
from .growing_cache import make_growing
from .inference import Int8Mixin
from .layers import (
    MLP,
    ResidualLinear,
    SinusoidalPositions,
    build_norm,
    build_positions,
    check_last_position,
)
from .linear import Linear
from .linear_cross_entropy import IGNORE_INDEX, head_is_plain, linear_cross_entropy
from .pixel_positions import PixelPositions, find_pixel_positions


class GenGPTBlock(GradientCheckpointingLayer):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: GenGPTConfig, layer_idx: int):
        super().__init__()
        first_with_value = config.num_hidden_layers - config.num_value_embeddings
        self.attn_norm = build_norm(config)
        self.attn = SelfAttention(config, layer_idx, layer_idx >= first_with_value)
        self.mlp_norm = build_norm(config)
        self.mlp = MLP(config)
        self.dropout = config.residual_dropout

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        value_embedding: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D); the arguments are those of the attention."""
        attended, _ = self.attn(
            self.attn_norm(hidden_states),
            attention_mask=attention_mask,
            rotary=rotary,
            value_embedding=value_embedding,
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden_states = hidden_states + self._drop(attended)
        transformed = self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + self._drop(transformed)

    def _drop(self, states: torch.Tensor) -> torch.Tensor:
        return F.dropout(states, self.dropout) if self.training else states


class GenGPTPreTrainedModel(Int8Mixin, PreTrainedModel):
    """What both models share: configuration, capabilities and initialisation."""

    config: GenGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GenGPTBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GenGPTBlock, "attentions": SelfAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module as GPT-2 does, section 2.3 of the paper.

        Only modules with tensors of their own come here: transformers passes over all others if
        they are not from its own code.
        """
        super()._init_weights(module)
        config = self.config
        if isinstance(module, ResidualLinear) and config.zero_init_residual:
            init.zeros_(module.weight)
        elif isinstance(module, ResidualLinear):
            std = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, SelfAttention) and module.value_mix is not None:
            init.constant_(module.value_mix, 0.5)
        elif isinstance(module, SinusoidalPositions):
            init.copy_(module.table, module.make_table())
        elif module is self.get_input_embeddings() and config.embedding_init_range is not None:
            init.normal_(module.weight, mean=0.0, std=config.embedding_init_range)
        elif (
            module is self.get_output_embeddings()
            and config.zero_init_head
            and not config.tie_word_embeddings
        ):
            init.zeros_(module.weight)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the token embedding, the head and the value embeddings to a new vocabulary.

        Args:
            new_num_tokens: New size of the vocabulary. `None`: as it is.
            pad_to_multiple_of: Round the size up to a multiple of this.
            mean_resizing: Draw new rows from the normal distribution of the old ones, instead of
                from the initial distribution.

        Returns:
            The token embedding.
        """
        embedding = super().resize_token_embeddings(
            new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        tables = self.base_model.value_embeddings
        for index, table in enumerate(tables):
            if table.num_embeddings != embedding.num_embeddings:
                resized = self._get_resized_embeddings(
                    table, embedding.num_embeddings, mean_resizing=mean_resizing
                )
                tables[index] = resized.requires_grad_(table.weight.requires_grad)
        return embedding


class GenGPTModel(GenGPTPreTrainedModel):
    """The language model without its head.

    Args:
        config: Configuration of the model.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # of an untied head, in its checkpoint

    def __init__(self, config: GenGPTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions, self.rotary = build_positions(config)
        self.embed_pixels = (
            PixelPositions(config.image_sizes, config.hidden_size) if config.image_sizes else None
        )
        value_size = config.num_key_value_heads * config.head_dim
        self.value_embeddings = nn.ModuleList(
            nn.Embedding(config.vocab_size, value_size) for _ in range(config.num_value_embeddings)
        )
        self.layers = nn.ModuleList(
            GenGPTBlock(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
        self.final_norm = build_norm(config)
        self.gradient_checkpointing = False
        self.post_init()
        if self.value_embeddings:  # whole rows are mixed into the values of all heads
            self._tp_plan = {k: style for k, style in self._tp_plan.items() if ".attn." not in k}

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        pixel_positions: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Compute the last hidden states.

        Several documents can be packed into one row: give `position_ids` that start again at 0 with
        each document; no document then sees another. Flash attention needs `attention_mask=None`
        for that.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for tokens and 0 for padding, (B, past + T).
            position_ids: Position of each token in its document, (B, T). Left-padded rows need
                them; `generate` makes them.
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, (B, T, D); beside them if the model has
                value embeddings, which are looked up by token.
            use_cache: Whether to return keys and values.
            pixel_positions: Which pixel of a picture each token is, -1 for none, (B, T); see
                `find_pixel_positions`, which is what they are by default. Only a model of pictures
                looks at them, and only with `past_key_values` or without `input_ids` it needs them;
                `generate` makes them.
            **kwargs: Passed to the attention implementation.

        Returns:
            The hidden states (B, T, D) after the last norm, and the cache.

        Raises:
            ValueError: If `input_ids`, `inputs_embeds` and `pixel_positions` are not given as
                described, or if a position is beyond the last.
        """
        if self.value_embeddings:
            if input_ids is None:
                raise ValueError(
                    "This model has value embeddings, which are looked up by token: it needs "
                    "input_ids, with or without inputs_embeds."
                )
        elif (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, not both and not none.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if self.embed_pixels is not None:
            if pixel_positions is None:
                pixel_positions = self._find_pixels(input_ids, position_ids, past_key_values)
            inputs_embeds = inputs_embeds + self.embed_pixels(pixel_positions)

        # Made before the cache that begins here, which would hide packed documents from the mask.
        mask = self._make_mask(inputs_embeds, attention_mask, position_ids, past_key_values)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        make_growing(past_key_values)
        if position_ids is None:
            past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
            position_ids = (position_ids + past_length).unsqueeze(0)
        hidden_states, rotary = self._embed_positions(inputs_embeds, position_ids)
        hidden_states = F.dropout(hidden_states, self.config.embedding_dropout, self.training)
        values = [None] * (len(self.layers) - len(self.value_embeddings))
        values += [embedding(input_ids) for embedding in self.value_embeddings]
        for layer, value_embedding in zip(self.layers, values, strict=True):
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                rotary=rotary,
                value_embedding=value_embedding,
                past_key_values=past_key_values,
                position_ids=position_ids,
                **kwargs,
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _find_pixels(
        self,
        input_ids: torch.LongTensor | None,
        position_ids: torch.LongTensor | None,
        past_key_values: Cache | None,
    ) -> torch.Tensor:
        """Return the pixel position of each token, found in the tokens."""
        if input_ids is None or (past_key_values is not None and past_key_values.get_seq_length()):
            raise ValueError(
                "This model adds embeddings of rows and columns to pixels and does not see here "
                "which tokens these are: it needs pixel_positions with past_key_values, and where "
                "there are no input_ids."
            )
        config = self.config
        return find_pixel_positions(
            input_ids, config.image_sizes, config.image_token_ids, position_ids
        )

    def _make_mask(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None,
        past_key_values: Cache | None,
    ) -> Any:
        """Return what the attention implementation wants, hiding later tokens and other documents.

        `create_causal_mask` finds packed documents by their positions only if there is no padding
        mask; with one they are found here.
        """
        same_document = None
        is_padding_mask = isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2
        if is_padding_mask and position_ids is not None and past_key_values is None:
            rows = position_ids.expand(inputs_embeds.shape[0], -1)
            documents = find_packed_sequence_indices(rows)
            if documents is not None:
                same_document = packed_sequence_mask_function(documents)
        return create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
            and_mask_function=same_document,
        )

    def _embed_positions(
        self, inputs_embeds: torch.Tensor, position_ids: torch.LongTensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Return the input with its positions, and the rotary angles if positions are rotary."""
        if self.rotary is not None:
            return inputs_embeds, self.rotary(position_ids)
        check_last_position(position_ids, self.config.max_position_embeddings)
        return inputs_embeds + self.embed_positions(position_ids).to(inputs_embeds.dtype), None


class GenGPTForCausalLM(GenGPTPreTrainedModel, GenerationMixin):
    """The language model with its head.

    Args:
        config: Configuration of the model.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: GenGPTConfig):
        super().__init__(config)
        self.model = GenGPTModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_gpt2(cls, dir_or_id: str, **kwargs: Any) -> "GenGPTForCausalLM":
        """Load any GPT-2 checkpoint of transformers into this model.

        Args:
            dir_or_id: Folder or hub id of a checkpoint that `GPT2LMHeadModel` loads.
            **kwargs: Passed to `GPT2LMHeadModel.from_pretrained`.

        Returns:
            The model in eval mode, with the checkpoint's generation settings.

        Raises:
            ValueError: If the checkpoint uses a variant of attention that this model does not have.
        """
        source = GPT2LMHeadModel.from_pretrained(dir_or_id, **kwargs)
        fields = fields_from_gpt2(source.config)
        fields["attn_implementation"] = source.config._attn_implementation
        config = cls.config_class(**fields, dtype=source.dtype)
        model = cls(config).to(source.dtype)
        model.load_state_dict(weights_from_gpt2(source.state_dict(), config.num_hidden_layers))
        model.tie_weights()
        model.generation_config = source.generation_config
        return model.eval()

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        *args: Any,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Prepare what `forward` is given in a step of `generate`; see `GenerationMixin`.

        Args:
            input_ids: All tokens so far, (B, T).
            *args: Passed on.
            attention_mask: 1 for tokens and 0 for padding, (B, T).
            inputs_embeds: Embeddings that the text begins with instead, (B, T, D).
            **kwargs: Passed on.

        Returns:
            The arguments of `forward`; for a model of pictures with `pixel_positions`.
        """
        inputs = super().prepare_inputs_for_generation(
            input_ids, *args, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )
        config = self.config
        if config.image_sizes and inputs.get("input_ids") is not None:
            pixels = find_pixel_positions(input_ids, config.image_sizes, config.image_token_ids)
            inputs["pixel_positions"] = pixels[:, -inputs["input_ids"].shape[1] :]
        return inputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits, and the loss if labels are given.

        Args:
            input_ids: Token ids, (B, T).
            attention_mask: 1 for tokens and 0 for padding, (B, past + T).
            position_ids: Position of each token in its document, (B, T); see [`GenGPTModel`].
            past_key_values: Keys and values of earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, (B, T, D).
            labels: Token ids, (B, T), usually `input_ids` themselves: the model shifts them. -100
                does not count. Labels that are shifted already go into `shift_labels`.
            use_cache: Whether to return keys and values.
            logits_to_keep: Number of last positions, or the positions, whose logits are wanted.
                0: all.
            return_logits: Whether logits are wanted beside the loss. `None`: not while training,
                where the loss is computed in chunks that never hold all logits at once.
            **kwargs: `num_items_in_batch` (the loss is then the sum divided by it, else the mean),
                `shift_labels`, `pixel_positions` (see [`GenGPTModel`]), and arguments of the
                attention implementation.

        Returns:
            The loss, the logits (B, T, V) if wanted, the cache, hidden states and attentions.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        has_labels = labels is not None or kwargs.get("shift_labels") is not None
        if return_logits is None:
            return_logits = not (has_labels and self.training)

        loss = logits = None
        if has_labels and not return_logits and head_is_plain(self.lm_head):
            loss = self._chunked_loss(hidden_states, labels, **kwargs)
        else:
            if isinstance(logits_to_keep, int):
                logits_to_keep = slice(-logits_to_keep, None)
            logits = self.lm_head(hidden_states[:, logits_to_keep])
            if self.config.logit_softcap is not None:
                logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
            if has_labels:
                loss = self.loss_function(
                    logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
                )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _chunked_loss(
        self,
        hidden_states: torch.Tensor,
        labels: torch.LongTensor | None,
        shift_labels: torch.LongTensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if shift_labels is None:
            shift_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)
        targets = shift_labels.reshape(-1).to(hidden_states.device)
        loss_sum = linear_cross_entropy(
            hidden_states.flatten(0, -2), self.lm_head.weight, targets, self.config.logit_softcap
        )
        if num_items_in_batch is None:
            num_items_in_batch = targets.ne(IGNORE_INDEX).sum().clamp(min=1)
        elif torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(loss_sum.device)
        return loss_sum / num_items_in_batch


__all__ = ["GenGPTForCausalLM", "GenGPTModel", "GenGPTPreTrainedModel"]
