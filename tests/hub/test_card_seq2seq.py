import re
import runpy

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import MarianConfig

from hf_genmodels.hub.card import CardData, Metric, Translation, render_card
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from hf_genmodels.tokenization.pairs import for_pairs
from tests.hub.conftest import byte_tokenizer

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
SMALL = {"hidden_size": 64, "encoder_layers": 3, "decoder_layers": 2}
FULL = CardData(
    name="toy-en-es",
    model_id="user/toy-en-es",
    task="translation",
    source_language="en",
    target_language="es",
    license="cc0-1.0",
    datasets=["user/verses"],
    training_data={
        "pairs": 12_000,
        "pairs dropped because a side was too long": 12,
        "pairs truncated": 0,
        "pairs dropped because a side was empty": 3,
    },
    training={"steps": 300, "optimiser": "adamw", "label smoothing": 0.1, "seed": None},
    metrics=[
        Metric(
            "bleu",
            23.4567,
            "verses.jsonl",
            "test",
            num_sentences=2000,
            low=21.91,
            high=24.98,
            signature=SIGNATURE,
        ),
        Metric(
            "chrf",
            48.0,
            "verses.jsonl",
            "test",
            num_sentences=2000,
            low=47.1,
            high=49.0,
            signature="nrefs:1|nc:6",
        ),
        Metric("loss", 3.21, "verses.jsonl", num_tokens=12_345),
    ],
    translations=[
        Translation("In the beginning\nwas the Word.", "EN el principio era el Verbo.", "EN el"),
        Translation(
            "a | b *c* <i> `d` _e_ f_g [h](i) $j$", "&amp; \\ & ~k~", "\x1b[31m {{ 7 * 7 }}"
        ),
    ],
    num_parameters=5_000_000,
    versions={"torch": "9.9"},
)


@pytest.fixture
def config():
    return GenSeq2SeqConfig(
        vocab_size=8000, num_attention_heads=4, max_position_embeddings=128, **SMALL
    )


def test_the_hub_reads_the_metadata(config):
    data = ModelCard(render_card(FULL, config)).data

    assert data.pipeline_tag == "translation"
    assert data.language == ["en", "es"]
    assert data.datasets == ["user/verses"]
    assert data.tags == ["hf_genmodels", "gen_seq2seq", "text2text-generation", "custom_code"]
    bleu, chrf, loss = data.eval_results
    assert (bleu.task_type, bleu.metric_type, bleu.metric_name) == ("translation", "bleu", "BLEU")
    assert bleu.metric_value == 23.4567
    assert bleu.dataset_split == "test"
    assert bleu.metric_args == {
        "signature": SIGNATURE,
        "confidence_interval_95": [21.91, 24.98],
        "num_sentences": 2000,
    }
    assert chrf.metric_name == "chrF"
    assert loss.metric_args == {"num_tokens": 12_345}
    assert loss.dataset_split == "validation"


def test_other_tasks_are_filed_where_the_hub_files_them(config):
    card = CardData(name="x", language=["zh"], metrics=[Metric("rouge_l", 0.25, "poems")])

    text = render_card(card, config)
    data = ModelCard(text).data

    assert data.pipeline_tag == "text-generation"
    assert "text2text-generation" in data.tags
    assert data.language == ["zh"]
    assert "makes one text of another" in text
    assert "| ROUGE-L | 0.25 | poems (validation) | not counted |" in text
    assert "interval" not in text


@pytest.mark.parametrize(
    ("task", "expected"),
    [("translation", "## Translations"), ("summarization", "## Examples"), (None, "## Examples")],
)
def test_examples_have_the_heading_of_the_task(config, task, expected):
    card = CardData(name="x", task=task, translations=[Translation("a", "b", "c")])

    text = render_card(card, config)

    assert f"{expected}\n\nTaken from the model as it is" in text
    assert "| a | b | c |" in text


