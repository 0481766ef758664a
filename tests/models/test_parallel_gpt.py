"""Models in parts: plans for tensor and pipeline parallelism, fully sharded data parallelism."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

WORKER = Path(__file__).with_name("parallel_worker.py")


def matches(plan_name: str, name: str) -> bool:
    pattern = re.escape(plan_name).replace(r"\*", r"\d+")
    return re.fullmatch(pattern, name) is not None


def test_every_name_of_the_tensor_plan_is_a_layer(make_model, variant):
    model = make_model(**variant)
    modules = dict(model.named_modules())
    assert "lm_head" in model.tp_plan
    for plan_name in model.tp_plan:
        found = [module for name, module in modules.items() if matches(plan_name, name)]
        assert found, plan_name
        assert all(isinstance(module, nn.Linear | nn.Embedding) for module in found), plan_name


def test_every_matrix_of_a_block_is_in_the_tensor_plan(make_model):
    model = make_model()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert any(matches(plan_name, name) for plan_name in model.tp_plan), name


def test_attention_with_value_embeddings_is_not_split(make_model, modern):
    plan = make_model(**modern).tp_plan
    assert not any(".attn." in name for name in plan)
    assert any(".mlp." in name for name in plan)


def test_the_pipeline_plan_names_the_children_in_the_order_they_run(make_model):
    model = make_model(position_embedding="rotary")
    children = [name for name, _ in model.model.named_children()]
    planned = list(model.config.base_model_pp_plan)
    assert planned == sorted(planned, key=children.index)
    assert "lm_head" in model.pp_plan


@pytest.mark.distributed
def test_two_processes_compute_what_one_does(make_model, modern, tmp_path):
    variants = {"gpt2": {}, "modern": modern, "grouped": {"num_key_value_heads": 2}}
    for name, fields in variants.items():
        make_model(**fields).save_pretrained(tmp_path / name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(WORKER)]
    command += [str(tmp_path / name) for name in variants]
    result = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
