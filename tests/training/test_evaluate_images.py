"""`genmodels evaluate` with a generator of images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.inference import image_pictures
from hf_genmodels.inference.image_sampling import spread_places
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANGenerator
from hf_genmodels.training.evaluate import EvaluateOptions, evaluate, main
from hf_genmodels.training.train_judge import main as train_judge
from tests.hub.conftest import byte_tokenizer

SIDE, NAMES = 8, ["left", "right", "top"]
PICTURES = {"samples", "neighbours", "interpolation", "truncation"}
TINY = ["--image_size", "8", "--width", "4", "--feature_dim", "6", "--max_steps", "5"]


def picture(generator, label):
    pixels = generator.integers(80, size=(SIDE, SIDE), dtype=np.uint8)
    half = {0: np.s_[:, :4], 1: np.s_[:, 4:], 2: np.s_[:4]}[label]
    pixels[half] += 150
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey images of three classes in their folders."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        (root / name).mkdir()
        for number in range(24 if label else 48):
            picture(generator, label).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """The same kind of images, with a caption of its own each."""
    root = tmp_path_factory.mktemp("captioned")
    generator = np.random.default_rng(1)
    lines = []
    for number in range(60):
        name = f"{number}.png"
        picture(generator, number % 3).save(root / name)
        text = f"bright {NAMES[number % 3]} number {number}"
        lines.append(json.dumps({"file_name": name, "text": text}) + "\n")
    (root / "metadata.jsonl").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def judge(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("judge") / "judge"
    train_judge(["--train_file", str(folder), "--output_dir", str(output), *TINY])
    return output


@pytest.fixture(scope="module")
def text_judge(captioned, tmp_path_factory):
    output = tmp_path_factory.mktemp("judge") / "text"
    train_judge(["--train_file", str(captioned), "--output_dir", str(output), *TINY])
    return output


def gan(folder, tokenizer=None, **fields):
    torch.manual_seed(0)
    config = GenGANConfig(
        image_size=SIDE,
        latent_dim=4,
        generator_width=4,
        discriminator_width=4,
        condition_dim=4,
        **fields,
    )
    return publish_folder(GenGANGenerator(config).eval(), tokenizer, folder)


@pytest.fixture
def model(tmp_path):
    """A random generator that knows the classes in another order."""
    names = ["top", "left", "right"]
    return gan(
        tmp_path / "gan",
        conditioning="class",
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )


@pytest.fixture
def text_model(tmp_path):
    tokenizer = byte_tokenizer()
    return gan(
        tmp_path / "gan",
        tokenizer,
        conditioning="text",
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
    )


def options(model, folder, judge, **others):
    settings = {"num_samples": 60, "sweep": False, **others}
    return EvaluateOptions(str(model), [str(folder)], judge=str(judge), **settings)


def test_a_generator_of_classes_is_measured_in_every_way(model, folder, judge):
    results = evaluate(options(model, folder, judge, sweep=True))

    for name in ("fid", "kid", "precision", "recall", "density", "coverage", "inception_score"):
        assert f"{name}_60" in results, name
        assert any(key.startswith(f"{name}_") for key in results["real"]), name
    assert results["accuracy_60_low"] <= results["accuracy_60"] <= results["accuracy_60_high"]
    assert set(results["by_class"]["accuracy"]) == set(NAMES)
    assert set(results["by_truncation"]) == {"0.4", "0.6", "0.8", "1"}
    assert results["by_truncation"]["1"]["fid_60"] == pytest.approx(results["fid_60"])
    assert results["copy_ratio"] > 0
    assert results["num_real"] == 91  # of 96, five are held out
    assert "judge (lenet" in results["features"]


def test_results_and_pictures_stand_in_the_report_of_the_model(model, folder, judge):
    (model / "report").mkdir()
    (model / "report" / "results.json").write_text('{"eval_fid": 3.0}')

    results = evaluate(options(model, folder, judge))

    written = json.loads((model / "report" / "results.json").read_text())
    assert written["eval_fid"] == 3.0
    assert written["evaluation"] == json.loads(json.dumps(results))
    names = {f"{name}.png" for name in PICTURES}
    assert set(results["pictures"]) == names
    for name in names:
        with Image.open(model / "report" / name) as image:
            assert min(image.size) > 64
    assert {file.name for file in (model / "report").iterdir()} == names | {"results.json"}


def test_the_card_shows_the_newest_evaluation_and_keeps_what_else_it_says(model, folder, judge):
    card = model / "README.md"
    before = card.read_text()

    evaluate(options(model, folder, judge))
    once = card.read_text()
    results = evaluate(options(model, folder, judge, seed=1))
    twice = card.read_text()

    assert once.count("## Evaluation") == twice.count("## Evaluation") == 1
    assert once.index("## Evaluation") < once.index("## Limits")
    assert once != twice
    assert f"{results['fid_60']:.3f}"[:6] in twice
    for name in PICTURES:
        assert f"](report/{name}.png)" in twice
    kept = [line for line in twice.splitlines() if line in before.splitlines()]
    assert [line for line in kept if line] == [line for line in before.splitlines() if line]


def test_a_perfect_generator_reaches_what_real_images_reach(model, folder, judge, monkeypatch):
    from hf_genmodels.inference import image_scores

    class Copier(image_scores.ImageDrawer):
        """Draws the training images of which the conditions were asked for."""

        def __init__(self, model, tokenizer, data):
            super().__init__(model, tokenizer, data)
            self.data = data

        def conditions(self, images, chosen):
            return {
                "place": torch.from_numpy(np.asarray(chosen)),
                **super().conditions(images, chosen),
            }

        def draw(self, conditions, *_, **__):
            return self.data.train.images[conditions["place"].numpy()]

    monkeypatch.setattr(image_scores, "ImageDrawer", Copier)
    results = evaluate(options(model, folder, judge, num_samples=91))

    assert results["fid_91"] == pytest.approx(0, abs=1e-6)
    assert results["recall_91"] == 1
    assert results["diversity_91"] == pytest.approx(1)
    assert results["copy_ratio"] == pytest.approx(0, abs=1e-4)
    assert results["copy_share"] == 1


def test_the_labels_of_the_data_are_found_by_name(model, folder, judge):
    from hf_genmodels.inference import image_scores

    asked = []
    original = image_scores.ImageDrawer.conditions

    class Spy(image_scores.ImageDrawer):
        def conditions(self, images, chosen):
            found = original(self, images, chosen)
            asked.append((np.asarray(images.labels)[chosen], found["class_labels"]))
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_scores, "ImageDrawer", Spy)
        evaluate(options(model, folder, judge))

    for data_labels, model_labels in asked:
        names = [["top", "left", "right"][label] for label in model_labels.tolist()]
        assert names == [NAMES[label] for label in data_labels.tolist()]
    drawn = asked[0][0]
    assert np.bincount(drawn).tolist() == pytest.approx([30, 15, 15], abs=1)


def test_texts_are_retrieved_for_training_and_held_out_captions(text_model, captioned, text_judge):
    results = evaluate(options(text_model, captioned, text_judge))

    assert set(results["retrieval"]) == {"training", "held_out"}
    training = results["retrieval"]["training"]
    assert training["images"] == 57
    assert training["candidates"] == 57
    assert training["low"] <= training["precision"] <= training["high"]
    assert 0 <= training["real_precision"] <= 1
    assert "accuracy_60" not in results


def test_a_generator_without_conditions_needs_no_labels(tmp_path, folder, judge):
    plain = gan(tmp_path / "plain")

    results = evaluate(options(plain, folder, judge))

    assert "fid_60" in results
    assert "accuracy_60" not in results


def test_a_judge_of_other_classes_does_not_judge_accuracy(model, folder, judge, text_judge):
    results = evaluate(options(model, folder, text_judge))

    assert "fid_60" in results
    assert "accuracy_60" not in results
    assert "diversity_60" in results


def test_a_vision_model_of_transformers_can_look_instead(model, folder, tmp_path):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
    )
    ViTModel(config).save_pretrained(tmp_path / "vit")

    results = evaluate(options(model, folder, tmp_path / "vit"))

    assert results["features"] == "vit"
    assert "fid_60" in results
    assert "accuracy_60" not in results


def test_without_a_judge_one_is_trained_and_found_again(model, folder, monkeypatch, capsys):
    from hf_genmodels.config import judge as judge_options
    from hf_genmodels.metrics import judge_training

    monkeypatch.setattr(judge_options, "LEAST_STEPS", 3)
    trained = []
    original = judge_training.train_judge
    monkeypatch.setattr(
        judge_training, "train_judge", lambda *a, **k: trained.append(a) or original(*a, **k)
    )
    command = [str(model), "--file", str(folder), "--num_samples", "80", "--sweep", "false"]

    main(command)
    first = capsys.readouterr().out
    main(command)

    assert len(trained) == 1
    assert capsys.readouterr().out == first
    assert "measured on 80 generated and 91 real images by a judge (lenet" in first
    assert "Fréchet distance" in first


def test_a_run_is_measured_on_its_own_images(model, folder, judge):
    (model / "config.yaml").write_text(
        f"train_file: [{folder}]\nvalidation_split_percentage: 10.0\n"
    )

    own = evaluate(EvaluateOptions(str(model), judge=str(judge), num_samples=60, sweep=False))
    named = evaluate(options(model, folder, judge))

    assert own["num_real"] == 86
    assert own == named


def test_places_are_spread_over_classes_by_their_shares():
    labels = np.array([1, 0, 1, 1, 0, 1, 1, 1])
    images = ImageSet(np.zeros((8, 1, 2, 2), np.uint8), labels)

    chosen = spread_places(images, 4)
    many = spread_places(images, 80)

    assert labels[chosen].tolist() == [0, 1, 1, 1]
    assert np.bincount(labels[many]).tolist() == [20, 60]
    assert sorted(spread_places(images, 8).tolist()) == list(range(8))


def test_rows_of_pictures_are_named_after_what_was_asked_for(captioned, text_model, text_judge):
    seen = []
    original = image_pictures.draw_grid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            image_pictures,
            "draw_grid",
            lambda path, images, columns, labels=(): (
                seen.append((path.name, list(labels))) or original(path, images, columns, labels)
            ),
        )
        evaluate(options(text_model, captioned, text_judge))

    labels = dict(seen)["samples.png"]
    assert len(labels) == image_pictures.MOST_ROWS
    assert all(label.startswith("bright ") for label in labels)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"file": []}, "Give the real images with --file"),
        ({"file": ["missing"]}, "missing"),
        ({"judge": "missing"}, "missing"),
        ({"num_beams": 3}, "--num_beams has no meaning here"),
        ({"generate": 5}, "--num_samples"),
        ({"text_column": "caption"}, "caption|table"),
        ({"device": "quantum"}, "quantum"),
    ],
)
def test_mistakes_are_one_clear_error_and_write_nothing(model, folder, judge, others, message):
    given = {"file": [str(folder)], "judge": str(judge), **others}

    with pytest.raises(UserError, match=message):
        evaluate(EvaluateOptions(str(model), **given))

    assert not (model / "report").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_samples": 1}, "--num_samples is 1"), ({"truncation": 1.5}, "--truncation is 1.5")],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        EvaluateOptions("gan", **options)


def test_data_of_another_kind_or_with_unknown_classes_are_refused(
    text_model, folder, judge, tmp_path
):
    with pytest.raises(UserError, match="draws by captions"):
        evaluate(options(text_model, folder, judge))

    other = gan(
        tmp_path / "other",
        conditioning="class",
        id2label={0: "a", 1: "b"},
        label2id={"a": 0, "b": 1},
    )
    with pytest.raises(UserError, match="'left', which the model does not know"):
        evaluate(options(other, folder, judge))


def test_a_judge_is_no_generator(judge, folder):
    with pytest.raises(UserError, match="A judge is no generator"):
        evaluate(EvaluateOptions(str(judge), [str(folder)]))
