"""How the adversarial training of a language model is doing, in plain words, from what it logs.

A discriminator that always wins says nothing to follow, a generator that found a few texts which fool it
writes only these, and one that runs away from its starting checkpoint forgets the language.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hf_genmodels.metrics.health import (
    TOLD_APART,
    Check,
    Finding,
    Health,
    Record,
    assess,
    not_a_number,
    recent,
    too_early,
    values,
)

LONG = 20  # records in which the discriminator wins, after which nothing else is to be hoped for
FELL, COLLAPSED = 0.75, 0.5  # of the entropy at first
NUMBERS = ("loss", "d_loss", "g_loss", "kl", "entropy", "d_grad_norm", "g_grad_norm")


def text_health(history: Sequence[Record], leash: float) -> Health:
    """Judge a run by its records.

    A record may hold any of: `step`; the names of `NUMBERS`; `d_accuracy`, the share of pairs that the
    discriminator orders rightly; `entropy` of the generator's predictions and `kl`, their divergence
    from those of the starting checkpoint, both in nats per token of its own texts. What is missing is
    not judged.

    Args:
        history: Records in the order of the steps.
        leash: Divergence above which the generator has run away.
    """
    checks: tuple[Check, ...] = (
        partial(not_a_number, numbers=NUMBERS),
        partial(_ran_away, leash=leash),
        _entropy_collapsed,
        _discriminator_won,
    )
    return assess(history, checks, _state)


def _state(history: Sequence[Record]) -> str:
    """Say how a healthy run stands."""
    accuracy, kl = recent(history, "d_accuracy"), recent(history, "kl")
    said = []
    if accuracy is not None:
        said.append(f"the discriminator orders {accuracy:.0%} of the pairs rightly")
    if kl is not None:
        said.append(f"the generator is {kl:.2f} nats per token from its start")
    return too_early(history) + (", ".join(said) or "nothing unusual in losses and scores")


def _ran_away(history: Sequence[Record], leash: float) -> Finding | None:
    """Find a generator that is farther from its start than allowed."""
    kl = recent(history, "kl", full=True)
    if kl is None or kl <= leash:
        return None
    return Finding(
        "collapsed",
        f"the generator is over the leash: {kl:.2f} nats per token from its start, {leash:g} are allowed",
        "Take the best checkpoint; raise --adversarial.kl_weight or lower --optim.generator_lr",
    )


def _entropy_collapsed(history: Sequence[Record]) -> Finding | None:
    """Find predictions that have become much surer than they were at first."""
    measured = values(history, "entropy")
    now = recent(history, "entropy", full=True)
    if now is None or now >= FELL * measured[0]:
        return None
    return Finding(
        "collapsed" if now < COLLAPSED * measured[0] else "warning",
        f"the entropy has {'collapsed' if now < COLLAPSED * measured[0] else 'fallen'}: "
        f"{now:.2f} nats per token, after {measured[0]:.2f} at first",
        "It repeats itself: raise --adversarial.kl_weight or --adversarial.mle_weight",
    )


def _discriminator_won(history: Sequence[Record]) -> Finding | None:
    """Find a discriminator that has told nearly all pairs apart for some time."""
    accuracy = recent(history, "d_accuracy", full=True)
    if accuracy is None or accuracy < TOLD_APART:
        return None
    longer = recent(history, "d_accuracy", window=LONG, full=True)
    for_long = longer is not None and longer >= TOLD_APART
    return Finding(
        "collapsed" if for_long else "warning",
        f"the discriminator has won: it orders {accuracy:.1%} of the pairs rightly",
        "The generator learns little from it: lower --optim.discriminator_lr, shorten "
        "--adversarial.sample_tokens or raise --discriminator.dropout",
    )
