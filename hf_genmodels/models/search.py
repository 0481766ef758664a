"""Greedy search and beam search over the decoder of an encoder-decoder model.

Both choose the tokens that `generate` of transformers chooses, and take a sequence out of the batch
when it is finished.

Shapes are written with these letters: B sequences of a batch, N beams, R rows of the decoder (B * N,
the beams of a sequence side by side), S source tokens, T target tokens, V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import EncoderDecoderCache, PreTrainedModel

# Models whose cross-attention takes the beams of a sequence as queries of one row.
SHARE_SOURCES = ("gen_seq2seq", "gen_rnn_seq2seq")


@dataclass(frozen=True)
class SearchSettings:
    """What a search has to know.

    Attributes:
        start_id: Token that the decoder starts from.
        eos_ids: Tokens that end a sequence.
        max_new_tokens: Longest result, with the ending token.
        num_beams: Beams of a sequence.
        length_penalty: A score is divided by the length to this power.
        early_stopping: True: a sequence is finished when it has `num_beams` results. False: when
            the best beam, were it to end now, would not be among them. "never": when no beam can
            get among them at any length.
        with_scores: Whether greedy search computes scores; beam search always does.
    """

    start_id: int
    eos_ids: tuple[int, ...]
    max_new_tokens: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    with_scores: bool = True


@dataclass(order=True)
class Result:
    """A finished sequence; better ones come first when sorted.

    Attributes:
        cost: The negative score, or `None` if it was not computed.
        ids: Tokens between start and end.
    """

    cost: float | None
    ids: list[int] = field(compare=False)


class DecoderSteps:
    """A batch of sources, and the decoder's rows that read them, one token after the other.

    Args:
        model: Any encoder-decoder model of transformers.
        input_ids: Sources, (B, S), padded on the right.
        attention_mask: 1 for their tokens and 0 for padding, (B, S).
    """

    def __init__(
        self, model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ):
        self.model = model
        self.attention_mask = attention_mask
        self.encoder_outputs = model.get_encoder()(
            input_ids=input_ids, attention_mask=attention_mask, return_dict=True
        )
        self.shares_sources = model.config.model_type in SHARE_SOURCES
        self.num_beams = 1
        self.cache: Any = None

    @property
    def batch_size(self) -> int:
        """Number of sources that are left."""
        return len(self.attention_mask) // (1 if self.shares_sources else self.num_beams)

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Give each row its next token, (R,), and return the logits of the one after, (R, V)."""
        outputs = self.model(
            attention_mask=self.attention_mask,
            encoder_outputs=self.encoder_outputs,
            decoder_input_ids=tokens[:, None],
            past_key_values=self.cache,
            use_cache=True,
            return_dict=True,
        )
        if self.cache is None:
            self.cache = outputs.past_key_values
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits

    def select(self, rows: torch.Tensor, sources: torch.Tensor | None, num_beams: int = 1) -> None:
        """Go on with some of the rows, and with some of the sources.

        Args:
            rows: The earlier row that each row goes on from, (R,).
            sources: Numbers of the sources that stay, or `None` for all.
            num_beams: Rows of each source from now on.
        """
        if isinstance(self.cache, EncoderDecoderCache):
            _reorder(self.cache.self_attention_cache, rows)
        else:
            self.cache.reorder_cache(rows)
        kept = sources
        if not self.shares_sources and (sources is not None or num_beams != self.num_beams):
            count = self.batch_size
            if sources is None:
                sources = torch.arange(count, device=rows.device)
            first = (sources * self.num_beams)[:, None]
            kept = first + torch.arange(num_beams, device=rows.device) % self.num_beams
            kept = kept.flatten()
        self.num_beams = num_beams
        if kept is not None:
            self._select_sources(kept)

    def _select_sources(self, kept: torch.Tensor) -> None:
        """Select rows of everything that comes from the encoder."""
        tensors = {
            name: value.index_select(0, kept)
            for name, value in self.encoder_outputs.items()
            if isinstance(value, torch.Tensor)
        }
        self.encoder_outputs = type(self.encoder_outputs)(**tensors)
        self.attention_mask = self.attention_mask.index_select(0, kept)
        if isinstance(self.cache, EncoderDecoderCache):
            self.cache.cross_attention_cache.reorder_cache(kept)


