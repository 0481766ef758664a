"""Try a model in the browser, or write the folder of a Space that does the same.

genmodels demo my-model
genmodels demo my-gan --port 8000
genmodels demo my-translator --space my-space --hub_model_id user/my-translator
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_genmodels.config.commands import parse_command
from hf_genmodels.demo.app import CSS, build_app, open_gradio
from hf_genmodels.demo.space import write_space
from hf_genmodels.errors import UserError

LOCAL = "127.0.0.1"
LARGEST_PORT = 65535


@dataclass
class DemoOptions:
    """Options of `genmodels demo`."""

    model: str
    """Folder or hub id of the model."""

    port: int | None = None
    """Port of the app; by default the first free one from 7860."""

    host: str = LOCAL
    """Address that the app listens at; 0.0.0.0 lets in everybody who can reach this machine."""

    share: bool = False
    """Also give the app a public address for 72 hours, through a server of gradio's makers, which sees
    what is sent. Everybody who knows the address can use the model."""

    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    space: str | None = None
    """Start nothing, and write a folder for a Hugging Face Space: a new or empty one."""

    hub_model_id: str | None = None
    """With --space: where the model is on the hub, user/name, if it was given as a folder."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work, or options contradict each other.
        """
        if self.port is not None and not 1 <= self.port <= LARGEST_PORT:
            raise UserError(f"--port is {self.port}. It must be from 1 to {LARGEST_PORT}.")
        if self.space is None and self.hub_model_id is not None:
            raise UserError("--hub_model_id is for --space FOLDER, which was not given.")


def start(app: Any, options: DemoOptions) -> str:
    """Start an app in the background and return its address.

    Args:
        app: What `build_app` returned.
        options: Where it shall listen.

    Raises:
        UserError: If it cannot listen there, or cannot be shared.
    """
    try:
        _, local, public = app.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            prevent_thread_lock=True,
            inbrowser=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            css=CSS,
        )
    except (OSError, OverflowError) as error:
        where = f"{options.host}:{options.port or 7860}"
        raise UserError(
            f"The app cannot listen at {where}: {error}. Choose another --port or --host."
        ) from error
    if options.share and not public:
        app.close()
        raise UserError("--share: the server that gives public addresses cannot be reached.")
    return str(public or local)


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels demo`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If what was asked for cannot work.
    """
    options = parse_command(
        DemoOptions,
        argv,
        command="genmodels demo",
        description="Try a model of any family in the browser, or write the folder of a Space.",
        positionals={"model": "Folder or hub id of the model."},
    )
    if options.space is not None:
        folder = write_space(options.model, Path(options.space), options.hub_model_id)
        sys.stdout.write(f"wrote {folder}: app.py, requirements.txt, README.md\n")
        return
    open_gradio()  # before the model is loaded
    app = build_app(options.model, options.device)
    sys.stdout.write(f"{start(app, options)}  (stop with Ctrl-C)\n")
    sys.stdout.flush()
    try:
        threading.Event().wait()
    finally:
        app.close(verbose=False)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
