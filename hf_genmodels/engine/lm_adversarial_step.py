"""What generator and discriminator of texts minimise in one step, on one micro-batch.

Letters: B texts, P tokens of a beginning, L tokens behind it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.lm_adversarial_models import AdversarialNetworks
from hf_genmodels.engine.run import Run
from hf_genmodels.engine.text_writing import (
    Beginnings,
    Written,
    beginnings_of,
    end_of_text,
    logits_behind,
    write,
)
from hf_genmodels.losses.adversarial import discriminator_loss, generator_loss
from hf_genmodels.losses.divergences import kl_divergence
from hf_genmodels.losses.policy_gradient import (
    advantages_of,
    entropy,
    policy_gradient,
    returns_of,
    rewards_of,
)

_NOISE_STREAM = 61


@dataclass
class Texts:
    """Real and written texts of one micro-batch, and what was found about them.

    Attributes:
        batch: The windows of real text, as `TrainingBatches` gives them.
        start: Their beginnings, and how they go on.
        written: What the generator wrote instead.
        real_logits: Verdicts on the real texts, (B,), without gradients, once they are known.
    """

    batch: Mapping[str, torch.Tensor]
    start: Beginnings
    written: Written
    real_logits: torch.Tensor | None = None


class AdversarialObjective:
    """The losses of both networks.

    All noise is a pure function of the seed, the step and the place of the micro-batch among those of
    all processes, so that 1 x 4, 2 x 2 and 4 x 1 processes x micro-batches write the same texts.

    Args:
        config: The run's options.
        networks: All networks.
        run: The run, for the number of this process.
    """

    def __init__(self, config: TrainLMAdversarialConfig, networks: AdversarialNetworks, run: Run):
        self.config = config
        self.options = config.adversarial
        self.generator: Any = networks.generator
        self.reference: Any = networks.reference
        self.discriminator: Any = networks.discriminator
        self.is_gumbel = self.options.method == "gumbel"
        self.rank, self.world_size = run.accelerator.process_index, config.num_processes

    def trains_generator(self, step: int) -> bool:
        """Tell whether the generator learns in a step, or the discriminator alone."""
        return step >= self.options.discriminator_first

    def place(self, step: int, turn: int, number: int) -> int:
        """Return the number of this process's micro-batch among those of all processes and steps.

        Args:
            step: Steps done.
            turn: Number of the discriminator's update in this step.
            number: Number of this process's micro-batch in this update.
        """
        updates = step * self.options.discriminator_steps + turn
        in_update = number * self.world_size + self.rank
        return updates * self.config.batches_per_step + in_update

    def write(
        self, batch: Mapping[str, torch.Tensor], place: int, step: int, *, last_turn: bool
    ) -> Texts:
        """Write a text for each real one, behind the same beginning.

        Args:
            batch: What `TrainingBatches` gives.
            place: Number of the micro-batch, from which its random numbers follow.
            step: Steps done.
            last_turn: Whether the generator will learn from these texts, if it learns in this step.
        """
        options = self.options
        seed = mix_seed(self.config.seed, _NOISE_STREAM, place) >> 1
        eos = end_of_text(self.generator)
        start = beginnings_of(batch, options.prompt_tokens, options.sample_tokens, eos)
        learns = self.is_gumbel and last_turn and self.trains_generator(step)
        with evaluating(self.generator):
            written = write(
                self.generator,
                start,
                options.sample_tokens,
                torch.Generator().manual_seed(seed),
                temperature=options.temperature,
                relaxation=options.relaxation(step, self.config.max_steps) if learns else None,
            )
        return Texts(batch, start, written)

    def discriminator_losses(self, texts: Texts) -> dict[str, torch.Tensor]:
        """Return what the discriminator minimises, `d_loss`, and the scores.

        Args:
            texts: The texts; learns the verdicts on the real ones.
        """
        start, written = texts.start, texts.written
        ids = torch.cat((start.real_ids, written.ids))
        kept = torch.cat((start.real_kept, written.kept))
        output = self._judge(start, kept, input_ids=torch.cat((start.ids.repeat(2, 1), ids), 1))
        real, fake = output.logits.squeeze(1).chunk(2)
        texts.real_logits = real.detach()
        judged_real, judged_fake = real, fake
        if not self.is_gumbel:
            verdicts = output.token_logits[:, -ids.shape[1] :].chunk(2)
            judged_real, judged_fake = verdicts[0][start.real_kept], verdicts[1][written.kept]
        return {
            "d_loss": discriminator_loss(self.options.kind, judged_real, judged_fake),
            "real_score": real.mean(),
            "fake_score": fake.mean(),
            "d_accuracy": (real > fake).float().mean(),
        }

    def generator_losses(self, texts: Texts) -> dict[str, torch.Tensor]:
        """Return what the generator minimises, `g_loss`, its parts, and the entropy.

        The real texts were judged in the discriminator's turn, just before its update: the relativistic
        loss takes those verdicts and saves a pass.
        """
        options, start, written = self.options, texts.start, texts.written
        cross_entropy = self.generator(**texts.batch, use_cache=False).loss
        with evaluating(self.generator):
            logits = written.logits
            if logits is None:
                logits = logits_behind(self.generator, start, written)
        with torch.no_grad():
            reference = logits_behind(self.reference, start, written).log_softmax(-1)
        log_probs = logits.log_softmax(-1)
        kl = kl_divergence(log_probs, reference, mask=written.kept)
        adversarial = self._gumbel(texts) if self.is_gumbel else self._reinforce(texts, logits)
        total = (
            options.mle_weight * cross_entropy
            + options.adversarial_weight * adversarial
            + options.kl_weight * kl
        )
        return {
            "g_loss": total,
            "loss": cross_entropy,
            "g_adversarial": adversarial,
            "kl": kl,
            "entropy": entropy(log_probs.detach(), written.kept),
        }

    def _gumbel(self, texts: Texts) -> torch.Tensor:
        """Return the adversarial loss of relaxed texts, with gradients through them."""
        written = texts.written
        output = self._judge(
            texts.start, written.kept, input_ids=texts.start.ids, token_probs=written.probs
        )
        return generator_loss(self.options.kind, output.logits.squeeze(1), texts.real_logits)

    def _reinforce(self, texts: Texts, logits: torch.Tensor) -> torch.Tensor:
        """Return the loss whose gradient is that of the expected return of each token."""
        written = texts.written
        with torch.no_grad():
            ids = torch.cat((texts.start.ids, written.ids), dim=1)
            verdicts = self._judge(texts.start, written.kept, input_ids=ids).token_logits
            rewards = rewards_of(verdicts[:, -written.ids.shape[1] :])
            returns = returns_of(rewards, written.kept, self.options.discount)
            advantages = advantages_of(returns, written.kept)
        log_probs = (logits / self.options.temperature).log_softmax(-1)
        return policy_gradient(log_probs, written.ids, advantages, written.kept)

    def _judge(self, start: Beginnings, kept: torch.Tensor, **texts: Any) -> Any:
        """Return what the discriminator says about what stands behind beginnings.

        Args:
            start: The beginnings, of which there may be fewer than texts: they are then repeated.
            kept: Tokens behind the beginnings that count.
            **texts: `input_ids`, and `token_probs` behind them.
        """
        mask = start.mask.repeat(len(kept) // len(start.mask), 1)
        return self.discriminator(
            attention_mask=torch.cat((mask, kept), dim=1).long(),
            judged=torch.cat((torch.zeros_like(mask), kept), dim=1),
            **texts,
        )


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Turn dropout off inside a block: a text is weighed by the model that drew it."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
