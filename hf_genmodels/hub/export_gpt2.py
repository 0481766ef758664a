"""Write a language model as GPT-2 of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export_report
from hf_genmodels.hub.card import CardData
from hf_genmodels.hub.folder import no_progress_bars, publish_folder
from hf_genmodels.hub.probe import output_of, probe_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def export_gpt2(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path
) -> export_report.ExportReport:
    """Write what `GPT2LMHeadModel` loads without any code of ours, and compare.

    Args:
        model: A language model of ours.
        tokenizer: Its tokenizer.
        out: Folder to write.

    Raises:
        UserError: If the model is not GPT-2's, with every reason, or computes something else.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    from hf_genmodels.models.convert_gpt2 import fields_to_gpt2, weights_to_gpt2

    try:
        config = GPT2Config(**fields_to_gpt2(model.config))
    except ValueError as error:
        raise UserError(str(error)) from error
    gpt2: Any = GPT2LMHeadModel(config)
    gpt2.to(model.dtype)
    gpt2.load_state_dict(weights_to_gpt2(model.state_dict(), config.n_layer))
    gpt2.tie_weights()
    gpt2.generation_config = model.generation_config
    summary = (
        "A compact language model that continues a given text, written as GPT-2: "
        "`GPT2LMHeadModel` of transformers and whatever else reads GPT-2 loads it."
    )
    name = out.resolve().name
    publish_folder(gpt2, tokenizer, out, CardData(name=name, summary=summary))
    return _compare(model, tokenizer, out)


def _compare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path
) -> export_report.ExportReport:
    """Load what was written as a plain GPT-2 and compare it with the source."""
    from transformers import GPT2LMHeadModel

    with no_progress_bars():
        loaded: Any = GPT2LMHeadModel.from_pretrained(out, output_loading_info=True)
    written, info = loaded
    export_report.check_loading(out, info, "GPT-2")
    export_report.check_tokenizer(out, tokenizer)
    probe = probe_of(model)
    expected, found = output_of(model, probe), output_of(written.eval(), probe)
    difference = export_report.check_difference(out, found, expected)
    text = (
        f"checked {out}: GPT2LMHeadModel loads it without remote code; largest difference of "
        f"{expected.numel():,} logits to the source: {difference:.3g}"
    )
    return export_report.ExportReport(out, "gpt2", difference, text)
