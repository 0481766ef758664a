"""How a GAN's training is doing, in plain words, from what it logs.

The two networks can balance each other at any loss, so that losses alone say little. What goes wrong shows
elsewhere: images of a class become alike (collapse), the discriminator tells all images apart and the
generator has nothing to follow, or scores and gradients leave every measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Literal

Status = Literal["ok", "warning", "collapsed"]
Record = Mapping[str, float]

WINDOW = 5  # records whose mean is looked at, so that a single odd batch raises no alarm
VARIED = 0.5  # diversity of real images is 1
LITTLE_VARIED = 0.4
ALIKE = 0.1
PATIENCE = 5  # measurements after which images must have begun to vary
COVERED, LITTLE_COVERED = 0.2, 0.02  # of real images, by recall
FARTHER, MUCH_FARTHER = 1.5, 3.0  # distance over the best so far
TOLD_APART = 0.99
FAR_APART, FAR_APART_UNBOUNDED = 50.0, 1e4
GROWTH = 4.0
VANISHING, EXPLODING = 1e-3, 1e3  # of the usual gradient norm
UNBOUNDED = ("wasserstein",)  # losses whose scores have no scale and whose D should win

MOST_RECORDS = 500
MEASURED = ("eval_fid", "eval_recall", "eval_diversity")
NUMBERS = ("d_loss", "g_loss", "real_score", "fake_score", "d_grad_norm", "g_grad_norm")


@dataclass(frozen=True)
class Health:
    """How a run is doing.

    Attributes:
        status: `ok`, `warning`, or `collapsed`, after which going on as before is of no use.
        line: What was seen, since when, and what helps, in one line that begins with the status.
        since: Step at which the worst of it began; `None` if all is well.
    """

    status: Status
    line: str
    since: int | None


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        status: How bad it is.
        what: What was seen.
        remedy: What helps.
    """

    status: Status
    what: str
    remedy: str


def health(
    history: Sequence[Record], adversarial: str = "relativistic", unit: str = "images"
) -> Health:
    """Judge a run by its records.

    A record may hold any of: `step`; `d_loss` and `g_loss`; `real_score` and `fake_score`, the mean
    scores that D gives; `d_accuracy`, the share that D tells apart; `d_grad_norm` and `g_grad_norm`;
    `eval_fid` and `eval_recall`; `eval_diversity`, the spread of generated images over that of real ones,
    within classes if there are some (`diversity_by_class`). What is missing is not judged.

    Args:
        history: Records in the order of the steps.
        adversarial: Kind of the adversarial loss, see `losses/adversarial.py`.
        unit: What is drawn, in words.
    """
    found = assess(history, _UNBOUNDED_CHECKS if adversarial in UNBOUNDED else _CHECKS, _state)
    return replace(found, line=found.line.replace("images", unit))


def assess(
    history: Sequence[Record], checks: Sequence[Check], state: Callable[[Sequence[Record]], str]
) -> Health:
    """Judge a run by its records.

    Args:
        history: Records in the order of the steps.
        checks: What may be wrong, the gravest first.
        state: Says how a healthy run stands.
    """
    kept = _thinned(history)
    findings = [
        (found.status != "collapsed", _since(check, kept), found)
        for check in checks
        if (found := check(kept))
    ]
    if not findings:
        return Health("ok", f"ok: {state(kept)}", None)
    (_, since, worst), *others = sorted(findings, key=lambda entry: entry[:2])
    also = "".join(f" Also {found.what}." for _, _, found in others)
    line = f"{worst.status}: {worst.what} (since step {since:,}). {worst.remedy}.{also}"
    return Health(worst.status, line, since)


