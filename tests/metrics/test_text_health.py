from typing import Any

import pytest

from hf_genmodels.metrics.text_health import LONG, text_health


def records(count: int = 30, **last: Any) -> list[dict[str, Any]]:
    """A healthy run whose last records are different."""
    usual = {"d_accuracy": 0.6, "kl": 0.1, "entropy": 3.0, "loss": 3.0, "g_loss": 3.0}
    return [
        {"step": step, **usual, **(last if step > count // 2 else {})}
        for step in range(1, count + 1)
    ]


def test_a_healthy_run_says_how_it_stands():
    found = text_health(records(), leash=1.0)
    assert (found.status, found.since) == ("ok", None)
    assert "60% of the pairs" in found.line
    assert "0.10 nats per token" in found.line
    assert text_health([], leash=1.0).status == "ok"


def test_a_discriminator_that_wins_at_once_is_too_early_to_judge():
    first = text_health(records(4, d_accuracy=1.0), leash=1.0)
    assert first.status == "ok"
    assert first.line.startswith("ok: too early to judge, after 4 of 5 records: ")
    assert "too early" not in text_health(records(5), leash=1.0).line


@pytest.mark.parametrize(
    ("last", "status", "words"),
    [
        ({"kl": 1.2}, "collapsed", "over the leash: 1.20 nats per token from its start, 1 are allowed"),
        ({"entropy": 1.4}, "collapsed", "the entropy has collapsed: 1.40 nats per token, after 3.00"),
        ({"entropy": 2.0}, "warning", "the entropy has fallen"),
        ({"d_accuracy": 1.0}, "warning", "the discriminator has won: it orders 100.0%"),
        ({"g_loss": float("nan")}, "collapsed", "g_loss is not a number"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said_with_a_remedy(last, status, words):
    found = text_health(records(**last), leash=1.0)
    assert found.status == status
    assert words in found.line
    assert found.since is not None
    assert 16 <= found.since <= 30


def test_a_discriminator_that_wins_for_long_ends_the_hope():
    assert text_health(records(2 * LONG - 4, d_accuracy=1.0), leash=1.0).status == "warning"
    assert text_health(records(2 * LONG + 4, d_accuracy=1.0), leash=1.0).status == "collapsed"


def test_one_odd_batch_raises_no_alarm():
    history = records()
    history[-1] |= {"kl": 3.0, "entropy": 0.1, "d_accuracy": 1.0}
    assert text_health(history, leash=1.0).status == "ok"


def test_the_leash_is_the_users():
    assert text_health(records(kl=1.2), leash=2.0).status == "ok"
