"""From the command line and YAML to dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from hf_genmodels.config.commands import parse_command
from hf_genmodels.config.flags import explain
from hf_genmodels.config.parser import parse_config, write_yaml
from hf_genmodels.config.run import (
    ExampleBatchConfig,
    RunConfig,
    TextDataConfig,
    check_new_folder,
    seconds_of,
)
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from hf_genmodels.config.gan import TrainGANConfig


@dataclass
class Inner:
    """A section."""

    rate: float = 0.1
    """How fast."""

    names: list[str] = field(default_factory=lambda: ["a"])
    """What."""


@dataclass
class Outer:
    """Options."""

    output_dir: str | None = None
    """Where."""

    resume: str | None = None
    """What to go on with."""

    steps: int = 10
    """How long."""

    fast: bool = False
    """Whether."""

    files: list[str] = field(default_factory=list)
    """Which."""

    inner: Inner = field(default_factory=Inner)
    """More."""


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "small.yaml").write_text("steps: 3\ninner:\n  rate: 0.5\n")
    (folder / "large.yaml").write_text("steps: 300\n")
    return folder


def parse(*arguments: str, presets: Path | None = None, default: str | None = None) -> Outer:
    return parse_config(
        Outer, arguments, command="try", description="Try.", presets=presets, default_preset=default
    )


def test_defaults_presets_and_flags_win_in_this_order(presets: Path):
    assert parse() == Outer()
    assert parse("--config", "small", presets=presets).inner.rate == 0.5
    assert parse(presets=presets, default="small").steps == 3
    chosen = parse("--steps", "4", "--config=small", presets=presets, default="large")
    assert chosen.inner.rate == 0.5


@pytest.mark.parametrize("order", [0, 1])
def test_a_flag_wins_over_the_file_on_either_side_of_it(order: int, presets: Path):
    words = [["--steps", "4"], ["--config", "small"]]
    parsed = parse(*words[order], *words[1 - order], presets=presets)
    assert parsed.steps == 4


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--files", "a", "b"], ["a", "b"]),
        (["--files", "a", "--files", "b"], ["a", "b"]),
        (["--files=a"], ["a"]),
        (["--files", '["a", "b c"]'], ["a", "b c"]),
        (["--files", "a b", "-"], ["a b", "-"]),
        (["--files", "*.txt", "--fast"], ["*.txt"]),
        (["--files", "null", "1", "{x: 1}"], ["null", "1", "{x: 1}"]),
    ],
)
def test_lists_are_written_without_brackets(arguments: list[str], files: list[str]):
    assert parse(*arguments).files == files


def test_switches_stand_alone_or_with_a_value():
    assert parse("--fast").fast is True
    assert parse("--fast", "false").fast is False
    assert parse("--fast=true", "--steps", "2") == Outer(fast=True, steps=2)


def test_numbers_may_be_negative_and_sections_are_dotted():
    parsed = parse("--inner.rate", "-1e-3", "--inner.names", "x", "y")
    assert parsed.inner == Inner(rate=-1e-3, names=["x", "y"])


def test_dashes_and_underscores_mean_the_same(tmp_path: Path):
    assert parse("--output-dir", str(tmp_path)).output_dir == str(tmp_path)


def test_a_wrong_choice_is_answered_with_the_choices():
    message = (
        "Parser key \"data.resize\":\n  Expected a typing.Literal['crop', 'pad']. Got value: cut"
    )

    said = explain(message, ["data.resize"], "genmodels train gan")

    assert said.startswith("--data.resize is 'cut'. Allowed: crop, pad. ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stepz", "3"], ["stepz", "Did you mean '--steps'?", "try --help"]),
        (["--inner.rat", "3"], ["inner.rat", "Did you mean '--inner.rate'?"]),
        (["--rate", "3"], ["rate", "Did you mean '--inner.rate'?"]),
        (["--steps", "many"], ["--steps is 'many'. It must be a whole number."]),
        (["--steps"], ["--steps"]),
        (["--inner.rate", "fast"], ["--inner.rate is 'fast'. It must be a number."]),
        (["--fast", "perhaps"], ["perhaps"]),
        (["stray"], ["stray"]),
        (["--config", "nowhere"], ["--config nowhere"]),
        (["--config"], ["--config needs"]),
        (["--resume", "nowhere"], ["--resume nowhere", "no run in this folder"]),
    ],
)
def test_mistakes_are_one_clear_message(arguments: list[str], words: list[str]):
    with pytest.raises(UserError) as error:
        parse(*arguments)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_what_was_written_is_read_again(tmp_path: Path):
    config = Outer(output_dir=str(tmp_path), files=["é: 1", "null", "- x"], inner=Inner(rate=1e-5))
    write_yaml(config, tmp_path / "config.yaml")
    assert parse("--config", str(tmp_path / "config.yaml")) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_resumed_run_starts_from_its_own_options(tmp_path: Path, presets: Path):
    write_yaml(Outer(steps=7, files=["a"]), tmp_path / "config.yaml")
    parsed = parse("--resume", str(tmp_path), "--fast", presets=presets, default="small")
    assert parsed == Outer(steps=7, files=["a"], fast=True, resume=str(tmp_path))


def test_every_preset_is_a_valid_configuration():
    from hf_genmodels.config.lm import TrainLMConfig

    presets = Path(__file__).parents[2] / "training" / "configs" / "lm"
    names = sorted(path.stem for path in presets.glob("*.yaml"))
    assert "modern" in names
    for name in names:
        more = yaml.safe_load((presets / f"{name}.yaml").read_text())
        arguments = ["--config", name, "--train_file", "a.txt"]
        if more.get("lora"):
            arguments += ["--model_name_or_path", "folder"]
        parsed = parse_config(
            TrainLMConfig, arguments, command="try", description="", presets=presets
        )
        assert parsed.max_steps >= 1


def test_every_preset_of_pairs_is_a_valid_configuration():
    from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
    from hf_genmodels.data.seq2seq import pair_sources

    presets = Path(__file__).parents[2] / "training" / "configs" / "seq2seq"
    for preset in sorted(presets.glob("*.yaml")):
        bundled = "train_file" in yaml.safe_load(preset.read_text())
        arguments = ["--config", preset.stem]
        if not bundled:
            arguments += ["--train_file", "sample:dialogue/train.jsonl"]
        parsed = parse_config(
            TrainSeq2SeqConfig, arguments, command="try", description="", presets=presets
        )
        train, validation = pair_sources(parsed)
        assert next(train.pairs()).target
        assert (validation is not None) == bundled


def test_bundled_pairs_of_a_preset_give_way_to_the_users():
    from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig

    presets = Path(__file__).parents[2] / "training" / "configs" / "seq2seq"

    def parsed(*flags: str) -> TrainSeq2SeqConfig:
        arguments = ["--config", "poems", *flags]
        return parse_config(
            TrainSeq2SeqConfig, arguments, command="try", description="", presets=presets
        )

    own = parsed("--train_file", "mine.jsonl")
    assert (own.train_file, own.validation_file) == (["mine.jsonl"], [])
    hub = parsed("--dataset_name", "user/poems")
    assert (hub.train_file, hub.validation_file) == ([], [])
    assert own.text_column == hub.text_column == "content"


GAN_PRESETS = Path(__file__).parents[2] / "training" / "configs" / "gan"


def gan_preset(name: str, *flags: str) -> TrainGANConfig:
    from hf_genmodels.config.gan import TrainGANConfig

    arguments = ["--config", name, *flags]
    return parse_config(
        TrainGANConfig, arguments, command="try", description="", presets=GAN_PRESETS
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in GAN_PRESETS.glob("*.yaml")))
def test_every_preset_of_images_is_a_valid_configuration_of_data_that_are_there(name: str):
    from hf_genmodels.config.parser import model_config_of
    from hf_genmodels.data.image_sources import image_sources
    from hf_genmodels.models.configuration_gan import GenGANConfig

    bundled = "train_file" in yaml.safe_load((GAN_PRESETS / f"{name}.yaml").read_text())
    own = () if bundled else ("--train_file", "sample:fashion_mnist/train.parquet")
    parsed = gan_preset(name, *own)
    train, validation = image_sources(parsed, parsed.model.conditioning)
    assert (validation is not None) == bundled
    kind = parsed.model.conditioning or train.tables[0].kind
    model = model_config_of(
        GenGANConfig, parsed.model, "model", image_size=parsed.image_size, conditioning=kind
    )
    assert model.image_size == parsed.image_size
    assert parsed.max_steps >= 1
    assert 0.9 < parsed.ema_decay < 1


def test_there_is_a_preset_of_images_for_each_of_these():
    names = {path.stem for path in GAN_PRESETS.glob("*.yaml")}
    assert names >= {"mlp-digits", "dcgan-fashion", "modern-fashion", "dcgan-64", "text-emoji"}


def test_bundled_images_of_a_preset_give_way_to_the_users():
    own = gan_preset("modern-fashion", "--train_file", "my_images/")
    assert (own.train_file, own.validation_file) == (["my_images/"], [])
    hub = gan_preset("modern-fashion", "--dataset_name", "user/images")
    assert (hub.train_file, hub.validation_file) == ([], [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (" 2h ", 7200),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1d", "m30", "-5s", "1:30"])
def test_what_is_no_duration(text: str):
    with pytest.raises(UserError, match="not a duration"):
        seconds_of(text)


def test_defaults_follow_from_other_options():
    config = ExampleBatchConfig(max_steps=200)
    assert (config.eval_every, config.save_every, config.per_device_eval_batch_size) == (20, 20, 8)
    assert RunConfig(max_steps=3).eval_every == 1


def test_processes_that_were_started_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ExampleBatchConfig(gradient_accumulation_steps=2).global_batch_size == 64


def test_text_comes_from_files_or_from_the_hub():
    with pytest.raises(UserError, match="not both"):
        TextDataConfig(dataset_name="a", train_file=["b"])
    with pytest.raises(UserError, match="not none"):
        TextDataConfig()
    with pytest.raises(UserError, match="--validation_file goes with"):
        TextDataConfig(dataset_name="a", validation_file=["b"])


def test_a_folder_with_only_leftovers_of_a_start_is_new(tmp_path: Path):
    for name in (".lock", ".config.yaml.partial"):
        (tmp_path / name).touch()
    check_new_folder(str(tmp_path), ".lock")
    (tmp_path / "other").touch()
    with pytest.raises(UserError, match="not empty"):
        check_new_folder(str(tmp_path), ".lock")


def test_a_switch_may_stand_before_what_is_given_without_a_flag():
    @dataclass
    class Options:
        """Options."""

        model: str
        """What."""

        texts: list[str] = field(default_factory=list)
        """Texts."""

        fast: bool = False
        """Whether."""

        heat: float | None = None
        """How hot."""

        files: list[str] = field(default_factory=list)
        """Which."""

    def parse_words(*words: str) -> Options:
        positionals = {"model": "What.", "texts": "Texts."}
        return parse_command(
            Options, words, command="try", description="Try.", positionals=positionals
        )

    assert parse_words("--fast", "m", "a") == Options("m", ["a"], fast=True)
    assert parse_words("m", "--heat", "2", "a", "b") == Options("m", ["a", "b"], heat=2.0)
    assert parse_words("m", "a", "--files", "x", "--files=y") == Options(
        "m", ["a"], files=["x", "y"]
    )
    with pytest.raises(UserError, match="--heat is 'hot'"):
        parse_words("m", "--heat", "hot")