def _thinned(history: Sequence[Record]) -> Sequence[Record]:
    """Return some of many records: the last ones, all measurements, and every so many of the rest."""
    every = -(-len(history) // MOST_RECORDS)
    tail = len(history) - WINDOW
    return [
        record
        for place, record in enumerate(history)
        if place % every == 0 or place >= tail or any(name in record for name in MEASURED)
    ]


def _since(check: Check, history: Sequence[Record]) -> int:
    """Return the first step of the unbroken time in which something has been found."""
    length = len(history)
    while length > 1 and check(history[: length - 1]):
        length -= 1
    return int(history[length - 1].get("step", length - 1))


def _state(history: Sequence[Record]) -> str:
    """Say how a healthy run stands."""
    accuracy, diversity = recent(history, "d_accuracy"), recent(history, "eval_diversity", 1)
    said = []
    if accuracy is not None:
        said.append(f"the discriminator tells {accuracy:.0%} of the images apart")
    if diversity is not None:
        said.append(f"generated images vary {diversity:.2f} times as much as real ones")
    return too_early(history) + (", ".join(said) or "nothing unusual in losses and scores")


def too_early(history: Sequence[Record], name: str = "d_accuracy") -> str:
    """Say how many records are waited for, while there are too few of a measure to judge by it.

    Args:
        history: Records in the order of the steps.
        name: The measure.

    Returns:
        How a line begins; empty if there are enough of them, or none at all.
    """
    count = len(values(history, name))
    return f"too early to judge, after {count} of {WINDOW} records: " if 0 < count < WINDOW else ""


def not_a_number(history: Sequence[Record], numbers: Sequence[str] = NUMBERS) -> Finding | None:
    """Find losses, scores or norms that are not finite."""
    last = history[-1] if history else {}
    wrong = [name for name in numbers if name in last and not math.isfinite(last[name])]
    if not wrong:
        return None
    return Finding(
        "collapsed",
        f"{_listed(wrong)} {'is' if len(wrong) == 1 else 'are'} not a number",
        "Start again from an earlier checkpoint with a lower learning rate",
    )


def _alike(history: Sequence[Record]) -> Finding | None:
    """Find images of a class that vary less than real ones, after they varied or should have begun to."""
    measured = values(history, "eval_diversity")
    if not measured:
        return None
    now, best = measured[-1], max(measured)
    fell = best >= VARIED and now < min(best, 1) / 2  # more than real ones is noise
    if now < ALIKE and (fell or len(measured) > PATIENCE):
        return Finding(
            "collapsed",
            f"generated images are nearly all alike: they vary {now:.2f} times as much as real ones"
            + (f", after {best:.2f} at best" if fell else ""),
            "Take the best checkpoint; a lower learning rate, a stronger R1, or the relativistic loss "
            "prevents it",
        )
    if fell or (now < LITTLE_VARIED and len(measured) > PATIENCE):
        return Finding(
            "warning",
            f"diversity is low: generated images vary {now:.2f} times as much as real ones"
            + (f", after {best:.2f} at best" if fell else ""),
            "If it falls further, lower the learning rate or strengthen R1",
        )
    return None


def _discriminator_won(history: Sequence[Record]) -> Finding | None:
    """Find a D that has told nearly all images apart for some time."""
    accuracy = recent(history, "d_accuracy", full=True)
    if accuracy is None or accuracy < TOLD_APART:
        return None
    gap = _gap(history)
    return Finding(
        "warning",
        f"the discriminator has won: it tells {accuracy:.1%} of the images apart"
        + ("" if gap is None else f", {gap:.1f} between real and generated scores"),
        "The generator learns little from it: lower the discriminator's learning rate, strengthen R1, "
        "or augment the images",
    )


def _covers_little(history: Sequence[Record]) -> Finding | None:
    """Find generated images, good ones perhaps, that are like few of the real ones."""
    measured = values(history, "eval_recall")
    if not measured or measured[-1] >= LITTLE_COVERED:
        return None
    fell = max(measured) >= COVERED
    if not fell and len(measured) <= PATIENCE:
        return None
    return Finding(
        "collapsed" if fell else "warning",
        f"few of the real images can be drawn: recall is {measured[-1]:.2f}"
        + (f", after {max(measured):.2f} at best" if fell else ""),
        "Take the best checkpoint; the relativistic loss with R1 and R2 covers more",
    )


def _moved_away(history: Sequence[Record]) -> Finding | None:
    """Find images that have become worse than they were."""
    measured = values(history, "eval_fid")
    if not measured or measured[-1] < FARTHER * min(measured):
        return None
    lost = measured[-1] >= MUCH_FARTHER * min(measured) or _discriminator_won(history) is not None
    return Finding(
        "collapsed" if lost else "warning",
        f"images have become worse: FID is {measured[-1]:.3g}, after {min(measured):.3g} at best",
        "The best checkpoint is kept; a lower learning rate or a stronger R1 prevents it",
    )


def _scores_diverge(history: Sequence[Record], bound: float = FAR_APART) -> Finding | None:
    """Find scores that are far apart and have grown since the first records."""
    now, before = _gap(history), _gap(history[:WINDOW])
    if now is None or before is None or now < bound or now < GROWTH * abs(before):
        return None
    return Finding(
        "warning",
        f"scores diverge: real and generated ones are {now:.0f} apart, {before:.1f} at first",
        "Strengthen R1 or add a gradient penalty; without one nothing bounds the discriminator",
    )


def _unbounded_scores_diverge(history: Sequence[Record]) -> Finding | None:
    return _scores_diverge(history, FAR_APART_UNBOUNDED)


def _gradients(history: Sequence[Record]) -> Finding | None:
    """Find gradients that have vanished or exploded, measured by what they usually were."""
    for name, network in (("g_grad_norm", "generator"), ("d_grad_norm", "discriminator")):
        norms = values(history, name)
        if len(norms) < 4 * WINDOW:
            continue
        usual, now = median(norms[: len(norms) // 2]), fmean(norms[-WINDOW:])
        if now < usual * VANISHING:
            what, remedy = "vanished", "It no longer learns: start again from an earlier checkpoint"
        elif now > usual * EXPLODING and usual > 0:
            what, remedy = "exploded", "Lower the learning rate or set --optim.max_grad_norm"
        else:
            continue
        return Finding(
            "warning",
            f"the gradient of the {network} has {what}: its norm is {now:.2g}, usually {usual:.2g}",
            remedy,
        )
    return None


Check = Callable[[Sequence[Record]], Finding | None]
_CHECKS: tuple[Check, ...] = (
    not_a_number,
    _alike,
    _covers_little,
    _moved_away,
    _discriminator_won,
    _scores_diverge,
    _gradients,
)
_UNBOUNDED_CHECKS: tuple[Check, ...] = (
    not_a_number,
    _alike,
    _covers_little,
    _moved_away,
    _unbounded_scores_diverge,
    _gradients,
)


def values(history: Sequence[Record], name: str) -> list[float]:
    """Return what was measured under a name, without what is not finite."""
    return [record[name] for record in history if name in record and math.isfinite(record[name])]


def recent(
    history: Sequence[Record], name: str, window: int = WINDOW, full: bool = False
) -> float | None:
    """Return the mean of the last values; `None` if there are none, or with `full` too few."""
    last = values(history, name)[-window:]
    return fmean(last) if len(last) >= (window if full else 1) else None


def _gap(history: Sequence[Record]) -> float | None:
    """Return by how much real images have been scored higher than generated ones of late."""
    real, fake = recent(history, "real_score"), recent(history, "fake_score")
    return None if real is None or fake is None else real - fake


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
