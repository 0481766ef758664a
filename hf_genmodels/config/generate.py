"""Options of `genmodels generate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from hf_genmodels.errors import UserError
from hf_genmodels.models.video_files import FRAMES_PER_SECOND

if TYPE_CHECKING:
    from transformers import GenerationConfig

# Flags that are passed to `generate` as they are.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "num_beams")
OF_DRAWING = ("temperature", "top_k", "top_p", "min_p")
# Flags of one family -> what to do instead with the other one.
OF_LANGUAGE_MODELS = {"num_return_sequences": "The number of results is --n_best."}
OF_SEQ2SEQ = {
    "n_best": "The number of texts is --num_return_sequences.",
    "length_penalty": "",
    "source_column": "Its --file is a text file with a prompt on each line.",
    "source_lang": "Its --file is a text file with a prompt on each line.",
    "overlong": "",
    "attention": "",
    "show_draft": "",
}
OF_GANS = {
    "label": "",
    "num_images": "It writes texts.",
    "truncation": "How freely it draws is --temperature and --top_p.",
    "grid": "Texts are printed, or written with --output.",
    "interpolate": "",
    "frames": "",
    "num_videos": "",
    "frames_per_second": "",
}
OF_PIXELS = {
    "guidance_scale": "",
    "complete": "",
    "keep": "",
    "enlarge": "",
    "describe": "",
}
OF_VIDEOS = {"num_videos": "The number of images is --num_images.", "frames_per_second": ""}
NOT_OF_VIDEOS = {
    "num_images": "The number of clips is --num_videos.",
    "interpolate": "",
    "frames": "",
}
_NO_TOKENS = "What it draws is varied with --truncation and --seed."
# Flags of all models that write texts -> what to do instead with one that draws images.
OF_TEXTS = {
    "num_return_sequences": "The number of images is --num_images.",
    "n_best": "The number of images is --num_images.",
    "source_column": "Its --file is a text file with a prompt on each line.",
    "source_lang": "",
    "max_new_tokens": "",
    **dict.fromkeys((*SAMPLING, "greedy"), _NO_TOKENS),
    "length_penalty": "",
    "overlong": "",
    "attention": "",
    "show_draft": "",
    "int8": "",
}
# Flags that mean nothing to a language model that draws -> what to do instead.
NOT_OF_PIXELS = {
    "n_best": "The number of pictures is --num_images.",
    "min_p": "What is drawn is varied with --temperature, --top_k and --top_p.",
    "repetition_penalty": "",
    "num_beams": "",
    "length_penalty": "",
    "overlong": "",
    "attention": "",
    "show_draft": "",
    "source_column": "Its --file is a text file with a prompt on each line.",
    "source_lang": "",
    "truncation": "What is drawn is varied with --temperature, --top_k and --top_p.",
    "interpolate": "",
    "frames": "",
    "num_videos": "The number of pictures is --num_images.",
    "frames_per_second": "",
}
NOT_OF_DESCRIPTIONS = {
    "num_images": "The number of texts is --num_return_sequences.",
    "label": "How a text shall begin stands behind the folder.",
    "guidance_scale": "",
    "complete": "Do one after the other.",
    "keep": "",
    "enlarge": "Do one after the other.",
    "grid": "Texts are printed, or written with --output.",
    "file": "",
}
NOT_OF_PICTURES = {
    "num_return_sequences": "The number of pictures is --num_images.",
    "max_new_tokens": "",
}
OF_CLASSES = {"label": "It draws from texts: write them behind the folder."}
OF_PROMPTS = {"file": "It reads no texts: name what to draw with --label."}
# Rows of one batch, whose memory is claimed before the first token.
AT_ONCE = ("num_return_sequences", "n_best", "num_beams")
MOST_AT_ONCE = 10_000
SEEDS = 2**32  # of numpy's global generator
GRIDS = (".png",)
ANIMATIONS = (".gif", ".webp")
FASTEST = 100  # frames a second
LARGEST_SCALE = 100
_COUNTS = (
    "num_return_sequences",
    "n_best",
    "max_new_tokens",
    "num_beams",
    "num_images",
    "num_videos",
)
Overlong = Literal["truncate", "error"]


@dataclass
class GenerateOptions:
    """Options of `genmodels generate`. What is left out comes from generation_config.json."""

    model: str
    """Folder or hub id of the model."""

    prompts: list[str] = field(default_factory=list)
    """Texts to continue, to read or to draw. A language model starts a new text from none or an empty
    one. For a model that draws classes these are labels."""

    file: str | None = None
    """Text file with a prompt or a source on each line; sources also in a jsonl, csv or parquet table."""

    output: str | None = None
    """File to write instead of printing: JSON lines; for a sequence-to-sequence model also .txt, line i
    being the result of source i. Its work on a file goes on where it stopped when it is run again. For
    a model that draws, a new folder of numbered PNG files; for one that draws clips, a .gif, .webp or
    .mp4 with all of them side by side, or a new folder of numbered WebP files."""

    source_column: str | None = None
    """Sequence to sequence: column of the sources in a table; by default `source`, or the only text."""

    source_lang: str | None = None
    """Sequence to sequence: language of the sources in a column `translation` of {language: text}."""

    label: list[str] = field(default_factory=list)
    """Images: classes to draw, by name or number; by default all. Attributes that an image shall have
    together stand between commas."""

    num_images: int = 8
    """Images: how many for each label or prompt."""

    truncation: float = 1.0
    """Images: factor of the noise, above 0 and at most 1; smaller is more typical and less varied."""

    grid: str | None = None
    """Images: PNG file for a picture of all of them; rows are labels or prompts. Clips: rows are clips, and
    columns their frames."""

    interpolate: list[str] = field(default_factory=list)
    """Images: two labels or prompts, or with --label, a prompt or a model without labels two seeds. The
    way from one to the other is written to --grid: a .png, rows being noise, or a .gif or .webp."""

    complete: list[str] = field(default_factory=list)
    """Language models that draw: files of pictures whose upper part is kept and whose rest is drawn."""

    keep: float = 0.5
    """With --complete: part of the rows that is kept, from 0 to 1."""

    enlarge: list[str] = field(default_factory=list)
    """Language models that draw: files of small pictures to draw large. Large ones are made small first."""

    describe: list[str] = field(default_factory=list)
    """Language models that draw: files of pictures to write about. A prompt is how the texts begin."""

    guidance_scale: float | None = None
    """Language models that draw: 1 is the model itself, more follows the prompt closer, 0 leaves it out."""

    frames: int = 8
    """Images: pictures on the way of --interpolate, both ends included."""

    num_videos: int = 1
    """Clips: how many for each label or prompt."""

    frames_per_second: float = FRAMES_PER_SECOND
    """Clips: how fast they are shown."""

    num_return_sequences: int = 1
    """Language models: texts for each prompt."""

    n_best: int = 1
    """Sequence to sequence: results for each source, the best one first, with their scores."""

    max_new_tokens: int | None = None
    """Longest continuation or result in tokens."""

    temperature: float | None = None
    """Divides the logits: below 1 is safer, above 1 is wilder."""

    top_k: int | None = None
    """Draw from so many most likely tokens; 0 for all."""

    top_p: float | None = None
    """Draw from the smallest set of tokens with this probability."""

    min_p: float | None = None
    """Draw from tokens with at least this share of the likeliest one's probability."""

    repetition_penalty: float | None = None
    """Above 1: makes tokens that have occurred less likely."""

    num_beams: int | None = None
    """Beam search with so many beams, without drawing."""

    length_penalty: float | None = None
    """Sequence to sequence: power of the length that divides a beam's score; larger is longer."""

    greedy: bool = False
    """Always take the likeliest token, without drawing."""

    seed: int | None = None
    """Seed of the drawing; the same seed gives the same texts."""

    overlong: Overlong = "truncate"
    """Sequence to sequence: what happens to a source that is longer than the model's positions:
    truncate, with a warning, or error."""

    attention: str | None = None
    """Sequence to sequence: PNG file for a map of what each token of the result looked at, of one text."""

    show_draft: bool = False
    """Sequence to sequence: also show the first pass of a model that refines its draft."""

    int8: bool = False
    """Round the weights to 8 bits: several times faster on a CPU, slightly different texts."""

    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work, or options contradict each other.
        """
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}. It must be at least 1.")
            if value is not None and name in AT_ONCE and value > MOST_AT_ONCE:
                raise UserError(
                    f"--{name} is {value}. These are computed at once: at most {MOST_AT_ONCE:,}."
                )
        if self.seed is not None and not 0 <= self.seed < SEEDS:
            raise UserError(f"--seed is {self.seed}. It must lie between 0 and {SEEDS - 1}.")
        if self.top_k is not None and self.top_k < 0:
            raise UserError(f"--top_k is {self.top_k}. It must be 0 (all tokens) or more.")
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                hint = " For the likeliest tokens use --greedy." if name == "temperature" else ""
                raise UserError(f"--{name} is {value}. It must be positive.{hint}")
        if self.guidance_scale is not None and not 0 <= self.guidance_scale <= LARGEST_SCALE:
            raise UserError(
                f"--guidance_scale is {self.guidance_scale}. It must lie between 0 and {LARGEST_SCALE}."
            )
        if not 0 <= self.keep <= 1:
            raise UserError(f"--keep is {self.keep}. It must lie between 0 and 1.")
        if self.keep != type(self).keep and not self.complete:
            raise UserError("--keep is for --complete FILE, which was not given.")
        for name in ("top_p", "min_p", "truncation"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"--{name} is {value}. It must lie in (0, 1].")
        if not 0 < self.frames_per_second <= FASTEST:
            raise UserError(
                f"--frames_per_second is {self.frames_per_second}. It must be above 0 and at most "
                f"{FASTEST}."
            )
        self._check_search()
        self._check_interpolation()
        if self.file is not None and self.prompts:
            raise UserError("Prompts come either from the command line or from --file, not both.")

    def _check_interpolation(self) -> None:
        """Check where pictures go, and what lies between two of them."""
        if self.interpolate and len(self.interpolate) != 2:
            raise UserError(
                f"--interpolate goes from one label, prompt or seed to another, and "
                f"{len(self.interpolate)} were given: {self.interpolate}."
            )
        if self.frames < 2:
            raise UserError(f"--frames is {self.frames}. It must be at least 2, both ends.")
        if self.frames != type(self).frames and not self.interpolate:
            raise UserError("--frames counts the pictures of --interpolate, which was not given.")
        if self.interpolate and (self.grid is None or self.output is not None):
            raise UserError(
                "--interpolate writes to --grid FILE.png, .gif or .webp, and nothing else."
            )
        if self.grid is None:
            return
        suffix = PurePath(self.grid).suffix.lower()
        allowed = (*GRIDS, *ANIMATIONS) if self.interpolate else GRIDS
        if suffix not in allowed:
            raise UserError(
                f"--grid {self.grid}: its extension {suffix!r} is not known. Choose from: "
                f"{', '.join(allowed)}."
            )

    def _check_search(self) -> None:
        """Check the options that turn drawing off."""
        if not self.draws:
            given = "--greedy" if self.greedy else "--num_beams"
            for name in OF_DRAWING:
                if getattr(self, name) is not None:
                    raise UserError(f"{given} draws nothing, so --{name} has no meaning with it.")
            most = self.num_beams or 1
            for name in ("num_return_sequences", "n_best"):
                if getattr(self, name) > most:
                    raise UserError(
                        f"--{name} is {getattr(self, name)}, but without drawing there are only "
                        f"{most} different texts. Raise --num_beams, or draw."
                    )

    @property
    def draws(self) -> bool:
        """Whether a language model draws tokens at random."""
        return not self.greedy and (self.num_beams or 1) == 1

    def to_kwargs(self) -> dict[str, Any]:
        """Return the arguments of a language model's `generate`."""
        given = {name: getattr(self, name) for name in SAMPLING if getattr(self, name) is not None}
        given["num_return_sequences"] = self.num_return_sequences
        if self.draws:
            return {"do_sample": True, **given}
        # Settings for drawing that stand in generation_config.json would only cause warnings.
        return {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50, **given}

    def to_settings(self, default: GenerationConfig) -> dict[str, Any]:
        """Return the settings of `decode`, which searches unless an option of drawing was given.

        Args:
            default: The model's own settings.

        Raises:
            UserError: If --seed was given, but nothing is drawn, or --greedy with beams.
        """
        names = (*SAMPLING, "length_penalty", "max_new_tokens")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        given["num_return_sequences"] = self.n_best
        if any(name in given for name in OF_DRAWING):
            return {**given, "do_sample": True, "num_beams": 1}
        searches = self.greedy or self.num_beams is not None or self.n_best > 1
        if self.seed is not None and (searches or not default.do_sample):
            raise UserError(
                "--seed has no meaning where nothing is drawn. Leave it out, or draw with "
                "--temperature, --top_k, --top_p or --min_p."
            )
        if self.greedy:
            if (self.num_beams or 1) > 1:
                raise UserError("--greedy and --num_beams were given. Choose one of them.")
            return {**given, "do_sample": False, "num_beams": 1}
        if self.num_beams is None and self.n_best > 1:
            given["num_beams"] = max(default.num_beams or 1, self.n_best)
        return {**given, "do_sample": False} if searches else given
