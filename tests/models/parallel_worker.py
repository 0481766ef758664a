"""One of two processes that hold a model in parts: do they compute what one process does?

Usage: torchrun --nproc_per_node 2 parallel_worker.py FOLDER...
"""

from __future__ import annotations

import sys

import torch
from torch.distributed.fsdp import fully_shard
from torch.testing import assert_close
from transformers.distributed import DistributedConfig

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM


def check_gradients(parts: GenGPTForCausalLM, whole: GenGPTForCausalLM) -> None:
    for name, parameter in whole.named_parameters():
        grad = parts.get_parameter(name).grad
        grad = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
        assert_close(grad, parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def check_tensor_parallel(folder: str, ids: torch.LongTensor) -> None:
    whole = GenGPTForCausalLM.from_pretrained(folder)
    parts = GenGPTForCausalLM.from_pretrained(
        folder, distributed_config=DistributedConfig(tp_size=2, tp_plan="auto")
    )
    up_proj = parts.model.layers[0].mlp.up_proj.weight
    assert up_proj.to_local().shape[0] * 2 == up_proj.shape[0]
    with torch.no_grad():
        assert_close(parts(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(parts.generate(ids, **settings), whole.generate(ids, **settings))
    for model in (parts, whole):
        model.train()(ids, labels=ids).loss.backward()
    check_gradients(parts, whole)


def check_fully_sharded(folder: str, ids: torch.LongTensor) -> None:
    whole, parts = (GenGPTForCausalLM.from_pretrained(folder).train() for _ in range(2))
    for layer in parts.model.layers:
        fully_shard(layer)
    fully_shard(parts)
    count = ids[:, 1:].numel()
    whole(ids, labels=ids, num_items_in_batch=count).loss.backward()
    own = ids.chunk(2)[torch.distributed.get_rank()]
    loss = parts(own, labels=own, num_items_in_batch=count).loss
    (2 * loss).backward()  # gradients are averaged over the two processes
    check_gradients(parts, whole)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tokens = torch.randint(3, 97, (4, 12), generator=torch.Generator().manual_seed(0))
    for path in sys.argv[1:]:
        check_tensor_parallel(path, tokens)
        check_fully_sharded(path, tokens)
    torch.distributed.destroy_process_group()
