"""Write an encoder-decoder as Marian of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export_report
from hf_genmodels.hub.card import CardData
from hf_genmodels.hub.folder import TARGET_TOKENIZER, no_progress_bars, publish_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

BEAMS = 4


def export_marian(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None,
    out: Path,
) -> export_report.ExportReport:
    """Write what `MarianMTModel` loads without any code of ours, and compare.

    Args:
        model: An encoder-decoder of ours.
        tokenizer: Its tokenizer.
        target_tokenizer: Tokenizer of what it writes, if that is another one.
        out: Folder to write.

    Raises:
        UserError: If the model is not Marian's, with every reason, or computes something else.
    """
    from transformers import MarianConfig, MarianMTModel

    from hf_genmodels.models.convert_marian import fields_to_marian, weights_to_marian

    try:
        config = MarianConfig(**fields_to_marian(model.config))
    except ValueError as error:
        raise UserError(str(error)) from error
    marian: Any = MarianMTModel(config)
    marian.to(model.dtype)
    # Positions are a table that Marian makes itself.
    marian.load_state_dict(weights_to_marian(model.state_dict(), model.config), strict=False)
    marian.tie_weights()
    marian.generation_config = copy.deepcopy(model.generation_config)
    summary = (
        "A compact encoder-decoder that makes one text of another, written as Marian: "
        "`MarianMTModel` of transformers and whatever else reads Marian loads it."
    )
    card = CardData(name=out.resolve().name, summary=summary)
    publish_folder(marian, tokenizer, out, card, target_tokenizer=target_tokenizer)
    return _compare(model, tokenizer, target_tokenizer, out)


def _compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None,
    out: Path,
) -> export_report.ExportReport:
    """Load what was written as a plain Marian and compare it with the source."""
    from transformers import MarianMTModel

    with no_progress_bars():
        loaded: Any = MarianMTModel.from_pretrained(out, output_loading_info=True)
    written, info = loaded
    export_report.check_loading(out, info, "Marian")
    export_report.check_tokenizer(out, tokenizer)
    if target_tokenizer is not None:
        export_report.check_tokenizer(out / TARGET_TOKENIZER, target_tokenizer)
    sources = export_report.fixed_sources(model)
    expected = teacher_forced_logits(model, sources)
    found = teacher_forced_logits(written.eval(), sources)
    difference = export_report.check_difference(out, found, expected)
    for beams, kind in ((1, "greedy search"), (BEAMS, f"{BEAMS} beams")):
        ours, theirs = (export_report.translate(m, sources, beams) for m in (model, written))
        equal = sum(map(list.__eq__, ours, theirs))
        if equal < len(sources):
            raise UserError(
                f"'{out}' writes other texts than its source with {kind}: {equal} of "
                f"{len(sources)} are equal, though its logits are (largest difference "
                f"{difference:.3g})."
            )
    text = (
        f"checked {out}: MarianMTModel loads it without remote code; largest difference of "
        f"{expected.numel():,} logits to the source: {difference:.3g}; {len(sources)} of "
        f"{len(sources)} outputs are equal with greedy search and with {BEAMS} beams"
    )
    return export_report.ExportReport(out, "marian", difference, text)


def teacher_forced_logits(model: PreTrainedModel, sources: list[list[int]]) -> torch.Tensor:
    """Return the logits (N, V) of an encoder-decoder where targets have tokens.

    The targets are the sources' tokens, as far as the target's vocabulary reaches.

    Args:
        model: The model in eval mode.
        sources: Token ids.
    """
    import torch

    config = model.config
    batch = export_report.padded(sources, config.pad_token_id)
    sizes = config.to_dict()
    targets = batch["input_ids"].clamp(max=sizes.get("decoder_vocab_size", config.vocab_size) - 1)
    with torch.no_grad():
        logits: torch.Tensor = model(**batch, decoder_input_ids=targets).logits
    return logits[batch["attention_mask"].bool()]
