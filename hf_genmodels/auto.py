"""The table of model families, and how transformers' Auto classes learn about it.

`AutoModelForCausalLM.from_pretrained(folder)` knows our model types without `trust_remote_code` as
soon as this package is imported. Registering needs torch and the model files, which are slow to
import, so it waits until transformers' own auto modules are imported.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import wrapt

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MODELS = "hf_genmodels.models"
CONFIG_AUTO = "transformers.models.auto.configuration_auto"
MODEL_AUTO = "transformers.models.auto.modeling_auto"
PIPELINES = "transformers.pipelines"
Kind = Literal["language model", "pixel model", "seq2seq", "gan", "judge", "discriminator"]


@dataclass(frozen=True)
class Task:
    """What a pipeline does with a published folder.

    Attributes:
        name: What `transformers.pipeline` is asked for.
        pipeline: Class of the pipeline if transformers has none, as "module.Class" within
            `hf_genmodels.models`.
        type: What it works on, in transformers' words: text, image or multimodal.
        when: Field of the configuration -> values with which it is this task; empty: always.
    """

    name: str
    pipeline: str = ""
    type: str = "text"
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def reads_texts(self) -> bool:
        """Whether a tokenizer stands beside the model."""
        return self.type in ("text", "multimodal")

    def fits(self, config: PreTrainedConfig) -> bool:
        """Tell whether a model with this configuration does the task."""
        return all(getattr(config, name) in values for name, values in self.when.items())


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        kind: What commands call it.
        config: Configuration class, as "module.Class" within `hf_genmodels.models`.
        models: Auto class of transformers -> model class, as "module.Class"; the last one is published.
        tasks: What pipelines do with its folders: all that fit a configuration, the first of them being what
            the model is for.
        image_processor: Class that prepares images, as "module.Class" within `hf_genmodels.models`, and the
            field of the configuration that is empty where a model has none.
        companions: Subfolder of a published folder -> configuration class and class of the model in it,
            which may be of a family of its own. Its code stands beside that of the published model.
        name: What the published model is called in a training state that holds its companions too.
    """

    kind: Kind
    config: str
    models: Mapping[str, str]
    tasks: tuple[Task, ...]
    image_processor: tuple[str, str] = ("", "")
    companions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    name: str = ""

    @property
    def head(self) -> str:
        """Auto class of the model that is published."""
        return list(self.models)[-1]

    @property
    def pipelines(self) -> list[str]:
        """Classes of its pipelines that transformers does not have."""
        return [task.pipeline for task in self.tasks if task.pipeline]


TEXT_TO_TEXT = Task("text-to-text", pipeline="pipeline_text_to_text.TextToTextPipeline")
TEXT_TO_IMAGE = Task(
    "text-to-image",
    pipeline="pipeline_conditional_image.TextToImagePipeline",
    type="multimodal",
    when={"conditioning": ("text",), "is_video": (False,)},
)
_DRAWS = {"draws_pictures": (True,)}
PIXEL_TASKS = (
    Task("text-to-image", "pipeline_pixels.TextToPixelsPipeline", "multimodal", _DRAWS),
    Task("image-completion", "pipeline_pixels.CompletionPipeline", "multimodal", _DRAWS),
    Task(
        "image-super-resolution",
        "pipeline_pixels.SuperResolutionPipeline",
        "multimodal",
        {"enlarges_pictures": (True,)},
    ),
    # Not image-to-text: transformers makes another task of that name before it looks at pipelines.
    Task(
        "image-to-caption",
        "pipeline_pixels.CaptionPipeline",
        "multimodal",
        {"describes_pictures": (True,)},
    ),
)
CLASS_TO_IMAGE = Task(
    "class-to-image",
    pipeline="pipeline_conditional_image.ClassToImagePipeline",
    type="image",
    when={"conditioning": ("none", "class", "attributes"), "is_video": (False,)},
)
TEXT_TO_VIDEO = Task(
    "text-to-video",
    pipeline="pipeline_conditional_video.TextToVideoPipeline",
    type="multimodal",
    when={"conditioning": ("text",), "is_video": (True,)},
)
CLASS_TO_VIDEO = Task(
    "class-to-video",
    pipeline="pipeline_conditional_video.ClassToVideoPipeline",
    type="image",
    when={"conditioning": ("none", "class", "attributes"), "is_video": (True,)},
)