def greedy_search(decoder: DecoderSteps, settings: SearchSettings) -> list[list[Result]]:
    """Take the likeliest token at each step.

    Args:
        decoder: A batch of B sources.
        settings: How to search.

    Returns:
        One result for each source.
    """
    device = decoder.attention_mask.device
    count, most = decoder.batch_size, settings.max_new_tokens
    eos_ids = torch.tensor(settings.eos_ids, dtype=torch.long, device=device)
    record = torch.empty((count, most), dtype=torch.long, device=device)
    lengths = torch.full((count,), most, device=device)
    totals = torch.zeros(count, device=device)
    tokens = torch.full((count,), settings.start_id, device=device)
    rows, runs = (
        torch.arange(count, device=device),
        torch.ones(count, dtype=torch.bool, device=device),
    )
    wasted = 0
    for length in range(1, most + 1):
        logits = decoder.step(tokens)
        tokens = logits.argmax(dim=-1)
        if settings.with_scores:
            log_probs = logits.float().log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
            totals[rows] += log_probs * runs
        record[rows, length - 1] = tokens
        ends = runs & torch.isin(tokens, eos_ids)
        lengths[rows[ends]] = length
        runs &= ~ends
        running = int(runs.sum())
        if not running:
            break
        wasted += len(rows) - running
        # Taking rows out costs about half of a step: as much as idle rows may have cost.
        if 2 * wasted >= len(rows):
            kept = runs.nonzero().squeeze(1)
            decoder.select(kept, kept)
            tokens, rows, runs, wasted = tokens[kept], rows[kept], runs[kept], 0
    scores = (totals / lengths**settings.length_penalty).tolist()
    results = []
    for index, length in enumerate(lengths.tolist()):
        ids = record[index, :length].tolist()
        results.append([_result(ids, scores[index] if settings.with_scores else None, settings)])
    return results


def beam_search(decoder: DecoderSteps, settings: SearchSettings) -> list[list[Result]]:
    """Follow the `num_beams` likeliest beginnings of each sequence.

    A score is the sum of the log-probabilities of the tokens, with the ending one, divided by their
    number to the power of the length penalty.

    Args:
        decoder: A batch of B sources.
        settings: How to search.

    Returns:
        For each source its `num_beams` best results, the best one first.
    """
    device, beams = decoder.attention_mask.device, settings.num_beams
    eos_ids = torch.tensor(settings.eos_ids, dtype=torch.long, device=device)
    results: list[list[Result]] = [[] for _ in range(decoder.batch_size)]
    sources = list(range(decoder.batch_size))
    tokens = torch.full((len(sources),), settings.start_id, device=device)
    totals = torch.zeros((len(sources), 1), device=device)
    sequences = torch.empty((len(sources), 1, 0), dtype=torch.long, device=device)
    # So many that `beams` of them do not end.
    candidates = max(2, 1 + len(settings.eos_ids)) * beams
    for length in range(1, settings.max_new_tokens + 1):
        log_probs = decoder.step(tokens).float().log_softmax(dim=-1)
        vocab_size = log_probs.shape[-1]
        grown = log_probs.view(*totals.shape, vocab_size).add_(totals[:, :, None])
        best, index = grown.flatten(1).topk(candidates)  # (B, candidates)
        parents, last = index // vocab_size, index % vocab_size
        ends = torch.isin(last, eos_ids)
        if length == settings.max_new_tokens:
            ends = torch.ones_like(ends)
        longer = _append(sequences, parents, last)

        finished = ends[:, :beams].nonzero().tolist()
        if finished:
            scores = (best[:, :beams] / length**settings.length_penalty).tolist()
            for row, rank in finished:
                ids = longer[row, rank].tolist()
                results[sources[row]].append(_result(ids, scores[row][rank], settings))
            for row in {row for row, _ in finished}:
                results[sources[row]] = sorted(results[sources[row]])[:beams]
        if length == settings.max_new_tokens:
            break

        totals, chosen = best.masked_fill(ends, -torch.inf).topk(beams)  # (B, N)
        kept = _unfinished(totals, [results[source] for source in sources], length, settings)
        if not kept:
            break
        parents = parents.gather(1, chosen)
        rows = parents + torch.arange(len(sources), device=device)[:, None] * grown.shape[1]
        tokens = last.gather(1, chosen)
        sequences = longer.gather(1, chosen[:, :, None].expand(-1, -1, length))
        staying = None
        if len(kept) < len(sources):
            sources = [sources[row] for row in kept]
            staying = torch.tensor(kept, device=device)
            totals, rows, tokens = totals[staying], rows[staying], tokens[staying]
            sequences = sequences[staying]
        tokens = tokens.flatten()
        decoder.select(rows.flatten(), staying, beams)
    return results


def _append(sequences: torch.Tensor, parents: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Return the sequences (B, K, T + 1) that go on from beams (B, N, T) with tokens (B, K)."""
    begun = sequences.gather(1, parents[:, :, None].expand(-1, -1, sequences.shape[-1]))
    return torch.cat((begun, last[:, :, None]), dim=-1)


def _unfinished(
    totals: torch.Tensor, results: list[list[Result]], length: int, settings: SearchSettings
) -> list[int]:
    """Return the numbers of the sequences whose beams, (B, N), can still improve their results."""
    reached = length
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        reached = settings.max_new_tokens
    hopes = (totals[:, 0] / reached**settings.length_penalty).tolist()
    unfinished = []
    for row, (hope, found) in enumerate(zip(hopes, results, strict=True)):
        is_full = len(found) == settings.num_beams
        if not is_full or (settings.early_stopping is not True and -hope < found[-1].cost):
            unfinished.append(row)
    return unfinished


def _result(ids: list[int], score: float | None, settings: SearchSettings) -> Result:
    if ids and ids[-1] in settings.eos_ids:
        ids = ids[:-1]
    return Result(cost=None if score is None else -score, ids=ids)


def _reorder(cache: Any, rows: torch.Tensor) -> None:
    cache.reorder_cache(rows)
