import platform
from pathlib import Path

import pytest
import torch

from hf_genmodels import environment
from hf_genmodels.errors import UserError


def test_a_bug_report_has_what_it_needs(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    environment.main([])

    out = capsys.readouterr().out
    for expected in (
        platform.python_version(),
        torch.__version__,
        f"{torch.get_num_threads()} threads",
        "transformers ",
        "extra metrics: evaluate",
        "OMP_NUM_THREADS=1",
        "accelerators: ",
    ):
        assert expected in out
    assert "hf_secret" not in out
    assert str(Path.home()) not in out


def test_a_missing_extra_is_said_not_raised(monkeypatch):
    assert environment._version("no-such-library") == "is missing"


def test_arguments_are_refused():
    with pytest.raises(UserError, match="takes no arguments"):
        environment.main(["--verbose"])
