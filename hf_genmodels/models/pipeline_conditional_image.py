"""Pipelines that draw images: `class-to-image` for labels and attributes, `text-to-image` for prompts."""

import operator
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

import torch
from transformers import Pipeline

OPTIONS = ("seed", "batch_size")
LARGEST_BATCH = 64
PIXELS_IN_A_BATCH = LARGEST_BATCH * 64 * 64  # of the default batch, whatever the image size
LARGEST_SEED = 2**63 - 1
LISTED_NAMES = 100


class ConditionalImagePipeline(Pipeline):
    """What the pipelines that draw images have in common.

    Args:
        *args: Those of `Pipeline`.
        **kwargs: Those of `Pipeline`, and defaults of the options of a call.

    Attributes:
        count: Option that says how many are drawn for each input.
        default_count: How many these are by default.
        drawing: How images are drawn by default: options of the model's own.

    Raises:
        ValueError: If the model draws from something else, or an option is unknown.
    """

    _load_tokenizer: bool | None = False
    _load_processor = False
    _load_image_processor: bool | None = False
    _load_feature_extractor = False
    _load_video_processor = False
    count = "num_images"
    default_count: int | None = 1
    drawing: Mapping[str, Any] = {"truncation": 1.0}

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._check_model()

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Draw images.

        Args:
            inputs: What to draw, a list of such, or a generator or dataset of such.
            **options: `num_images` for each input (1). `seed`: a whole number, image i of an input
                being drawn with `seed + i`, or a list of one for each image; equal seeds give equal
                images, whatever else is drawn beside them (where batches differ in size, up to the
                rounding of sums, which may move a pixel by one of 255 steps). `batch_size`: images in
                one forward pass. Of a GAN `truncation` in (0, 1] shrinks the noise: images are more
                typical and less varied (Brock et al. 2019, arXiv:1809.11096).

        Returns:
            For each input a list of `num_images` images of PIL. One input gives its list, a list of
            inputs a list of them, and everything else an iterator over them.

        Raises:
            ValueError: If an input or an option cannot work.
        """
        self._sanitize_parameters(**options)
        settings = {self.count: self.default_count, "seed": None, "batch_size": self._batch_size}
        settings |= {**self.drawing, **self._forward_params, **options}
        for name, default in ((self.count, self.default_count), ("batch_size", None)):
            _check_count(name, settings[name], default)
        settings["number"] = settings.pop(self.count)
        self._check_drawing({name: settings[name] for name in self.drawing})
        if self._is_one(inputs):
            return self._draw([inputs], **settings)[0]
        if isinstance(inputs, list | tuple):
            return self._draw(inputs, **settings)
        try:
            waiting = iter(inputs)  # a dataset has no __iter__, and works all the same
        except TypeError:
            raise ValueError(f"{inputs!r} is a {type(inputs).__name__}: {self._wanted()}") from None
        return self._stream(waiting, settings)

    def _stream(self, waiting: Iterator[Any], settings: dict[str, Any]) -> Iterator[Any]:
        """Draw inputs as they come, about a batch of images at a time."""
        size = max(1, self._images_at_once(settings["batch_size"]) // (settings["number"] or 1))
        while chunk := list(islice(waiting, size)):
            yield from self._draw(chunk, **settings)

    def _draw(
        self,
        inputs: Sequence[Any],
        *,
        number: int,
        seed: int | Sequence[int] | None,
        batch_size: int | None,
        **drawing: Any,
    ) -> list[list[Any]]:
        """Return the images of each input, so many of each."""
        conditions = self.preprocess(inputs)
        seeds = _seeds(seed, len(inputs), number)
        total = len(inputs) * number
        size = self._images_at_once(batch_size)
        images: list[Any] = []
        for start in range(0, total, size):
            numbers = torch.arange(start, min(start + size, total))
            generators = None
            if seeds is not None:
                generators = [torch.Generator().manual_seed(seeds[i]) for i in numbers.tolist()]
            of_each = {name: rows[numbers // number] for name, rows in conditions.items()}
            images += self.postprocess(
                self._forward(
                    of_each,
                    num_images=len(numbers),
                    generator=generators,
                    **drawing,
                )
            )
        return [images[i : i + number] for i in range(0, total, number)]

    def _images_at_once(self, batch_size: int | None) -> int:
        """Return how many images one forward pass draws."""
        pixels = self.model.config.image_size**2
        return batch_size or max(1, min(LARGEST_BATCH, PIXELS_IN_A_BATCH // pixels))

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], ...]:
        """Return the options of reading, of drawing and of writing: all are of drawing."""
        known = (self.count, *OPTIONS, *self.drawing)
        for name in options:
            if name not in known:
                raise ValueError(
                    f"There is no option {name!r}. {suggestion(name, known)}Choose from: "
                    f"{', '.join(known)}."
                )
        return {}, options, {}

    def _forward(self, conditions: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        """Return images, (N, C, H, W) in [-1, 1]."""
        there = {name: rows.to(self.device) for name, rows in conditions.items()}
        images: torch.Tensor = self.model.sample(**there, **options)
        return images

    def postprocess(self, images: torch.Tensor) -> list[Any]:
        """Return images of PIL, one for each row of (N, C, H, W)."""
        pictures: list[Any] = self.model.to_pil(images)
        return pictures

    def _check_drawing(self, drawing: Mapping[str, Any]) -> None:
        """Check the options of the model's own.

        Raises:
            ValueError: With the option, its value and what is allowed.
        """
        truncation = drawing["truncation"]
        is_number = isinstance(truncation, int | float) and not isinstance(truncation, bool)
        if not is_number or not 0 < truncation <= 1:
            raise ValueError(
                f"truncation is {truncation!r}. It must be a number above 0, at most 1, which means "
                "no truncation."
            )

    @abstractmethod
    def preprocess(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return what the model is given for some inputs, a row for each.

        Raises:
            ValueError: If an input cannot be drawn.
        """

    @abstractmethod
    def _check_model(self) -> None:
        """Refuse a model that draws from something else."""

    @abstractmethod
    def _is_one(self, inputs: Any) -> bool:
        """Tell one input from many."""

    @abstractmethod
    def _wanted(self) -> str:
        """Say what the model draws from."""