FAMILIES: dict[str, Family] = {
    "gen_gpt": Family(
        kind="language model",
        config="configuration_gpt.GenGPTConfig",
        models={
            "AutoModel": "modeling_gpt.GenGPTModel",
            "AutoModelForCausalLM": "modeling_gpt.GenGPTForCausalLM",
        },
        tasks=(*PIXEL_TASKS, Task("text-generation")),
        name="generator",
        companions={
            "discriminator": (
                "configuration_text_discriminator.GenTextDiscriminatorConfig",
                "modeling_text_discriminator.GenTextDiscriminator",
            )
        },
        image_processor=("image_processing_pixels.GenPixelsImageProcessor", "image_sizes"),
    ),
    "gen_text_discriminator": Family(
        kind="discriminator",
        config="configuration_text_discriminator.GenTextDiscriminatorConfig",
        models={
            "AutoModelForSequenceClassification": (
                "modeling_text_discriminator.GenTextDiscriminator"
            ),
        },
        tasks=(Task("text-classification"),),
    ),
    "gen_seq2seq": Family(
        kind="seq2seq",
        config="configuration_seq2seq.GenSeq2SeqConfig",
        models={
            "AutoModel": "modeling_seq2seq.GenSeq2SeqModel",
            "AutoModelForSeq2SeqLM": "modeling_seq2seq.GenSeq2SeqForConditionalGeneration",
        },
        tasks=(TEXT_TO_TEXT,),
    ),
    "gen_rnn_seq2seq": Family(
        kind="seq2seq",
        config="configuration_rnn_seq2seq.GenRNNSeq2SeqConfig",
        models={
            "AutoModel": "modeling_rnn_seq2seq.GenRNNSeq2SeqModel",
            "AutoModelForSeq2SeqLM": ("modeling_rnn_seq2seq.GenRNNSeq2SeqForConditionalGeneration"),
        },
        tasks=(TEXT_TO_TEXT,),
    ),
    "gen_gan": Family(
        kind="gan",
        config="configuration_gan.GenGANConfig",
        models={"AutoModel": "modeling_gan.GenGANGenerator"},
        tasks=(TEXT_TO_IMAGE, CLASS_TO_IMAGE, TEXT_TO_VIDEO, CLASS_TO_VIDEO),
        name="generator",
        companions={
            "discriminator": (
                "configuration_gan.GenGANDiscriminatorConfig",
                "modeling_gan.GenGANDiscriminator",
            )
        },
    ),
    "gen_judge": Family(
        kind="judge",
        config="configuration_judge.GenJudgeConfig",
        models={
            "AutoModelForImageClassification": "modeling_judge.GenJudgeForImageClassification",
        },
        tasks=(Task("image-classification", type="image"),),
    ),
}


def family_of(config: PreTrainedConfig) -> Family:
    """Return the family of a configuration.

    Raises:
        KeyError: If the configuration is not one of ours.
    """
    return FAMILIES[config.model_type]


def tasks_of(config: PreTrainedConfig) -> list[Task]:
    """Return what pipelines do with a model of this configuration."""
    return [task for task in family_of(config).tasks if task.fits(config)]


def task_of(config: PreTrainedConfig) -> Task:
    """Return what a model of this configuration is for."""
    return tasks_of(config)[0]


def kind_of(config: PreTrainedConfig) -> Kind:
    """Return what commands call a model of this configuration."""
    family = family_of(config)
    return "pixel model" if task_of(config) in PIXEL_TASKS else family.kind


def companion_name(model: PreTrainedModel) -> str | None:
    """Return the subfolder in which a model stands beside the one it belongs to; `None`: it has none."""
    companions = family_of(model.config).companions.items()
    return next((name for name, (_, cls) in companions if isinstance(model, resolve(cls))), None)


