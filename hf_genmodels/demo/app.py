"""The demo's pages: one for each kind of model, found from the model's configuration."""

from __future__ import annotations

import functools
import html
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_genmodels.auto import Kind
from hf_genmodels.demo import checks, drawing, rewriting, writing
from hf_genmodels.demo.drawing import Painter
from hf_genmodels.demo.pixel_page import build_pixel_page
from hf_genmodels.demo.pixels import PixelPainter
from hf_genmodels.demo.rewriting import Rewriter
from hf_genmodels.demo.writing import Writer
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.card_text import inline
from hf_genmodels.hub.loading import model_kind, refuse_companion
from hf_genmodels.plain_text import printable

# Small images are shown large, with the pixels that they have.
CSS = "#images img { image-rendering: pixelated; width: 100%; height: 100%; object-fit: contain; }"
MOST_WAITING = 32  # requests
CACHE_SECONDS = 3600  # how long pictures are kept for the browser
BUTTONS = ["download", "fullscreen"]  # not "share", which uploads
SEED_INFO = f"Equal seeds give equal results. {checks.NEW_SEED}: a new one each time"


def open_gradio() -> Any:
    """Import gradio, which then reports to nobody.

    Raises:
        UserError: If it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    return require_extra("gradio", "demo")


def build_app(source: str | Path, device: str | None = None) -> Any:
    """Load a model and build its app.

    Args:
        source: Folder of a model, or the name of a repository on the hub.
        device: Where it computes; by default on the accelerator, if there is one.

    Returns:
        The app, a `gradio.Blocks` that is not started yet.

    Raises:
        UserError: If the model cannot be loaded or generates nothing, or gradio is not installed.
    """
    gradio = open_gradio()
    refuse_companion(source)
    kind = model_kind(source)
    if kind not in PAGES:
        raise UserError(f"'{source}' is a {kind}: it generates nothing that could be shown.")
    build_page, model_class = PAGES[kind]
    model = model_class(source, device)
    name = printable(Path(source).expanduser().resolve().name)
    app = gradio.Blocks(
        title=name, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)
    )
    with app:
        gradio.Markdown(f"# {inline(name)}")
        build_page(gradio, model)
    app.queue(max_size=MOST_WAITING, default_concurrency_limit=1)
    return app


def with_notices(gradio: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's mistake as a notice in the app; gradio reads notices as HTML.

    Args:
        gradio: The library.
        function: Does the work, and returns its result and a note (or nothing).
    """

    @functools.wraps(function)
    def call(*inputs: Any) -> Any:
        try:
            result, note = function(*inputs)
        except UserError as error:
            raise _notice(gradio, error) from None
        if note:
            gradio.Info(html.escape(printable(note)))
        return result

    return call


def _notice(gradio: Any, error: UserError) -> Exception:
    notice: Exception = gradio.Error(html.escape(printable(str(error))), print_exception=False)
    return notice


def _writing_page(gradio: Any, model: Writer) -> None:
    with gradio.Row():
        with gradio.Column():
            prompt = gradio.Textbox(
                label="Prompt",
                lines=4,
                max_length=checks.MOST_CHARACTERS,
                placeholder="A beginning; empty for a new text",
                elem_id="prompt",
            )
            length = gradio.Slider(
                1, model.longest, model.default_length, step=1, label="Length (tokens)"
            )
            temperature = gradio.Slider(
                0,
                writing.HOTTEST,
                0.8,
                step=0.05,
                label="Temperature",
                info="0: always the likeliest token",
            )
            top_p = gradio.Slider(0.01, 1, 0.95, step=0.01, label="Top-p")
            seed = _seed(gradio)
            write, stop = gradio.Button("Write", variant="primary"), gradio.Button("Stop")
        with gradio.Column():
            text = gradio.Textbox(label="Text", lines=16, interactive=False, elem_id="text")
            note = gradio.Textbox(label="Note", interactive=False, elem_id="note")

    def stream(*inputs: Any) -> Iterator[tuple[str, str]]:
        try:
            yield from model.write(*inputs)
        except UserError as error:
            raise _notice(gradio, error) from None

    event = gradio.on(
        [write.click, prompt.submit],
        stream,
        [prompt, length, temperature, top_p, seed],
        [text, note],
        api_name="write",
    )
    stop.click(None, cancels=[event], api_visibility="private")


