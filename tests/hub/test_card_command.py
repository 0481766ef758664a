"""`genmodels card`: cards written again, and examples in cards that run as they stand."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from hf_genmodels.errors import UserError
from hf_genmodels.hub import card_command
from hf_genmodels.hub.card import CardData, Metric, Sample, Translation
from hf_genmodels.hub.card_command import main, write_card
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_evaluation import show_evaluation
from hf_genmodels.hub.card_facts import CARD_FACTS, keep_card, kept_card
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration
from tests.hub import generators
from tests.hub.translators import make_tokenizer

CARD = CardData(
    name="toy",
    training={"CPU time": "2 min 05 s", "hardware": "a processor, 2 cores"},
    metrics=[Metric("fid", 1.5, "clothes", "train", num_images=50, real=0.5)],
    samples=[Sample("a", "b")],
    versions={"torch": "9.9"},
    language=["en"],
    datasets=["user/clothes"],
    translations=[Translation("a", "b", "c")],
    tags=["small"],
)
RUN = {
    "train_file": ["sample:fashion_mnist/train.parquet", "/home/someone/more.parquet"],
    "max_steps": 20,
    "seed": 7,
    "license": "mit",
    "loss": {"adversarial": "hinge"},
    "optim": {"lr": 0.002},
    "schedule": {"name": "wsd"},
}
RESULTS = {"step": 10, "eval_fid": 3.5, "eval_fid_real": 0.25, "eval_num_samples": 200}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published generator."""
    return publish_folder(generators.generator(), None, tmp_path / "toy", CardData("toy"))


