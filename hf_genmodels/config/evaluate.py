"""Options of `genmodels evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_genmodels.config.generate import Overlong
from hf_genmodels.data.sources import SampleBy
from hf_genmodels.errors import UserError, suggest

METRICS = ("bleu", "chrf", "rouge_l", "distinct_n")
_PAIRS = "It reads texts: --text_column names their column."
# Flags of one family -> what to do instead with the other one.
OF_LANGUAGE_MODELS = {
    "sample_by": "Line i of --source_file belongs to line i of --target_file.",
    "block_size": "",
    "stride": "",
    "batch_size": "",
    "max_tokens": "The first N pairs are measured with --max_pairs N.",
    "generate": "Every source is translated; --max_pairs N takes the first N.",
}
OF_SEQ2SEQ = {
    "source_file": "Give the text with --file.",
    "target_file": "Give the text with --file.",
    "source_column": _PAIRS,
    "target_column": _PAIRS,
    "source_lang": _PAIRS,
    "target_lang": _PAIRS,
    "split_at": "",
    "num_beams": "",
    "max_new_tokens": "",
    "max_pairs": "The length of the text is limited with --max_tokens.",
    "metrics": "Distinct-n and divergences of generated texts come with --generate N.",
    "bleu_tokenizer": "",
    "overlong": "",
}
OF_GANS = {
    "judge": "It compares images.",
    "num_samples": "",
    "truncation": "",
    "sweep": "",
    "image_column": "",
    "label_column": "",
    "attribute_columns": "",
    "sprite_size": "",
}
OF_PIXELS = dict.fromkeys(("temperature", "top_k", "top_p", "guidance_scale"), "")
# What a generator of images has no use for.
NOT_OF_GANS = {
    **OF_LANGUAGE_MODELS,
    **OF_SEQ2SEQ,
    "source_file": "Give the images with --file.",
    "target_file": "Give the images with --file.",
    **dict.fromkeys(("source_column", "target_column", "source_lang", "target_lang"), ""),
    "sample_by": "",
    "max_tokens": "",
    "generate": "Say with --num_samples how many images shall be drawn.",
    "max_pairs": "Say with --num_samples how many images shall be drawn.",
    "metrics": "All metrics of images are computed.",
    "int8": "",
    "unit": "",
    **OF_PIXELS,
}
# What a language model that draws has no use for.
NOT_OF_PIXELS = {
    **{
        name: hint
        for name, hint in NOT_OF_GANS.items()
        if name not in {*OF_PIXELS, "int8", "batch_size"}
    },
    "truncation": "How freely colours are drawn is said by --temperature, --top_k and --top_p.",
    "sweep": "",
}


@dataclass
class EvaluateOptions:
    """Options of `genmodels evaluate`."""

    model: str
    """Folder of the model."""

    file: list[str] = field(default_factory=list)
    """What to measure on: text, jsonl, csv or parquet files, or patterns; pairs stand in tables. Images:
    the real ones, in folders or tables."""

    source_file: list[str] = field(default_factory=list)
    """Sequence to sequence: text files of sources; line i belongs to line i of --target_file."""

    target_file: list[str] = field(default_factory=list)
    """Sequence to sequence: text files of references."""

    dataset_name: str | None = None
    """Dataset of a hub instead of files."""

    dataset_config_name: str | None = None
    """Configuration of the hub dataset."""

    split: str = "validation"
    """Split of the hub dataset."""

    text_column: str | None = None
    """Column that holds the text; by default `text`, or the only column of strings. Sequence to
    sequence: column of whole texts whose beginnings are continued."""

    source_column: str | None = None
    """Sequence to sequence: column of the sources. Columns and languages are by default those that the
    model was trained on, else `source` and `target`."""

    target_column: str | None = None
    """Sequence to sequence: column of the references."""

    source_lang: str | None = None
    """Sequence to sequence: language of the sources in a column `translation` of {language: text}."""

    target_lang: str | None = None
    """Sequence to sequence: language of the references."""

    split_at: float = 0.5
    """Sequence to sequence: part of a whole text that is its beginning."""

    sample_by: SampleBy = "document"
    """Language models: what is one document of a text file: document (the file), paragraph or line."""

    block_size: int | None = None
    """Language models: tokens in a window; by default the model's context."""

    stride: int | None = None
    """Language models: new tokens in each window; smaller is slower and gives every token more context."""

    batch_size: int = 8
    """Language models: windows, or pictures, in one forward pass."""

    max_tokens: int | None = None
    """Language models: stop after about so many tokens."""

    max_pairs: int | None = None
    """Sequence to sequence: measure on the first so many pairs."""

    generate: int = 0
    """Language models: texts to generate and compare with the real ones: distinct-n, n-gram divergences."""

    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    """Sequence to sequence: any of bleu, chrf, rouge_l, distinct_n."""

    bleu_tokenizer: str = "13a"
    """Sequence to sequence: how sacrebleu cuts words: 13a, intl, char, zh, ja-mecab, ..."""

    num_beams: int | None = None
    """Sequence to sequence: beams of the search; by default as generation_config.json says."""

    max_new_tokens: int | None = None
    """Sequence to sequence: longest result in tokens."""

    overlong: Overlong = "truncate"
    """Sequence to sequence: what happens to texts that are longer than the model's positions: truncate
    (counted; references for the scores stay whole) or error."""

    unit: str = "word"
    """What n-grams and ROUGE-L consist of: word or character."""

    seed: int = 0
    """Seed of the generated texts, or of the bootstrap."""

    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:1, mps."""

    int8: bool = False
    """Measure the model with 8-bit weights, as `genmodels generate --int8` runs it."""

    judge: str | None = None
    """Images: what compares them: folder of a judge (`genmodels train judge`), folder or hub id of any
    vision model of transformers, or file of Inception's weights. By default the judge that was trained
    on these images; where there is none, one is trained now and kept."""

    num_samples: int = 5000
    """Images: how many are drawn."""

    truncation: float = 1.0
    """Images: scales the noise, from above 0 to 1; smaller is more typical and less varied."""

    sweep: bool = True
    """Images: also measure with smaller truncations."""

    temperature: float = 1.0
    """Language models that draw: divides the logits; 0 always takes the likeliest colour."""

    top_k: int = 0
    """Language models that draw: likeliest colours that are drawn from; 0 for all."""

    top_p: float = 1.0
    """Language models that draw: smallest set of colours with this probability that is drawn from."""

    guidance_scale: float = 1.0
    """Language models that draw: classifier-free guidance; 1 is none, more follows the prompt closer."""

    image_column: str | None = None
    """Images: column of the images or of their file names."""

    label_column: str | None = None
    """Images: column of the classes. Columns are by default those that the model was trained on."""

    attribute_columns: list[str] = field(default_factory=list)
    """Images: columns of the attributes."""

    sprite_size: int | None = None
    """Clips: the real ones are images of this size that move; by default as the model was trained."""

    output: str | None = None
    """File for the results as JSON."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        for name, least in (
            ("block_size", 2),
            ("stride", 1),
            ("batch_size", 1),
            ("max_tokens", 1),
            ("max_pairs", 1),
            ("num_beams", 1),
            ("max_new_tokens", 1),
            ("num_samples", 2),
            ("temperature", 0),
            ("top_k", 0),
            ("guidance_scale", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} is {value}. It must be at least {least}.")
        if self.generate < 0:
            raise UserError(f"--generate is {self.generate}. It must be 0 or more.")
        if not 0 < self.truncation <= 1:
            raise UserError(f"--truncation is {self.truncation}. It must be above 0 and at most 1.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p is {self.top_p}. It must be above 0 and at most 1.")
        if self.unit not in ("word", "character"):
            raise UserError(f"--unit is {self.unit!r}. Choose from: word, character.")
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(
                    f"--metrics {name}: there is no such metric. {suggest(name, METRICS)}"
                    f"Choose from: {', '.join(METRICS)}."
                )
