import math

import pytest
import torch

from hf_genmodels.losses.adversarial import KINDS, discriminator_loss
from hf_genmodels.losses.text_image import (
    agreement_loss,
    choose_masked,
    derangement,
    masked_token_loss,
    matching_aware_loss,
    reconstruction_loss,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [2, 3, 8, 33])
def test_a_derangement_permutes_all_rows_and_leaves_none_in_place(size):
    for seed in range(20):
        rows = derangement(size, seeded(seed))
        assert sorted(rows.tolist()) == list(range(size))
        assert (rows != torch.arange(size)).all()


def test_a_derangement_follows_from_its_generator_and_varies():
    assert torch.equal(derangement(9, seeded(3)), derangement(9, seeded(3)))
    assert len({tuple(derangement(4, seeded(seed)).tolist()) for seed in range(60)}) == 6


def test_one_row_has_no_derangement():
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, seeded())


def test_only_words_are_masked_about_as_many_as_asked_for():
    mask = torch.ones(50, 40, dtype=torch.long)
    mask[:, 30:] = 0
    masked = choose_masked(mask, 0.3, seeded())
    assert not masked[:, 30:].any()
    assert masked[:, :30].float().mean() == pytest.approx(0.3, abs=0.03)


def test_padding_does_not_move_the_choice_of_other_rows():
    mask = torch.ones(4, 8, dtype=torch.long)
    padded = mask.clone()
    padded[1, 2:] = 0
    before, after = choose_masked(mask, 0.5, seeded()), choose_masked(padded, 0.5, seeded())
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_of_masked_words_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        choose_masked(torch.ones(2, 2), share, seeded())


def test_the_hinge_of_df_gan():
    real = torch.tensor([2.0, 0.5])
    fake = torch.tensor([-2.0, 0.0])
    mismatched = torch.tensor([-0.5, 1.0])
    expected = (0 + 0.5) / 2 + 0.5 * (0 + 1) / 2 + 0.5 * (0.5 + 2) / 2
    assert matching_aware_loss("hinge", real, fake, mismatched).item() == pytest.approx(expected)


def test_a_relativistic_mismatch_is_compared_with_the_same_image():
    real, mismatched = torch.tensor([1.0, -3.0]), torch.tensor([0.0, 2.0])
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(5))) / 2
    loss = matching_aware_loss("relativistic", real, torch.zeros(2), mismatched, 1.0)
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_without_mismatches_every_kind_is_the_plain_loss(kind):
    real, fake, mismatched = torch.randn(3, 7, generator=seeded())
    plain = discriminator_loss(kind, real, fake)
    torch.testing.assert_close(matching_aware_loss(kind, real, fake, mismatched, 0.0), plain)
    assert matching_aware_loss(kind, real, fake, mismatched, 0.5) != plain


def test_a_share_of_mismatches_out_of_range_is_refused():
    with pytest.raises(ValueError, match="mismatch_share"):
        matching_aware_loss("hinge", *torch.zeros(3, 2), mismatch_share=1.5)


def test_agreement_of_orthogonal_pairs():
    pairs = torch.eye(4)
    own, others = math.exp(1 / 0.5), 3
    assert agreement_loss(pairs, 7 * pairs, 0.5).item() == pytest.approx(
        -math.log(own / (own + others))
    )


def test_agreement_is_symmetric_and_ln_b_where_nothing_agrees():
    images, texts = torch.randn(2, 6, 5, generator=seeded())
    torch.testing.assert_close(agreement_loss(images, texts), agreement_loss(texts, images))
    assert agreement_loss(torch.ones(6, 5), texts).item() > math.log(6)
    assert agreement_loss(torch.ones(6, 5), torch.ones(6, 5)).item() == pytest.approx(math.log(6))


def test_masked_words_cost_their_log_probability():
    ids = torch.tensor([[1, 2], [0, 2]])
    masked = torch.tensor([[True, False], [False, True]])
    logits = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    costs = [math.log(2 + math.e) - 1, math.log(2 + math.exp(3)) - 3]
    loss = masked_token_loss(logits, ids, masked)
    assert loss.item() == pytest.approx(sum(costs) / 2)
    loss = masked_token_loss(logits, ids, masked, num_items=8)
    assert loss.item() == pytest.approx(sum(costs) / 8)


def test_no_masked_word_costs_nothing():
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = masked_token_loss(logits, torch.zeros(2, 2).long(), torch.zeros(2, 2).bool())
    loss.backward()
    assert loss.item() == 0


def test_scores_of_another_number_of_words_are_refused():
    with pytest.raises(ValueError, match="masked_tokens"):
        masked_token_loss(torch.zeros(3, 4), torch.zeros(1, 2).long(), torch.ones(1, 2).bool())


def test_a_reconstruction_is_compared_with_the_means_of_areas():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    means = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).view(1, 1, 2, 2)
    assert reconstruction_loss(means, images).item() == 0
    assert reconstruction_loss(means + torch.tensor([1.0, -3.0]), images).item() == 2


def test_a_reconstruction_with_other_channels_is_refused():
    with pytest.raises(ValueError, match="reconstruction"):
        reconstruction_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 8, 8))
