"""Load a published folder as a stranger does. `verify` runs it as a script.

The interpreter is started with `-I`. Our package cannot be imported here even where it is installed,
and an audit hook, which nothing can take off again, refuses every connection and look-up of a name.
"""

import argparse
import hashlib
import importlib.abc
import json
import sys
import traceback
from pathlib import Path
from typing import Any

PACKAGE = "hf_genmodels"
NETWORK_EVENTS = {
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.getnameinfo",
    "socket.sendmsg",
    "socket.sendto",
}


class PackageBlocker(importlib.abc.MetaPathFinder):
    """Refuses to import our package."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        """Raise for our package; leave all others to the next finder."""
        if fullname.split(".")[0] == PACKAGE:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def close_doors() -> list[str]:
    """Forbid our package and the network.

    Returns:
        A list that every attempt to reach the network is added to, swallowed or not.
    """
    attempts: list[str] = []

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in NETWORK_EVENTS:
            attempts.append(f"{event} {arguments[1:]}")
            raise OSError(f"the network is closed: {event} {arguments[1:]}")

    sys.meta_path.insert(0, PackageBlocker())
    sys.addaudithook(refuse)
    return attempts


def check_folder(request: dict[str, Any], report: dict[str, Any]) -> None:
    """Load the folder through every Auto class and the pipeline.

    Args:
        request: What `verify` asks for: folder, companions, auto_classes, head, the file of its inputs,
            the name of its output and the file that takes it, text (or none), picture (or none) and the
            classes that load its processor, calls of pipelines (task, prompt and options of each), num_threads.
        report: Filled step by step, so that a failure tells how far it came.
    """
    report["step"] = "importing torch and transformers"
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(request["num_threads"])
    transformers.utils.logging.disable_progress_bar()
    folder = request["folder"]
    report["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}

    report["step"] = "AutoConfig"
    transformers.AutoConfig.from_pretrained(folder, trust_remote_code=request["remote_code"])
    if request["text"] is not None:
        report["step"] = "AutoTokenizer"
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=request["remote_code"]
        )
        report["text_ids"] = tokenizer(request["text"], verbose=False)["input_ids"]
        report["decoded"] = tokenizer.decode(report["text_ids"])

    report["pixels"] = {}
    for name in request["processors"]:
        report["step"] = name
        processor = getattr(transformers, name).from_pretrained(
            folder, trust_remote_code=request["remote_code"]
        )
        report["pixels"][name] = pixels_of(processor, request["picture"])

    for name in request["auto_classes"]:
        report["step"] = name
        model = load(getattr(transformers, name), request)
        if name == request["head"]:
            report["step"] = request["output"]
            with torch.no_grad():
                output = model(**load_file(request["inputs_file"]))[request["output"]]
            save_file({"output": output.contiguous()}, request["output_file"])
    for name in request["companions"]:
        report["step"] = name
        config = transformers.AutoConfig.from_pretrained(
            folder, subfolder=name, trust_remote_code=request["remote_code"]
        )
        load(getattr(transformers, list(config.auto_map)[-1]), request, subfolder=name)

    report["generated"] = []
    for call in request["calls"]:
        report["step"] = f"pipeline({call['task']!r})"
        pipe = transformers.pipeline(
            call["task"],
            model=folder,
            trust_remote_code=request["remote_code"],
            device="cpu",
        )
        transformers.set_seed(0)
        made = pipe(given(call["prompt"]), **call["options"])
        report["generated"].append([written(one) for one in made])


def given(prompt: Any) -> Any:
    """Return what a pipeline is given: a picture of random colours where one is described."""
    return random_picture(prompt) if isinstance(prompt, dict) else prompt


def random_picture(picture: dict[str, int]) -> Any:
    """Return a picture of random colours, of PIL.

    Args:
        picture: `size`, its height and width, and `seed`, that of its colours.
    """
    import numpy as np
    from PIL import Image

    shape = (picture["size"], picture["size"], 3)
    colours = np.random.default_rng(picture["seed"]).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(colours)


def pixels_of(processor: Any, picture: dict[str, int]) -> list[int]:
    """Return what an image processor makes of a picture of random colours.

    Args:
        processor: The processor.
        picture: See `random_picture`.
    """
    pixels: list[int] = processor(random_picture(picture))["pixel_ids"].flatten().tolist()
    return pixels


def load(auto_class: Any, request: dict[str, Any], **options: Any) -> Any:
    """Load a model of the folder, and make sure that no weights are missing."""
    model, info = auto_class.from_pretrained(
        request["folder"],
        trust_remote_code=request["remote_code"],
        output_loading_info=True,
        **options,
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        raise RuntimeError(f"weights do not fit: {info}")
    return model


def written(one: Any) -> str:
    """Return a text that a pipeline wrote, or the digest of an image or of each frame that it drew."""
    if isinstance(one, dict):
        return str(one["generated_text"])
    if isinstance(one, list):
        return "; ".join(written(frame) for frame in one)
    return f"{one.mode} {one.size} {hashlib.sha256(one.tobytes()).hexdigest()}"


def main() -> int:
    """Read the request, do what it says, write the report; exit with 1 if a step failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("request", type=Path)
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()
    request = json.loads(arguments.request.read_text(encoding="utf-8"))
    report: dict[str, Any] = {"step": "start", "error": None}
    attempts = close_doors()
    try:
        check_folder(request, report)
        if attempts:
            report["step"] = "working without the network"
            raise RuntimeError(f"the network was asked: {attempts}")
    except BaseException as error:
        report["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    arguments.report.write_text(json.dumps(report), encoding="utf-8")
    return 1 if report["error"] else 0


if __name__ == "__main__":
    sys.exit(main())
