"""Configuration of the encoder-decoder Transformer."""

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
from .warm_start import fields_from_gpt

POSITION_EMBEDDINGS = ("sinusoidal", "learned", "rotary")
NORMS = ("layernorm", "rmsnorm")
NORM_POSITIONS = ("post", "pre")
CROSS_ATTENTIONS = ("full", "bidirectional")


@strict
class GenSeq2SeqConfig(PreTrainedConfig):
    """Configuration of [`GenSeq2SeqModel`] and [`GenSeq2SeqForConditionalGeneration`].

    The defaults are the base model of Vaswani et al. 2017 ("Attention Is All You Need",
    arXiv:1706.03762). BART's names of the fields that mean the same (`d_model`, `num_hidden_layers`
    for the decoder, `activation_function`, `init_std`) are understood too.

    Args:
        vocab_size: Number of tokens of the target's vocabulary, and of the source's if they share
            one.
        source_vocab_size: Number of tokens of the source's own vocabulary. `None`: source and
            target share one vocabulary and one embedding.
        hidden_size: Width of the residual stream.
        encoder_layers: Number of blocks of the encoder.
        decoder_layers: Number of blocks of the decoder.
        num_attention_heads: Number of query heads of every attention.
        num_key_value_heads: Number of key and value heads; fewer than query heads is grouped-query
            attention (Ainslie et al. 2023, arXiv:2305.13245). `None`: as many as query heads.
        intermediate_size: Width of the MLP. `None`: four times `hidden_size`.
        max_position_embeddings: Longest source and longest target in tokens.
        hidden_act: Activation of the MLP, a transformers name such as `relu`, `gelu`, `silu`,
            `relu2` (squared ReLU, So et al. 2021, arXiv:2109.08668).
        position_embedding: `sinusoidal` (Vaswani et al. 2017), `learned`, or `rotary` (Su et al.
            2021, arXiv:2104.09864; in self-attention only, cross-attention then has no positions).
        rope_theta: Base of the rotary frequencies.
        norm: `layernorm` (Ba et al. 2016, arXiv:1607.06450) or `rmsnorm` (Zhang and Sennrich 2019,
            arXiv:1910.07467).
        norm_position: `post`: after each sublayer and its residual (Vaswani et al. 2017), or `pre`:
            before each sublayer and at the end of each stack (Xiong et al. 2020, arXiv:2002.04745).
        norm_eps: Added to the variance in every norm.
        norm_affine: Whether the norms have learned weights (and biases, if `use_bias`).
        use_bias: Whether linear layers and LayerNorms have biases.
        qk_norm: Normalise queries and keys to unit root mean square, without weights (Henry et al.
            2020, arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442).
        attention_scale: Factor of the attention scores beside 1/sqrt(width of a head). Scores of
            normalised queries and keys cannot exceed sqrt(width of a head) times this: narrow heads
            need more than 1 to look at a single token.
        scale_embedding: Multiply token embeddings by the square root of `hidden_size`.
        zero_init_residual: Start the projections into the residual stream at zero (Zhang et al.
            2019, "Fixup", arXiv:1901.09321). Otherwise they start, with `pre`, scaled by one over
            the square root of the stack's number of sublayers.
        logit_softcap: Cap c: logits become c tanh(logits / c) (Gemma Team 2024, arXiv:2408.00118).
            `None`: no cap.
        attention_dropout: Dropout of the attention weights.
        residual_dropout: Dropout of each sublayer's output.
        embedding_dropout: Dropout of the input embeddings.
        activation_dropout: Dropout inside the MLP, after its activation.
        label_smoothing: Share of the target's probability that is spread over the whole vocabulary
            in the loss (Szegedy et al. 2016, arXiv:1512.00567).
        cross_attention: `full`: over all states of the encoder, or `bidirectional`: one attention
            over the first half of the source and one over the second half, merged by a learned
            gate. Each half has sinusoidal positions of its own, which count from the outside to the
            middle: from the source's first token, and backwards from its last one.
        refinement_decoder: Whether a second decoder rewrites the first one's draft, seeing the
            source and the draft (Xia et al. 2017, "Deliberation Networks").
        refinement_layers: Number of blocks of that decoder. `None`: `decoder_layers`.
        refinement_loss_weight: Weight of the second decoder's loss beside the first one's.
        initializer_range: Standard deviation of the initial weights.
        embedding_init_range: Standard deviation of the initial token embeddings. `None`:
            `initializer_range`.
        tie_word_embeddings: Whether the head shares the target's token embedding (Press and Wolf
            2017, arXiv:1608.05859).
        head_bias: Whether the head has a bias, as checkpoints of Marian have. The loss is then
            computed from all logits at once.
        use_cache: Whether the model returns keys and values for faster generation.
        bos_token_id: Id of the token that begins a text.
        eos_token_id: Id of the token that ends sources and targets.
        pad_token_id: Id of the token that pads a batch.
        decoder_start_token_id: Id of the token from which the decoder starts. `None`:
            `bos_token_id`.
    """

    model_type = "gen_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values", "draft_loss", "refinement_loss"]
    attribute_map = {
        "d_model": "hidden_size",
        "num_hidden_layers": "decoder_layers",
        "activation_function": "hidden_act",
        "init_std": "initializer_range",
    }

    is_encoder_decoder: bool = True
    vocab_size: int = 32000
    source_vocab_size: int | None = None
    hidden_size: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 512
    hidden_act: str = "relu"
    position_embedding: str = "sinusoidal"
    rope_theta: float | int = 10000.0
    norm: str = "layernorm"
    norm_position: str = "post"
    norm_eps: float = 1e-5
    norm_affine: bool = True
    use_bias: bool = True
    qk_norm: bool = False
    attention_scale: float | int = 1.0
    scale_embedding: bool = True
    zero_init_residual: bool = False
    logit_softcap: float | int | None = None
    attention_dropout: float | int = 0.1
    residual_dropout: float | int = 0.1
    embedding_dropout: float | int = 0.1
    activation_dropout: float | int = 0.0
    label_smoothing: float | int = 0.0
    cross_attention: str = "full"
    refinement_decoder: bool = False
    refinement_layers: int | None = None
    refinement_loss_weight: float | int = 1.0
    initializer_range: float = 0.02
    embedding_init_range: float | None = None
    tie_word_embeddings: bool = True
    head_bias: bool = False
    use_cache: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # sets fields that came under BART's names
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.refinement_layers is None:
            self.refinement_layers = self.decoder_layers
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.bos_token_id

    @classmethod
    def from_gpt(cls, config: PreTrainedConfig, **fields: Any) -> "GenSeq2SeqConfig":
        """Return a configuration whose encoder and decoder a language model fits.

        Args:
            config: Configuration of a gen_gpt language model.
            **fields: Fields that are to be different, `encoder_layers` say.

        Returns:
            The configuration, for `load_decoder` or `load_encoder` of the model.

        Raises:
            ValueError: If the language model is not of that family, or a field is wrong.
        """
        return cls(**(fields_from_gpt(config) | fields))

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def shares_vocabulary(self) -> bool:
        """Whether source and target have one vocabulary and one embedding."""
        return self.source_vocab_size is None

    def validate_sizes(self) -> None:
        """Check that every size is positive and that heads divide the width.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        names = [
            "vocab_size",
            "hidden_size",
            "encoder_layers",
            "decoder_layers",
            "refinement_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "intermediate_size",
            "max_position_embeddings",
        ]
        if not self.shares_vocabulary:
            names.append("source_vocab_size")
        check_sizes(self, names)
        check_heads(self)
        check_position_widths(self)
        if self.cross_attention == "bidirectional" and self.hidden_size % 2:
            raise ValueError(
                "Bidirectional cross-attention has sinusoidal positions, which need an even "
                f"hidden_size, not {self.hidden_size}."
            )

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
                "norm_position": NORM_POSITIONS,
                "hidden_act": sorted(ACT2FN),
                "cross_attention": CROSS_ATTENTIONS,
            },
        )
        check_shares(
            self,
            (
                "attention_dropout",
                "residual_dropout",
                "embedding_dropout",
                "activation_dropout",
                "label_smoothing",
            ),
        )
        check_positive(self, ("attention_scale", "logit_softcap"))
        if self.refinement_loss_weight <= 0:
            raise ValueError(
                f"refinement_loss_weight={self.refinement_loss_weight} must be positive. To train "
                "without a second decoder, set refinement_decoder: false."
            )

    def validate_decoding(self) -> None:
        """Check that the decoder can start and that this is an encoder-decoder.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        if not self.is_encoder_decoder:
            raise ValueError("is_encoder_decoder=False: this model always has both; leave it out.")
        if self.decoder_start_token_id is None:
            raise ValueError(
                "decoder_start_token_id and bos_token_id are both null: set one of them to the "
                "token from which the decoder starts."
            )


__all__ = ["GenSeq2SeqConfig"]
