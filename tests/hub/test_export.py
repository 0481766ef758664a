import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export as export_module
from hf_genmodels.hub import export_report
from hf_genmodels.hub.export import export, main
from hf_genmodels.hub.folder import publish_folder


@pytest.fixture
def no_clean_process(monkeypatch):
    monkeypatch.setattr(export_module.verify, "verify_folder", lambda *_: "verified")


def test_hub_export_is_the_published_folder_again(published, tmp_path, no_clean_process):
    report = export(published, tmp_path / published.name)

    assert report.text == "verified; largest difference 0"
    for file in published.iterdir():
        assert (tmp_path / published.name / file.name).read_bytes() == file.read_bytes()


def test_hub_export_makes_a_folder_without_code_complete(copy, tmp_path, model, no_clean_process):
    for file in [*copy.glob("*.py"), copy / "README.md", copy / "generation_config.json"]:
        file.unlink()
    model.save_pretrained(copy)

    export(copy, tmp_path / "out")

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"modeling_gpt.py", "README.md", "generation_config.json"}
    assert "auto_map" in (tmp_path / "out" / "config.json").read_text()


def test_hub_export_takes_the_card_with_its_picture(copy, tmp_path, no_clean_process):
    (copy / "report").mkdir()
    (copy / "report" / "loss_curve.png").write_bytes(b"png")
    (copy / "README.md").write_text("mine")

    export(copy, tmp_path / "out")

    assert (tmp_path / "out" / "README.md").read_text() == "mine"
    assert (tmp_path / "out" / "report" / "loss_curve.png").read_bytes() == b"png"


def test_gpt2_export_is_a_plain_gpt2(published, model, tmp_path):
    report = export(published, tmp_path / "gpt2", "gpt2")

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2", trust_remote_code=False)
    assert type(loaded) is GPT2LMHeadModel
    assert loaded.config.architectures == ["GPT2LMHeadModel"]
    assert not list((tmp_path / "gpt2").glob("*.py"))
    assert "trust_remote_code" not in (tmp_path / "gpt2" / "README.md").read_text()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        difference = (loaded(ids).logits - model(ids).logits).abs().max().item()
    assert difference < 1e-5
    assert report.largest_difference < 1e-5
    assert f"{report.largest_difference:.3g}" in report.text
    greedy = {"do_sample": False, "max_new_tokens": 10, "temperature": 1.0, "top_p": 1.0}
    assert loaded.generate(ids, **greedy).equal(model.generate(ids, **greedy))
    tokens = AutoTokenizer.from_pretrained(tmp_path / "gpt2")("Grüße 🙂")["input_ids"]
    assert tokens == AutoTokenizer.from_pretrained(published)("Grüße 🙂")["input_ids"]


def test_gpt2_export_names_every_reason_it_is_refused_for(modern_model, tokenizer, tmp_path):
    source = publish_folder(modern_model, tokenizer, tmp_path / "modern")

    with pytest.raises(UserError) as refusal:
        export(source, tmp_path / "gpt2", "gpt2")

    for field in (
        "position_embedding",
        "norm=",
        "qk_norm",
        "logit_softcap",
        "num_value_embeddings",
    ):
        assert field in str(refusal.value)
    assert not (tmp_path / "gpt2").exists()


def test_a_gpt2_folder_is_not_ours_to_export(tokenizer, tmp_path):
    gpt2 = GPT2LMHeadModel(
        GPT2Config(vocab_size=258, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    )
    source = publish_folder(gpt2, tokenizer, tmp_path / "gpt2")

    with pytest.raises(UserError, match="from_gpt2"):
        export(source, tmp_path / "out")


def test_an_export_that_computes_something_else_is_refused(published, tmp_path, monkeypatch):
    monkeypatch.setattr(export_report, "TOLERANCE", -1.0)

    with pytest.raises(UserError, match="largest difference"):
        export(published, tmp_path / "gpt2", "gpt2")


def test_out_must_be_new_unless_it_may_be_overwritten(published, tmp_path, no_clean_process):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        export(published, tmp_path)

    export(published, tmp_path, overwrite=True)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_neither_the_source_nor_a_run_is_written_into(published, tmp_path):
    with pytest.raises(UserError, match="source itself"):
        export(published, published, overwrite=True)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="training run"):
        export(published, tmp_path, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        export(published, tmp_path / "file")


def test_the_command_line(published, tmp_path, capsys):
    main([str(published), str(tmp_path / "out"), "--format", "gpt2"])
    assert "largest difference" in capsys.readouterr().out

    with pytest.raises(UserError, match="Did you mean 'gpt2'"):
        main([str(published), str(tmp_path / "x"), "--format", "gpt-2"])
    with pytest.raises(UserError, match="Did you mean '--format'"):
        main([str(published), str(tmp_path / "x"), "--fromat", "gpt2"])
    with pytest.raises(UserError, match="out"):
        main([str(published)])
