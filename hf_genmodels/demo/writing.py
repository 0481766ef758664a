"""What the demo does with a language model: it writes on, and shows the text while it grows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.demo.checks import check_number, check_seed, check_text, check_whole
from hf_genmodels.inference.language_texts import encode_prompt, load, pad_token_id
from hf_genmodels.plain_text import printable

MOST_TOKENS = 1024
HOTTEST = 2.0


class Writer:
    """A language model that continues prompts.

    Args:
        source: Its folder, or the name of a repository on the hub.
        device: Where it computes; by default on the accelerator, if there is one.

    Raises:
        UserError: If it cannot be loaded.
    """

    def __init__(self, source: str | Path, device: str | None = None):
        self.model, self.tokenizer = load(GenerateOptions(str(source), device=device))
        self.longest = min(MOST_TOKENS, self.model.config.max_position_embeddings - 1)
        self.default_length = min(
            self.model.generation_config.max_new_tokens or self.longest, self.longest
        )
        self._turn = threading.Lock()  # seeds are those of the whole process

    def write(
        self, prompt: Any, length: Any, temperature: Any, top_p: Any, seed: Any = None
    ) -> Iterator[tuple[str, str]]:
        """Continue a prompt.

        Args:
            prompt: The text, which may be empty.
            length: Most tokens to write.
            temperature: From 0, always the likeliest token, to 2.
            top_p: In (0, 1].
            seed: Seed of the drawing; -1 or `None` for a random one.

        Yields:
            The text as it stands, prompt included, and a note about it.

        Raises:
            UserError: If something cannot work, before anything is written.
        """
        text = check_text("Prompt", prompt, empty=True)
        length = check_whole("Length", length, 1, self.longest)
        temperature = check_number("Temperature", temperature, 0, HOTTEST)
        top_p = check_number("Top-p", top_p, 0.01, 1)
        seed = check_seed(seed)
        ids = encode_prompt(self.model, self.tokenizer, text)
        room = self.model.config.max_position_embeddings - ids.shape[1]
        settings = {"max_new_tokens": min(length, room), **_settings(temperature, top_p)}
        written = text
        for piece in self._stream(ids, settings, seed):
            written += piece
            yield printable(written), ""
        note = f"seed {seed}" if temperature else ""
        if length > room:
            note = f"The model's context had room for {room:,} tokens. {note}".strip()
        yield printable(written), note

    def _stream(self, ids: Any, settings: dict[str, Any], seed: int) -> Iterator[str]:
        """Yield pieces of the continuation while another thread computes them.

        When nobody wants more of them, that thread ends after its next token.
        """
        import torch
        from transformers import TextIteratorStreamer, set_seed

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stopped = threading.Event()
        failures: list[BaseException] = []

        def compute() -> None:
            try:
                with self._turn:
                    set_seed(seed)
                    self.model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        pad_token_id=pad_token_id(self.tokenizer),
                        streamer=streamer,
                        stopping_criteria=[lambda rows, *_, **__: _all(rows, stopped.is_set())],
                        **settings,
                    )
            except BaseException as error:
                failures.append(error)
            finally:
                streamer.end()

        thread = threading.Thread(target=compute, daemon=True)
        thread.start()
        try:
            yield from streamer
            thread.join()
        finally:
            stopped.set()
        if failures:
            raise failures[0]


def _all(rows: Any, value: bool) -> Any:
    """Return a decision for each row of token ids, as transformers asks for it."""
    import torch

    return torch.full((rows.shape[0],), value, device=rows.device, dtype=torch.bool)


def _settings(temperature: float, top_p: float) -> dict[str, Any]:
    """Return the arguments of `generate`."""
    options = GenerateOptions("", temperature=temperature, top_p=top_p) if temperature else None
    options = options or GenerateOptions("", greedy=True)
    return {**options.to_kwargs(), "num_beams": 1}
