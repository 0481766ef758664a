"""What the source never does, and what it never writes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("hf_genmodels", "training", "model_cards")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNSAFE = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "torch.save"}
UNSAFE |= {"torch.hub.load", "np.load", "numpy.load", "tarfile.open", "shutil.unpack_archive"}
# torch-fidelity reads Inception's weights from a file of torch only; it gets one of tensors alone.
INCEPTION = "hf_genmodels/metrics/image_extractors.py"
# They load a folder as a stranger who trusts it would, in a process of its own.
STRANGERS = {"hf_genmodels/hub/clean_process.py"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def offences(source: str, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            modules = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = {str(node.module).split(".")[0]}
        else:
            modules = set()
        yield from (f"{line}: imports {module}" for module in modules & PICKLERS)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called in RUNNERS | UNSAFE and not (called == "torch.save" and name == INCEPTION):
            yield f"{line}: calls {called}"
        if called == "torch.load" and (name != INCEPTION or given.get("weights_only") != "True"):
            yield f"{line}: calls torch.load"
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            yield f"{line}: {called} with {given}"
        trust = given.get("trust_remote_code", "False")
        if trust != "False" and not (name in STRANGERS and trust == "request['remote_code']"):
            yield f"{line}: {called} with trust_remote_code={trust}"
        loads_code = called.startswith("Auto") and called.endswith(".from_pretrained")
        if loads_code and "trust_remote_code" not in given and name not in ALREADY_CHECKED:
            yield f"{line}: {called} would ask at a terminal whether to run code"


# It reads what this process has just written.
ALREADY_CHECKED = {"hf_genmodels/hub/export_report.py"}


def test_nothing_pickles_runs_text_or_trusts_code_for_the_user():
    texts = {relative(path): path.read_text(encoding="utf-8") for path in SOURCES}
    found = {name: list(offences(text, name)) for name, text in texts.items()}
    assert len(found) > 200
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "torch.load(file, weights_only=True)",
        "torch.save(x, file)",
        "np.load(file)",
        "memmap(file, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "model.load(name, trust_remote_code=options.trust)",
        "AutoConfig.from_pretrained(name)",
    ],
)
def test_the_scan_finds(line: str):
    assert list(offences(line, "hf_genmodels/x.py"))


KINDS = {".json", ".jsonl", ".safetensors", ".yaml", ".md", ".png", ".webp", ".py", ".txt", ".lock"}


@pytest.mark.parametrize("family", ["lm", "seq2seq", "recurrent", "gan", "judge"])
def test_a_published_folder_holds_no_other_kinds_of_files(family: str, families: dict[str, Path]):
    check_kinds(families[family])


def check_kinds(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (file.suffix or file.name) in KINDS, file
        head = file.read_bytes()[:2]
        assert head != b"\x80\x02", f"{file} is a pickle"
        assert head != b"PK", f"{file} is an archive, as torch.save writes"


@pytest.mark.parametrize("family", ["lm", "gan"])
def test_the_folder_of_a_run_holds_no_other_kinds_of_files(
    family: str, run_of: Callable[[str], Path]
):
    check_kinds(run_of(family))
    states = list(run_of(family).glob("checkpoints/*/optimizer.safetensors"))
    assert states
