"""Configuration of the text discriminator: a Transformer that tells written texts from real ones."""

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

ATTENTIONS = ("bidirectional", "causal")
POSITION_EMBEDDINGS = ("rotary", "learned", "sinusoidal")
NORMS = ("layernorm", "rmsnorm")


@strict
class GenTextDiscriminatorConfig(PreTrainedConfig):
    """Configuration of [`GenTextDiscriminator`].

    Args:
        vocab_size: Number of tokens of the vocabulary, which is that of the model it judges.
        attention: `bidirectional`: every token's verdict sees the whole text; or `causal`: it sees
            the text up to the token, so that it is a verdict on every beginning of the text.
        hidden_size: Width of the residual stream.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Number of heads.
        intermediate_size: Width of the MLP. `None`: four times `hidden_size`.
        max_position_embeddings: Longest text in tokens.
        hidden_act: Activation of the MLP, a transformers name.
        position_embedding: `rotary` (Su et al. 2021, arXiv:2104.09864), `learned` or `sinusoidal`
            (Vaswani et al. 2017, arXiv:1706.03762).
        rope_theta: Base of the rotary frequencies.
        norm: `layernorm` (Ba et al. 2016, arXiv:1607.06450) or `rmsnorm` (Zhang and Sennrich 2019,
            arXiv:1910.07467), before each sublayer and before the head.
        norm_eps: Added to the variance in every norm.
        norm_affine: Whether the norms have learned weights (and biases, if `use_bias`).
        use_bias: Whether linear layers and LayerNorms have biases.
        qk_norm: Normalise queries and keys to unit root mean square, without weights (Henry et al.
            2020, arXiv:2010.04245).
        attention_scale: Factor of the attention scores beside 1/sqrt(width of a head). Scores of
            normalised queries and keys cannot exceed sqrt(width of a head) times this: narrow heads
            need more than 1 to look at a single token.
        dropout: Dropout of the embeddings and of each sublayer's output.
        attention_dropout: Dropout of the attention weights.
        initializer_range: Standard deviation of the initial weights.
        bos_token_id: Id of the token that begins a text.
        eos_token_id: Id of the token that ends a text.
        pad_token_id: Id of the token that pads a batch.
    """

    model_type = "gen_text_discriminator"

    vocab_size: int = 4096
    attention: str = "bidirectional"
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int | None = None
    max_position_embeddings: int = 512
    hidden_act: str = "gelu"
    position_embedding: str = "rotary"
    rope_theta: float | int = 10000.0
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    use_bias: bool = True
    qk_norm: bool = False
    attention_scale: float | int = 1.0
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # One verdict, not the two classes of a classifier; the head's width is not the user's.
        super().__post_init__(**({"num_labels": 1} | kwargs))
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size

    @property
    def num_key_value_heads(self) -> int:
        """Heads of keys and values: as many as of queries."""
        return self.num_attention_heads

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_sizes(self) -> None:
        """Check that every size is positive and that heads divide the width.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        check_sizes(self, (*names, "intermediate_size", "max_position_embeddings"))
        check_heads(self)
        check_position_widths(self)

    def validate_choices(self) -> None:
        """Check the switches.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        choices = {
            "attention": ATTENTIONS,
            "position_embedding": POSITION_EMBEDDINGS,
            "norm": NORMS,
            "hidden_act": sorted(ACT2FN),
        }
        check_choices(self, choices)
        check_shares(self, ("dropout", "attention_dropout"))
        check_positive(self, ("attention_scale",))


__all__ = ["GenTextDiscriminatorConfig"]
