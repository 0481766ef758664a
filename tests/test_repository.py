"""What holds the repository together: packaging, import directions, presets, bundled data."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "hf_genmodels"
MODELS = LIBRARY / "models"
INSTALLED_AS = {"hf_genmodels": LIBRARY, "hf_genmodels/training": ROOT / "training"}
INSTALLED_AS["hf_genmodels/model_cards"] = ROOT / "model_cards"
PRESETS = ("cpu_2", "gpu_1", "ddp", "fsdp2")
# Libraries of the extras: imported where they are used, so that the rest works without them.
OPTIONAL = {
    "av", "ctranslate2", "datasets", "evaluate", "gradio", "matplotlib", "onnx", "onnxruntime", "onnxscript", "peft",
    "sacrebleu", "torch_fidelity",
}  # fmt: skip


def python_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.py") if "__pycache__" not in p.parts)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_modules(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of absolute imports, `from a import b` given as "a.b"."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def run_time_statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Statements that run on import: everything but function bodies and `if TYPE_CHECKING`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def requirements() -> list[Requirement]:
    parser = setup_cfg()
    blocks = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return [Requirement(line) for block in blocks for line in block.split("\n") if line]


@pytest.mark.parametrize("path", python_files(MODELS), ids=relative)
def test_model_files_import_only_what_a_user_without_this_package_has(path: Path) -> None:
    allowed = {"torch", "transformers", "huggingface_hub", "PIL", *sys.stdlib_module_names}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strangers = {n for n in imported_modules(ast.walk(tree)) if n.split(".")[0] not in allowed}
    assert not strangers, f"{relative(path)} travels with checkpoints and imports {strangers}"


@pytest.mark.parametrize("path", python_files(MODELS), ids=relative)
def test_model_files_name_their_siblings_by_from_dot_name(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            where = f"{relative(path)}:{node.lineno}"
            assert node.level == 1, f"{where}: `..` leaves the folder that is copied"
            assert node.module, f"{where}: `from . import x` is not found by the exporter"
            assert (path.parent / f"{node.module}.py").is_file(), f"{where}: no such sibling"


@pytest.mark.parametrize("path", python_files(MODELS), ids=relative)
def test_model_files_hold_no_text_that_looks_like_a_relative_import(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    real = {n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level}
    lookalike = re.compile(r"^\s*(from\s+\.|import\s+\.)")
    wrong = [i for i, line in enumerate(source.splitlines(), 1) if lookalike.match(line)]
    assert set(wrong) <= real, f"{relative(path)}: the exporter reads text, see lines {wrong}"


@pytest.mark.parametrize("path", python_files(LIBRARY), ids=relative)
def test_the_library_never_imports_the_scripts(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for name in imported_modules(ast.walk(tree)):
        assert not re.match(r"(training|hf_genmodels\.training)(\.|$)", name), name


@pytest.mark.parametrize("path", python_files(LIBRARY), ids=relative)
def test_optional_libraries_are_imported_where_they_are_used(path: Path) -> None:
    if "metrics" in path.relative_to(LIBRARY).parts:
        pytest.skip("a metric is a module that evaluate itself loads")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    early = {n.split(".")[0] for n in imported_modules(run_time_statements(tree))} & OPTIONAL
    assert not early, f"{relative(path)} imports {early} at the top: import inside the function"


@pytest.mark.parametrize(
    "path", python_files(LIBRARY) + python_files(ROOT / "training"), ids=relative
)
def test_nothing_runs_text_or_loads_pickles(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    assert not {n.split(".")[0] for n in imported_modules(ast.walk(tree))} & forbidden
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            where = f"{relative(path)}:{node.lineno}"
            assert name not in {"eval", "exec"}, f"{where}: {name}()"
            if name == "torch.load":
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("weights_only") == "True", f"{where}: say weights_only=True"


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ("accelerate", "datasets", "evaluate", "gradio", "jsonargparse", "matplotlib", "peft")
    code = f"import sys, hf_genmodels; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_setup_cfg_lists_every_package() -> None:
    on_disk = {
        "/".join([name, *path.parent.relative_to(folder).parts]).replace("/", ".")
        for name, folder in INSTALLED_AS.items()
        for path in folder.rglob("__init__.py")
        if "samples" not in path.parts
    }
    listed = set(setup_cfg()["options"]["packages"].split())
    assert listed == on_disk


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    tree = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("hf_genmodels", "training", "model_cards"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next((tree / "dist").glob("*.whl")))


def test_wheel_holds_code_scripts_presets_templates_and_samples(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for name, folder in INSTALLED_AS.items():
        for path in folder.rglob("*"):
            wanted = path.suffix in {".py", ".yaml", ".j2"} or path.name == "py.typed"
            wanted |= "samples" in path.parts
            if path.is_file() and wanted and "__pycache__" not in path.parts:
                assert f"{name}/{path.relative_to(folder).as_posix()}" in packed
    assert {name.split("/")[0].split("-")[0] for name in packed} == {"hf_genmodels"}


def test_wheel_works_where_the_repository_is_not(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from importlib.resources import files\n"
        "import hf_genmodels, hf_genmodels.training, hf_genmodels.model_cards\n"
        "print(hf_genmodels.training.__file__)\n"
        "print(files('hf_genmodels').joinpath('samples/english/train.txt').is_file())\n"
        "print(files('hf_genmodels.training').joinpath('accelerate/ddp.yaml').is_file())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where, *found = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert found == ["True", "True"]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_constraints_pin_every_requirement_within_its_floor(python: str) -> None:
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.9",
    }
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                pins[canonical(pin.name)] = str(pin.specifier).removeprefix("==")
    for requirement in requirements():
        version = pins.get(canonical(requirement.name))
        assert version, f"{requirement.name} is missing from constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} but {version} is pinned"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_make_without_a_target_explains_every_target() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-C", str(ROOT)], capture_output=True, text=True, check=True, env=environment
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    for target in phony.split():
        assert re.search(rf"^  {target} ", done.stdout, re.MULTILINE), target


@pytest.mark.parametrize("name", PRESETS)
def test_launch_preset_is_read_by_accelerate(name: str) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    preset = ROOT / "training" / "accelerate" / f"{name}.yaml"
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(preset), "--mixed_precision", "no", "train.py"])
    args, defaults, _ = _validate_launch_command(args)
    assert defaults.num_processes == (1 if name == "gpu_1" else 2)
    # These two attributes choose the launcher that starts several processes.
    assert (args.multi_gpu or args.use_fsdp) == (name != "gpu_1")
    assert args.use_cpu == (name == "cpu_2")
    if name == "fsdp2":
        assert args.fsdp_version == 2
        assert args.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"


def test_bundled_samples_are_small_and_say_their_licence() -> None:
    samples = LIBRARY / "samples"
    for folder in (p for p in samples.iterdir() if p.is_dir() and p.name != "__pycache__"):
        assert re.search(r"licen[cs]e|public domain", (folder / "README.md").read_text("utf-8"))
    english = samples / "english"
    assert sum(p.stat().st_size for p in english.iterdir()) < 1_600_000
    train = (english / "train.txt").read_text("utf-8")
    held_out = (english / "validation.txt").read_text("utf-8")
    long_paragraphs = {p for p in held_out.split("\n\n") if len(p) > 80}
    assert len(long_paragraphs) > 200
    assert not long_paragraphs & set(train.split("\n\n"))


def test_architecture_page_names_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {p.parent.name for p in LIBRARY.glob("*/__init__.py")} | {"training", "model_cards"}
    assert not {name for name in folders if f"`{name}/`" not in page}
