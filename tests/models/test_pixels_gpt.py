"""GenGPTForCausalLM with pictures: where pixels are found, and what their rows and columns do."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.models.pixel_positions import PixelPositions, find_pixel_positions

LARGE, SMALL, TEXT = 3, 4, 50
PICTURES = {
    "image_sizes": [3, 2],
    "image_token_ids": [LARGE, SMALL],
    "caption_token_id": 5,
    "palette_token_id": 10,
    "palette_size": 8,
}
# text, a small picture, a large one, text
ROW = [2, TEXT, SMALL, 10, 11, 12, 13, LARGE, 10, 11, 12, 13, 14, 15, 16, 17, 10, TEXT, 2]
POSITIONS = [-1] * 3 + [9, 10, 11, 12, -1] + list(range(9)) + [-1, -1]


@pytest.fixture(params=["learned", "rotary"])
def model(request, make_model) -> GenGPTForCausalLM:
    return make_model(position_embedding=request.param, **PICTURES)


def found(row: list[int], position_ids: list[int] | None = None) -> list[int]:
    positions = None if position_ids is None else torch.tensor([position_ids])
    return find_pixel_positions(torch.tensor([row]), [3, 2], [LARGE, SMALL], positions)[0].tolist()


def test_pixels_follow_the_token_that_begins_their_picture_and_end_with_it():
    assert found(ROW) == POSITIONS
    assert found([TEXT, TEXT]) == [-1, -1]


def test_padding_on_either_side_changes_no_pixel():
    assert found([0, 0, *ROW, 0])[2:-1] == POSITIONS


def test_a_picture_that_was_cut_off_does_not_reach_into_the_next_document():
    row = [2, LARGE, 10, 11, 2, TEXT, TEXT]
    assert found(row) == [-1, -1, 0, 1, 2, 3, 4]
    assert found(row, [0, 1, 2, 3, 0, 1, 2]) == [-1, -1, 0, 1, -1, -1, -1]


def test_a_pixel_gets_the_sum_of_its_row_and_its_column():
    embed = PixelPositions([3, 2], 4)
    states = embed(torch.tensor([[-1, 0, 5, 9, 12]]))[0]
    rows, columns = embed.rows.weight, embed.columns.weight
    expected = [torch.zeros(4), rows[0] + columns[0], rows[1] + columns[2]]
    expected += [rows[3] + columns[3], rows[4] + columns[4]]
    assert_close(states, torch.stack(expected))


@torch.no_grad()
def test_the_model_finds_the_pixels_that_it_is_not_told(model):
    ids = torch.tensor([ROW])
    told = model(ids, pixel_positions=torch.tensor([POSITIONS])).logits
    assert_close(model(ids).logits, told)
    none = torch.full((1, len(ROW)), -1)
    assert not torch.allclose(model(ids, pixel_positions=none).logits, told, atol=1e-2)


@torch.no_grad()
def test_packed_documents_with_pictures_are_as_each_alone(model):
    first, second = [2, SMALL, 10, 11], [2, LARGE, 12, 13, 14]
    ids = torch.tensor([first + second])
    positions = torch.tensor([[*range(4), *range(5)]])
    together = model(ids, position_ids=positions).logits[0]
    assert_close(together[:4], model(torch.tensor([first])).logits[0], atol=1e-4, rtol=1e-4)
    assert_close(together[4:], model(torch.tensor([second])).logits[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_generate_with_a_cache_draws_what_it_draws_without(model):
    ids = torch.tensor([[2, TEXT, LARGE], [2, LARGE, 10]])
    options = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(
        model.generate(ids, use_cache=True, **options),
        model.generate(ids, use_cache=False, **options),
    )


@torch.no_grad()
def test_padding_on_the_left_changes_nothing_that_is_drawn(model):
    ids = torch.tensor([[2, TEXT, LARGE]])
    options = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    alone = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    padded = torch.tensor([[0, 0, 2, TEXT, LARGE]])
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    assert torch.equal(model.generate(padded, attention_mask=mask, **options)[:, 2:], alone)


@torch.no_grad()
def test_a_filled_cache_needs_pixel_positions(model):
    ids = torch.tensor([ROW])
    cache = model(ids[:, :10], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="needs pixel_positions"):
        model(ids[:, 10:], past_key_values=cache)
    with pytest.raises(ValueError, match="needs pixel_positions"):
        model(inputs_embeds=model.get_input_embeddings()(ids))
    rest = model(ids[:, 10:], past_key_values=cache, pixel_positions=torch.tensor([POSITIONS[10:]]))
    assert_close(rest.logits, model(ids).logits[:, 10:], atol=1e-4, rtol=1e-4)


def test_rows_and_columns_are_learned(model):
    ids = torch.tensor([ROW])
    model.train()(ids, labels=ids).loss.backward()
    embed = model.model.embed_pixels
    assert embed.rows.weight.grad.any(dim=-1).all()
    assert embed.columns.weight.grad.any(dim=-1).all()


def test_a_model_of_texts_has_no_rows_and_columns(make_model):
    assert not any("pixel" in name for name in make_model().state_dict())


def test_a_saved_model_is_loaded_with_its_rows_and_columns(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = GenGPTForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.image_sizes == [3, 2]
    ids = torch.tensor([ROW])
    assert_close(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_token_ids": [3]}, r"image_token_ids=\[3\] must name a token for each"),
        ({"image_sizes": [3, 0]}, r"image_sizes=\[3, 0\] must lie between 1 and 256"),
        ({"image_sizes": [10**6, 2]}, "must lie between 1 and 256"),
        ({"palette_token_id": None}, "palette_token_id=None"),
        ({"palette_size": 1}, "palette_size=1"),
        ({"palette_token_id": 90}, "palette_token_id=90 and palette_size=8 must name"),
    ],
)
def test_pictures_that_cannot_be_are_refused(make_config, fields, message):
    with pytest.raises(Exception, match=message):
        make_config(**{**PICTURES, **fields})
