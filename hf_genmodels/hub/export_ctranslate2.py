"""Write an encoder-decoder for CTranslate2, which serves it fast on CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub import export_report
from hf_genmodels.hub.ctranslate2_spec import EXTRA, differences_from_ctranslate2, make_spec
from hf_genmodels.hub.export_staging import staged_folder
from hf_genmodels.hub.folder import TARGET_TOKENIZER
from hf_genmodels.tokenization.saving import save_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BEAMS = 4
README = """---
library_name: ctranslate2
---

# {name}

An encoder-decoder for [CTranslate2](https://github.com/OpenNMT/CTranslate2), written by
`genmodels export --format ctranslate2`.

```python
import ctranslate2
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
target_tokenizer = {target}
translator = ctranslate2.Translator("{name}", compute_type="int8")  # or "float32"
tokens = tokenizer.convert_ids_to_tokens(tokenizer("In the beginning")["input_ids"])
best = translator.translate_batch([tokens], beam_size={beams})[0].hypotheses[0]
print(target_tokenizer.decode(target_tokenizer.convert_tokens_to_ids(best)))
```
"""


def export_ctranslate2(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None,
    out: Path,
) -> export_report.ExportReport:
    """Write what `ctranslate2.Translator` loads, with its tokenizer, and compare.

    Args:
        model: An encoder-decoder of ours.
        tokenizer: Its tokenizer.
        target_tokenizer: Tokenizer of what it writes, if that is another one.
        out: Folder to write.

    Raises:
        UserError: If CTranslate2 is not installed or has no such layers, with every reason, or
            computes something else.
    """
    require_extra(*EXTRA)
    reasons = differences_from_ctranslate2(model.config)
    if reasons:
        raise UserError("This model cannot be written for CTranslate2: " + "; ".join(reasons) + ".")
    source_tokens = vocabulary(tokenizer, model.config.source_vocab_size or model.config.vocab_size)
    target_tokens = source_tokens
    if target_tokenizer is not None:
        target_tokens = vocabulary(target_tokenizer, model.config.vocab_size)
    with staged_folder(out) as staging:
        make_spec(model, source_tokens, target_tokens).save(str(staging))
        save_tokenizer(tokenizer, staging)
        if target_tokenizer is not None:
            save_tokenizer(target_tokenizer, staging / TARGET_TOKENIZER)
        (staging / "README.md").write_text(_readme(out, target_tokenizer), encoding="utf-8")
        difference, text = _compare(model, staging, source_tokens, target_tokens)
    return export_report.ExportReport(out, "ctranslate2", difference, f"checked {out}: {text}")


def vocabulary(tokenizer: PreTrainedTokenizerFast, size: int) -> list[str]:
    """Return the token of each id; ids that the tokenizer does not know get names of their own.

    Raises:
        UserError: If the tokenizer has more tokens than the model.
    """
    if len(tokenizer) > size:
        raise UserError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model's vocabulary only {size}: "
            "this is not the model's tokenizer."
        )
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    return [known.get(index, f"<unused {index}>") for index in range(size)]


def _compare(
    model: PreTrainedModel,
    folder: Path,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
) -> tuple[float, str]:
    """Score and translate with CTranslate2 and with the source; return how they differ."""
    import torch

    ctranslate2 = require_extra(*EXTRA)
    translator = ctranslate2.Translator(str(folder), device="cpu", compute_type="float32")
    sources = export_report.fixed_sources(model)
    texts = [[source_tokens[token] for token in source] for source in sources]
    longest = min(export_report.MAX_NEW_TOKENS, model.config.max_position_embeddings - 1)
    agreements = []
    for beams, kind in ((1, "greedy search"), (BEAMS, f"{BEAMS} beams")):
        ours = export_report.translate(model, sources, beams)
        expected = [[target_tokens[token] for token in text] for text in ours]
        results = translator.translate_batch(
            texts, beam_size=beams, min_decoding_length=0, max_decoding_length=longest
        )
        equal = sum(
            result.hypotheses[0] == text for result, text in zip(results, expected, strict=True)
        )
        agreements.append(f"{equal} of {len(sources)} outputs are equal with {kind}")
    scores = translator.score_batch(texts, expected)
    found = torch.tensor([score for result in scores for score in result.log_probs])
    log_probs = target_log_probs(model, sources, ours)
    difference = export_report.check_difference(folder, found, log_probs)
    return difference, (
        "ctranslate2.Translator loads it; largest difference of "
        f"{len(log_probs):,} log-probabilities to the source: {difference:.3g}; "
        f"{'; '.join(agreements)} (searches may part where two tokens are equally likely). "
        'compute_type="int8" makes it smaller and faster'
    )


def target_log_probs(
    model: PreTrainedModel, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Return the log-probability of every token of the targets and of their ends, in one row.

    Args:
        model: The model in eval mode.
        sources: Token ids of the sources, with their ends.
        targets: Token ids of the targets, without.
    """
    import torch

    config = model.config
    batch = export_report.padded(sources, config.pad_token_id)
    ended = [[*target, config.eos_token_id] for target in targets]
    target_batch = export_report.padded(ended, config.pad_token_id)
    labels = target_batch["input_ids"]
    with torch.no_grad():
        log_probs = model(**batch, labels=labels).logits.log_softmax(-1)
    picked: torch.Tensor = log_probs.gather(2, labels[..., None])[..., 0]
    return picked[target_batch["attention_mask"].bool()]


def _readme(out: Path, target_tokenizer: PreTrainedTokenizerFast | None) -> str:
    name = out.resolve().name
    target = "tokenizer"
    if target_tokenizer is not None:
        target = f'AutoTokenizer.from_pretrained("{name}/{TARGET_TOKENIZER}")'
    return README.format(name=name, target=target, beams=BEAMS)
