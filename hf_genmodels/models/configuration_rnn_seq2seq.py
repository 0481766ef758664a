"""Configuration of the recurrent sequence-to-sequence model."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_choices, check_shares, check_sizes

CELLS = ("lstm", "gru", "rnn")
ATTENTIONS = ("none", "dot", "general", "additive")


@strict
class GenRNNSeq2SeqConfig(PreTrainedConfig):
    """Configuration of [`GenRNNSeq2SeqModel`] and [`GenRNNSeq2SeqForConditionalGeneration`].

    Args:
        vocab_size: Number of tokens of the target vocabulary, and of the source's if they share one.
        source_vocab_size: Number of tokens of a vocabulary of the source's own. `None`: both sides
            share one vocabulary and one embedding.
        hidden_size: Width of the recurrent states. The two directions of a bidirectional encoder
            have half of it each.
        embedding_size: Width of the token embeddings. `None`: `hidden_size`.
        encoder_layers: Number of recurrent layers of the encoder.
        decoder_layers: Number of recurrent layers of the decoder.
        max_position_embeddings: Longest text in tokens that the model is meant for. It has no
            positions and reads longer ones too, but tools take their limits from here.
        cell: `lstm` (Hochreiter and Schmidhuber 1997), `gru` (Cho et al. 2014, arXiv:1406.1078) or
            `rnn` (Elman 1990, with tanh).
        attention: How the decoder looks at the encoder's states: `none`, the last state alone says
            what there is to say (Sutskever et al. 2014, arXiv:1409.3215); `dot` or `general` (Luong
            et al. 2015, arXiv:1508.04025); `additive` (the score of Bahdanau et al. 2015,
            arXiv:1409.0473, taken after the recurrent layers as the others are).
        input_feeding: Whether the decoder sees what it attended to in the step before (Luong et al.
            2015, section 3.3). Its steps then wait for one another in training too.
        bidirectional_encoder: Whether a second half of the encoder reads from the end (Bahdanau et
            al. 2015).
        dropout: Dropout of the embeddings, between recurrent layers and before the head.
        label_smoothing: Share of the target's probability that the loss spreads over the whole
            vocabulary (Szegedy et al. 2016, arXiv:1512.00567).
        initializer_range: Standard deviation of the initial embeddings and of an untied head.
        tie_word_embeddings: Whether the head shares the target embedding (Press and Wolf 2017,
            arXiv:1608.05859); it needs `embedding_size` to be `hidden_size`.
        use_cache: Whether the model returns its states for faster generation.
        bos_token_id: Id of the token that begins a text.
        eos_token_id: Id of the token that ends a text.
        pad_token_id: Id of the token that pads a batch.
        decoder_start_token_id: Id that the decoder starts from. `None`: `bos_token_id`.
    """

    model_type = "gen_rnn_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"num_hidden_layers": "decoder_layers", "d_model": "hidden_size"}

    vocab_size: int = 32000
    source_vocab_size: int | None = None
    hidden_size: int = 512
    embedding_size: int | None = None
    encoder_layers: int = 2
    decoder_layers: int = 2
    max_position_embeddings: int = 512
    cell: str = "lstm"
    attention: str = "general"
    input_feeding: bool = False
    bidirectional_encoder: bool = True
    dropout: float | int = 0.2
    label_smoothing: float | int = 0.0
    initializer_range: float = 0.1
    tie_word_embeddings: bool = True
    use_cache: bool = True
    is_encoder_decoder: bool = True
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    pad_token_id: int | None = 0
    decoder_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.embedding_size is None:
            self.embedding_size = self.hidden_size
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.bos_token_id

    @property
    def shares_vocabulary(self) -> bool:
        """Whether source and target have one vocabulary and one embedding."""
        return self.source_vocab_size is None

    @property
    def num_encoder_directions(self) -> int:
        """In how many directions the encoder reads."""
        return 2 if self.bidirectional_encoder else 1

    def validate_sizes(self) -> None:
        """Check that every size is positive and that the widths go together.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        sizes = [
            "vocab_size",
            "hidden_size",
            "embedding_size",
            "encoder_layers",
            "decoder_layers",
            "max_position_embeddings",
        ]
        if not self.shares_vocabulary:
            sizes.append("source_vocab_size")
        check_sizes(self, sizes)
        if self.bidirectional_encoder and self.hidden_size % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} is odd, but each direction of the encoder has half "
                "of it. Choose an even width, or bidirectional_encoder: false."
            )
        if self.tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"tie_word_embeddings needs embedding_size={self.embedding_size} to be "
                f"hidden_size={self.hidden_size}: the head multiplies states with embeddings. Leave "
                "embedding_size out, or set tie_word_embeddings: false."
            )

    def validate_choices(self) -> None:
        """Check the switches.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_choices(self, {"cell": CELLS, "attention": ATTENTIONS})
        check_shares(self, ("dropout", "label_smoothing"))
        if self.input_feeding and self.attention == "none":
            raise ValueError(
                "input_feeding=True feeds back what was attended to, but attention='none'. Choose "
                f"one of {', '.join(ATTENTIONS[1:])}, or input_feeding: false."
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


__all__ = ["GenRNNSeq2SeqConfig"]
