"""Upload a published folder to a model hub: what belongs to it and nothing else, in one commit.

genmodels push runs/book user/book
genmodels push runs/book user/book --private
genmodels push runs/book user/book --revision v2 --message "Trained twice as long"
genmodels push runs/book user/book --dry_run
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hf_genmodels.auto import FAMILIES
from hf_genmodels.config.commands import parse_command
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import WEIGHTS, companion_names, published_files
from hf_genmodels.hub.loading import is_checkpoint, model_folder, run_folder
from hf_genmodels.hub.repository import check_login, check_repo_id, check_revision, explain

MAIN = "main"
CARD = "README.md"
# Folders that a published model has, and pictures that its card may show from others.
BELONGS = re.compile(
    r"([\w-]+/)?[\w.-]+\.(json|safetensors|py|md)|([\w-]+/)*[\w.-]+\.(png|jpe?g|gif|webp|svg)"
)


@dataclass(frozen=True)
class PushPlan:
    """What would be uploaded, and where to.

    Attributes:
        folder: The published folder.
        repo_id: The repository.
        revision: Its branch.
        sizes: Name of each file in the repository -> its bytes.
    """

    folder: Path
    repo_id: str
    revision: str
    sizes: Mapping[str, int]

    def __str__(self) -> str:
        """The files, one a line, and their sum."""
        lines = [f"{size:>14,}  {name}" for name, size in self.sizes.items()]
        total = f"{sum(self.sizes.values()):>14,}  bytes in {len(self.sizes)} files"
        return "\n".join([*lines, f"{total} of {self.folder} for {self.repo_id} ({self.revision})"])


@dataclass(frozen=True)
class PushReport:
    """What was uploaded.

    Attributes:
        plan: The files and their place.
        address: Where to look at it.
        commit: The commit that holds it.
        is_new: Whether there was anything that the hub had not.
    """

    plan: PushPlan
    address: str
    commit: str
    is_new: bool

    def __str__(self) -> str:
        """One line for the terminal."""
        what = f"{len(self.plan.sizes)} files, {sum(self.plan.sizes.values()):,} bytes"
        if not self.is_new:
            return f"nothing to upload: {self.address} holds these {what} already"
        return f"uploaded {what}, to {self.address} (commit {self.commit[:8]})"


def plan_push(folder: str | Path, repo_id: str, revision: str | None = None) -> PushPlan:
    """Check everything about an upload that can be checked without a network.

    Args:
        folder: A published folder: a run's output folder, an export, a judge.
        repo_id: The repository, as user/name.
        revision: Its branch; the main one by default.

    Returns:
        What would be uploaded.

    Raises:
        UserError: If this is no published folder, it is damaged or lacks a file that those who load
            it need, or the repository or the branch cannot be called so.
    """
    check_repo_id(repo_id)
    check_revision(revision)
    place = model_folder(folder)
    if is_checkpoint(place):
        raise UserError(
            f"'{place}' is a training state, which nobody can load. Push its run's folder: genmodels "
            f"push {run_folder(place)} {repo_id}, or make a model of it: genmodels export {place} OUT"
        )
    names = [path.as_posix() for path in published_files(place)]
    _check_complete(place, names)
    for name in names:
        if not BELONGS.fullmatch(name) or name.startswith("checkpoints/"):
            raise UserError(
                f"{CARD} in '{place}' shows '{name}', which has no place on a hub. Change the card."
            )
    sizes = {name: (place / name).stat().st_size for name in names}
    return PushPlan(place, repo_id, revision or MAIN, sizes)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
) -> PushReport:
    """Upload a published folder: the files that belong to the model, in one commit.

    The repository and the branch are made if need be. Files that the hub has already are not sent
    again; weights of an earlier upload that are not of this model any more are removed there. Nothing
    is changed in the folder.

    Args:
        folder: A published folder.
        repo_id: The repository, as user/name.
        private: Make it a private one. A public one that is there already is refused then.
        revision: The branch; the main one by default.
        token: The hub's token; by default HF_TOKEN or that of `hf auth login`.
        message: What the commit says.

    Returns:
        What was uploaded.

    Raises:
        UserError: If the folder cannot be published, nobody is logged in, or the upload failed: with
            what to do next, and without the token.
    """
    from huggingface_hub.errors import HTTPError

    plan = plan_push(folder, repo_id, revision)
    if token is None:
        check_login()
    before = _times(plan)
    try:
        report = _upload(plan, private, token, message or "Upload the model")
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise UserError(explain(error, repo_id, token)) from None
    if _times(plan) != before:
        raise UserError(
            f"'{plan.folder}' was written to while it was uploaded, so that {repo_id} may hold parts of "
            "two models. Upload it again."
        )
    return report


def _upload(plan: PushPlan, private: bool, token: str | None, message: str) -> PushReport:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    from hf_genmodels import __version__

    api = HfApi(token=token, library_name="hf_genmodels", library_version=__version__)
    api.create_repo(plan.repo_id, private=private or None, exist_ok=True)
    info = api.model_info(plan.repo_id)
    if private and not info.private:
        raise UserError(
            f"{plan.repo_id} is there already and everybody can read it. Nothing was uploaded. Make "
            "it private in its settings first, or leave out --private (in training: --hub_private)."
        )
    address = f"{api.endpoint}/{plan.repo_id}"
    if plan.revision != MAIN:
        api.create_branch(plan.repo_id, branch=plan.revision, exist_ok=True)
        info = api.model_info(plan.repo_id, revision=plan.revision)
        address += f"/tree/{plan.revision}"
    operations: list[Any] = [
        CommitOperationAdd(name, str(plan.folder / name)) for name in plan.sizes
    ]
    there = [file.rfilename for file in info.siblings or []]
    operations += [CommitOperationDelete(name) for name in _outdated(plan, there)]
    commit = api.create_commit(
        plan.repo_id,
        operations,
        commit_message=message,
        revision=plan.revision,
        parent_commit=info.sha,
    )
    return PushReport(plan, address, str(commit.oid), is_new=commit.oid != info.sha)


def _check_complete(folder: Path, names: Sequence[str]) -> None:
    """Check that a card and the model's code are there."""
    if CARD not in names:
        raise UserError(
            f"'{folder}' has no model card ({CARD}), so it was never published. Make a complete folder "
            f"of it: genmodels export {folder} OUT"
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] not in FAMILIES:
        return
    references = [*config.get("auto_map", {}).values()]
    references += [task["impl"] for task in config.get("custom_pipelines", {}).values()]
    missing = {f"{reference.split('.')[0]}.py" for reference in references} - set(names)
    if missing or not references:
        what = f": {min(missing)} is missing" if missing else ": its config.json has no auto_map"
        raise UserError(
            f"'{folder}' lacks the model's code{what}. Make it complete with: genmodels export "
            f"{folder} OUT"
        )


