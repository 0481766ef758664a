"""How to run a folder of ONNX graphs, with numpy and onnxruntime alone."""

from __future__ import annotations

from typing import Any

from hf_genmodels.hub import card_text as text

_START = """\
---
library_name: onnx
tags:
- hf_genmodels
---

# {name}

{what}, written as ONNX by `genmodels export --format onnx`. It needs neither PyTorch nor transformers:
`pip install {libraries}`. Batches and lengths may have any size{limit}.

```python
{code}
```

{notes}
"""
_LANGUAGE_MODEL = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
model = onnxruntime.InferenceSession("{name}/model.onnx")
memory = [one for one in model.get_inputs() if one.name.startswith("past_key_values")]
past = {{one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in memory}}
text = tokenizer.encode("Once upon a time").ids
new = text
for _ in range(40):
    places = np.arange(len(text) - len(new), len(text))
    logits, *present = model.run(None, {{
        "input_ids": np.array([new]),
        "attention_mask": np.ones((1, len(text)), np.int64),
        "position_ids": places[None],
        **past,
    }})
    past = dict(zip(past, present))
    new = [int(logits[0, -1].argmax())]
    if new[0] in {ends}:
        break
    text = text + new
print(tokenizer.decode(text))"""
_SEQ2SEQ = """\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
target_tokenizer = {target}
encoder = onnxruntime.InferenceSession("{name}/encoder.onnx")
decoder = onnxruntime.InferenceSession("{name}/decoder.onnx")
source = np.array([tokenizer.encode("In the beginning").ids])
mask = np.ones_like(source)
(states,) = encoder.run(None, {{"input_ids": source, "attention_mask": mask}})
target = [{start}]
for _ in range(40):
    (logits,) = decoder.run(None, {{
        "input_ids": np.array([target]),
        "encoder_attention_mask": mask,
        "encoder_hidden_states": states,
    }})
    target.append(int(logits[0, -1].argmax()))
    if target[-1] in {ends}:
        break
print(target_tokenizer.decode(target))"""
_GENERATOR = """\
import numpy as np
import onnxruntime
from PIL import Image
{imports}
generator = onnxruntime.InferenceSession("{name}/generator.onnx")
noise = np.random.default_rng(0).standard_normal((8, {noise_dim}), np.float32)
{condition}(images,) = generator.run(None, {{"latents": noise{given}}})
pixels = ((images + 1) * 127.5).round().clip(0, 255).astype(np.uint8)  # 8, {shape}
{save}"""
_SAVE_IMAGE = 'Image.fromarray(pixels[0].{layout}).save("image.png")'
_SAVE_CLIP = """\
frames = [Image.fromarray(frame.{layout}) for frame in pixels[0]]
frames[0].save("clip.gif", save_all=True, append_images=frames[1:], duration=125, loop=0)"""
_TEXT_CONDITION = """\
tokenizer = Tokenizer.from_file("{name}/tokenizer.json")
encoded = tokenizer.encode("a red heart")
tokens = np.repeat([encoded.ids[:{longest}]], 8, axis=0)
"""


def onnx_readme(config: Any, name: str, has_target_tokenizer: bool) -> str:
    """Return the text of README.md.

    Args:
        config: The model's configuration.
        name: Name of the folder.
        has_target_tokenizer: Whether what it writes has a tokenizer of its own.
    """
    place = text.string(text.code(name))
    if config.model_type == "gen_gan":
        values = _of_generator(config, place)
    else:
        values = _of_text_model(config, place, has_target_tokenizer)
    libraries = ["onnxruntime", "numpy"]
    libraries += ["tokenizers"] * ("Tokenizer" in values["code"])
    libraries += ["pillow"] * ("PIL" in values["code"])
    return _START.format(name=text.inline(name), libraries=" ".join(libraries), **values)


def _of_text_model(config: Any, name: str, has_target_tokenizer: bool) -> dict[str, str]:
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    limit = f" up to {config.max_position_embeddings:,} tokens"
    if config.model_type == "gen_gpt":
        return {
            "what": "A language model",
            "limit": limit,
            "code": _LANGUAGE_MODEL.format(name=name, ends=ends),
            "notes": "The most likely token is taken at each step; draw from the softmax of "
            "`logits / temperature` instead to vary the text.\n`past_key_values` are empty in the "
            "first step. Of rows of unequal length pad the left side, with 0 in `attention_mask` "
            "and positions\nthat count from 0 at the first token.",
        }
    own = f'Tokenizer.from_file("{name}/target_tokenizer/tokenizer.json")'
    return {
        "what": "An encoder-decoder, as a graph for each half",
        "limit": limit,
        "code": _SEQ2SEQ.format(
            name=name,
            target=own if has_target_tokenizer else "tokenizer",
            start=config.decoder_start_token_id,
            ends=ends,
        ),
        "notes": "The decoder keeps nothing between steps: it is given the whole target each time, "
        "which is simple and slow for\nlong texts. `genmodels export --format ctranslate2` writes "
        "what is fast.",
    }


def _of_generator(config: Any, name: str) -> dict[str, str]:
    given, condition, imports = "", "", ""
    medium = "clips" if config.is_video else "images"
    notes = f"Multiply the noise by 0.7 for {medium} that are more typical and less varied."
    if config.conditioning == "class":
        given = ', "class_labels": np.arange(8) % ' + str(config.num_labels)
    elif config.conditioning == "attributes":
        condition = f"wanted = np.zeros((8, {config.num_labels}), np.float32)\nwanted[:, 0] = 1\n"
        given = ', "class_labels": wanted'
    elif config.conditioning == "text":
        imports = "from tokenizers import Tokenizer\n"
        condition = _TEXT_CONDITION.format(name=name, longest=config.max_position_embeddings)
        given = ', "input_ids": tokens, "attention_mask": np.ones_like(tokens)'
    if config.conditioning in ("class", "attributes"):
        labels = [f"{index}: `{text.code(str(n))}`" for index, n in sorted(config.id2label.items())]
        notes += f" The numbers of the {_kind(config)}: {', '.join(labels)}."
    channels = config.num_channels
    shape = [channels, config.image_size, config.image_size]
    save = _SAVE_CLIP if config.is_video else _SAVE_IMAGE
    code = _GENERATOR.format(
        name=name,
        noise_dim=config.noise_dim,
        shape=", ".join(map(str, [config.num_frames, *shape] if config.is_video else shape)),
        imports=imports,
        condition=condition,
        given=given,
        save=save.format(layout="squeeze()" if channels == 1 else "transpose(1, 2, 0)"),
    )
    return {"what": f"A generator of {medium}", "limit": "", "code": code, "notes": notes}


def _kind(config: Any) -> str:
    return "labels" if config.conditioning == "class" else "attributes"
