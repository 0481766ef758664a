"""The README's Python runs as it stands, on a small model in the place of the demo's."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme_snippet_runs(snippet, published_demo, monkeypatch, capsys):
    monkeypatch.chdir(published_demo)
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(("number", "family"), [(1, "seq2seq"), (2, "gan"), (3, "lm")])
def test_readme_names_presets_that_exist(number, family):
    table = README.read_text(encoding="utf-8").split("| `--config` |")[number].split("\n\n")[0]
    presets = Path(__file__).parents[2] / "training" / "configs" / family
    named = set(re.findall(r"`([a-z0-9-]+)`", table.split("\n", 2)[2].replace("make demo", "")))
    assert {path.stem for path in presets.glob("*.yaml")} <= named
