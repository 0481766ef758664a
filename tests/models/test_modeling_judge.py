"""The judge: shapes, round trips, losses and texts."""

import pytest
import torch
import torch.nn.functional as F

from hf_genmodels.models.configuration_judge import TASKS, GenJudgeConfig
from hf_genmodels.models.judge_text import encode_texts, piece_ids
from hf_genmodels.models.modeling_judge import (
    GenJudgeForImageClassification,
    matching_loss,
    turned,
)

FACTORS = {"class": ["bag", "coat", "shirt"], "direction": ["left", "right"]}


def judge(seed=0, **options):
    torch.manual_seed(seed)
    labels = {"rotation": {}, "factors": {"factors": FACTORS}}.get(
        options.get("task"), {"num_labels": 5}
    )
    return GenJudgeForImageClassification(
        GenJudgeConfig(**{"width": 4, "feature_dim": 8, **labels, **options})
    ).eval()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("backbone", "size", "channels", "frames"),
    [("lenet", 28, 1, 1), ("resnet", 50, 4, 1), ("r2plus1d", 20, 3, 10)],
)
def test_a_saved_judge_says_the_same_to_the_bit(task, backbone, size, channels, frames, tmp_path):
    model = judge(
        task=task, backbone=backbone, image_size=size, num_channels=channels, num_frames=frames
    )
    shape = (3, frames, channels, size, size) if frames > 1 else (3, channels, size, size)
    images = torch.rand(shape) * 2 - 1
    texts = {}
    if task == "matching":
        ids, mask = model.encode_texts(["a red heart", "Sun", ""])
        texts = {"input_ids": ids, "attention_mask": mask}

    model.save_pretrained(tmp_path)
    loaded = GenJudgeForImageClassification.from_pretrained(tmp_path)

    with torch.no_grad():
        said, again = model(images, **texts), loaded(images, **texts)
        assert torch.equal(loaded.features(images), said.features)
    assert torch.equal(said.logits, again.logits)
    assert said.features.shape == (3, 8)
    assert said.logits.shape == (3, {"rotation": 4, "matching": 3}.get(task, 5))
    assert torch.isfinite(said.logits).all()


def test_the_default_configuration_works_and_names_the_turns_of_rotation():
    assert GenJudgeConfig().task == "class"
    rotation = GenJudgeConfig(task="rotation")
    assert rotation.num_labels == 4
    assert rotation.id2label[0] == "upright"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "lenet", "image_size": 64}, "Choose the backbone resnet"),
        ({"backbone": "vgg"}, "lenet, resnet"),
        ({"task": "captions"}, "class, attributes, rotation, matching"),
        ({"task": "factors"}, "give the classes of each factor"),
        ({"num_frames": 16}, "r2plus1d is for clips"),
        ({"backbone": "r2plus1d"}, "r2plus1d is for clips"),
        ({"num_channels": 2}, "1, 3 or 4"),
        ({"image_size": 4}, "at least 8"),
    ],
)
def test_configurations_that_cannot_work_are_refused(options, message):
    with pytest.raises(Exception, match=message) as caught:
        GenJudgeConfig(**options)
    assert message in str(caught.value.__cause__ or caught.value)


def test_losses_are_the_cross_entropies_of_the_tasks():
    images = torch.randn(4, 1, 32, 32)
    classes = judge()
    ids = torch.tensor([0, 3, 1, 1])
    output = classes(images, labels=ids)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, ids))

    attributes = judge(task="attributes")
    known = torch.tensor([[0, 1, 0, 1, 1]] * 4, dtype=torch.uint8)
    output = attributes(images, labels=known)
    expected = F.binary_cross_entropy(output.logits.sigmoid(), known.float())
    torch.testing.assert_close(output.loss, expected)


def test_the_loss_of_factors_is_the_mean_of_their_cross_entropies():
    model = judge(task="factors")
    known = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])

    output = model(torch.randn(4, 1, 32, 32), labels=known)

    assert model.config.factor_slices == {"class": slice(0, 3), "direction": slice(3, 5)}
    assert model.config.id2label[3] == "direction: left"
    by_hand = [
        F.cross_entropy(output.logits[:, :3], known[:, 0]),
        F.cross_entropy(output.logits[:, 3:], known[:, 1]),
    ]
    torch.testing.assert_close(output.loss, sum(by_hand) / 2)


