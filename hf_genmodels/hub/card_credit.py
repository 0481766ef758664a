"""Credit for the bundled samples, as their licences ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources

from hf_genmodels.config.run import SAMPLE

_ITEM = re.compile(r"^- (.*(?:\n  .*)*)", re.MULTILINE)
_NOTICE = re.compile(r", whose notice stands in `LICENSE`")


def credit_of(files: Iterable[str]) -> str:
    """Return who made bundled data and under which licence, in Markdown: what their READMEs say.

    Args:
        files: What a run was trained on; only names that begin with `sample:` count.
    """
    names = {name.removeprefix(SAMPLE).split("/")[0] for name in files if name.startswith(SAMPLE)}
    samples = resources.files("hf_genmodels").joinpath("samples")
    lines: list[str] = []
    for name in sorted(names):
        file = samples.joinpath(name).joinpath("README.md")
        if not file.is_file():
            continue
        items = (" ".join(item.split()) for item in _ITEM.findall(file.read_text("utf-8")))
        lines += [f"- {_NOTICE.sub('', item)}" for item in items]
    return "\n".join(dict.fromkeys(lines))
