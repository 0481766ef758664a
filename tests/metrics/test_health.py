import math

import pytest

from hf_genmodels.metrics.health import health


def run(steps=100, **columns):
    """Records of a run; a column is a number, or a function of the progress from 0 to 1."""
    return [
        {"step": 10 * step}
        | {
            name: value(step / (steps - 1)) if callable(value) else value
            for name, value in columns.items()
        }
        for step in range(steps)
    ]


HEALTHY = {
    "d_loss": 0.6,
    "g_loss": 0.8,
    "real_score": lambda t: 1 + t,
    "fake_score": -0.5,
    "d_accuracy": 0.8,
    "d_grad_norm": 1.0,
    "g_grad_norm": 0.5,
    "eval_diversity": lambda t: min(0.9, 0.1 + 3 * t),
}


def test_a_healthy_run_says_how_it_stands():
    found = health(run(**HEALTHY))

    assert (found.status, found.since) == ("ok", None)
    assert found.line == (
        "ok: the discriminator tells 80% of the images apart, "
        "generated images vary 0.90 times as much as real ones"
    )


def test_a_healthy_run_of_clips_speaks_of_clips():
    line = health(run(**HEALTHY), unit="clips").line
    assert "80% of the clips" in line
    assert "generated clips vary" in line
    assert "image" not in line


def test_a_few_records_are_too_early_to_judge_by():
    history = run(**HEALTHY)
    assert health(history[:4]).line.startswith("ok: too early to judge, after 4 of 5 records: the")
    assert "too early" not in health(history[:5]).line


@pytest.mark.parametrize("history", [[], run(1), run(3, d_loss=0.5)])
def test_runs_that_say_little_are_no_cause_for_alarm(history):
    assert health(history).line == "ok: nothing unusual in losses and scores"


def test_collapse_is_named_with_its_beginning():
    fallen = HEALTHY | {"eval_diversity": lambda t: 0.9 if t < 0.5 else 0.05}

    found = health(run(**fallen))

    assert (found.status, found.since) == ("collapsed", 500)
    assert found.line.startswith("collapsed: generated images are nearly all alike: they vary 0.05")
    assert "after 0.90 at best (since step 500)" in found.line
    assert "best checkpoint" in found.line


def test_diversity_that_is_falling_is_a_warning():
    found = health(run(**HEALTHY | {"eval_diversity": lambda t: 0.9 - 0.6 * t}))

    assert found.status == "warning"
    assert "diversity is low" in found.line
    assert health(run(**HEALTHY | {"eval_diversity": lambda t: 0.9 - 0.3 * t})).status == "ok"


def test_images_may_be_alike_at_first_but_not_for_long():
    alike = HEALTHY | {"eval_diversity": 0.02}

    assert health(run(5, **alike)).status == "ok"
    found = health(run(6, **alike))
    assert (found.status, found.since) == ("collapsed", 50)
    assert "at best" not in found.line


def test_a_discriminator_that_wins_is_noticed_after_some_records_only():
    won = HEALTHY | {"d_accuracy": lambda t: 0.8 if t < 0.9 else 1.0, "real_score": 9.0}

    found = health(run(**won))

    assert found.status == "warning"
    assert 900 <= found.since <= 950
    assert (
        "the discriminator has won: it tells 100.0% of the images apart, 9.5 between" in found.line
    )
    assert health(run(**won)[:92]).status == "ok"
    # A critic of the Wasserstein distance is meant to tell images apart.
    assert health(run(**won), "wasserstein").status == "ok"


def test_scores_that_diverge_are_noticed_and_a_common_drift_is_not():
    diverging = HEALTHY | {
        "real_score": lambda t: 400 * t * t,
        "fake_score": lambda t: -100 * t * t,
    }

    found = health(run(**diverging))

    assert found.status == "warning"
    assert "scores diverge: real and generated ones are" in found.line
    drifting = HEALTHY | {"real_score": lambda t: 400 * t + 1, "fake_score": lambda t: 400 * t}
    assert health(run(**drifting)).status == "ok"


def test_images_that_became_worse_are_a_warning_and_a_collapse_once_the_discriminator_has_won():
    worse = HEALTHY | {"eval_fid": lambda t: 20 - 10 * t if t < 0.8 else 25}

    found = health(run(**worse))

    assert (found.status, found.since) == ("warning", 800)
    assert "images have become worse: FID is 25, after 12 at best" in found.line
    assert health(run(**worse | {"d_accuracy": 1.0})).status == "collapsed"
    assert health(run(**worse | {"eval_fid": lambda t: 9 if t < 0.9 else 40})).status == "collapsed"
    assert health(run(**worse | {"eval_fid": lambda t: 9 if t < 0.9 else 12})).status == "ok"


def test_few_images_over_and_over_are_noticed_however_good_they_are():
    poor = HEALTHY | {"eval_recall": 0.0, "eval_fid": 9.0}

    found = health(run(10, **poor))

    assert found.status == "warning"
    assert "few of the real images can be drawn: recall is 0.00" in found.line
    assert health(run(5, **poor)).status == "ok"
    fallen = health(run(**poor | {"eval_recall": lambda t: 0.5 if t < 0.7 else 0.01}))
    assert (fallen.status, fallen.since) == ("collapsed", 700)
    assert "after 0.50 at best" in fallen.line


def test_a_wasserstein_critic_may_use_any_scale_within_reason():
    growing = {"real_score": lambda t: 3000 * t, "fake_score": 0.0}

    assert health(run(**growing), "wasserstein").status == "ok"
    assert health(run(**growing), "hinge").status == "warning"
    exploding = {"real_score": lambda t: 1e6 * t, "fake_score": 0.0}
    assert health(run(**exploding), "wasserstein").status == "warning"


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_a_number_ends_the_run(wrong):
    history = run(**HEALTHY)
    for record in history[80:]:
        record |= {"g_loss": wrong, "d_loss": wrong}

    found = health(history)

    assert (found.status, found.since) == ("collapsed", 800)
    assert "d_loss and g_loss are not a number (since step 800)" in found.line
    assert "lower learning rate" in found.line


@pytest.mark.parametrize(
    ("name", "last", "word"),
    [("g_grad_norm", 1e-5, "generator has vanished"), ("d_grad_norm", 1e5, "has exploded")],
)
def test_gradients_that_vanish_or_explode_are_noticed(name, last, word):
    found = health(run(**HEALTHY | {name: lambda t: 1.0 if t < 0.8 else last}))

    assert found.status == "warning"
    assert word in found.line


def test_the_worst_stands_first_and_the_rest_is_not_hidden():
    bad = HEALTHY | {"eval_diversity": lambda t: 0.9 if t < 0.5 else 0.0, "d_accuracy": 1.0}

    found = health(run(**bad))

    assert found.status == "collapsed"
    assert found.line.startswith("collapsed: generated images")
    assert "Also the discriminator has won" in found.line
    assert "\n" not in found.line


def test_long_runs_are_judged_as_short_ones_are():
    long = run(20_000, **HEALTHY | {"d_accuracy": lambda t: 0.8 if t < 0.75 else 1.0})
    for record in long:
        del record["eval_diversity"]

    found = health(long)

    assert "the discriminator has won" in found.line
    assert found.since == pytest.approx(150_000, abs=5_000)


def test_measurements_that_are_rarer_than_losses_count():
    history = run(**{name: value for name, value in HEALTHY.items() if name != "eval_diversity"})
    for step, diversity in ((20, 0.9), (50, 0.8), (90, 0.04)):
        history[step]["eval_diversity"] = diversity

    assert health(history).status == "collapsed"
    assert health(history).since == 900
