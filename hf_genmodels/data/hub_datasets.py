"""Tables that `datasets.load_dataset` reads, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_genmodels.data.columns import root
from hf_genmodels.errors import UserError, require_extra

_SAMPLE_ROWS = 100
_VALIDATION_SPLITS = ("validation", "valid", "dev", "test")


@dataclass(frozen=True)
class HubDataset:
    """One split of a dataset.

    Attributes:
        name: Name of a hub dataset, or a local folder that `datasets.load_dataset` reads.
        config_name: Name of its configuration, if it has several.
        split: Name of the split.
    """

    name: str
    config_name: str | None
    split: str

    def __str__(self) -> str:
        return f"the split {self.split!r} of the dataset {self.name!r}"

    def check_name(self) -> None:
        """Refuse a file, which is given otherwise.

        Raises:
            UserError: If the name is a file's.
        """
        if Path(self.name).expanduser().is_file():
            raise UserError(
                f"{self.name!r} is a file, and --dataset_name wants the name of a dataset. "
                "Give files with --train_file."
            )

    def sample(self) -> list[dict[str, Any]]:
        """Return a row that shows the types of the columns, or some rows where they are unknown.

        Raises:
            UserError: If there is no such dataset, configuration or split.
        """
        with _dataset_errors(self.name):
            dataset = self._load(streaming=True)
            rows = [dataset.features] if dataset.features else list(dataset.take(_SAMPLE_ROWS))
        return [_example(row) for row in rows]

    def rows(self, paths: Sequence[str], streaming: bool) -> Iterator[Mapping[str, Any]]:
        """Yield the rows in order.

        Args:
            paths: Fields that are needed; only their columns are read.
            streaming: Read over the network instead of downloading first.

        Raises:
            UserError: As `sample`.
        """
        with _dataset_errors(self.name):
            dataset = self._load(streaming)
            names = dataset.column_names
            if names:
                dataset = dataset.select_columns(sorted({root(path, names) for path in paths}))
            yield from dataset

    def undecoded(self) -> Any:
        """Return the whole split as a `datasets.Dataset` whose images are files.

        Raises:
            UserError: As `sample`.
        """
        datasets = require_extra("datasets", "train")
        with _dataset_errors(self.name):
            dataset = self._load(streaming=False)
            for name, feature in dataset.features.items():
                if isinstance(feature, datasets.Image):
                    dataset = dataset.cast_column(name, datasets.Image(decode=False))
        return dataset

    def identity(self) -> list[Any]:
        """Return what stands for the content in a fingerprint, JSON-able."""
        datasets = require_extra("datasets", "train")
        with _dataset_errors(self.name):
            builder = datasets.load_dataset_builder(self.name, self.config_name)
        return [self.name, self.config_name, self.split, builder.hash]

    def _load(self, streaming: bool) -> Any:
        datasets = require_extra("datasets", "train")
        return datasets.load_dataset(
            self.name, self.config_name, split=self.split, streaming=streaming
        )


def _example(features: Any) -> Any:
    """Turn the types of a dataset's columns into a row of such types; values stay as they are."""
    if isinstance(features, Mapping):
        return {name: _example(feature) for name, feature in features.items()}
    if isinstance(features, require_extra("datasets", "train").Translation):
        return dict.fromkeys(features.languages, "")
    return "" if getattr(features, "dtype", None) in ("string", "large_string") else features


@contextmanager
def _dataset_errors(name: str) -> Iterator[None]:
    """Turn what `datasets` raises for a wrong name, configuration or split into a UserError."""
    datasets = require_extra("datasets", "train")
    try:
        yield
    except UserError:
        raise
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The dataset {name!r} cannot be loaded: {reason}. "
            "Check --dataset_name, --dataset_config_name and the split; files on this machine are "
            "given with --train_file."
        ) from error


def validation_split(name: str, config_name: str | None) -> str | None:
    """Return the name of the split that a dataset keeps for validation, if there is one.

    Args:
        name: Name of the dataset.
        config_name: Name of its configuration, if it has several.

    Raises:
        UserError: If there is no such dataset or configuration.
    """
    datasets = require_extra("datasets", "train")
    with _dataset_errors(name):
        splits = datasets.get_dataset_split_names(name, config_name)
    return next((split for split in _VALIDATION_SPLITS if split in splits), None)
