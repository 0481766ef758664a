"""The mean loss of a token in a validation, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from hf_genmodels.engine.run import Run

MIN_BATCHES = 8  # fewer say nothing about their spread
LARGEST = 700.0  # whose exponential is a finite number


@dataclass
class MeanLoss:
    """The losses of batches: the mean over tokens, with a 95 % interval from how batches differ.

    The mean is a ratio of two sums over batches, of losses and of tokens, whose variance is that of
    `loss - mean * tokens` (Cochran 1977, Sampling Techniques, chapter 6). Neighbours in the text stand in
    one batch, so that their likeness does not make the interval too narrow.

    Attributes:
        batches: Sum of the losses in nats, and number of tokens, of each batch of this rank.
    """

    batches: list[tuple[float, int]] = field(default_factory=list)

    def add(self, loss_sum: float, tokens: int) -> None:
        """Add a batch."""
        self.batches.append((loss_sum, tokens))

    def over_ranks(self, run: Run, bytes_per_token: float | None = None) -> dict[str, float]:
        """Return `eval_loss`, `eval_perplexity`, `eval_tokens` and, if asked for, `eval_bits_per_byte`.

        With enough batches also the ends of their intervals, `eval_loss_low` and so on; the same on all ranks.

        Args:
            run: The run.
            bytes_per_token: UTF-8 bytes of the text per token, for bits per byte.
        """
        values = torch.tensor(self.batches, dtype=torch.float64).view(-1, 2)
        losses, tokens = values.unbind(1)
        products = (losses * losses, losses * tokens, tokens * tokens)
        sums = [losses.sum(), tokens.sum(), *(product.sum() for product in products)]
        loss_sum, total, squares, mixed, token_squares, count = run.sum_over_ranks(
            *sums, len(losses)
        )
        loss = loss_sum / max(total, 1)
        found = {"": loss}
        if count >= MIN_BATCHES:
            residual = max(squares - 2 * loss * mixed + loss * loss * token_squares, 0.0)
            error = math.sqrt(residual * count / (count - 1)) / total
            reach = quantile_of_t(int(count) - 1) * error
            found |= {"_low": loss - reach, "_high": loss + reach}
        results: dict[str, float] = {}
        for end, value in found.items():
            results[f"eval_loss{end}"] = value
            results[f"eval_perplexity{end}"] = math.exp(min(value, LARGEST))
            if bytes_per_token is not None:
                results[f"eval_bits_per_byte{end}"] = value / math.log(2) / bytes_per_token
        return results | {"eval_tokens": int(total)}


def quantile_of_t(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion around the normal one.

    Abramowitz and Stegun 1964, 26.7.5; right to three digits from 5 degrees of freedom on.

    Args:
        freedom: Degrees of freedom.
    """
    z = 1.959963984540054
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))
