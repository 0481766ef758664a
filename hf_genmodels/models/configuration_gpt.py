"""Configuration of the GPT-2-style language model."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .config_checks import (
    check_choices,
    check_heads,
    check_position_widths,
    check_positive,
    check_shares,
    check_sizes,
)

POSITION_EMBEDDINGS = ("learned", "sinusoidal", "rotary")
LARGEST_PICTURE = 256
NORMS = ("layernorm", "rmsnorm")


@strict
class GenGPTConfig(PreTrainedConfig):
    """Configuration of [`GenGPTModel`] and [`GenGPTForCausalLM`].

    The defaults are GPT-2 small (Radford et al. 2019, "Language Models are Unsupervised Multitask
    Learners"). GPT-2's own names (`n_embd`, `n_layer`, `resid_pdrop`, ...) are understood too.

    Args:
        vocab_size: Number of tokens of the vocabulary.
        hidden_size: Width of the residual stream.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Number of query heads.
        num_key_value_heads: Number of key and value heads; fewer than query heads is grouped-query
            attention (Ainslie et al. 2023, arXiv:2305.13245). `None`: as many as query heads.
        intermediate_size: Width of the MLP. `None`: four times `hidden_size`.
        max_position_embeddings: Longest sequence in tokens.
        hidden_act: Activation of the MLP, a transformers name such as `gelu_new`, `gelu`, `silu`,
            `relu2` (squared ReLU, So et al. 2021, arXiv:2109.08668).
        position_embedding: `learned` (GPT-2), `sinusoidal` (Vaswani et al. 2017, arXiv:1706.03762)
            or `rotary` (Su et al. 2021, arXiv:2104.09864).
        rope_theta: Base of the rotary frequencies.
        norm: `layernorm` (Ba et al. 2016, arXiv:1607.06450) or `rmsnorm` (Zhang and Sennrich 2019,
            arXiv:1910.07467), before each sublayer and before the head.
        norm_eps: Added to the variance in every norm.
        norm_affine: Whether the norms have learned weights (and biases, if `use_bias`).
        use_bias: Whether linear layers and LayerNorms have biases.
        qk_norm: Normalise queries and keys to unit root mean square, without weights (Henry et al.
            2020, arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442).
        attention_scale: Factor of the attention scores beside 1/sqrt(width of a head). Scores of
            normalised queries and keys cannot exceed sqrt(width of a head) times this: narrow heads
            need more than 1 to look at a single token.
        zero_init_residual: Start the projections into the residual stream at zero, so that every
            block starts as the identity (Zhang et al. 2019, "Fixup", arXiv:1901.09321). Otherwise
            they start scaled by 1/sqrt(2 x layers) as in GPT-2.
        zero_init_head: Start an untied head at zero, so that the first loss is ln(vocab_size).
        logit_softcap: Cap c: logits become c tanh(logits / c) (Gemma Team 2024, arXiv:2408.00118).
            `None`: no cap.
        num_value_embeddings: Number of extra token embeddings that are added to the attention values
            of as many last layers (Zhou et al. 2024, "Value Residual Learning", arXiv:2410.17897, in
            the form of a lookup). They cost memory but hardly any time.
        attention_dropout: Dropout of the attention weights.
        residual_dropout: Dropout of each sublayer's output.
        embedding_dropout: Dropout of the input embeddings.
        initializer_range: Standard deviation of the initial weights.
        embedding_init_range: Standard deviation of the initial token embeddings. `None`:
            `initializer_range`.
        tie_word_embeddings: Whether the head shares the token embedding (Press and Wolf 2017,
            arXiv:1608.05859).
        use_cache: Whether the model returns keys and values for faster generation.
        bos_token_id: Id of the token that begins a text.
        eos_token_id: Id of the token that ends a text.
        pad_token_id: Id of the token that pads a batch.
        image_sizes: Heights, which are the widths, of the pictures that a sequence may hold, the one
            that is drawn first; empty for a model of texts alone. A pixel is a token (Chen et al.
            2020, "Generative Pretraining from Pixels"), and embeddings of its row and column are
            added to that of the token.
        image_token_ids: Id of the token that begins a picture of each size. Its pixels follow in
            raster order.
        caption_token_id: Id of the token after which a text about a picture follows, if there are
            such texts.
        palette_token_id: Id of the first token that is a colour; the others follow it.
        palette_size: Number of colours.
    """

    model_type = "gen_gpt"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "norm_eps",
        "attn_pdrop": "attention_dropout",
        "resid_pdrop": "residual_dropout",
        "embd_pdrop": "embedding_dropout",
    }
    base_model_tp_plan = {
        "layers.*.attn.q_proj": "colwise",
        "layers.*.attn.k_proj": "colwise",
        "layers.*.attn.v_proj": "colwise",
        "layers.*.attn.o_proj": "rowwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }
    base_model_pp_plan = {
        "embed_tokens": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "final_norm": (["hidden_states"], ["hidden_states"]),
    }

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 1024
    hidden_act: str = "gelu_new"
    position_embedding: str = "learned"
    rope_theta: float | int = 10000.0
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    use_bias: bool = True
    qk_norm: bool = False
    attention_scale: float | int = 1.0
    zero_init_residual: bool = False
    zero_init_head: bool = False
    logit_softcap: float | int | None = None
    num_value_embeddings: int = 0
    attention_dropout: float | int = 0.1
    residual_dropout: float | int = 0.1
    embedding_dropout: float | int = 0.1
    initializer_range: float = 0.02
    embedding_init_range: float | None = None
    tie_word_embeddings: bool = True
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    image_sizes: list[int] = field(default_factory=list)
    image_token_ids: list[int] = field(default_factory=list)
    caption_token_id: int | None = None
    palette_token_id: int | None = None
    palette_size: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # sets fields that came under GPT-2's names
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def draws_pictures(self) -> bool:
        """Whether a sequence may hold pictures."""
        return bool(self.image_sizes)

    @property
    def enlarges_pictures(self) -> bool:
        """Whether it may hold a picture of another size before the one that is drawn."""
        return len(self.image_sizes) > 1

    @property
    def describes_pictures(self) -> bool:
        """Whether texts about pictures follow them."""
        return self.draws_pictures and self.caption_token_id is not None

    def validate_sizes(self) -> None:
        """Check that every size is positive and that heads divide the width.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_sizes(
            self,
            (
                "vocab_size",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "intermediate_size",
                "max_position_embeddings",
            ),
        )
        check_heads(self)
        check_position_widths(self)

    def validate_choices(self) -> None:
        """Check the switches.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_choices(
            self,
            {
                "position_embedding": POSITION_EMBEDDINGS,
                "norm": NORMS,
                "hidden_act": sorted(ACT2FN),
            },
        )
        check_shares(self, ("attention_dropout", "residual_dropout", "embedding_dropout"))
        check_positive(self, ("attention_scale", "logit_softcap"))
        if not 0 <= self.num_value_embeddings <= self.num_hidden_layers:
            raise ValueError(
                f"num_value_embeddings={self.num_value_embeddings} must lie between 0 and "
                f"num_hidden_layers={self.num_hidden_layers}."
            )

    def validate_pictures(self) -> None:
        """Check what a sequence says of its pictures.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        if len(self.image_token_ids) != len(self.image_sizes):
            raise ValueError(
                f"image_token_ids={self.image_token_ids} must name a token for each of "
                f"image_sizes={self.image_sizes}."
            )
        if not self.image_sizes:
            return
        if min(self.image_sizes) < 1 or max(self.image_sizes) > LARGEST_PICTURE:
            raise ValueError(
                f"image_sizes={self.image_sizes} must lie between 1 and {LARGEST_PICTURE}."
            )
        first, size = self.palette_token_id, self.palette_size
        if first is None or size < 2 or first + size > self.vocab_size:
            raise ValueError(
                f"palette_token_id={first} and palette_size={size} must name two or more tokens of "
                f"the vocabulary of {self.vocab_size}."
            )


__all__ = ["GenGPTConfig"]
