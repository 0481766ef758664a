"""Make texts of sources with a sequence-to-sequence model: a few, or a large file."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import set_seed

from hf_genmodels.attention_map import draw_attention, token_labels
from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.generate import OF_GANS, OF_LANGUAGE_MODELS, OF_PIXELS, GenerateOptions
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.data.source_texts import SourceTexts
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.inference.resumable_file import ResumableFile
from hf_genmodels.inference.text_to_text import TextToText, chunks, load_text_to_text, moving
from hf_genmodels.models.decoding import Hypothesis

# Sources that are sorted by length together, and written together.
CHUNK = 2048
FORMATS = (".txt", ".jsonl")


@dataclass(frozen=True)
class Result:
    """A source and what the model made of it.

    Attributes:
        source: The source.
        outputs: Texts, the best one first; a single empty one for an empty source.
        scores: Score of each text, see `Hypothesis`; `None` where none was computed.
        draft: First pass of a model that refines it, if it was asked for.
    """

    source: str
    outputs: list[str]
    scores: list[float | None]
    draft: str | None = None

    def lines(self) -> list[str]:
        """Return what is printed: the text, or each text behind its score."""
        shown = [" ".join(text.splitlines()) for text in self.outputs]
        if len(shown) > 1:
            shown = [
                text if score is None else f"{score:9.4f}  {text}"
                for score, text in zip(self.scores, shown, strict=True)
            ]
        if self.draft is not None:
            return [f"draft:    {self.draft}", *(f"refined:  {text}" for text in shown)]
        return shown

    def to_json(self) -> str:
        """Return a line of JSON."""
        fields = {"source": self.source, "outputs": self.outputs, "scores": self.scores}
        if self.draft is not None:
            fields["draft"] = self.draft
        return json.dumps(fields, ensure_ascii=False)


@dataclass(frozen=True)
class Rewritten:
    """Results of some sources.

    Attributes:
        results: The results, in the order of the sources.
        empty: How many sources were empty.
        cut: How many were cut to the model's positions.
    """

    results: list[Result]
    empty: int
    cut: int


class Rewriter:
    """What `genmodels generate` does with a sequence-to-sequence model, checked and loaded.

    Args:
        options: The model, the sources and how to search or draw.
        with_scores: Whether scores are wanted for a single result too.

    Raises:
        UserError: If something cannot be read, or options contradict each other or do not fit.
    """

    def __init__(self, options: GenerateOptions, *, with_scores: bool):
        refuse_options(
            options, OF_LANGUAGE_MODELS | OF_GANS | OF_PIXELS, "a sequence-to-sequence model"
        )
        self.options = options
        self.sources = SourceTexts(
            file=options.file,
            texts=options.prompts,
            column=options.source_column,
            language=options.source_lang,
        )
        self._check_attention()
        self.sources.check()
        self.system = load_text_to_text(options.model)
        self.settings = options.to_settings(self.system.model.generation_config)
        self._check_model()
        self.fingerprint = self.system.fingerprint()
        self.system = self.system.placed(options.device, int8=options.int8)
        self.with_scores = with_scores or options.n_best > 1
        self.total = self._count()

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results, for `ResumableFile`."""
        options = self.options
        return {
            "source": self.sources.digest(),
            "model": self.fingerprint,
            "settings": {
                **self.settings,
                "seed": options.seed,
                "overlong": options.overlong,
                "int8": options.int8,
                "show_draft": options.show_draft,
            },
        }

    def results(self, start: int = 0) -> Iterator[Rewritten]:
        """Yield the results, some thousand at a time, in the order of the sources.

        Args:
            start: Number of sources that are done already.
        """
        # Where results are printed, a bar would stand between them.
        disable = None if self.options.output else True
        with tqdm(total=self.total, initial=start, unit=" texts", disable=disable) as progress:
            texts = itertools.islice(self.sources, start, None)
            for chunk in chunks(texts, CHUNK):
                if self.options.seed is not None:
                    set_seed(mix_seed(self.options.seed, start) % 2**32)
                move = moving(progress)
                yield self._rewrite(chunk, start + 1, move)
                move(len(chunk))  # the empty ones too
                start += len(chunk)

    def _rewrite(self, texts: list[str], first: int, progress: Callable[[int], None]) -> Rewritten:
        """Return the results of some sources, of which the first one has a number."""
        full = [index for index, text in enumerate(texts) if text]
        encoded = self.system.encode_sources(
            [texts[index] for index in full],
            self.options.overlong,
            [first + index for index in full],
        )
        found = self.system.search(
            encoded.ids,
            self.settings,
            return_scores=self.with_scores,
            return_attention=self.options.attention is not None,
            progress=progress,
        )
        if self.options.attention is not None:
            _draw(self.system, encoded.ids[0], found[0][0], self.options.attention)
        drafts: list[str | None] = [None] * len(full)
        if self.options.show_draft:
            drafts[:] = self.system.drafts(encoded.ids, self.settings)
        results = [Result(text, [""], [None]) for text in texts]
        for index, hypotheses, draft in zip(full, found, drafts, strict=True):
            outputs = [self.system.decode_target(one.ids) for one in hypotheses]
            scores = [one.score for one in hypotheses]
            results[index] = Result(texts[index], outputs, scores, draft)
        return Rewritten(results, len(texts) - len(full), encoded.cut)

    def _count(self) -> int:
        """Return the number of sources; reads all of them, and so finds what cannot be read."""
        total, empty = 0, 0
        for chunk in chunks(iter(self.sources), CHUNK):
            if self.options.overlong == "error":
                self.system.encode_sources(chunk, "error", range(total + 1, total + len(chunk) + 1))
            total += len(chunk)
            empty += chunk.count("")
        if empty == total:
            raise UserError(f"--file {self.options.file} holds no text to read.")
        return total

    def _check_attention(self) -> None:
        if self.options.attention is None:
            return
        if len(self.options.prompts) != 1 or self.options.output is not None:
            raise UserError(
                "--attention draws the map of one text. Give one on the command line, and neither "
                "--file nor --output."
            )
        if self.options.n_best > 1:
            raise UserError("--attention draws the best result only. Leave out --n_best.")
        require_extra("matplotlib", "plots")

    def _check_model(self) -> None:
        """Check that the model has what is to be shown."""
        name, config = self.options.model, self.system.model.config.to_dict()
        if self.options.attention is not None and config.get("attention") == "none":
            raise UserError(f"--attention: '{name}' is a recurrent model without attention.")
        if not self.options.show_draft:
            return
        if not config.get("refinement_decoder"):
            raise UserError(
                f"--show_draft is for models with a refinement decoder; '{name}' has none, its first "
                "pass is its result."
            )
        if self.settings.get("do_sample"):
            raise UserError("--show_draft does not go with drawing: a draft would be another one.")


