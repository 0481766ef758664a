"""What the pages say can be typed: Python runs, command lines parse, presets exist, links lead somewhere."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_genmodels import cli
from hf_genmodels.config.run import CONFIG_NAME

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Parsers of the commands, as their modules import them.
PARSERS = ("parse_config", "parse_command")
PRESETS_OF = {
    "language-models": "lm",
    "lm-adversarial": "lm_adversarial",
    "seq2seq": "seq2seq",
    "gan": "gan",
}


class ParsedError(Exception):
    """A command line was understood; nothing was run."""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def command_lines() -> Iterator[Any]:
    """Every line of a page or the README that starts one of our commands, once."""
    seen = set()
    for page in (ROOT / "README.md", *PAGES):
        for block in blocks(page, "", "console"):
            for line in block.splitlines():
                line = line.removeprefix("$ ").strip()
                if line.startswith(("genmodels ", "accelerate launch ")) and line not in seen:
                    seen.add(line)
                    yield pytest.param(line, id=f"{page.stem}: {line}")


SNIPPETS = [
    pytest.param(text, id=f"{page.stem} {number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_python_runs_as_it_stands(snippet, published_demo, monkeypatch):
    monkeypatch.chdir(published_demo)
    module = types.ModuleType("page")  # where classes that it defines say they are from
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(snippet, "page", "exec"), vars(module))


@pytest.mark.parametrize("line", list(command_lines()))
def test_command_line_is_understood(line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)
    if words[0] == "genmodels":
        understand(words[1:], monkeypatch)
        return
    from accelerate.commands.launch import launch_command_parser

    monkeypatch.chdir(ROOT)
    launch = launch_command_parser().parse_args(words[2:])
    script = Path(launch.training_script)
    assert script.is_file()
    assert Path(launch.config_file).is_file()
    family = script.stem.removeprefix("train_")
    understand(["train", family, *launch.training_script_args], monkeypatch)


def understand(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Hand arguments to the command, and stop it when its own parser has taken them."""
    name = max((n for n in cli.COMMANDS if starts(arguments, n)), key=len, default=None)
    assert name is not None, f"there is no such command: {arguments}"
    if name == "tokenizer":
        return understand_tokenizer(arguments[1:], monkeypatch)
    if name == "env":
        assert arguments == ["env"]
        return None
    module = importlib.import_module(cli.COMMANDS[name][0])
    used = [parser for parser in PARSERS if hasattr(module, parser)]
    assert used, f"{name}: with what is it parsed?"
    for parser in used:
        monkeypatch.setattr(module, parser, stopping(getattr(module, parser)))
    if "--resume" in arguments:
        make_run(Path(arguments[arguments.index("--resume") + 1]), name)
    ends = pytest.raises(SystemExit, match=r"^0$") if "--help" in arguments else parsed()
    with ends:
        cli.main(arguments)
    return None


def parsed() -> Any:
    return pytest.raises(ParsedError)


def starts(arguments: list[str], name: str) -> bool:
    return arguments[: name.count(" ") + 1] == name.split()


def stopping(parse: Any) -> Any:
    def stop(*args: Any, **kwargs: Any) -> Any:
        parse(*args, **kwargs)
        raise ParsedError

    return stop


def understand_tokenizer(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_genmodels.training import train_tokenizer

    for verb in ("train", "import_gpt2", "inspect", "report"):
        original = getattr(train_tokenizer, verb)

        @functools.wraps(original)  # its signature makes the flags
        def stop(*args: Any, **kwargs: Any) -> None:
            raise ParsedError

        monkeypatch.setattr(train_tokenizer, verb, stop)
    with parsed():
        train_tokenizer.main(arguments)


def make_run(folder: Path, name: str) -> None:
    """Put options where a run would have left them."""
    folder.mkdir(parents=True)
    data = {
        "train lm": "english/train.txt",
        "train lm-adversarial": "english/train.txt",
        "train seq2seq": "english_spanish/train.parquet",
    }
    sample = data.get(name, "fashion_mnist/train.parquet")
    options = f"train_file: ['sample:{sample}']\n"
    if name == "train lm-adversarial":
        options += "model_name_or_path: runs/demo\n"
    (folder / CONFIG_NAME).write_text(options, encoding="utf-8")


@pytest.mark.parametrize("page", PRESETS_OF)
def test_every_preset_stands_in_the_table_of_its_family(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    table = text.split("| `--config` |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    presets = (ROOT / "training" / "configs" / PRESETS_OF[page]).glob("*.yaml")
    assert named == {path.stem for path in presets}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_and_pictures_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


MISTAKES = [
    "train lm --train_file two.csv --output_dir out --model.hiden_size 3",
    "train lm --train_file two.csv --output_dir out --config modren",
    "trian lm",
    "train lm --train_file two.csv --output_dir out --model.num_attention_heads 3",
    "train gan --train_file two.csv --output_dir out --mixed_precision fp16",
    "train lm --train_file novel.txt --output_dir out",
    "train lm --train_file bin.txt --output_dir out",
    "train lm --train_file two.csv --output_dir out --text_column text",
    "train seq2seq --train_source_file en.txt --train_target_file es.txt --output_dir out",
    "train seq2seq --train_file two.csv --output_dir out",
    "train seq2seq --train_file en.txt --output_dir out",
    "train gan --train_file pics --output_dir out",
    "train gan --train_file two.csv --output_dir out",
    "train lm --train_file en.txt --output_dir full",
    "train lm --resume runs/none",
    "generate runs/a/report Hello",
]


@pytest.mark.parametrize("line", MISTAKES)
def test_troubleshooting_quotes_what_is_said(line, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    Path("two.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    Path("en.txt").write_text("a\nb\nc\n", encoding="utf-8")
    Path("es.txt").write_text("a\nb\n", encoding="utf-8")
    Path("bin.txt").write_bytes(b"x" * 534 + b"\0")
    for folder in ("pics", "full/x", "runs/a/report"):
        Path(folder).mkdir(parents=True)
    with pytest.raises(SystemExit, match="2"):
        cli.main(shlex.split(line))
    said = capsys.readouterr().err.replace("`", "").strip().splitlines()[-1]
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [row.split("`")[1] for row in page.splitlines() if row.startswith("| `error: ")]
    parts = [text.split("...")[0].strip() for text in quoted]
    assert any(said.startswith(part) for part in parts), said


def test_files_that_pages_name_exist():
    folders = "benchmarks|training|hf_genmodels|tests"
    for page in PAGES:
        for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text(encoding="utf-8")):
            assert "NAME" in name or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_site_is_built_without_warnings_and_fetches_nothing(tmp_path):
    pytest.importorskip("material", reason="the extra docs is not installed")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {page.stem for page in PAGES} <= {page.stem for page in site.glob("*.html")}
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?:", text)


def test_every_page_stands_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    assert {page.name for page in PAGES} <= set(re.findall(r"[\w-]+\.md", navigation))