@pytest.mark.parametrize(
    "card",
    [
        CardData(name="x"),
        FULL,
        CardData(name="x", training={"a": 1}, metrics=[Metric("loss", 1, "x")]),
    ],
)
def test_no_heading_is_empty(config, card, tmp_path):
    text = render_card(card, config, folder=tmp_path).split("---", 2)[2]

    parts = re.split(r"^#+ .*$", text, flags=re.MULTILINE)
    assert all(part.strip() for part in parts[1:])
    assert "None" not in text
    assert "\n\n\n" not in text
    assert "(report/" not in text


def test_a_recurrent_model_says_what_it_is():
    text = render_card(CardData(name="x"), GenRNNSeq2SeqConfig(cell="gru", **SMALL))

    for row in ("| encoder layers | 3 |", "| cell | gru |", "| attention | general |"):
        assert row in text
    assert "| heads |" not in text


def test_a_vocabulary_for_each_side_needs_a_tokenizer_for_each_side(config):
    own = GenSeq2SeqConfig(source_vocab_size=4000, num_attention_heads=4, **SMALL)

    assert "| source vocabulary | 4,000 tokens |" in render_card(FULL, own)
    assert 'subfolder="target_tokenizer"' in render_card(FULL, own)
    assert "target_tokenizer" not in render_card(FULL, config)


def test_an_exported_model_needs_no_code_of_ours():
    text = render_card(CardData(name="x"), MarianConfig(d_model=64, vocab_size=8000))

    assert "trust_remote_code" not in text
    assert "text-to-text" not in text
    assert 'AutoModelForSeq2SeqLM.from_pretrained("x")' in text
    assert "| width | 64 |" in text
    assert "custom_code" not in text
    assert "target_tokenizer" not in text


def test_an_exported_model_with_two_vocabularies_has_two_tokenizers():
    config = MarianConfig(
        d_model=64, vocab_size=8000, decoder_vocab_size=4000, share_encoder_decoder_embeddings=False
    )

    text = render_card(CardData(name="x"), config)

    assert 'subfolder="target_tokenizer"' in text
    assert "| target vocabulary | 4,000 tokens |" in text


def test_text_from_data_cannot_break_out_of_its_place(config):
    card = CardData(
        name="a | <b>",
        model_id='x"\n```\n# y',
        license="x`y",
        source_language="e`n",
        target_language="e|s",
        training_data={"<script>": "[a](b)"},
        metrics=[Metric("bleu", 1, "a|b\n# c", signature="`\n# d")],
        translations=[Translation('"""\n```\n# e', "\n\n# f\n| g |", "h\u2028i")],
    )

    body = render_card(card, config).split("---", 2)[2]

    assert re.findall(r"^# .*$", body, re.MULTILINE) == ["# a \\| \\<b\\>"]
    assert "<script>" not in body
    assert "| \\<script\\> | \\[a\\](b) |" in body
    assert 'write("\\"\\"\\"\\n```\\n# e")' in body
    cells = body[body.index("| source | reference") :].splitlines()[2]
    assert cells == '| """<br>\\`\\`\\`<br># e | # f<br>\\| g \\| | h<br>i |'
    assert len(re.findall(r"^```", body, re.MULTILINE)) == 6


@pytest.mark.parametrize("own_vocabularies", [False, True])
def test_the_examples_in_the_card_run_as_they_stand(own_vocabularies, capsys, tmp_path):
    tokenizer = for_pairs(byte_tokenizer(), 64)
    torch.manual_seed(0)
    config = GenSeq2SeqConfig(
        vocab_size=len(tokenizer),
        source_vocab_size=len(tokenizer) if own_vocabularies else None,
        num_attention_heads=2,
        hidden_size=16,
        encoder_layers=1,
        decoder_layers=1,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = publish_folder(
        GenSeq2SeqForConditionalGeneration(config).eval(),
        tokenizer,
        tmp_path / "toy",
        CardData(name="toy", model_id=str(tmp_path / "toy")),
        target_tokenizer=tokenizer if own_vocabularies else None,
    )
    examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(examples) == 2

    for example in examples:
        (tmp_path / "example.py").write_text(example)
        runpy.run_path(str(tmp_path / "example.py"))
        assert capsys.readouterr().out.strip()
