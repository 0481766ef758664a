"""The mean loss of a validation and its interval."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hf_genmodels.engine.mean_loss import MIN_BATCHES, MeanLoss, quantile_of_t
from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval


def alone() -> Any:
    """A run of one process."""
    return SimpleNamespace(sum_over_ranks=lambda *values: [float(value) for value in values])


def mean_of(losses: Any, tokens: Any, **options: Any) -> dict[str, float]:
    mean = MeanLoss()
    for loss, count in zip(losses, tokens, strict=True):
        mean.add(float(loss), int(count))
    return mean.over_ranks(alone(), **options)


def test_every_token_counts_the_same_and_all_figures_say_the_same() -> None:
    found = mean_of([3.0, 2.0], [1, 4], bytes_per_token=2.0)

    assert found == {
        "eval_loss": 1.0,
        "eval_perplexity": pytest.approx(math.e),
        "eval_bits_per_byte": pytest.approx(0.5 / math.log(2)),
        "eval_tokens": 5,
    }
    assert "eval_bits_per_byte" not in mean_of([3.0, 2.0], [1, 4])
    assert mean_of([], [])["eval_tokens"] == 0
    assert mean_of([9000.0], [1])["eval_perplexity"] == math.exp(700)


def test_the_interval_is_that_of_a_bootstrap_over_batches() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(50, 300, size=400)
    losses = tokens * random.normal(3.0, 0.4, size=400)
    found = mean_of(losses, tokens, bytes_per_token=4.0)
    counts = np.stack([losses, tokens], axis=1)
    around = interval(bootstrap_scores(counts, lambda sums: sums[0] / sums[1]))

    assert found["eval_loss_low"] == pytest.approx(around.low, abs=0.005)
    assert found["eval_loss_high"] == pytest.approx(around.high, abs=0.005)
    assert found["eval_perplexity_low"] == pytest.approx(math.exp(found["eval_loss_low"]))
    scale = found["eval_bits_per_byte_high"] / found["eval_bits_per_byte"]
    assert scale == pytest.approx(found["eval_loss_high"] / found["eval_loss"])


def test_the_interval_of_few_batches_holds_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        tokens = random.integers(90, 110, size=MIN_BATCHES)
        found = mean_of(tokens * random.normal(3.0, 0.2, size=MIN_BATCHES), tokens)
        inside += found["eval_loss_low"] <= 3.0 <= found["eval_loss_high"]
    assert 0.92 < inside / 400 < 0.98
    assert "eval_loss_low" not in mean_of([1.0] * (MIN_BATCHES - 1), [1] * (MIN_BATCHES - 1))


def test_ranks_together_find_what_one_finds() -> None:
    losses, tokens = torch.linspace(1, 9, 20).tolist(), list(range(1, 21))
    sums: list[list[float]] = []
    for part in (slice(0, 7), slice(7, 20)):
        mean = MeanLoss(list(zip(losses[part], tokens[part], strict=True)))

        def remember(*values: Any) -> list[float]:
            sums.append([float(value) for value in values])
            return sums[-1]

        mean.over_ranks(SimpleNamespace(sum_over_ranks=remember))  # type: ignore[arg-type]
    both: Any = SimpleNamespace(sum_over_ranks=lambda *_: np.sum(sums, axis=0).tolist())

    assert MeanLoss().over_ranks(both) == pytest.approx(mean_of(losses, tokens))


@pytest.mark.parametrize(("freedom", "expected"), [(7, 2.3646), (10, 2.2281), (30, 2.0423)])
def test_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert quantile_of_t(freedom) == pytest.approx(expected, abs=1e-3)
