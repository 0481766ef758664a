import json
import logging
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_genmodels.errors import UserError
from hf_genmodels.hub import probe, verify
from hf_genmodels.hub.clean_process import NETWORK_EVENTS
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.verify import CLEAN_PROCESS, verify_folder


@pytest.fixture(scope="module")
def report(published, model):
    return verify_folder(published, model)


def test_a_published_folder_works_in_a_clean_process_without_a_word_of_warning(report):
    assert report.steps == (
        "AutoConfig",
        "AutoTokenizer",
        "AutoModel",
        "AutoModelForCausalLM",
        "text-generation pipeline",
    )
    assert report.num_values == 2 * 32 * 258
    assert report.generated.startswith(probe.PROMPT)
    assert report.warnings == ()


def test_a_model_with_every_switch_works_too(modern_model, tokenizer, tmp_path):
    folder = publish_folder(modern_model, tokenizer, tmp_path / "modern")

    report = verify_folder(folder, modern_model)

    assert report.num_values == 2 * 32 * 258


def test_a_model_that_reads_less_than_the_checked_text_is_verified_without_a_warning(
    copy, caplog, monkeypatch
):
    file = copy / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 30}))
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)

    report = verify_folder(copy)

    assert "longer than the specified maximum" not in caplog.text
    assert report.warnings == ()


def test_changed_code_in_the_folder_is_found(copy):
    code = copy / "modeling_gpt.py"
    text = code.read_text()
    assert "logits = self.lm_head(" in text
    code.write_text(text.replace("logits = self.lm_head(", "logits = 1.5 * self.lm_head("))

    with pytest.raises(UserError, match="other logits"):
        verify_folder(copy)


def test_code_that_needs_our_package_or_the_network_is_found(copy):
    code = copy / "modeling_gpt.py"
    text = code.read_text()
    code.write_text("import hf_genmodels.errors\n" + text)
    with pytest.raises(UserError, match=r"AutoModel failed: .*hf_genmodels"):
        verify_folder(copy)

    swallowed = """
        import socket
        try:
            socket.create_connection(("example.org", 443), timeout=1)
        except OSError:
            pass
    """
    code.write_text(textwrap.dedent(swallowed) + text)
    with pytest.raises(UserError, match="without the network failed"):
        verify_folder(copy)


def test_weights_of_another_model_are_found_before_a_process_is_started(copy, model, monkeypatch):
    weights = load_file(copy / "model.safetensors")
    weights["model.final_norm.bias"] += 1e-7
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(verify, "_run", None)

    with pytest.raises(UserError, match=r"model\.final_norm\.bias differs"):
        verify_folder(copy, model)


def test_a_folder_without_code_is_refused_with_what_mends_it(copy):
    config = json.loads((copy / "config.json").read_text())
    del config["auto_map"]
    (copy / "config.json").write_text(json.dumps(config))

    with pytest.raises(UserError, match="genmodels export"):
        verify_folder(copy)


def test_a_check_that_takes_too_long_is_given_up(published):
    with pytest.raises(UserError, match=r"longer than 0\.01 seconds"):
        verify_folder(published, timeout=0.01)


def test_no_secret_reaches_the_clean_process(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_CACHE", "/somewhere")

    environment = verify._environment(tmp_path)

    assert "hf_secret" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["HOME"] == str(tmp_path)
    assert "HF_HUB_CACHE" not in environment


def test_the_doors_of_the_clean_process_are_closed():
    script = f"""
        import importlib.util, socket
        spec = importlib.util.spec_from_file_location("clean_process", {str(CLEAN_PROCESS)!r})
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        attempts = module.close_doors()
        for attempt in (
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: socket.getaddrinfo("example.org", 443),
            lambda: __import__("hf_genmodels"),
        ):
            try:
                attempt()
            except (OSError, ImportError) as error:
                print(type(error).__name__)
        print(len(attempts))
    """
    process = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert process.stdout.split() == ["OSError", "OSError", "ModuleNotFoundError", "2"]
    assert "socket.connect" in NETWORK_EVENTS


def test_equal_bits_are_more_than_equal_numbers():
    zero = torch.zeros(2)

    assert verify.same_bits(zero, torch.zeros(2))
    assert not verify.same_bits(zero, -zero)
    assert not verify.same_bits(zero, zero.double())
    assert verify.same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))


RESAVE = """
    import sys
    sys.path = [path for path in sys.path if "hf_genmodels" not in path]
    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] == "hf_genmodels":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocker())
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    source, target = sys.argv[1:]
    first = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True)
    second = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=True)
    ids = torch.arange(32)[None]
    assert torch.equal(first(ids).logits, second(ids).logits)
    assert type(first).__module__.startswith("transformers_modules."), type(first)
    second.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, trust_remote_code=True).save_pretrained(target)
"""


def test_a_stranger_loads_twice_and_saves_again_with_code_and_weights(published, tmp_path):
    target = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(RESAVE), str(published), str(target)],
        check=True,
        capture_output=True,
        env=verify._environment(tmp_path),
    )

    for file in (*published.glob("*.py"), published / "model.safetensors"):
        assert (target / file.name).read_bytes() == file.read_bytes(), file.name
    saved, original = (
        json.loads((folder / "config.json").read_text()) for folder in (target, published)
    )
    assert saved == original
