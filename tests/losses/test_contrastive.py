import math

import pytest
import torch
from torch.autograd import gradcheck

from hf_genmodels.losses.contrastive import info_nce, pooled


def random_pairs(rows=5, size=4):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, size, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]


def test_orthogonal_pairs_are_the_closed_form():
    vectors = torch.eye(3)

    # -log(e^2 / (e^2 + 2)) with temperature 1/2
    expected = math.log(1 + 2 * math.exp(-2))
    assert info_nce(vectors, 7 * vectors, temperature=0.5).item() == pytest.approx(expected)


def test_equal_vectors_leave_only_chance():
    assert info_nce(torch.ones(8, 3), torch.ones(8, 3)).item() == pytest.approx(math.log(8))


def test_rows_of_one_group_are_not_each_others_negatives():
    vectors = torch.ones(4, 3)

    # The first two see themselves and 2 others, so do the last two.
    loss = info_nce(vectors, vectors, groups=torch.tensor([1, 1, 2, 2]))
    assert loss.item() == pytest.approx(math.log(3))
    alone = info_nce(vectors, vectors, groups=torch.tensor([1, 2, 3, 4]))
    assert alone.item() == info_nce(vectors, vectors).item()


def test_without_negatives_there_is_nothing_to_learn():
    anchors, positives = random_pairs()

    loss = info_nce(anchors, positives, groups=torch.zeros(5))
    loss.backward()

    assert loss.item() == 0
    assert not anchors.grad.any()
    assert info_nce(anchors[:1], positives[:1]).item() == 0
    assert info_nce(anchors[:0], positives[:0]).item() == 0


def test_a_better_match_is_a_smaller_loss():
    anchors, positives = random_pairs()
    closer = [anchors + share * (positives - anchors) for share in (0.0, 0.5, 1.0)]

    losses = [info_nce(anchor, positives).item() for anchor in closer]

    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1, 2, 1])])
def test_gradients_agree_with_finite_differences(groups):
    assert gradcheck(lambda a, p: info_nce(a, p, 0.3, groups), random_pairs())


def test_autocast_does_not_round_the_cosines():
    anchors, positives = random_pairs()
    rows = anchors.float(), positives.float()
    with torch.autocast("cpu", torch.bfloat16):
        cast = info_nce(*rows, 0.01).item()
    assert cast == info_nce(*rows, 0.01).item()


def test_num_items_replaces_the_number_of_rows():
    anchors, positives = random_pairs()

    torch.testing.assert_close(
        info_nce(anchors, positives, num_items=10), info_nce(anchors, positives) / 2
    )


def test_a_zero_vector_is_safe():
    anchors = torch.zeros(2, 3, requires_grad=True)

    loss = info_nce(anchors, torch.eye(3)[:2])
    loss.backward()

    assert loss.item() == pytest.approx(math.log(2))
    assert anchors.grad.isfinite().all()


def test_a_mean_over_real_tokens():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [math.nan, math.inf]]])
    states = torch.cat([states, torch.ones(1, 2, 2)]).requires_grad_()
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]])

    means = pooled(states, mask)
    means.sum().backward()

    torch.testing.assert_close(means, torch.tensor([[2.0, 3.0], [5.0, 6.0], [0.0, 0.0]]))
    torch.testing.assert_close(states.grad[..., 0], torch.tensor([[0.5, 0.5], [1, 0], [0, 0]]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: info_nce(torch.ones(2, 3), torch.ones(3, 3)),
        lambda: info_nce(torch.ones(2, 3), torch.ones(2, 3), groups=torch.ones(3)),
        lambda: info_nce(torch.ones(2, 3), torch.ones(2, 3), temperature=0),
        lambda: pooled(torch.ones(2, 3, 4), torch.ones(2, 4)),
    ],
)
def test_what_cannot_be_computed_is_refused(call):
    with pytest.raises(ValueError, match="must be"):
        call()