class ClassToImagePipeline(ConditionalImagePipeline):
    """Draws images of classes or attributes, or of nothing in particular.

    A class is given by its name or its id. Attributes are given as a list of those that an image has,
    or as a dictionary {name: whether, or how much}. A model without labels takes nothing at all.
    """

    def _check_model(self) -> None:
        if self.model.config.conditioning == "text":
            raise ValueError(
                f'This model draws from texts. Use it with pipeline("text-to-{_medium(self)}", ...).'
            )
        _check_medium(self, "class")

    def _wanted(self) -> str:
        kind = self.model.config.conditioning
        if kind == "none":
            return "this model draws without a label. Leave it out."
        if kind == "class":
            return f"give a label, by name or number. {self._known()}"
        return f"give a list of attributes, or a dictionary {{name: value}}. {self._known()}"

    def _is_one(self, inputs: Any) -> bool:
        if inputs is None or isinstance(inputs, str | Mapping) or _is_number(inputs):
            return True
        if self.model.config.conditioning != "attributes":
            return False
        # A list of attributes is one input, a list of such lists or of dictionaries many.
        return isinstance(inputs, list | tuple) and all(
            isinstance(one, str) or _is_number(one) for one in inputs
        )

    def preprocess(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return the class labels of some inputs: (N,) ids, or (N, A) attributes in [0, 1].

        Raises:
            ValueError: If there is no such label.
        """
        kind = self.model.config.conditioning
        if kind == "none":
            for one in inputs:
                if one is not None:
                    raise ValueError(f"{one!r} was given, but {self._wanted()}")
            return {}
        if kind == "class":
            return {"class_labels": torch.tensor([self._id(one) for one in inputs]).long()}
        rows = [self._attributes(one) for one in inputs]
        num_labels = self.model.config.num_labels
        return {"class_labels": torch.tensor(rows, dtype=torch.float32).view(-1, num_labels)}

    def _id(self, label: Any) -> int:
        """Return the id of a label that is given by its name or its id.

        Raises:
            ValueError: With the known labels and the nearest one.
        """
        if isinstance(label, str):
            names = {name: index for index, name in self._names().items()}
            alike = [name for name in names if name.casefold() == label.casefold()]
            if label not in names and len(alike) == 1:
                label = alike[0]
            if label not in names:
                raise ValueError(
                    f"There is no label {label!r}. {suggestion(label, names)}{self._known()}"
                )
            return names[label]
        if not _is_number(label):
            raise ValueError(f"{label!r} is no label: {self._wanted()}")
        index = operator.index(label)
        last = self.model.config.num_labels - 1
        if not 0 <= index <= last:
            raise ValueError(f"There is no label {index}: ids go from 0 to {last}. {self._known()}")
        return index

    def _attributes(self, given: Any) -> list[float]:
        """Return one number in [0, 1] for each attribute of the model."""
        if isinstance(given, str) or _is_number(given):
            given = [given]
        if isinstance(given, list | tuple):
            given = dict.fromkeys(given, True)
        if not isinstance(given, Mapping):
            raise ValueError(f"{given!r} was given: {self._wanted()}")
        row = [0.0] * self.model.config.num_labels
        for label, value in given.items():
            index = self._id(label)
            if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
                raise ValueError(
                    f"The attribute {label!r} is {value!r}. Give True, False or a number between "
                    "0 and 1."
                )
            row[index] = float(value)
        return row

    def _names(self) -> dict[int, str]:
        """Return id -> name of every label."""
        id2label: dict[int, str] = self.model.config.id2label
        return {int(index): id2label[index] for index in sorted(id2label, key=int)}

    def _known(self) -> str:
        names = [repr(name) for name in self._names().values()]
        more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
        return f"This model knows: {', '.join(names[:LISTED_NAMES])}{more}."


class TextToImagePipeline(ConditionalImagePipeline):
    """Draws images of texts. A text that is longer than the model reads is cut, with a warning."""

    _load_tokenizer = True

    def _check_model(self) -> None:
        if self.model.config.conditioning != "text":
            raise ValueError(
                "This model does not read texts. Use it with "
                f'pipeline("class-to-{_medium(self)}", ...).'
            )
        _check_medium(self, "text")
        if self.tokenizer is None:
            raise ValueError("This model reads texts: give the tokenizer of its checkpoint.")

    def _wanted(self) -> str:
        return "a text was expected."

    def _is_one(self, inputs: Any) -> bool:
        return inputs is None or isinstance(inputs, str)

    def preprocess(self, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` of some texts, both (N, T).

        T is the model's longest text, so that nothing depends on the texts beside it.

        Raises:
            ValueError: If one is empty, or no text.
        """
        for index, text in enumerate(inputs):
            if not isinstance(text, str):
                raise ValueError(f"Prompt {index} is a {type(text).__name__}, and {self._wanted()}")
            if not text.strip():
                raise ValueError(f"Prompt {index} is empty: {text!r}. Give words to draw.")
        length = self.model.config.max_position_embeddings
        if not inputs:
            return {}
        self._warn_of_cut(inputs, length)
        encoded = self.tokenizer(
            list(inputs),
            padding="max_length",
            truncation=True,
            max_length=length,
            padding_side="right",
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _warn_of_cut(self, texts: Sequence[str], length: int) -> None:
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]]
        if cut := sum(found > length for found in lengths):
            warnings.warn(
                f"{cut} of {len(lengths)} prompts are longer than the {length} tokens that this model "
                "reads, and were cut.",
                stacklevel=2,
            )