def _rewriting_page(gradio: Any, model: Rewriter) -> None:
    with gradio.Row():
        with gradio.Column():
            source = gradio.Textbox(
                label="Text", lines=4, max_length=checks.MOST_CHARACTERS, elem_id="source"
            )
            beams = gradio.Slider(
                1,
                rewriting.MOST_BEAMS,
                model.default_beams,
                step=1,
                label="Beams",
                info="1: greedy search",
            )
            results = gradio.Slider(1, rewriting.MOST_BEAMS, 1, step=1, label="Results")
            rewrite = gradio.Button("Rewrite", variant="primary")
        with gradio.Column():
            best = gradio.Textbox(label="Best result", interactive=False, elem_id="best")
            table = gradio.Dataframe(
                headers=["Score", "Result"],
                datatype=["number", "str"],
                label="All results",
                interactive=False,
                wrap=True,
                elem_id="results",
            )
    outputs = [best, table]
    if model.draws_attention:
        outputs.append(
            gradio.Image(
                label="What each token of the best result looked at",
                format="png",
                interactive=False,
                buttons=BUTTONS,
                elem_id="attention",
            )
        )

    def run(*inputs: Any) -> tuple[list[Any], str]:
        made = model.rewrite(*inputs)
        table_rows = [[round(score, 4), text] for score, text in made.rows]
        return [made.rows[0][1], table_rows, made.attention][: len(outputs)], made.note

    gradio.on(
        [rewrite.click, source.submit],
        with_notices(gradio, run),
        [source, beams, results],
        outputs,
        api_name="rewrite",
    )


def _drawing_page(gradio: Any, model: Painter) -> None:
    with gradio.Row():
        with gradio.Column():
            given = _drawn(gradio, model)
            name = "Clips" if model.is_video else "Images"
            count = gradio.Slider(1, drawing.MOST_IMAGES, 16, step=1, label=name)
            truncation = gradio.Slider(
                drawing.SMALLEST_TRUNCATION,
                1,
                1,
                step=0.05,
                label="Truncation",
                info="Smaller: more typical, less varied",
            )
            seed = _seed(gradio)
            draw = gradio.Button("Draw", variant="primary")
        images = gradio.Gallery(
            label=name,
            columns=4,
            format="png",
            interactive=False,
            buttons=BUTTONS,
            elem_id="images",
        )
    inputs = [count, seed, truncation]
    if given is None:
        function = functools.partial(model.draw, None)
    else:
        function, inputs = functools.partial(model.draw), [given, *inputs]
    triggers = [draw.click, given.submit] if model.kind == "text" else [draw.click]
    gradio.on(triggers, with_notices(gradio, function), inputs, images, api_name="draw")


def _pixel_page(gradio: Any, model: PixelPainter) -> None:
    build_pixel_page(gradio, model, with_notices, _seed)


def _drawn(gradio: Any, model: Painter) -> Any:
    """Return the field for what is to be drawn; nothing for a model without conditions."""
    if model.kind == "text":
        return gradio.Textbox(
            label="Prompt", max_length=drawing.MOST_CHARACTERS, elem_id="prompt", max_lines=4
        )
    if model.kind == "class":
        return gradio.Dropdown(model.labels, value=0, label="Label", elem_id="label")
    if model.kind == "attributes":
        return gradio.CheckboxGroup(model.labels, label="Attributes", elem_id="label")
    return None


def _seed(gradio: Any) -> Any:
    return gradio.Number(checks.NEW_SEED, label="Seed", info=SEED_INFO, precision=0)


PAGES: dict[Kind, tuple[Callable[[Any, Any], None], Callable[..., Any]]] = {
    "language model": (_writing_page, Writer),
    "seq2seq": (_rewriting_page, Rewriter),
    "gan": (_drawing_page, Painter),
    "pixel model": (_pixel_page, PixelPainter),
}