@pytest.fixture
def run(folder: Path) -> Path:
    """A published generator with what its run left."""
    (folder / "config.yaml").write_text(yaml.safe_dump(RUN))
    records = [{"step": step, "time": 100.0 + step, "images": 32 * step} for step in (5, 10, 15)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text(json.dumps(RESULTS | {"features": "judge"}))
    return folder


def readme(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_card_is_made_of_what_the_run_left(run: Path) -> None:
    write_card(run)

    text = readme(run)
    for expected in (
        "| source | fashion_mnist/train.parquet, more.parquet |",
        "copyright Zalando SE, licence MIT",
        "| steps | 10 of 20 |",
        "| images | 320 |",
        "| loss | hinge |",
        "| learning rate | 0.002 |",
        "| time, validations included | 5.0 s |",
        "| FID of 200 images | 3.5 | 0.25 |",
        "| parameters |",
    ):
        assert expected in text
    assert "/home/someone" not in text
    data = ModelCard(text).data
    assert data.license == "mit"
    assert data.eval_results[0].metric_args["num_images"] == 200


def test_what_a_run_kept_for_its_card_counts_more_than_its_files(run: Path) -> None:
    keep_card(run, CARD)

    write_card(run)

    text = readme(run)
    assert kept_card(run) == CARD
    assert "| CPU time | 2 min 05 s |" in text
    assert "FID of 50 images" in text
    assert "FID of 200 images" not in text
    assert "torch 9.9" in text


def test_options_are_kept_for_the_next_time(folder: Path, capsys: pytest.CaptureFixture) -> None:
    main([str(folder), "--license=cc-by-4.0", "--language", "en", "es", "--summary=Mine."])
    assert capsys.readouterr().out == f"wrote {folder / 'README.md'}\n"
    main([str(folder), "--model_id=user/toy"])

    data = ModelCard(readme(folder)).data
    assert (data.license, data.language) == ("cc-by-4.0", ["en", "es"])
    assert "Mine." in readme(folder)
    assert 'model="user/toy"' in readme(folder)


def test_an_evaluation_stays_and_shows_no_picture_twice(run: Path) -> None:
    for name in ("samples.png", "truncation.png"):
        (run / "report" / name).write_bytes(b"picture")
    rows = [("Fréchet distance", "1.25", "0.5", 2000)]
    show_evaluation(run, rows, ["samples.png", "truncation.png"], "measured by a judge")
    assert readme(run).count("(report/truncation.png)") == 1

    for _ in range(2):
        write_card(run)
        text = readme(run)
        assert "| Fréchet distance | 1.25 | 0.5 | 2,000 |" in text
        assert text.count("## Evaluation") == 1
        assert text.index("## Evaluation") < text.index("## Limits")
        assert text.count("(report/truncation.png)") == text.count("(report/samples.png)") == 1


def test_another_folder_gets_card_and_pictures_and_the_first_stays(run: Path) -> None:
    before = readme(run)
    for name in ("grid.png", "secret.png"):
        (run / "report" / name).write_bytes(b"picture")

    write_card(run, {"summary": "Elsewhere."}, run.parent / "out")

    found = {path.name for path in (run.parent / "out").rglob("*") if path.is_file()}
    assert found == {"README.md", "grid.png"}
    assert "Elsewhere." in readme(run.parent / "out")
    assert readme(run) == before
    assert not (run / CARD_FACTS).exists()


def test_released_cards_come_from_the_runs_that_are_there(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run.rename(tmp_path / "demo_gan")
    out = tmp_path / "cards"

    main(["--released", f"--runs={tmp_path}", f"--out={out}"])

    said = capsys.readouterr()
    assert said.out == f"wrote {out / 'modern-fashion' / 'README.md'}\n"
    assert "no run of demo-translator" in said.err
    assert "# modern-fashion\n" in readme(out / "modern-fashion")
    with pytest.raises(UserError, match="None of the released presets has a run"):
        main(["--released", f"--runs={out}"])


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="genmodels card OUT"):
        main([])
    with pytest.raises(UserError, match="There is no folder"):
        main([str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="Did you mean '--license'"):
        main([str(folder), "--licence=mit"])
    (folder / "report").mkdir()
    (folder / CARD_FACTS).write_text('{"colour": 1}')
    with pytest.raises(UserError, match=r"card\.json' is damaged.*delete it"):
        main([str(folder)])


def test_samples_are_credited_as_their_licences_ask() -> None:
    emoji = credit_of(["sample:emoji/train.parquet", "mine.parquet"])
    assert "Twemoji" in emoji
    assert "CC-BY 4.0" in emoji
    assert "MIT" in credit_of(["sample:fashion_mnist/train.parquet"])
    assert "CC-BY-SA 3.0" in credit_of(["sample:digits/train.parquet"] * 2)
    both = credit_of(["sample:digits/train.parquet", "sample:emoji/train.parquet"])
    assert emoji in both
    assert credit_of(["mine.parquet", "sample:nothing/x"]) == ""


def test_the_table_of_released_cards_names_fields_of_cards() -> None:
    table = yaml.safe_load(Path("model_cards", card_command.RELEASED).read_text("utf-8"))
    for name, values in table.items():
        fields = {key: value for key, value in values.items() if key != "run"}
        assert CardData(**{"name": name, **fields}).license


def run_examples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the examples of a card beside its folder and return how many there are."""
    monkeypatch.chdir(folder.parent)
    examples = re.findall(r"```python\n(.*?)```", readme(folder), re.DOTALL)
    for example in examples:
        Path("example.py").write_text(example)
        runpy.run_path("example.py")
    return len(examples)


@pytest.mark.parametrize("conditioning", ["none", "class", "attributes", "text"])
def test_the_example_in_a_generators_card_draws(
    conditioning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = generators.generator(conditioning=conditioning), None
    if conditioning == "text":
        model, tokenizer = generators.text_generator()
    folder = publish_folder(model, tokenizer, tmp_path / "toy", CardData("toy"))

    assert run_examples(folder, monkeypatch) == 1
    assert (tmp_path / "image.png").is_file()


def test_the_examples_in_a_recurrent_models_card_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = GenRNNSeq2SeqConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        encoder_layers=1,
        decoder_layers=1,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GenRNNSeq2SeqForConditionalGeneration(config).eval()
    folder = publish_folder(model, tokenizer, tmp_path / "toy", CardData("toy"))

    assert run_examples(folder, monkeypatch) == 2
    assert capsys.readouterr().out.count("\n") >= 2
