"""The demo's page of a language model that draws: a tab for each thing that it was trained for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hf_genmodels.demo import drawing, pixels
from hf_genmodels.demo.pixels import PixelPainter

Wrap = Callable[[Any, Callable[..., Any]], Callable[..., Any]]


def build_pixel_page(
    gradio: Any, model: PixelPainter, with_notices: Wrap, seed: Callable[[Any], Any]
) -> None:
    """Build the page.

    Args:
        gradio: The library.
        model: The model.
        with_notices: Shows the mistakes of a function's user as notices.
        seed: Makes the field of a seed.
    """
    with gradio.Accordion("How freely colours are drawn", open=False):
        how = [
            gradio.Slider(1, pixels.MOST_PICTURES, 8, step=1, label="Pictures"),
            seed(gradio),
            gradio.Slider(
                0,
                pixels.HOTTEST,
                1,
                step=0.05,
                label="Temperature",
                info="0: always the likeliest colour",
            ),
            gradio.Slider(
                0,
                pixels.LARGEST_SCALE,
                1,
                step=0.25,
                label="Guidance",
                info="Above 1: follows the prompt closer",
            ),
            gradio.Slider(pixels.SMALLEST_TOP_P, 1, 1, step=0.05, label="Top-p"),
        ]

    def tab(title: str, name: str, function: Any, fields: list[Any], output: Any) -> None:
        button = gradio.Button(title, variant="primary")
        inputs = fields if name == "describe" else [*fields, *how]
        button.click(with_notices(gradio, function), inputs, output, api_name=name)

    with gradio.Tab("Draw"):
        prompt = _prompt(gradio, model)
        tab("Draw", "draw", model.draw, [prompt], _gallery(gradio, "images"))
    with gradio.Tab("Complete"):
        fields = [_picture(gradio), _prompt(gradio, model)]
        fields.append(gradio.Slider(0, 1, 0.5, step=0.05, label="Keep", info="Part of the rows"))
        tab("Complete", "complete", model.complete, fields, _gallery(gradio, "completed"))
    if "image-super-resolution" in model.pipes:
        with gradio.Tab("Enlarge"):
            picture = _picture(gradio)
            tab("Enlarge", "enlarge", model.enlarge, [picture], _gallery(gradio, "enlarged"))
    if "image-to-caption" in model.pipes:
        with gradio.Tab("Describe"):
            fields = [_picture(gradio), gradio.Textbox(label="Beginning of the text")]
            text = gradio.Textbox(label="Text", interactive=False, elem_id="caption")
            tab("Describe", "describe", model.describe, fields, text)


def _prompt(gradio: Any, model: PixelPainter) -> Any:
    if model.labels:
        return gradio.Dropdown([("", ""), *model.labels], value=model.labels[0][1], label="Label")
    return gradio.Textbox(label="Prompt", max_length=drawing.MOST_CHARACTERS, max_lines=4)


def _picture(gradio: Any) -> Any:
    return gradio.Image(label="Picture", type="pil", image_mode=None, sources=["upload"])


def _gallery(gradio: Any, name: str) -> Any:
    return gradio.Gallery(
        label="Pictures", columns=4, format="png", interactive=False, elem_id=name
    )
