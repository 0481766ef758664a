import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from hf_genmodels.errors import UserError
from hf_genmodels.metrics.image_extractors import (
    InceptionFeatures,
    JudgeFeatures,
    VisionModelFeatures,
    open_extractor,
)
from hf_genmodels.metrics.image_features import (
    Features,
    as_bytes,
    extract,
    prepared,
    with_channels,
)
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY |= {"intermediate_size": 16, "image_size": 16, "patch_size": 8}


def images(number=7, channels=3, side=12, seed=0):
    shape = (number, channels, side, side)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def judge(task="class", channels=1):
    torch.manual_seed(0)
    config = GenJudgeConfig(
        task=task, num_channels=channels, image_size=16, width=4, feature_dim=8, num_labels=3
    )
    return GenJudgeForImageClassification(config).eval()


class Brightness:
    name, device = "brightness", torch.device("cpu")

    def __call__(self, batch):
        means = batch.float().mean(dim=(2, 3))
        return means, means.softmax(dim=1)


def test_batches_of_any_size_and_files_in_memory_give_the_same_features(tmp_path):
    pixels = images()
    stored = np.memmap(tmp_path / "images", np.uint8, "w+", shape=tuple(pixels.shape))
    stored[:] = pixels.numpy()
    counted = []

    whole = extract(Brightness(), pixels)
    parts = extract(Brightness(), stored, batch_size=3, progress=counted.append)

    np.testing.assert_array_equal(whole.features, parts.features)
    np.testing.assert_array_equal(whole.probabilities, parts.probabilities)
    assert counted == [3, 3, 1]
    assert whole.features.dtype == np.float32


def test_only_bytes_are_measured():
    with pytest.raises(ValueError, match="as_bytes"):
        extract(Brightness(), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="bytes"):
        extract(Brightness(), images(0))


def test_bytes_come_back_from_the_numbers_that_models_compute_with():
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)

    assert torch.equal(as_bytes(every.float() / 127.5 - 1), every)
    assert as_bytes(torch.tensor([-1.5, 1.5]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_halves_share_no_image_and_depend_on_the_seed():
    numbered = Features(np.arange(11, dtype=np.float32)[:, None], np.ones((11, 2)))
    first, second = numbered.halves(seed=1)

    assert (len(first), len(second)) == (5, 5)
    assert len({*first.features.ravel(), *second.features.ravel()}) == 10
    assert first.probabilities.shape == (5, 2)
    np.testing.assert_array_equal(first.features, numbered.halves(seed=1)[0].features)
    assert (first.features != numbered.halves(seed=2)[0].features).any()
    with pytest.raises(ValueError, match="split in two"):
        numbered.take([0]).halves()


def test_grey_and_colours_turn_into_each_other_as_in_pillow():
    colors = images(1, 3)
    picture = Image.fromarray(colors[0].permute(1, 2, 0).numpy())

    grey = with_channels(colors.float() / 255, 1)
    expected = torch.from_numpy(np.array(picture.convert("L"))).float() / 255
    torch.testing.assert_close(grey[0, 0], expected, atol=1 / 255, rtol=0)
    assert torch.equal(with_channels(grey, 3), grey.expand(-1, 3, -1, -1))
    assert with_channels(grey, 4)[:, 3].eq(1).all()
    assert with_channels(colors.float(), 3) is not None


def test_what_is_not_opaque_lies_over_white():
    transparent = torch.tensor([0.2, 0.4, 0.6, 0.25]).view(1, 4, 1, 1)

    laid = with_channels(transparent, 3).flatten()

    torch.testing.assert_close(laid, torch.tensor([0.8, 0.85, 0.9]))
    luma = with_channels(transparent, 1).item()
    assert luma == pytest.approx(0.299 * 0.8 + 0.587 * 0.85 + 0.114 * 0.9)
    with pytest.raises(ValueError, match="1, 3 or 4"):
        with_channels(torch.zeros(1, 2, 1, 1), 3)


def test_images_are_brought_to_the_size_of_the_network():
    assert prepared(images(2, 1, 12), 3, (5, 7)).shape == (2, 3, 5, 7)
    same = images(2, 3, 12)
    assert torch.equal(prepared(same, 3, (12, 12)), same.float() / 255)


@pytest.mark.parametrize("task", ["class", "attributes", "rotation"])
def test_a_judge_gives_its_own_features_and_probabilities(task, tmp_path):
    model = judge(task)
    model.save_pretrained(tmp_path / "my-judge")
    pixels = images(5, 1, 16)
    scaled = pixels.float() / 127.5 - 1
    with torch.no_grad():
        expected, logits = model.features(scaled), model(scaled).logits

    extractor = open_extractor(tmp_path / "my-judge")
    found = extract(extractor, pixels)

    assert isinstance(extractor, JudgeFeatures)
    assert extractor.name == "my-judge"
    torch.testing.assert_close(torch.from_numpy(found.features), expected)
    if task == "rotation":
        assert found.probabilities is None
    else:
        shares = logits.softmax(1) if task == "class" else logits.sigmoid()
        torch.testing.assert_close(torch.from_numpy(found.probabilities), shares)
    np.testing.assert_allclose(
        extract(JudgeFeatures(model), pixels).features, found.features, rtol=1e-5
    )


def test_a_judge_reads_images_of_other_kinds_than_its_own():
    assert extract(JudgeFeatures(judge()), images(3, 4, 20)).features.shape == (3, 8)


def test_a_vision_model_sees_what_its_processor_would_show_it(tmp_path):
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    processor = ViTImageProcessor(
        do_resize=False, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], size=16
    )
    (tmp_path / "preprocessor_config.json").write_text(processor.to_json_string())
    pixels = images(4, 3, 16)
    mean, std = (torch.tensor(row).view(3, 1, 1) for row in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    with torch.no_grad():
        expected = model(pixel_values=(pixels / 255 - mean) / std).pooler_output

    found = extract(open_extractor(tmp_path), pixels)

    torch.testing.assert_close(torch.from_numpy(found.features), expected)
    assert found.probabilities is None
    assert extract(open_extractor(tmp_path), images(2, 1, 9)).features.shape == (2, 16)


def test_a_classifier_without_pooler_does_not_give_random_features(tmp_path):
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**TINY)).save_pretrained(tmp_path)

    first, second = (extract(VisionModelFeatures(tmp_path), images()) for _ in range(2))

    np.testing.assert_array_equal(first.features, second.features)


