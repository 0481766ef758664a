"""Mistakes are called by the flags of the command in use."""

from __future__ import annotations

import pytest

from hf_genmodels.errors import UserError, naming_flags


def test_flags_of_a_section_are_named_with_it_and_no_others_are():
    message = "--size 3 or --sizes or --size_of, --other, --pixels.size; --size."
    with pytest.raises(UserError) as caught, naming_flags("pixels", ["size"]):
        raise UserError(message)
    assert str(caught.value) == (
        "--pixels.size 3 or --sizes or --size_of, --other, --pixels.size; --pixels.size."
    )


def test_other_errors_pass_as_they_are():
    with pytest.raises(KeyError, match="--size"), naming_flags("pixels", ["size"]):
        raise KeyError("--size")