def test_a_judge_of_clips_sees_every_frame_and_their_order():
    model = judge(
        task="factors", backbone="r2plus1d", num_frames=16, image_size=16, width=16, feature_dim=32
    )
    clip = torch.randn(1, 16, 1, 16, 16)
    with torch.no_grad():
        seen = model.features(clip)
        for number in range(16):
            other = clip.clone()
            other[:, number] = 0
            assert not torch.equal(model.features(other), seen), number
        assert not torch.allclose(model.features(clip.flip(1)), seen)


def test_equal_texts_are_right_for_each_others_images():
    similar = torch.tensor([[9.0, 9.0, 0.0], [9.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    ids = torch.tensor([[5, 6], [5, 6], [7, 0]])
    different = torch.tensor([[5, 6], [6, 5], [7, 0]])

    equal = matching_loss(similar, ids)

    probabilities = similar.softmax(dim=1)
    by_hand = -(2 * probabilities[:2, :2].log().mean(1).sum() / 2 + probabilities[2, 2].log()) / 3
    torch.testing.assert_close(equal, by_hand)
    torch.testing.assert_close(matching_loss(similar, different), equal)  # all logits are tied
    assert matching_loss(similar[:2], ids) is None


def test_a_judge_of_texts_without_texts_says_what_is_missing():
    with pytest.raises(ValueError, match="encode_texts"):
        judge(task="matching")(torch.zeros(1, 1, 32, 32))


def test_a_text_is_judged_alike_whatever_is_padded_beside_it():
    model = judge(task="matching")
    alone = model.embed_texts(*model.encode_texts(["red heart"]))
    beside = model.embed_texts(*model.encode_texts(["red heart", "a very much longer caption"]))

    torch.testing.assert_close(alone[0], beside[0])
    torch.testing.assert_close(beside.norm(dim=1), torch.ones(2))


def test_pieces_are_words_first_then_pairs_then_parts():
    ids = piece_ids("Red heart", 1000, 50)

    assert ids[0] == piece_ids("red", 1000, 50)[0]
    assert ids[1] == piece_ids("HEART", 1000, 50)[0]
    assert len(set(ids)) > 8
    assert set(piece_ids("hearts", 10**6, 50)) & set(piece_ids("heart", 10**6, 50))
    assert piece_ids("red heart", 1000, 2) == ids[:2]
    assert min(piece_ids("any words at all", 5, 50)) >= 1
    encoded, mask = encode_texts(["a b", ""], 1000, 50)
    assert mask.tolist()[1] == [0] * encoded.shape[1]
    assert (mask == (encoded != 0)).all()


def test_turned_images_come_in_all_orientations_with_their_quarters():
    image = torch.arange(4.0).view(1, 1, 2, 2)

    views, turns = turned(image)

    assert turns.tolist() == [0, 1, 2, 3]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 4
    for view, quarters in zip(views, turns.tolist(), strict=True):
        assert torch.equal(torch.rot90(view, -quarters, (-2, -1)), image[0])


def test_training_learns_in_all_tasks():
    torch.manual_seed(0)
    images = torch.randn(16, 1, 16, 16)
    for task in TASKS:
        model = judge(task=task, image_size=16).train()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        inputs = {"pixel_values": images}
        if task == "rotation":
            views, turns = turned(images)
            inputs = {"pixel_values": views, "labels": turns}
        elif task == "matching":
            ids, mask = model.encode_texts([f"number {i}" for i in range(16)])
            inputs |= {"input_ids": ids, "attention_mask": mask}
        elif task == "factors":
            inputs["labels"] = torch.stack([torch.arange(16) % 3, torch.arange(16) % 2], dim=1)
        else:
            labels = torch.arange(16) % 5
            inputs["labels"] = labels if task == "class" else F.one_hot(labels, 5)
        losses = []
        for _ in range(30):
            loss = model(**inputs).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0], task
        unused = [name for name, p in model.named_parameters() if p.grad is None]
        assert unused == []


def test_auto_classes_load_a_judge(tmp_path):
    from transformers import AutoModelForImageClassification

    import hf_genmodels  # noqa: F401

    judge().save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert type(loaded) is GenJudgeForImageClassification
