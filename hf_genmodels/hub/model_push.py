"""`model.push_to_hub` for models of this package: with their code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import PushToHubMixin

from hf_genmodels.hub.folder import add_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _ModelWithCode(PushToHubMixin):
    """A model whose folder is loaded without this package."""

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def save_pretrained(self, save_directory: str, **options: Any) -> None:
        self.model.save_pretrained(save_directory, **options)
        add_code(self.model, Path(save_directory))


def push_model(model: PreTrainedModel, repo_id: str, **options: Any) -> str:
    """Upload a model with its code; its tokenizer has a `push_to_hub` of its own.

    Args:
        model: The model.
        repo_id: The repository, as user/name.
        **options: As for transformers' `push_to_hub`: private, revision, commit_message, token, ...

    Returns:
        Where the commit is.
    """
    return str(_ModelWithCode(model).push_to_hub(repo_id, **options))
