"""What the demo does with a sequence-to-sequence model: results with scores, and where it looked."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hf_genmodels.attention_map import draw_attention, token_labels
from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.demo.checks import check_text, check_whole
from hf_genmodels.errors import UserError
from hf_genmodels.inference.text_to_text import load_text_to_text
from hf_genmodels.models.decoding import Hypothesis
from hf_genmodels.plain_text import printable

MOST_BEAMS = 16
DEFAULT_BEAMS = 4


@dataclass(frozen=True)
class Rewritten:
    """What a model made of a text.

    Attributes:
        rows: Score and text of each result, the best one first.
        attention: What each token of the best result looked at, if the model tells.
        note: What the reader should know.
    """

    rows: list[tuple[float, str]]
    attention: Image.Image | None
    note: str


class Rewriter:
    """A model that makes one text of another.

    Args:
        source: Its folder, or the name of a repository on the hub.
        device: Where it computes; by default on the accelerator, if there is one.

    Raises:
        UserError: If it cannot be loaded.
    """

    def __init__(self, source: str | Path, device: str | None = None):
        self.system = load_text_to_text(str(source)).placed(device)
        has_attention = self.system.model.config.to_dict().get("attention") != "none"
        self.draws_attention = has_attention and importlib.util.find_spec("matplotlib") is not None
        beams = self.system.model.generation_config.num_beams or DEFAULT_BEAMS
        self.default_beams = min(beams, MOST_BEAMS)

    def rewrite(self, text: Any, num_beams: Any, num_results: Any = 1) -> Rewritten:
        """Make texts of a text.

        Args:
            text: The source.
            num_beams: Beams of the search; 1 is greedy search.
            num_results: Results, at most as many as beams.

        Raises:
            UserError: If something cannot work.
        """
        text = check_text("Text", text)
        beams = check_whole("Beams", num_beams, 1, MOST_BEAMS)
        results = check_whole("Results", num_results, 1, MOST_BEAMS)
        if results > beams:
            raise UserError(
                f"{results} results need as many beams, and there are {beams}. Raise the beams."
            )
        options = GenerateOptions("", num_beams=beams, n_best=results)
        encoded = self.system.encode_sources([text])
        (found,) = self.system.search(
            encoded.ids,
            options.to_settings(self.system.model.generation_config),
            return_scores=True,
            return_attention=self.draws_attention,
        )
        rows = [(one.score or 0.0, printable(self.system.decode_target(one.ids))) for one in found]
        note = ""
        if encoded.cut:
            note = f"The text is longer than the model's {self.system.limit:,} tokens and was cut."
        return Rewritten(rows, self._attention(encoded.ids[0], found[0]), note)

    def _attention(self, source_ids: list[int], best: Hypothesis) -> Image.Image | None:
        """Draw what each token of a result looked at; nothing for an empty result."""
        if best.attention is None or not len(best.attention):
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = draw_attention(
                Path(folder) / "attention.png",
                token_labels(self.system.tokenizers.source, source_ids),
                token_labels(self.system.tokenizers.target, best.ids),
                best.attention,
            )
            with Image.open(path) as picture:
                return picture.convert("RGB")