def auto_map_for(config: PreTrainedConfig, companion: str | None = None) -> dict[str, str]:
    """Return what `auto_map` in config.json says: Auto class -> "file.Class" beside the weights.

    Args:
        config: Configuration of a model of ours.
        companion: What the model is called beside the one it belongs to; `None`: it is that one.
    """
    family = family_of(config)
    if companion is not None and companion in family.companions:
        companion_config, model = family.companions[companion]
        return {"AutoConfig": companion_config, family.head: model}
    processor = image_processor_for(config)
    processors = {"AutoImageProcessor": processor} if processor else {}
    return {"AutoConfig": family.config, **family.models, **processors}


def image_processor_for(config: PreTrainedConfig) -> str:
    """Return the class that prepares images for a model, as "module.Class"; empty if it reads none."""
    processor, field = family_of(config).image_processor
    return processor if field and getattr(config, field) else ""


def custom_pipelines_for(config: PreTrainedConfig) -> dict[str, dict[str, Any]]:
    """Return what `custom_pipelines` in config.json says: task -> the class and what it loads."""
    head = family_of(config).head
    return {
        task.name: {"impl": task.pipeline, "pt": [head], "type": task.type}
        for task in tasks_of(config)
        if task.pipeline
    }


def code_files_for(config: PreTrainedConfig) -> list[Path]:
    """Return the files of `hf_genmodels/models` that travel with a model of this type."""
    folder = Path(__file__).parent / "models"
    references = [*auto_map_for(config).values(), *(task.pipeline for task in tasks_of(config))]
    waiting = {reference.split(".")[0] for reference in references if reference}
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        found[name] = folder / f"{name}.py"
        siblings = re.findall(r"^from \.(\w+) import", found[name].read_text("utf-8"), re.MULTILINE)
        waiting.update(set(siblings) - set(found))
    return [found[name] for name in sorted(found)]


def resolve(reference: str) -> type:
    """Import the class that "module.Class" names within `hf_genmodels.models`."""
    module, name = reference.split(".")
    return getattr(importlib.import_module(f"{MODELS}.{module}"), name)


def register_configs() -> None:
    """Register every configuration class with `AutoConfig`. Can be called again."""
    from transformers import AutoConfig

    for model_type, family in FAMILIES.items():
        config: Any = resolve(family.config)
        if family.pipelines:
            config.custom_pipelines = PipelinesOfTheFolder()
        AutoConfig.register(model_type, config, exist_ok=True)


def register_all() -> None:
    """Register every configuration and model class with the Auto classes. Can be called again."""
    import transformers

    register_configs()
    for family in FAMILIES.values():
        for auto_class, reference in family.models.items():
            model_class: Any = resolve(reference)
            model_class.push_to_hub = _push_to_hub
            getattr(transformers, auto_class).register(
                resolve(family.config), model_class, exist_ok=True
            )
        if family.image_processor[0]:
            _register_image_processor(resolve(family.config), resolve(family.image_processor[0]))
        if family.companions:
            _register_companions(family, getattr(transformers, family.head))


def _register_image_processor(config_class: Any, processor_class: Any) -> None:
    """Let `AutoImageProcessor` and `AutoProcessor` know a processor of images.

    A model of texts, of the same configuration, has none, and `AutoProcessor` gives its tokenizer: there the
    processor is not registered for the configuration, and is found by the name in preprocessor_config.json.
    """
    import transformers

    classes = {"pil": processor_class}
    transformers.AutoImageProcessor.register(
        config_class, image_processor_classes=classes, exist_ok=True
    )
    transformers.AutoProcessor.register(processor_class, processor_class, exist_ok=True)


def _push_to_hub(model: Any, repo_id: str, **options: Any) -> str:
    """Do what transformers' `push_to_hub` does, and upload the model's code with it.

    A class of an installed package is not custom code to transformers, which uploads the weights alone.
    """
    from hf_genmodels.hub.model_push import push_model

    return push_model(model, repo_id, **options)


def _register_companions(family: Family, auto_class: Any) -> None:
    """Let an Auto class choose among a family's models by the `architectures` of config.json."""
    models = [resolve(family.models[family.head])]
    for config, model in family.companions.values():
        if FAMILIES.get(resolve(config).model_type) is not family:  # type: ignore[attr-defined]
            continue
        models.append(resolve(model))
        models[-1].push_to_hub = _push_to_hub  # type: ignore[attr-defined]
        auto_class.register(resolve(config), models[-1], exist_ok=True)
    if len(models) > 1:
        auto_class.register(resolve(family.config), tuple(models), exist_ok=True)