def _outdated(plan: PushPlan, there: Sequence[str]) -> list[str]:
    """Return weight files on the hub that would be loaded although they are of an earlier model."""
    places = {".", *companion_names(plan.folder)}
    return [
        name
        for name in there
        if name not in plan.sizes
        and WEIGHTS.fullmatch(PurePosixPath(name).name)
        and str(PurePosixPath(name).parent) in places
    ]


def _times(plan: PushPlan) -> list[tuple[str, int, int]]:
    """Return when each file was written, to see whether somebody did so meanwhile."""
    found = []
    for name in plan.sizes:
        file = plan.folder / name
        entry = file.stat() if file.is_file() else None
        found.append((name, entry.st_mtime_ns if entry else 0, entry.st_ino if entry else 0))
    return found


@dataclass
class PushOptions:
    """Options of `genmodels push`."""

    folder: str
    """The published folder."""

    repo_id: str
    """The repository."""

    private: bool = False
    """Make the repository a private one."""

    revision: str | None = None
    """Branch to upload to; it is made if need be."""

    message: str | None = None
    """What the commit says."""

    dry_run: bool = False
    """List the files and their sizes; ask no hub and upload nothing."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels push`.

    Args:
        argv: Arguments after the command; `None`: those of the process.
    """
    options = parse_command(
        PushOptions,
        argv,
        command="genmodels push",
        description="Upload a published folder to a model hub. The token is that of HF_TOKEN or of "
        "`hf auth login`.",
        positionals={
            "folder": "Output folder of a run, exported folder, or a judge.",
            "repo_id": "Repository, as user/name.",
        },
    )
    if options.dry_run:
        plan = plan_push(options.folder, options.repo_id, options.revision)
        sys.stdout.write(f"{plan}\n")
        return
    report = push_folder(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        message=options.message,
    )
    sys.stdout.write(f"{report}\n")


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
