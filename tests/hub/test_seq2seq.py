"""Published sequence-to-sequence folders: complete, with pipeline, and the same for strangers."""

import json

import pytest
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from hf_genmodels import GenRNNSeq2SeqConfig, GenRNNSeq2SeqForConditionalGeneration
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder, published_files
from hf_genmodels.hub.loading import load_model, load_target_tokenizer
from hf_genmodels.hub.verify import verify_folder
from tests.models import recurrent, transformer

STEPS = ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoModelForSeq2SeqLM")


def ids_of(tokenizer):
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names}


@pytest.fixture(scope="module")
def translator(tokenizer, tmp_path_factory):
    """A folder with separate vocabularies. Not to be changed."""
    size = len(tokenizer)
    model = transformer.make_model(vocab_size=size, source_vocab_size=size + 5, **ids_of(tokenizer))
    folder = tmp_path_factory.mktemp("translator") / "toy"
    return publish_folder(model, tokenizer, folder, target_tokenizer=tokenizer)


def test_the_pipeline_and_both_tokenizers_are_published(translator):
    config = json.loads((translator / "config.json").read_text())

    assert config["custom_pipelines"] == {
        "text-to-text": {
            "impl": "pipeline_text_to_text.TextToTextPipeline",
            "pt": ["AutoModelForSeq2SeqLM"],
            "type": "text",
        }
    }
    names = {path.as_posix() for path in published_files(translator)}
    assert names >= {
        "pipeline_text_to_text.py",
        "decoding.py",
        "search.py",
        "target_tokenizer/tokenizer.json",
        "target_tokenizer/tokenizer_config.json",
    }
    assert len(load_target_tokenizer(translator)) == load_model(translator).config.vocab_size


def test_beam_search_is_the_default_and_what_was_set_stays(translator, tokenizer, tmp_path):
    written = GenerationConfig.from_pretrained(translator)
    assert (written.do_sample, written.num_beams, written.max_new_tokens) == (False, 4, 32)
    assert written.temperature is None
    assert written.decoder_start_token_id == tokenizer.bos_token_id

    model = load_model(translator)
    model.generation_config.num_beams = 2
    model.generation_config.max_new_tokens = 7
    again = publish_folder(model, tokenizer, tmp_path, target_tokenizer=tokenizer)
    written = GenerationConfig.from_pretrained(again)
    assert (written.num_beams, written.max_new_tokens) == (2, 7)


def test_publishing_again_writes_the_same_configuration(translator, tokenizer, tmp_path):
    again = publish_folder(load_model(translator), tokenizer, tmp_path)

    assert (again / "config.json").read_text() == (translator / "config.json").read_text()


def test_a_stranger_loads_the_same_translator(translator):
    report = verify_folder(translator)

    assert report.steps == (*STEPS, "text-to-text pipeline")
    assert report.num_values == 2 * 32 * load_model(translator).config.vocab_size
    assert report.warnings == ()


def test_a_stranger_loads_the_same_recurrent_model(tokenizer, tmp_path):
    fields = recurrent.SIZES | ids_of(tokenizer) | {"vocab_size": len(tokenizer)}
    model = GenRNNSeq2SeqForConditionalGeneration(GenRNNSeq2SeqConfig(**fields)).eval()
    folder = publish_folder(model, tokenizer, tmp_path / "toy")

    report = verify_folder(folder, model)

    assert report.steps == (*STEPS, "text-to-text pipeline")


def test_a_pipeline_that_writes_something_else_is_found(translator, tmp_path):
    import shutil

    copy = shutil.copytree(translator, tmp_path / "copy")
    code = copy / "pipeline_text_to_text.py"
    text = code.read_text()
    assert '"generated_text": text,' in text
    code.write_text(text.replace('"generated_text": text,', '"generated_text": text + "!",'))

    with pytest.raises(UserError, match="writes another text where hf_genmodels is not installed"):
        verify_folder(copy)


def test_a_translator_of_transformers_is_verified_without_a_pipeline(tokenizer, tmp_path):
    ids = ids_of(tokenizer)
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=32,
        decoder_start_token_id=ids["pad_token_id"],
        **ids,
    )
    folder = publish_folder(MarianMTModel(config).eval(), tokenizer, tmp_path / "marian")

    assert verify_folder(folder).steps == ("AutoConfig", "AutoTokenizer", "AutoModelForSeq2SeqLM")
