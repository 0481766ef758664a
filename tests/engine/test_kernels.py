from __future__ import annotations

import os

import pytest

from hf_genmodels.engine.kernels import KEPT_PRIMITIVES, PRIMITIVE_CACHE, bound_kernel_memory


def test_the_memory_of_compiled_products_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PRIMITIVE_CACHE, "1")
    monkeypatch.delenv(PRIMITIVE_CACHE)
    bound_kernel_memory()
    assert os.environ[PRIMITIVE_CACHE] == str(KEPT_PRIMITIVES)


def test_what_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PRIMITIVE_CACHE, "500")
    bound_kernel_memory()
    assert os.environ[PRIMITIVE_CACHE] == "500"
