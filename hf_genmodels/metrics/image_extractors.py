"""Networks that see features in images: a judge of one's own data, any vision model, or Inception."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.metrics.image_features import Extractor, prepared, source_name, with_channels
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from hf_genmodels.reading import read_json, read_tensors

WEIGHT_FILES = (".pth", ".pt", ".safetensors")
MAX_WEIGHTS_BYTES = 512 << 20
USUAL_SIZE = 224
USUAL_MEAN = USUAL_STD = (0.5, 0.5, 0.5)


def open_extractor(source: str | Path, device: str | torch.device = "cpu") -> Extractor:
    """Open whatever can see features.

    Args:
        source: Folder of a judge, folder or hub id of a vision model, or a file with Inception's
            weights (`.pth`, `.pt` or `.safetensors`).
        device: Where to compute.

    Raises:
        UserError: If it cannot be opened.
    """
    if Path(source).suffix in WEIGHT_FILES:
        return InceptionFeatures(source, device)
    if _model_type(source) == "gen_judge":
        return JudgeFeatures(source, device)
    return VisionModelFeatures(source, device)


def _model_type(source: str | Path) -> str | None:
    """Return what config.json in a folder or on the hub calls a model; `None` if it cannot be read."""
    from transformers import AutoConfig

    place = Path(source).expanduser()
    if place.exists():
        config = place / "config.json"
        return read_json(config).get("model_type") if config.is_file() else None
    try:
        return AutoConfig.from_pretrained(str(source), trust_remote_code=False).model_type
    except (OSError, ValueError):
        return None


class JudgeFeatures:
    """What a judge of the real data sees; `genmodels train judge` trains one.

    It has probabilities where it judges classes, attributes on their own, or the classes of factors. A judge
    of clips sees clips, another one images.

    Args:
        judge: The model or its folder.
        device: Where to compute.

    Attributes:
        name: What to call it beside a figure.
        device: Where it computes.

    Raises:
        UserError: If the folder holds no judge.
    """

    def __init__(
        self,
        judge: GenJudgeForImageClassification | str | Path,
        device: str | torch.device = "cpu",
    ):
        self.device = torch.device(device)
        model: Any = judge
        if isinstance(judge, (str, Path)):
            model, _ = _load(GenJudgeForImageClassification, judge, "a judge")
        self.name = source_name(judge) if isinstance(judge, (str, Path)) else "judge"
        self.model = model.to(self.device).eval()

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return features (B, D) and probabilities (B, K), if it has them, of bytes (B, C, H, W).

        Raises:
            ValueError: If these are clips of another number of frames than the judge's, or images.
        """
        config = self.model.config
        if (images.shape[1] if images.ndim == 5 else 1) != config.num_frames:
            raise ValueError(
                f"The judge '{self.name}' looks at {config.num_frames} frames, and was given "
                f"{tuple(images.shape)}."
            )
        side = (config.image_size, config.image_size)
        pixels = 2 * prepared(images, config.num_channels, side) - 1
        if config.task not in ("class", "attributes", "factors"):
            return self.model.features(pixels), None
        output = self.model(pixels)
        logits = output.logits.float()
        if config.task == "attributes":
            return output.features, logits.sigmoid()
        if config.task == "class":
            return output.features, logits.softmax(dim=1)
        shares = [logits[:, own].softmax(dim=1) for own in config.factor_slices.values()]
        return output.features, torch.cat(shares, dim=1)


