import re
import runpy

import pytest
from huggingface_hub import ModelCard

from hf_genmodels.hub.card import CardData, Metric, Sample, render_card

FULL = CardData(
    name="toy",
    model_id="user/toy",
    license="cc-by-4.0",
    language=["en"],
    base_model="user/base",
    datasets=["user/stories"],
    training_data={"documents": 1200, "bytes": 4_200_000},
    training={"steps": 300, "optimiser": "muon", "learning rate": None},
    metrics=[
        Metric("perplexity", 34.5678, "held-out.txt", num_tokens=12_345, low=33.1, high=36.2),
        Metric("bits_per_byte", 1.2345, "held-out.txt", num_tokens=12_345),
    ],
    samples=[Sample("Once", " upon\n\n\n\na time")],
    num_parameters=5_000_000,
    versions={"torch": "9.9"},
)


@pytest.fixture
def config(model):
    return model.config


def test_the_hub_reads_the_metadata(config):
    data = ModelCard(render_card(FULL, config)).data

    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.license == "cc-by-4.0"
    assert data.base_model == "user/base"
    assert data.datasets == ["user/stories"]
    assert data.tags == ["hf_genmodels", "gen_gpt", "custom_code"]
    results = {result.metric_type: result for result in data.eval_results}
    assert results["perplexity"].metric_value == 34.5678
    assert results["perplexity"].dataset_name == "held-out.txt"
    assert results["bits_per_byte"].dataset_split == "validation"


def test_the_body_says_what_was_given(config):
    text = render_card(FULL, config)

    for expected in (
        "| parameters | 5,000,000 |",
        'model="user/toy", trust_remote_code=True',
        "| documents | 1,200 |",
        "| optimiser | muon |",
        "| perplexity | 34.57 | 33.1 to 36.2 | held-out.txt (validation) | 12,345 |",
        "| bits per byte | 1.234 | not known | held-out.txt (validation) | 12,345 |",
        "Once upon\n\n\n\na time",
        "`cc-by-4.0`",
        "torch 9.9",
        "fine-tuned from user/base",
    ):
        assert expected in text
    assert "learning rate" not in text


@pytest.mark.parametrize("card", [CardData(name="x"), FULL, CardData(name="x", training={"a": 1})])
def test_no_heading_is_empty(config, card, tmp_path):
    text = render_card(card, config, folder=tmp_path).split("---", 2)[2]

    parts = re.split(r"^#+ .*$", text, flags=re.MULTILINE)
    assert all(part.strip() for part in parts[1:])
    assert "None" not in text
    assert "\n\n\n" not in text.replace("\n\n\n\na time", "")


def test_the_loss_curve_is_shown_where_there_is_one(config, tmp_path):
    assert "loss_curve" not in render_card(FULL, config, folder=tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "loss_curve.png").write_bytes(b"png")
    assert "(report/loss_curve.png)" in render_card(FULL, config, folder=tmp_path)


def test_text_cannot_break_out_of_its_place(config):
    card = CardData(
        name="x",
        prompt='say "hi"\n\\',
        training={"a|b": "c\nd"},
        samples=[Sample("```\n# not a heading", " \x1b[31mred {{ 7 * 7 }}")],
    )

    text = render_card(card, config)

    assert 'write("say \\"hi\\"\\n\\\\"' in text
    assert "| a\\|b | c d |" in text
    assert "````text\n```\n# not a heading" in text
    assert "\x1b" not in text
    assert "{{ 7 * 7 }}" in text


def test_the_same_card_twice_is_the_same_text(config):
    assert render_card(FULL, config) == render_card(FULL, config)


def test_the_example_in_the_card_runs_as_it_stands(published, model, capsys, tmp_path):
    card = CardData(name="toy", model_id=str(published))
    code = re.search(r"```python\n(.*?)```", render_card(card, model.config), re.DOTALL)

    (tmp_path / "example.py").write_text(code[1])
    runpy.run_path(str(tmp_path / "example.py"))

    assert capsys.readouterr().out.count("Once upon a time") == 3


def test_folders_of_this_machine_stay_private(config, tmp_path):
    base = tmp_path / "my-base"
    base.mkdir()
    card = CardData(
        name="x", base_model=str(base), datasets=[str(base), "user/stories"], training={"steps": 1}
    )

    text = render_card(card, config)

    assert str(tmp_path) not in text
    assert "fine-tuned from my-base" in text
    data = ModelCard(text).data
    assert data.base_model is None
    assert data.datasets == ["user/stories"]