def register_pipelines() -> None:
    """Register the pipelines that transformers does not have. Can be called again."""
    import transformers
    from transformers.pipelines import PIPELINE_REGISTRY

    known: dict[str, dict[str, tuple[Family, Task]]] = {}
    for model_type, family in FAMILIES.items():
        for task in family.tasks:
            if task.pipeline:
                known.setdefault(task.name, {})[model_type] = (family, task)
    for name, owners in known.items():
        # Importing its module may register a pipeline.
        classes = {model_type: resolve(task.pipeline) for model_type, (_, task) in owners.items()}
        if name in PIPELINE_REGISTRY.supported_tasks:
            continue
        # AutoModel, which knows the models without heads too, is asked last.
        heads = sorted({family.head for family, _ in owners.values()}, key="AutoModel".__eq__)
        PIPELINE_REGISTRY.register_pipeline(
            name,
            pipeline_class=_by_model(classes),
            pt_model=tuple(getattr(transformers, head) for head in heads),
            type=next(task.type for _, task in owners.values()),
        )


def _by_model(classes: Mapping[str, type]) -> type:
    """Return a pipeline class for several types of models, which makes the pipeline of the one it is given.

    Args:
        classes: Type of the model -> class of its pipeline.
    """
    from transformers import Pipeline

    if len(set(classes.values())) == 1:
        return next(iter(classes.values()))

    def make(_: type, model: Any, **options: Any) -> Any:
        return classes[model.config.model_type](model=model, **options)

    # What some of them need is loaded where it is there.
    loads = {
        name: found.pop() if len(found) == 1 else None
        for name in ("_load_tokenizer", "_load_image_processor", "_load_processor")
        for found in [{getattr(pipeline, name) for pipeline in classes.values()}]
    }
    never = dict.fromkeys(("_load_feature_extractor", "_load_video_processor"), False)
    members = {"__new__": make, **never, **loads}
    return type("PipelineOfTheModel", (Pipeline,), members)


class PipelinesOfTheFolder:
    """Keeps `custom_pipelines` of a config.json for saving, and shows none of them.

    `transformers.pipeline` takes a pipeline that config.json names before a registered one, and asks
    for `trust_remote_code`. Where this package is imported, its own pipeline shall run.
    """

    def __get__(self, config: Any, owner: type) -> dict[str, Any]:
        """Return no pipelines."""
        return {}

    def __set__(self, config: Any, value: dict[str, Any]) -> None:
        """Keep the value where `save_pretrained` finds it."""
        vars(config)["custom_pipelines"] = value


def register_when_imported() -> None:
    """Register with the Auto classes as soon as transformers' auto modules are imported.

    A model file imports transformers modules that import the auto modules, so at the moment these
    are ready our own file may be half-way through, or one that it imports. Registration therefore
    waits until every file of `hf_genmodels/models` that was begun is finished.
    """
    finished: set[str] = set()

    def after_import(module: ModuleType) -> None:
        finished.add(module.__name__)
        if CONFIG_AUTO in finished and _all_finished(_config_modules(), finished):
            register_configs()
        if MODEL_AUTO in finished and _all_finished(_model_modules(), finished):
            register_all()
        if PIPELINES in finished and _all_finished([MODEL_AUTO, *_model_modules()], finished):
            register_pipelines()

    for name in (*_model_modules(), CONFIG_AUTO, MODEL_AUTO, PIPELINES):
        wrapt.register_post_import_hook(after_import, name)


def _all_finished(names: list[str], finished: set[str]) -> bool:
    return all(name in finished or name not in sys.modules for name in names)


def _config_modules() -> list[str]:
    return [f"{MODELS}.{family.config.split('.')[0]}" for family in FAMILIES.values()]


@cache
def _model_modules() -> list[str]:
    files = (Path(__file__).parent / "models").glob("*.py")
    ours = {f"{MODELS}.{file.stem}" for file in files if file.stem != "__init__"}
    return ["transformers.modeling_layers", *sorted(ours)]