class VisionModelFeatures:
    """What a vision model of transformers sees.

    Features are its pooled output, or the mean over all places if it has none (a classifier's checkpoint
    may lack the pooler's weights); of a model of images and texts, the vector of the image. Images are brought to its size and normalised as its
    preprocessor_config.json says.

    Args:
        source: Folder or hub id.
        device: Where to compute.

    Attributes:
        name: What to call it beside a figure.
        device: Where it computes.

    Raises:
        UserError: If it cannot be loaded or does not see images.
    """

    def __init__(self, source: str | Path, device: str | torch.device = "cpu"):
        from transformers import AutoModel

        self.name = source_name(source)
        self.device = torch.device(device)
        model, without_pooler = _load(AutoModel, source, "a vision model", optional="pooler")
        self.model = model.to(self.device).eval()
        self.has_pooler = not without_pooler
        config = model.config
        self.has_texts = "vision_config" in config.sub_configs
        if not self.has_texts and self.model.main_input_name != "pixel_values":
            raise UserError(
                f"'{source}' is of type {config.model_type}, which does not see images. Give a vision "
                "model, such as a ViT, a ResNet or a CLIP."
            )
        options = (config.vision_config if self.has_texts else config).to_dict()
        processor = _processor_options(source)
        self.channels = int(options.get("num_channels", 3))
        self.size = _size(processor.get("crop_size") or processor.get("size"), options)
        normalized = processor.get("do_normalize", True)
        mean = processor.get("image_mean", USUAL_MEAN) if normalized else [0.0]
        std = processor.get("image_std", USUAL_STD) if normalized else [1.0]
        self.mean = torch.tensor(mean, device=self.device).view(1, -1, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(1, -1, 1, 1)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return features (B, D) of bytes (B, C, H, W); it has no probabilities."""
        pixels = (prepared(images, self.channels, self.size) - self.mean) / self.std
        see = self.model.get_image_features if self.has_texts else self.model
        output = see(pixel_values=pixels.to(self.model.dtype), return_dict=True)
        pooled = output.get("pooler_output")
        if pooled is not None and self.has_pooler:
            return pooled.flatten(1), None
        states = output["last_hidden_state"]  # (B, places, D) or (B, D, rows, columns)
        return states.mean(dim=1 if states.ndim == 3 else (2, 3)), None


class InceptionFeatures:
    """What the Inception network sees by which FID and KID are known, by torch-fidelity.

    Its 2048 features need more than 2048 images for a Frechet distance.

    Args:
        weights: File with the weights in torch-fidelity's naming (weights-inception-2015-12-05).
        device: Where to compute.

    Attributes:
        name: What to call it beside a figure.
        device: Where it computes.

    Raises:
        UserError: If torch-fidelity is not installed or the file does not hold these weights.
    """

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu"):
        self.name = "inception-v3-compat"
        self.device = torch.device(device)
        module = require_extra("torch_fidelity.feature_extractor_inceptionv3", "fidelity")
        state = _tensors(Path(weights).expanduser())
        with tempfile.TemporaryDirectory() as folder:
            # torch-fidelity unpickles whatever it is given; it gets a file that holds tensors only.
            clean = Path(folder) / "weights.pth"
            torch.save(state, clean)
            try:
                network = module.FeatureExtractorInceptionV3(
                    self.name,
                    ["2048", "logits_unbiased"],
                    feature_extractor_weights_path=str(clean),
                )
            except (KeyError, RuntimeError) as error:
                raise UserError(
                    f"The weights in '{weights}' are not those of torch-fidelity's Inception network: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        self.model = network.to(self.device).eval()

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return features (B, 2048) and probabilities (B, 1008) of bytes (B, C, H, W)."""
        colors = (with_channels(images.float() / 255, 3) * 255).round().to(torch.uint8)
        features, logits = self.model(colors)
        return features, logits.float().softmax(dim=1)


def _load(model_class: Any, source: str | Path, wanted: str, optional: str = "") -> Any:
    """Load a model without running code from its folder.

    Returns:
        The model, and whether weights are missing whose names hold `optional`.
    """
    place = Path(source).expanduser()
    try:
        model, info = model_class.from_pretrained(
            place if place.exists() else str(source),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).splitlines() or ["it is damaged."])[0]
        raise UserError(f"'{source}' cannot be opened as {wanted}: {reason}") from error
    missing = sorted(info["missing_keys"])
    needed = [name for name in missing if not optional or optional not in name]
    if needed:
        raise UserError(
            f"'{source}' cannot be opened as {wanted}: {len(needed)} of its tensors are missing, such "
            f"as {needed[0]}."
        )
    return model, bool(missing)


def _processor_options(source: str | Path) -> dict[str, Any]:
    """Return what stands in preprocessor_config.json; nothing if there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    place = Path(source).expanduser()
    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(
            place if place.exists() else str(source)
        )
    except OSError:
        return {}
    return found


def _size(size: Any, options: dict[str, Any]) -> tuple[int, int]:
    """Return the rows and columns of the images that a model reads."""
    size = size or options.get("image_size") or USUAL_SIZE
    if isinstance(size, dict):
        side = size.get("shortest_edge") or size.get("longest_edge") or USUAL_SIZE
        return int(size.get("height") or side), int(size.get("width") or side)
    rows, columns = size if isinstance(size, (list, tuple)) else (size, size)
    return int(rows), int(columns)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a file, and nothing but tensors."""
    if not path.is_file():
        raise UserError(
            f"There is no file '{path}' with the weights of Inception. Download "
            "weights-inception-2015-12-05-6726825d.pth from the releases of torch-fidelity on GitHub."
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise UserError(
            f"'{path}' is no file of Inception's weights: it has {path.stat().st_size:,} bytes."
        )
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise almost anything
        raise UserError(
            f"'{path}' is no file of weights: it is damaged, or holds more than tensors."
        ) from error
