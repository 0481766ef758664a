"""Pipelines of a language model that draws: prompted pictures, completed, enlarged and described ones."""

import dataclasses
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from torch.nn.utils.rnn import pad_sequence
from transformers import Pipeline

from .pipeline_conditional_image import ConditionalImagePipeline, suggestion
from .pixel_sampling import PixelSettings, describing_prompt, draw_pixels, picture_prompt

PICTURES_AT_ONCE = 32
LONGEST_CAPTION = 32  # tokens, by default
LONGEST_SHOWN = 60  # letters of a prompt in a message
NO_TOKEN = -1  # fills prompts up


class PixelPipeline(ConditionalImagePipeline):
    """What the pipelines that draw pictures pixel by pixel have in common.

    Options of a call beside those of `ConditionalImagePipeline`: `temperature`, `top_k`, `top_p` and
    `guidance_scale`, see `PixelSettings`. Pictures of equal seeds are equal up to the rounding of sums,
    which may decide between two colours where batches differ in size.
    """

    _load_tokenizer = True
    _load_image_processor = True
    drawing: Mapping[str, Any] = dataclasses.asdict(PixelSettings())

    def _check_model(self) -> None:
        _check_parts(self)

    def _check_drawing(self, drawing: Mapping[str, Any]) -> None:
        PixelSettings(**{name: drawing[name] for name in PixelPipeline.drawing})

    def _images_at_once(self, batch_size: int | None) -> int:
        return batch_size or PICTURES_AT_ONCE

    def _forward(self, conditions: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """Return colours of the palette, (N, S)."""
        prompts = [row[row != NO_TOKEN].tolist() for row in conditions["prompts"]]
        settings = PixelSettings(**{name: options[name] for name in PixelPipeline.drawing})
        return draw_pixels(
            self.model,
            prompts,
            settings,
            given=self._given(conditions, options),
            generators=options["generator"],
        )

    def postprocess(self, images: torch.Tensor) -> list[Any]:
        """Return pictures of PIL, one for each row of colours (N, S)."""
        pictures: list[Any] = self.image_processor.to_images(images)
        return pictures

    def _given(
        self, conditions: dict[str, torch.Tensor], options: Mapping[str, Any]
    ) -> torch.Tensor | None:
        """Return the first pixels, which are kept, (N, G)."""
        return None

    def _prompted(self, texts: Sequence[str | None]) -> dict[str, torch.Tensor]:
        """Return the tokens before the pictures of some texts, (N, T)."""
        config = self.model.config
        room = room_for_text(config)
        rows = []
        for text in texts:
            ids = text_tokens(self.tokenizer, self._known_label(text or ""))
            if len(ids) > room:
                shown = f"{text[:LONGEST_SHOWN]}..." if len(text) > LONGEST_SHOWN else text
                warnings.warn(
                    f"{shown!r} is longer than the {room} tokens that this model reads, and was cut.",
                    stacklevel=2,
                )
            rows.append(torch.tensor(picture_prompt(config, ids[:room])))
        if not rows:
            return {}
        return {"prompts": pad_sequence(rows, batch_first=True, padding_value=NO_TOKEN)}

    def _known_label(self, text: str) -> str:
        """Return the name of a class as the model knows it, and every text of a model without classes.

        Raises:
            ValueError: If the model knows classes, and this is none.
        """
        labels: list[str] = self.image_processor.labels
        if not labels or not text or text in labels:
            return text
        alike = [label for label in labels if label.casefold() == text.casefold()]
        if len(alike) != 1:
            names = ", ".join(map(repr, labels))
            raise ValueError(
                f"There is no label {text!r}. {suggestion(text, labels)}This model knows: {names}."
            )
        return alike[0]


class TextToPixelsPipeline(PixelPipeline):
    """Draws pictures of texts or of classes; of nothing in particular for `None` or an empty text."""

    def _wanted(self) -> str:
        return "a text was expected."

    def _is_one(self, inputs: Any) -> bool:
        return inputs is None or isinstance(inputs, str)

    def preprocess(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return `prompts`, the tokens before the pixels of each picture, (N, T).

        Raises:
            ValueError: If one is no text, or no class of a model that knows classes.
        """
        for index, text in enumerate(inputs):
            if text is not None and not isinstance(text, str):
                raise ValueError(f"Prompt {index} is a {type(text).__name__}, and {self._wanted()}")
        return self._prompted(inputs)


class PicturePipeline(PixelPipeline):
    """What the pipelines that draw on a picture have in common.

    A picture is one of PIL, or the name of its file.
    """

    def _wanted(self) -> str:
        return "a picture was expected: an image of PIL, or the name of its file."

    def _is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, str | Image.Image | Mapping)

    def _picture(self, given: Any) -> Image.Image:
        """Return a picture.

        Raises:
            ValueError: If this is none.
        """
        return opened(given, self._wanted())

    def preprocess(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return what the model is given for some pictures, a row for each.

        Raises:
            ValueError: If one is no picture, or its text cannot be read.
        """
        return self._conditions(inputs) if inputs else {}

    @abstractmethod
    def _conditions(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return what the model is given for one or more pictures."""


class CompletionPipeline(PicturePipeline):
    """Completes pictures: keeps their upper part, and draws what lies below.

    An input is a picture, or a dictionary with `image` and `text`, the prompt. The option `keep` says
    which part of its rows is kept, from 0 to 1 (0.5).
    """

    drawing: Mapping[str, Any] = {**PixelPipeline.drawing, "keep": 0.5}

    def _check_drawing(self, drawing: Mapping[str, Any]) -> None:
        super()._check_drawing(drawing)
        keep = drawing["keep"]
        is_number = isinstance(keep, int | float) and not isinstance(keep, bool)
        if not is_number or not 0 <= keep <= 1:
            raise ValueError(f"keep is {keep!r}. It must be a number from 0 to 1.")

    def _conditions(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        pairs = [one if isinstance(one, Mapping) else {"image": one} for one in inputs]
        pictures = [self._picture(pair.get("image")) for pair in pairs]
        found = self.image_processor(pictures)["pixel_ids"]
        return {"pictures": found, **self._prompted([pair.get("text") for pair in pairs])}

    def _given(
        self, conditions: dict[str, torch.Tensor], options: Mapping[str, Any]
    ) -> torch.Tensor:
        size = self.model.config.image_sizes[0]
        return conditions["pictures"][:, : size * round(size * options["keep"])]


class SuperResolutionPipeline(PicturePipeline):
    """Enlarges pictures, which are first made as small as those that the model learned to enlarge."""

    def _check_model(self) -> None:
        super()._check_model()
        if not self.model.config.enlarges_pictures:
            raise ValueError("This model was not trained to enlarge pictures.")

    def _conditions(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        pictures = [self._picture(one) for one in inputs]
        small = self.image_processor(pictures, 1)["pixel_ids"].tolist()
        config = self.model.config
        return {"prompts": torch.tensor([picture_prompt(config, small=row) for row in small])}


class CaptionPipeline(Pipeline):
    """Writes texts about pictures: their captions or labels.

    Args:
        *args: Those of `Pipeline`.
        **kwargs: Those of `Pipeline`, and defaults of the options of a call.

    Raises:
        ValueError: If the model describes no pictures, or the processor is not of its checkpoint.
    """

    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _check_parts(self)
        if not self.model.config.describes_pictures:
            raise ValueError("This model was not trained to describe pictures.")

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Write texts about pictures.

        Args:
            inputs: A picture (an image of PIL, or the name of its file), a dictionary with
                `image` and `text`, how the text shall begin, or a list of such.
            **options: Those of the model's `generate`, such as `do_sample` or `num_return_sequences`.

        Returns:
            For each picture a list of dictionaries with `generated_text`, the beginning included. A
            list gives a list of such lists.

        Raises:
            ValueError: If an input is no picture, or its text too long.
        """
        options = self._forward_params | options
        if isinstance(inputs, list | tuple):
            return [
                self.postprocess(self._forward(self.preprocess(one), **options)) for one in inputs
            ]
        return self.postprocess(self._forward(self.preprocess(inputs), **options))

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], ...]:
        """Return the options of reading, of writing and of showing: all are of writing."""
        return {}, options, {}

    def preprocess(self, given: Any) -> dict[str, torch.Tensor]:
        """Return `input_ids`, (1, T), and where the text begins in them.

        Raises:
            ValueError: If this is no picture, or its text leaves no room.
        """
        pair = given if isinstance(given, Mapping) else {"image": given}
        picture = opened(pair.get("image"), "a picture was expected: an image of PIL, or its file.")
        [colours] = self.image_processor(picture)["pixel_ids"].tolist()
        config = self.model.config
        prompt = describing_prompt(config, colours)
        text = text_tokens(self.tokenizer, pair.get("text") or "")
        if len(prompt) + len(text) >= config.max_position_embeddings:
            raise ValueError(
                f"The text has {len(text)} tokens, and this model has room for "
                f"{config.max_position_embeddings - len(prompt)}, with what it writes. Shorten it."
            )
        return {"input_ids": torch.tensor([[*prompt, *text]]), "begin": torch.tensor(len(prompt))}

    def _forward(self, inputs: dict[str, torch.Tensor], **options: Any) -> list[torch.Tensor]:
        """Return the tokens of each text."""
        ids, config = inputs["input_ids"].to(self.device), self.model.config
        room = config.max_position_embeddings - ids.shape[1]
        colours = range(config.palette_token_id, config.palette_token_id + config.palette_size)
        settings = {
            "max_new_tokens": min(room, LONGEST_CAPTION),
            "do_sample": False,
            "pad_token_id": self.tokenizer.pad_token_id or config.eos_token_id,
            "suppress_tokens": [*config.image_token_ids, config.caption_token_id, *colours],
        }
        rows = self.model.generate(ids, attention_mask=torch.ones_like(ids), **settings | options)
        return [row[int(inputs["begin"]) :].cpu() for row in rows]

    def postprocess(self, rows: Sequence[torch.Tensor]) -> list[dict[str, str]]:
        """Return the texts of a picture."""
        return [
            {"generated_text": self.tokenizer.decode(row, skip_special_tokens=True)} for row in rows
        ]


def room_for_text(config: Any) -> int:
    """Return the tokens of the longest prompt that leaves room for a picture."""
    return int(config.max_position_embeddings - config.image_sizes[0] ** 2 - 2)


def text_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text; names of tokens that frame pictures are letters in it."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is a {type(text).__name__}, and a text was expected.")
    ids: list[int] = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    return ids


