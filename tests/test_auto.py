"""Our model types are known to transformers' Auto classes, whatever was imported first and how."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys

import pytest

IMPORTS = (
    "import hf_genmodels",
    "import transformers",
    "from transformers import AutoConfig",
    "from transformers import AutoModelForCausalLM",
    "from hf_genmodels import GenGPTConfig",
    "from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM",
    "from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqModel",
    "from transformers import pipeline",
    "from hf_genmodels.models.pipeline_text_to_text import TextToTextPipeline",
    "from hf_genmodels.models.pipeline_conditional_image import ClassToImagePipeline",
    "from hf_genmodels.models.pipeline_pixels import CaptionPipeline",
    "from hf_genmodels.models.gan_text import Words",
)
CHECK = """
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
config = AutoConfig.for_model("gen_gpt", vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
assert type(AutoModelForCausalLM.from_config(config)).__name__ == "GenGPTForCausalLM"
assert type(AutoModel.from_config(config)).__name__ == "GenGPTModel"
import hf_genmodels
assert type(config) is hf_genmodels.GenGPTConfig
from transformers import AutoModelForSeq2SeqLM
for kind, size in (("Seq2Seq", {"num_attention_heads": 1}), ("RNNSeq2Seq", {})):
    config = AutoConfig.for_model(
        f"gen_{kind.lower().replace('rnn', 'rnn_')}", vocab_size=8, hidden_size=8, encoder_layers=1, decoder_layers=1, **size
    )
    name = type(AutoModelForSeq2SeqLM.from_config(config)).__name__
    assert name == f"Gen{kind}ForConditionalGeneration", name
config = AutoConfig.for_model("gen_gan", architecture="mlp", image_size=4)
assert type(AutoModel.from_config(config)).__name__ == "GenGANGenerator"
from transformers.pipelines import PIPELINE_REGISTRY
task = PIPELINE_REGISTRY.supported_tasks["class-to-image"]
assert task["impl"].__module__ == "hf_genmodels.models.pipeline_conditional_image"
assert task["pt"] == (AutoModel,)
assert PIPELINE_REGISTRY.supported_tasks["text-to-image"]["pt"] == (AutoModelForCausalLM, AutoModel)
for name in ("image-completion", "image-super-resolution", "image-to-caption"):
    task = PIPELINE_REGISTRY.supported_tasks[name]
    assert task["impl"].__module__ == "hf_genmodels.models.pipeline_pixels"
    assert task["pt"] == (AutoModelForCausalLM,)
task = PIPELINE_REGISTRY.supported_tasks["text-to-text"]
assert task["impl"].__module__ == "hf_genmodels.models.pipeline_text_to_text"
assert task["pt"] == (AutoModelForSeq2SeqLM,)
"""


def run_forked(orders: list[tuple[str, ...]]) -> None:
    """Run each order in a fork of a process that has imported torch, but nothing of transformers."""
    code = f"""
import os, sys, torch, traceback
for order in {orders!r}:
    child = os.fork()
    if child == 0:
        try:
            exec("\\n".join(order) + {CHECK!r}, {{}})
        except BaseException:
            print(order, file=sys.stderr)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


OURS = "import hf_genmodels"


@pytest.mark.parametrize("first", IMPORTS)
def test_the_auto_classes_know_our_models_whatever_was_imported_first(first: str):
    run_forked([(first, OURS)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_auto_classes_know_our_models_in_other_orders_of_imports():
    longer = random.Random(0).sample(list(itertools.permutations(IMPORTS, 3)), 20)
    run_forked([(*order, OURS) for order in [*itertools.permutations(IMPORTS, 2), *longer]])


def test_importing_the_package_imports_nothing_slow():
    code = (
        "import sys, hf_genmodels, hf_genmodels.cli; heavy = {'torch', 'transformers', 'datasets', "
        "'accelerate', 'matplotlib', 'numpy', 'peft', 'evaluate', 'tokenizers', 'jsonargparse'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""


def test_using_the_model_classes_imports_no_training_library():
    code = (
        "import sys; from hf_genmodels import GenGPTForCausalLM; "
        "heavy = {'datasets', 'matplotlib', 'jsonargparse', 'evaluate', 'peft'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == ""


def test_names_that_do_not_exist_are_attribute_errors():
    import hf_genmodels

    assert "GenGPTConfig" in dir(hf_genmodels)
    with pytest.raises(AttributeError, match="GenGPTConfg"):
        hf_genmodels.GenGPTConfg  # noqa: B018


def test_a_configuration_shows_no_pipelines_of_its_folder_but_keeps_them_for_saving():
    from transformers import AutoConfig  # noqa: F401

    from hf_genmodels import GenSeq2SeqConfig

    pipelines = {"text-to-text": {"impl": "pipeline_text_to_text.TextToTextPipeline"}}
    config = GenSeq2SeqConfig(custom_pipelines=pipelines)

    assert config.custom_pipelines == {}
    assert config.to_dict()["custom_pipelines"] == pipelines
