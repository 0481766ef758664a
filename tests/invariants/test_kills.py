"""Runs that are killed with SIGKILL at seeded moments, and go on as if they had not been."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import torture
from tests.invariants.conftest import by_family

KILLS = 7


@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", by_family(torture.FAMILIES))
def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(family: str, tmp_path: Path):
    """Each time the newest checkpoint is whole, none is lost, and what is published is as promised."""
    folder = tmp_path / "runs"
    folder.mkdir()
    victim = torture.Victim(family, torture.write_data(tmp_path)[family], folder, seed=3)
    tally = victim.torture(KILLS)
    assert tally.kills == KILLS == tally.checkpoints_found + tally.before_the_first
    assert tally.checkpoints_found >= 2
    assert tally.inside_saves >= 1
    assert tally.runs_compared >= 1
