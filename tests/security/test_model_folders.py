"""A model folder that was made to do harm ends in one clear error, within bounds."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hf_genmodels.cli import main
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import finish_publishing, published_files
from hf_genmodels.hub.loading import load_companion, load_model, load_tokenizer, model_folder
from hf_genmodels.reading import read_header
from tests.security.conftest import FAMILIES, bounded, refusal

Copy = Callable[[str], Path]


def change(folder: Path, file: str = "config.json", **fields: Any) -> Path:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | fields))
    return folder


def fields_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    own = {"auto_map", "custom_pipelines", "transformers_version", "model_type", "architectures"}
    return {name: value for name, value in config.items() if name not in own}


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 3, 7, 1 << 16, 1 << 31, 1 << 40, 10**30, -(1 << 40), 0.5, 1e300]),
    st.sampled_from(["", "x", "../../x", "\x1b[2J", float("nan"), float("inf")]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["0", "a", "model_type"]), st.integers(-1, 9), max_size=2),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_value_in_config_json_loads_or_is_one_clear_error(family: str, copy_of: Copy):
    folder = copy_of(family)
    original = (folder / "config.json").read_text()
    names = st.sampled_from(sorted(fields_of(folder)))

    @settings(max_examples=25, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.dictionaries(names, WRONG, min_size=1, max_size=2))
    def check(fields: dict[str, Any]) -> None:
        (folder / "config.json").write_text(original)
        change(folder, **fields)
        with bounded():
            try:
                model = load_model(folder)
            except UserError as error:
                words = str(error)
            else:
                words = ""
                assert sum(p.numel() for p in model.parameters()) < 1_000_000
        assert "not enough memory" not in words

    check()


HUGE = {
    "lm": ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"],
    "seq2seq": ["vocab_size", "hidden_size", "encoder_layers", "decoder_layers"],
    "recurrent": ["vocab_size", "hidden_size", "encoder_layers"],
    "gan": ["image_size", "num_frames", "latent_dim", "generator_width", "condition_dim"],
    "judge": ["image_size", "width", "feature_dim"],
}


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in HUGE.items() for n in names])
@pytest.mark.parametrize("value", [3 << 30, -5, "many"])
def test_a_size_that_cannot_be_is_named(family: str, name: str, value: Any, copy_of: Copy):
    words = refusal(load_model, change(copy_of(family), **{name: value}))
    assert name in words, words


@pytest.mark.parametrize("family", ["lm", "seq2seq", "gan"])
@pytest.mark.parametrize("positions", [1 << 20, 3 << 30])
def test_a_model_of_many_small_sizes_is_not_made(family: str, positions: int, copy_of: Copy):
    folder = copy_of(family)
    fields: dict[str, Any] = {"max_position_embeddings": positions}
    if family == "gan":
        fields = {"generator_width": 1 << 14, "latent_dim": 1 << 14}
    refusal(load_model, change(folder, **fields))


@pytest.mark.parametrize(
    "fields", [{"num_labels": 1 << 33}, {"id2label": {"a": 1}}, {"id2label": 5}]
)
def test_labels_are_not_made_one_by_one(fields: dict[str, Any], copy_of: Copy):
    folder = copy_of("judge")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config | fields))
    refusal(load_model, folder)


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "FOLDER", "a"],
        ["evaluate", "FOLDER", "--file", "FILE"],
        ["export", "FOLDER", "OUT"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("family", ["lm", "seq2seq", "gan"])
def test_commands_end_with_status_2_and_one_line(
    command: list[str], family: str, copy_of: Copy, tmp_path: Path, capfd
):
    folder = change(copy_of(family), hidden_size=-1, latent_dim="x")
    (tmp_path / "a.jsonl").write_text('{"text": "a b", "source": "a", "target": "b"}\n' * 9)
    places = {"FOLDER": folder, "FILE": tmp_path / "a.jsonl", "OUT": tmp_path / "out"}
    with bounded(), pytest.raises(SystemExit) as ending:
        main([str(places.get(word, word)) for word in command])
    assert ending.value.code == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert error.count("error: ") == 1, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 9, '{"a":' * 50_000, "\x00", "\ud83d".encode("utf-8", "surrogatepass")])  # fmt: skip
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])  # fmt: skip
def test_json_that_is_none(text: str | bytes, file: str, copy_of: Copy):
    folder = copy_of("lm")
    (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    refusal(load_tokenizer if "tokenizer" in file else load_model, folder)


TOKENIZERS: dict[str, Any] = {
    "a list": [],
    "no model": {"model": None},
    "a number": {"model": {"type": "BPE", "vocab": 5, "merges": 3}},
    "an unknown kind": {"model": {"type": "Code", "vocab": {}}},
    "negative ids": {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    "merges of nothing": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}},
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_broken_tokenizer(case: str, copy_of: Copy):
    folder = copy_of("lm")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZERS[case]))
    assert "tokenizer" in refusal(load_tokenizer, folder)


def header(facts: Any, length: int | None = None, data: bytes = b"\0" * 64) -> bytes:
    text = facts if isinstance(facts, bytes) else json.dumps(facts).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: Any, begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FILES = {
    "nothing": b"",
    "a header of 1 GB": header(b"{}", 1 << 30),
    "a header of 2**64": header(b"{}", (1 << 64) - 1),
    "no JSON": header(b"nothing!"),
    "a list": header([]),
    "deep": header(b"[" * 100_000),
    "overlapping": header({"a": tensor([16], 0, 64), "b": tensor([8], 32, 64)}),
    "a hole": header({"a": tensor([4], 0, 16), "b": tensor([4], 48, 64)}),
    "beyond the end": header({"a": tensor([1 << 40], 0, 1 << 42)}),
    "backwards": header({"a": tensor([4], 64, 48)}),
    "another size": header({"a": tensor([17], 0, 64)}),
    "negative": header({"a": tensor([-16], 0, 64)}),
    "overflowing": header({"a": tensor([1 << 62, 1 << 62], 0, 64)}),
    "an unknown type": header({"a": tensor([16], 0, 64, "PYOBJ")}),
    "cut short": header({"a": tensor([32], 0, 128)}),
    "a pickle": b"\x80\x04cposix\nsystem\n(X\x04\x00\x00\x00true\x85R.",
}


@pytest.mark.parametrize("case", FILES)
def test_weights_that_lie_about_themselves(case: str, copy_of: Copy):
    folder = copy_of("lm")
    file = folder / "model.safetensors"
    file.write_bytes(FILES[case])
    assert str(file) in refusal(model_folder, folder)
    assert str(file) in refusal(read_header, file)
    (folder / "discriminator").mkdir()
    assert str(file) in refusal(load_model, folder)


def test_a_header_of_1_gb_that_is_there_is_not_read(tmp_path: Path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 1 << 30))
        stream.truncate((1 << 30) + 64)
    with bounded(256, 5), pytest.raises(UserError, match="header"):
        read_header(file)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_weights_of_another_type(dtype: torch.dtype, copy_of: Copy):
    folder = copy_of("lm")
    weights = {k: v.to(dtype) for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refusal(load_model, folder)


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", 5, ".."]
)
def test_an_index_names_files_of_its_own_folder(name: Any, copy_of: Copy):
    folder = copy_of("lm")
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "own folder" in refusal(load_model, folder)


TRAP = "import pathlib\npathlib.Path(r'{}').write_text('run')\n"


@pytest.mark.parametrize("family", FAMILIES)
def test_code_of_a_folder_is_never_run(family: str, copy_of: Copy, tmp_path: Path):
    folder, mark = copy_of(family), tmp_path / "mark"
    code = TRAP.format(mark)
    for file in [*folder.glob("*.py"), folder / "trap.py"]:
        file.write_text(code)
    names = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM",
             "AutoModelForImageClassification", "AutoTokenizer")  # fmt: skip
    change(folder, auto_map=dict.fromkeys(names, "trap.Trap"),
           custom_pipelines={"text-generation": {"impl": "trap.Trap", "pt": ["AutoModel"]}})  # fmt: skip
    if (folder / "tokenizer_config.json").is_file():
        change(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["trap.T", "trap.T"]})
        load_tokenizer(folder)
        change(folder, "tokenizer_config.json", tokenizer_class="Trap")
        with bounded(), pytest.raises(UserError):
            load_tokenizer(folder)
    load_model(folder)
    load_companion(folder, "discriminator")
    assert not mark.exists()
    change(folder, model_type="trap")
    refusal(load_model, folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attn_implementation", "someone/kernel"),
        ("_attn_implementation", "someone/kernel"),
        ("transformers_weights", "../../other.safetensors"),
    ],
)
def test_no_kernel_and_no_other_weights_are_fetched(name: str, value: str, copy_of: Copy):
    assert name in refusal(load_model, change(copy_of("lm"), **{name: value}))


def test_an_adapter_that_leads_to_another_model(copy_of: Copy):
    folder = copy_of("lm")
    adapter = {"base_model_name_or_path": "someone/else", "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    assert "another place" in refusal(load_model, folder)


@pytest.mark.parametrize("name", ["a..b/c", "a/../b", "../x/y", "/etc/model", "a/b/../../c", "..", "a/..", "~/../x", "a//b"])  # fmt: skip
def test_a_name_that_leads_elsewhere(name: str, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    refusal(load_model, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../discriminator", "/etc", "..", "a/b", "discriminator/.."])
def test_companions_are_those_of_the_family(name: str, families: dict[str, Path]):
    assert load_companion(families["gan"], name) is None


def test_a_link_in_place_of_a_publication_moves_no_files(copy_of: Copy, tmp_path: Path):
    folder, other = copy_of("lm"), tmp_path / "letters"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    (folder / ".published").symlink_to(other)
    assert "link" in refusal(model_folder, folder)
    (folder / ".published").unlink()
    (folder / ".published" / "sub").mkdir(parents=True)
    (folder / ".published" / "sub" / "letter.txt").write_text("theirs")
    (folder / "sub").symlink_to(other)
    assert "link" in refusal(finish_publishing, folder)
    assert (other / "letter.txt").read_text() == "mine"


def test_only_files_of_the_folder_are_published(copy_of: Copy, tmp_path: Path):
    folder = copy_of("lm")
    (tmp_path / "secret.py").write_text("")
    (tmp_path / "secret.png").write_text("")
    places = {"AutoConfig": str(tmp_path / "secret.A"), "AutoModel": "../secret.A"}
    change(folder, auto_map=places)
    with (folder / "README.md").open("a") as card:
        card.write(f"![a](../secret.png) ![b]({tmp_path}/secret.png)")
    assert all(
        not name.is_absolute() and ".." not in name.parts for name in published_files(folder)
    )
    assert not any("secret" in str(name) for name in published_files(folder))


def test_a_missing_field_takes_its_default_or_is_refused(copy_of: Copy):
    folder = copy_of("lm")
    config = json.loads((folder / "config.json").read_text())
    for name in ("vocab_size", "hidden_size", "model_type"):
        kept = {key: value for key, value in config.items() if key != name}
        (folder / "config.json").write_text(json.dumps(kept))
        refusal(load_model, folder)
    shutil.rmtree(folder)