def test_convolutional_networks_and_networks_of_images_and_texts_work(tmp_path):
    resnet = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])
    ResNetModel(resnet).save_pretrained(tmp_path / "resnet")
    text = {key: TINY[key] for key in TINY if key not in ("image_size", "patch_size")}
    clip = CLIPConfig(text_config=text, vision_config=TINY, projection_dim=6)
    CLIPModel(clip).save_pretrained(tmp_path / "clip")

    assert extract(VisionModelFeatures(tmp_path / "resnet"), images()).features.shape == (7, 8)
    assert extract(VisionModelFeatures(tmp_path / "clip"), images()).features.shape == (7, 6)


def test_what_sees_no_images_is_refused(tmp_path):
    text = {key: TINY[key] for key in TINY if key not in ("image_size", "patch_size")}
    BertModel(BertConfig(**text, vocab_size=10)).save_pretrained(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")

    with pytest.raises(UserError, match="type bert, which does not see images"):
        open_extractor(tmp_path)
    with pytest.raises(UserError, match="cannot be opened as a judge"):
        JudgeFeatures(tmp_path)
    with pytest.raises(UserError, match="is not JSON"):
        open_extractor(tmp_path / "broken")
    with pytest.raises(UserError, match="cannot be opened as a vision model"):
        open_extractor(tmp_path / "nothing")


@pytest.fixture
def fidelity(monkeypatch):
    """A stand-in for torch-fidelity with the interface of its Inception network."""

    class Network(torch.nn.Module):
        def __init__(self, name, features_list, feature_extractor_weights_path):
            super().__init__()
            assert features_list == ["2048", "logits_unbiased"]
            self.layer = torch.nn.Linear(3, 2)
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

        def forward(self, x):
            assert x.dtype == torch.uint8
            seen = self.layer(x.float().mean(dim=(2, 3)))
            return seen, seen

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Network
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_inception_opens_a_file_of_weights_that_holds_nothing_else(fidelity, tmp_path):
    layer = torch.nn.Linear(3, 2)
    weights = {f"layer.{name}": value for name, value in layer.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    torch.save({"a": Brightness()}, tmp_path / "code.pth")
    torch.save({"layer.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 and so on")

    found = extract(open_extractor(tmp_path / "weights.pth"), images(3, 1))

    expected = layer(images(3, 1).float().mean(dim=(2, 3)).expand(-1, 3))
    torch.testing.assert_close(torch.from_numpy(found.features), expected.detach())
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    for name in ("code", "damaged"):
        with pytest.raises(UserError, match="damaged, or holds more than tensors"):
            InceptionFeatures(tmp_path / f"{name}.pth")
    with pytest.raises(UserError, match="not those of torch-fidelity"):
        InceptionFeatures(tmp_path / "other.pth")
    with pytest.raises(UserError, match="There is no file"):
        InceptionFeatures(tmp_path / "none.pth")


def test_a_missing_library_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)

    with pytest.raises(UserError, match=r"hf_genmodels\[fidelity\]"):
        InceptionFeatures(tmp_path / "weights.pth")