def opened(given: Any, wanted: str) -> Image.Image:
    """Return a picture that is given itself, or by the name of its file.

    Args:
        given: The picture or the name.
        wanted: What should have been given, in words.

    Raises:
        ValueError: If it is neither, or cannot be read.
    """
    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, str | os.PathLike):
        raise ValueError(f"{given!r} is a {type(given).__name__}, and {wanted}")
    try:
        with Image.open(given) as picture:
            return ImageOps.exif_transpose(picture)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{given!r} cannot be read as a picture: {error}") from error


def _check_parts(pipe: Pipeline) -> None:
    """Raise a ValueError if model, tokenizer and processor do not belong together."""
    config, processor = pipe.model.config, pipe.image_processor
    if not config.to_dict().get("image_sizes"):
        raise ValueError("This model was not trained on pictures: it draws and reads none.")
    if pipe.tokenizer is None or processor is None:
        raise ValueError("Give the tokenizer and the image processor of the model's checkpoint.")
    sizes = list(processor.image_sizes), len(processor.palette)
    if sizes != (list(config.image_sizes), config.palette_size):
        raise ValueError(
            f"The image processor has {sizes[1]} colours and pictures of {sizes[0]}, and the model "
            f"{config.palette_size} and {config.image_sizes}: it is not that of this checkpoint."
        )


__all__ = [
    "CaptionPipeline",
    "CompletionPipeline",
    "SuperResolutionPipeline",
    "TextToPixelsPipeline",
]
