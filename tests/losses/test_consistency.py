import pytest
import torch

from hf_genmodels.losses.consistency import balanced_consistency, consistency


def test_it_is_the_mean_squared_difference_of_the_scores():
    scores, moved = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 5.0])

    assert consistency(scores, moved).item() == 5
    assert consistency(scores, scores).item() == 0
    assert balanced_consistency(scores, moved, moved, scores + 1, 2, 4).item() == 2 * 5 + 4 * 4


def test_both_sides_learn_in_full_precision():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    moved = torch.tensor([0.0, 5.0], requires_grad=True)

    consistency(scores, moved).backward()

    assert scores.grad.tolist() == [1, -3]
    assert moved.grad.tolist() == [-1, 3]
    assert consistency(scores.bfloat16(), moved.bfloat16()).dtype == torch.float32


def test_scores_of_other_images_are_refused():
    with pytest.raises(ValueError, match="shapes must be equal"):
        consistency(torch.zeros(2), torch.zeros(3))
