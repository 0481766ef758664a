"""`make demo`, with models that are small and hardly trained."""

from pathlib import Path

import pytest
from PIL import Image

from hf_genmodels.training import demo

SHORT = ["--max_steps=2", "--eval_every=2", "--tokenizer_vocab_size=300", "--mixed_precision=no"]
SMALL = ["--model.hidden_size=32", "--model.num_attention_heads=2"]


@pytest.mark.verified
def test_the_demo_ends_with_what_all_models_make(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    folders = tmp_path / "lm", tmp_path / "translator", tmp_path / "gan"
    demo.main(
        *folders,
        extra=[
            *SHORT,
            *SMALL,
            "--block_size=32",
            "--model.num_hidden_layers=1",
            "--max_eval_windows=4",
        ],
        translator_extra=[
            *SHORT,
            *SMALL,
            "--batch_tokens=128",
            "--model.encoder_layers=1",
            "--model.decoder_layers=1",
            "--max_eval_pairs=10",
            "--translate.num_pairs=2",
        ],
        gan_extra=[
            "--max_steps=2",
            "--eval_every=2",
            "--model.generator_width=4",
            "--model.discriminator_width=4",
            "--max_train_images=100",
            "--judge.features=none",
            "--mixed_precision=no",
        ],
    )
    output = capfd.readouterr().out
    assert output.count("--- ") == 3
    assert output.count("\nreference    ") == output.count("\ntranslation  ") == 10
    assert "rows: T-shirt/top, " in output
    with Image.open(folders[2] / "report" / "drawn.png") as picture:
        assert picture.size == (8 * 56, 10 * 56)
    for folder in folders[:2]:
        assert (folder / "report" / "loss_curve.png").is_file()
        assert f"{folder}, loss curve" in output
