"""One process of a tensor-parallel group: is the sharded model equal to the whole one?

Usage: torchrun --nproc_per_node 2 tensor_parallel_worker.py FOLDER...
"""

from __future__ import annotations

import sys

import torch
from torch.testing import assert_close
from transformers.distributed import DistributedConfig

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM


def check(folder: str) -> None:
    whole = GenGPTForCausalLM.from_pretrained(folder)
    shards = GenGPTForCausalLM.from_pretrained(
        folder, distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    )
    up_proj = shards.model.layers[0].mlp.up_proj.weight
    assert up_proj.to_local().shape[0] * 2 == up_proj.shape[0]
    ids = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(shards(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(shards.generate(ids, **settings), whole.generate(ids, **settings))
    for model in (shards, whole):
        model.train()(ids, labels=ids).loss.backward()
    for name, parameter in whole.named_parameters():
        grad = shards.get_parameter(name).grad
        grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for path in sys.argv[1:]:
        check(path)
    torch.distributed.destroy_process_group()
