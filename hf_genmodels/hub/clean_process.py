"""Load a published folder as a stranger does. Run as a script by `verify`, never imported.

The interpreter is started with `-I`. Our package cannot be imported here even where it is installed,
and an audit hook, which nothing can take off again, refuses every connection and look-up of a name.
"""

import argparse
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
        request: What `verify` asks for: folder, auto_classes, head, task (or none), token_ids,
            target_ids, text, prompt, new_tokens, num_threads and the file that takes the logits.
        report: Filled step by step, so that a failure tells how far it came.
    """
    report["step"] = "importing torch and transformers"
    import torch
    import transformers
    from safetensors.torch import save_file

    torch.set_num_threads(request["num_threads"])
    transformers.utils.logging.disable_progress_bar()
    folder = request["folder"]
    report["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}

    report["step"] = "AutoConfig"
    transformers.AutoConfig.from_pretrained(folder, trust_remote_code=request["remote_code"])
    report["step"] = "AutoTokenizer"
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=request["remote_code"]
    )
    report["text_ids"] = tokenizer(request["text"])["input_ids"]
    report["decoded"] = tokenizer.decode(report["text_ids"])

    for name in request["auto_classes"]:
        report["step"] = name
        auto_class = getattr(transformers, name)
        model, info = auto_class.from_pretrained(
            folder, trust_remote_code=request["remote_code"], output_loading_info=True
        )
        if info["missing_keys"] or info["mismatched_keys"]:
            raise RuntimeError(f"weights do not fit: {info}")
        if name == request["head"]:
            report["step"] = "logits"
            targets = {}
            if request["target_ids"] is not None:
                targets = {"decoder_input_ids": torch.tensor(request["target_ids"])}
            with torch.no_grad():
                logits = model(torch.tensor(request["token_ids"]), **targets).logits
            save_file({"logits": logits.contiguous()}, request["logits_file"])

    report["generated"] = ""
    if not request["task"]:
        return
    report["step"] = f"pipeline({request['task']!r})"
    pipe = transformers.pipeline(
        request["task"],
        model=folder,
        trust_remote_code=request["remote_code"],
        device="cpu",
    )
    transformers.set_seed(0)
    new_tokens = request["new_tokens"]
    report["generated"] = pipe(request["prompt"], max_new_tokens=new_tokens)[0]["generated_text"]


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