def _medium(pipe: ConditionalImagePipeline) -> str:
    """Return what a GAN draws: `image` or `video`."""
    return "video" if pipe.model.config.is_video else "image"


def _check_medium(pipe: ConditionalImagePipeline, given: str) -> None:
    """Refuse a GAN that draws something else.

    Raises:
        ValueError: With the pipeline that would do.
    """
    medium = _medium(pipe)
    if pipe.count != f"num_{medium}s":
        raise ValueError(
            f'This model draws {medium}s. Use it with pipeline("{given}-to-{medium}", ...).'
        )


def _check_count(name: str, value: Any, default: int | None) -> None:
    """Check an option that counts something.

    Raises:
        ValueError: With the option, its value and what is allowed.
    """
    if (value is not None or default is not None) and (not _is_number(value) or value < 1):
        raise ValueError(f"{name} is {value!r}. It must be a whole number, at least 1.")


def _seeds(seed: int | Sequence[int] | None, num_inputs: int, num_images: int) -> list[int] | None:
    """Return the seed of each image, those of an input next to each other.

    Raises:
        ValueError: If one is no seed, or there are too few or too many.
    """
    if seed is None:
        return None
    if isinstance(seed, list | tuple):
        seeds = list(seed)
        if len(seeds) == num_images:
            seeds = seeds * num_inputs
    else:
        seeds = [seed]
        if _is_number(seed):
            first = operator.index(seed)
            seeds = [*range(first, first + num_images)] * num_inputs
    for one in seeds:
        if not _is_number(one) or not 0 <= one <= LARGEST_SEED:
            raise ValueError(
                f"seed is {one!r}. It must be a whole number from 0 to {LARGEST_SEED}, or a list with "
                "one for each image."
            )
    if len(seeds) != num_inputs * num_images:
        raise ValueError(
            f"{len(seeds)} seeds were given for {num_inputs * num_images} images. Give one number, "
            f"or {num_images} for the images of each input."
        )
    return [operator.index(one) for one in seeds]


def _is_number(value: Any) -> bool:
    """Tell a whole number, also one of numpy or torch, from everything else."""
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return a suggestion of the nearest known word, or nothing."""
    names = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), list(names), n=1)
    return f"Did you mean {names[close[0]]!r}? " if close else ""


__all__ = ["ClassToImagePipeline", "TextToImagePipeline"]
