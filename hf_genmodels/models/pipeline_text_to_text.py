"""A pipeline that makes one text of another: `pipeline("text-to-text", model=folder)`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, Pipeline, PreTrainedTokenizerFast

from .decoding import Hypothesis, decode

TARGET_TOKENIZER = "target_tokenizer"
STREAMED_TEXTS = 1024  # of a generator or a dataset, sorted and batched together


class TextToTextPipeline(Pipeline):
    """Translates, continues, summarises or answers texts with an encoder-decoder model.

    Many texts are sorted by length and batched inside; results come in the order of the texts.

    Args:
        *args: Those of `Pipeline`.
        target_tokenizer: Tokenizer of what the model writes. `None`: the one in the subfolder
            `target_tokenizer` if the model's vocabularies are separate, else the tokenizer.
        int8: Round the weights to 8 bits: several times faster on a CPU, slightly different texts.
        **kwargs: Those of `Pipeline`, and defaults of the options of a call.

    Raises:
        ValueError: If a tokenizer does not fit the model, or the model has no 8-bit weights.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(
        self,
        *args: Any,
        target_tokenizer: PreTrainedTokenizerFast | None = None,
        int8: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        values = self.model.config.to_dict()
        source_size = values.get("source_vocab_size")
        if target_tokenizer is None and source_size is not None:
            target_tokenizer = AutoTokenizer.from_pretrained(
                self.model.name_or_path, subfolder=TARGET_TOKENIZER, trust_remote_code=False
            )
        self.target_tokenizer = target_tokenizer or self.tokenizer
        _check_size(self.tokenizer, source_size or values["vocab_size"])
        _check_size(self.target_tokenizer, values["vocab_size"])
        _check_end(self.target_tokenizer, values["eos_token_id"])
        if int8:
            self._quantize()

    def _quantize(self) -> None:
        try:
            self.model.quantize_int8()
        except AttributeError as error:
            raise ValueError(
                f"int8=True is for models of hf_genmodels, not for {type(self.model).__name__}."
            ) from error

    def __call__(self, inputs: str | Iterable[str], **options: Any) -> Any:
        """Make texts of texts.

        Args:
            inputs: A text, a list of texts, or a generator or dataset of texts.
            **options: `num_beams`, `num_return_sequences` and every other field of
                `GenerationConfig`; `return_attention`, `overlong` ("truncate" with a warning or
                "error") and `batch_tokens` of `decode`.

        Returns:
            For each text a list of `num_return_sequences` dictionaries, the best one first:
            `generated_text`, `score`, and with `return_attention=True` also `attention`, (T, S),
            `tokens` and `source_tokens`. One text gives its list, a list of texts a list of them,
            and everything else an iterator over them.

        Raises:
            ValueError: If a text is empty, or too long and `overlong="error"`, or an option is
                unknown.
        """
        options = self._forward_params | self._sanitize_parameters(**options)[1]
        if isinstance(inputs, str):
            return self._convert([inputs], options)[0]
        if isinstance(inputs, list | tuple):
            return self._convert(inputs, options)
        return self._stream(inputs, options)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model, code and tokenizers into a folder, as `Pipeline` does."""
        super().save_pretrained(save_directory, **kwargs)
        if self.target_tokenizer is not self.tokenizer:
            self.target_tokenizer.save_pretrained(Path(save_directory) / TARGET_TOKENIZER)

    def _stream(self, inputs: Iterable[str], options: dict[str, Any]) -> Iterator[Any]:
        """Convert texts as they come, many at a time."""
        texts = iter(inputs)
        while chunk := list(islice(texts, STREAMED_TEXTS)):
            yield from self._convert(chunk, options)

    def _convert(self, texts: Sequence[str], options: dict[str, Any]) -> list[Any]:
        sources = [self.preprocess(text, index) for index, text in enumerate(texts)]
        found = self._forward(sources, **options)
        return [self.postprocess(best, ids) for best, ids in zip(found, sources, strict=True)]

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], ...]:
        """Return the options of reading, of decoding and of writing: all are of decoding."""
        if "batch_size" in options:
            raise ValueError(
                "batch_size: texts are batched by length here; batch_tokens says how much fits."
            )
        return {}, options, {}

    def preprocess(self, text: str, index: int = 0) -> list[int]:
        """Return the token ids of a text.

        Raises:
            ValueError: If it is no text, or an empty one.
        """
        if not isinstance(text, str):
            raise ValueError(f"Input {index} is a {type(text).__name__}, and a text was expected.")
        if not text.strip():
            raise ValueError(f"Input {index} is empty: {text!r}. Give a text with words in it.")
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return ids if end is None or ids[-1:] == [end] else [*ids, end]

    def _forward(self, sources: list[list[int]], **options: Any) -> list[list[Hypothesis]]:
        return decode(self.model, sources, **({"return_scores": True} | options))

    def postprocess(self, best: list[Hypothesis], source: list[int]) -> list[dict[str, Any]]:
        """Return the results of one text, the best one first."""
        results = []
        for hypothesis in best:
            text = self.target_tokenizer.decode(hypothesis.ids, skip_special_tokens=True)
            result: dict[str, Any] = {"generated_text": text, "score": hypothesis.score}
            if hypothesis.attention is not None:
                result["attention"] = hypothesis.attention
                result["tokens"] = [self.target_tokenizer.decode([i]) for i in hypothesis.ids]
                result["source_tokens"] = [self.tokenizer.decode([i]) for i in source]
            results.append(result)
        return results


def _check_size(tokenizer: Any, vocab_size: int) -> None:
    """Raise a ValueError if a tokenizer gives ids that the model does not know."""
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, and the model knows {vocab_size}: it is "
            "not the tokenizer of this checkpoint."
        )


def _check_end(tokenizer: Any, eos_token_id: int | list[int]) -> None:
    """Raise a ValueError if a tokenizer ends texts with another token than the model."""
    ends = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
    if tokenizer.eos_token_id not in ends:
        raise ValueError(
            f"The tokenizer ends texts with token {tokenizer.eos_token_id}, and the model with "
            f"{', '.join(map(str, ends))}: it is not the tokenizer of this checkpoint."
        )


__all__ = ["TextToTextPipeline"]