def rewrite(options: GenerateOptions) -> Iterator[Result]:
    """Make texts of sources.

    Args:
        options: The model, the sources and how to search or draw.

    Yields:
        The result of each source, in order.

    Raises:
        UserError: See `Rewriter`.
    """
    rewriter = Rewriter(options, with_scores=False)
    cut = 0
    for rewritten in rewriter.results():
        cut += rewritten.cut
        yield from rewritten.results
    _warn_of_cut(cut, rewriter.system.limit)


def rewrite_into(options: GenerateOptions, output: Path) -> str:
    """Make texts of sources and write them to a file, or go on with that.

    Args:
        options: The model, the sources and how to search or draw.
        output: The file: .txt, line i being the result of source i, or .jsonl, lines of `source`,
            `outputs` and `scores`.

    Returns:
        What was done, in words.

    Raises:
        UserError: See `Rewriter` and `ResumableFile`.
    """
    as_line = _check_output(options, output)
    rewriter = Rewriter(options, with_scores=output.suffix == ".jsonl")
    file = ResumableFile(output, {**rewriter.identity, "format": output.suffix})
    if file.done:
        sys.stderr.write(
            f"going on after the {file.done:,} sources whose results stand in {output}\n"
        )
    try:
        for rewritten in rewriter.results(file.done):
            lines = "".join(as_line(result) + "\n" for result in rewritten.results)
            count = len(rewritten.results)
            file.append(lines, count, empty=rewritten.empty, cut=rewritten.cut)
    except BaseException:
        file.close()
        raise
    file.finish()
    counts = file.counts
    _warn_of_cut(counts["cut"], rewriter.system.limit)
    empty = f" ({counts['empty']:,} of empty sources)" if counts["empty"] else ""
    return f"wrote the results of {file.done:,} sources{empty} to {output}"


def _check_output(options: GenerateOptions, output: Path) -> Callable[[Result], str]:
    """Return what makes a line of a result.

    Raises:
        UserError: If the file cannot hold what was asked for.
    """
    if output.suffix not in FORMATS:
        raise UserError(
            f"--output {output}: its extension {output.suffix!r} is not known. Choose .txt, line i "
            "being the result of source i, or .jsonl, with sources and scores."
        )
    if options.file is not None and output.resolve() == Path(options.file).expanduser().resolve():
        raise UserError(f"--output {output} is the file that is read. Choose another one.")
    if output.suffix == ".jsonl":
        return Result.to_json
    for name, given in (("n_best", options.n_best > 1), ("show_draft", options.show_draft)):
        if given:
            raise UserError(
                f"--{name} gives more than a line for each source, and a .txt has one. Choose a "
                ".jsonl file."
            )
    return lambda result: result.lines()[0]


def _draw(system: TextToText, source_ids: list[int], hypothesis: Hypothesis, path: str) -> None:
    """Draw what each token of a result looked at."""
    if hypothesis.attention is None or not len(hypothesis.attention):
        raise UserError("The result is empty: there is no attention to draw.")
    draw_attention(
        Path(path).expanduser(),
        token_labels(system.tokenizers.source, source_ids),
        token_labels(system.tokenizers.target, hypothesis.ids),
        hypothesis.attention,
    )


def _warn_of_cut(count: int, limit: int | None) -> None:
    if count:
        sys.stderr.write(
            f"note: {count:,} sources have more than the {limit:,} tokens that the model reads, and were "
            "cut. --overlong error refuses them instead.\n"
        )
