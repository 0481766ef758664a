"""Losses of a text-conditional GAN beside the adversarial one, and the random choices that they need.

Letters: B images and texts of a batch, T tokens, M masked tokens, V tokens of the vocabulary, D size of an
embedding, C channels; r the scores that D gives to real images beside their own texts, f those of
drawn images beside theirs, m those of real images beside texts of others, all (B,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_genmodels.losses.adversarial import Kind, discriminator_loss
from hf_genmodels.losses.contrastive import info_nce
from hf_genmodels.losses.reduction import check_same_shape, token_mean, widen


def derangement(num_rows: int, generator: torch.Generator) -> torch.Tensor:
    """Return a permutation that leaves no row in its place, int64 (num_rows,).

    It is drawn uniformly from those that are one cycle (Sattolo 1986).

    Args:
        num_rows: At least 2.
        generator: Where the random numbers come from.

    Raises:
        ValueError: If there is only one row.
    """
    if num_rows < 2:
        raise ValueError(
            f"A batch of {num_rows} has no text of another image: matching-aware losses need at least 2."
        )
    order = torch.randperm(num_rows, generator=generator, device=generator.device)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def choose_masked(
    attention_mask: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    """Return which tokens to mask, bool (B, T): each real one with probability `share`.

    Args:
        attention_mask: 1 for real tokens and 0 for padding, (B, T).
        share: In (0, 1).
        generator: Where the random numbers come from, as many whatever the padding is.

    Raises:
        ValueError: If the share is out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share} must lie between 0 and 1.")
    numbers = torch.rand(attention_mask.shape, generator=generator, device=generator.device)
    return (numbers.to(attention_mask.device) < share) & attention_mask.bool()


def matching_aware_loss(
    kind: Kind,
    real_logits: torch.Tensor,
    fake_logits: torch.Tensor,
    mismatched_logits: torch.Tensor,
    mismatch_share: float = 0.5,
) -> torch.Tensor:
    """Return D's loss (1 - s) L(r, f) + s L(r, m), L the adversarial loss of that kind.

    Reed et al. 2016, arXiv:1605.05396: what is real but does not match its text is to be refused as what
    is drawn. With the hinge and s = 1/2 this is the loss of DF-GAN (Tao et al. 2022, arXiv:2008.05865).

    Args:
        kind: Of the adversarial loss.
        real_logits: r.
        fake_logits: f.
        mismatched_logits: m; in a relativistic loss, row i of the image of row i of r.
        mismatch_share: s, from 0 to 1.

    Returns:
        A scalar.

    Raises:
        ValueError: If the kind is unknown, the share out of range, or paired scores differ in number.
    """
    if not 0 <= mismatch_share <= 1:
        raise ValueError(f"mismatch_share={mismatch_share} must lie in [0, 1].")
    drawn = discriminator_loss(kind, real_logits, fake_logits)
    mismatched = discriminator_loss(kind, real_logits, mismatched_logits)
    return torch.lerp(drawn, mismatched, mismatch_share)


def agreement_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Return the mean of InfoNCE from images to texts and from texts to images, symmetric in both.

    Zhang et al. 2021 (XMC-GAN, arXiv:2101.04702), in the symmetric form of Radford et al. 2021
    (arXiv:2103.00020): an image's vector is closer to that of its text than to those of the others.

    Args:
        image_embeds: (B, D).
        text_embeds: (B, D), row i belongs to image i; equally well vectors of other images.
        temperature: More than 0.

    Returns:
        A scalar in nats; ln B where nothing agrees.

    Raises:
        ValueError: If the shapes differ or the temperature is not positive.
    """
    forward = info_nce(image_embeds, text_embeds, temperature)
    return (forward + info_nce(text_embeds, image_embeds, temperature)) / 2


def masked_token_loss(
    token_logits: torch.Tensor,
    input_ids: torch.Tensor,
    masked: torch.Tensor,
    *,
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of -log p(token | the others) over masked tokens (Devlin et al. 2019, arXiv:1810.04805).

    Args:
        token_logits: Scores of the masked tokens, (M, V), row by row.
        input_ids: All tokens, (B, T).
        masked: Which are masked, bool (B, T).
        num_items: Divide by this instead of by M.

    Returns:
        A scalar in nats; 0 if no token is masked.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_same_shape(masked=masked, input_ids=input_ids)
    targets = input_ids[masked]
    check_same_shape(masked_tokens=targets, rows_of_scores=token_logits[:, 0])
    total = F.cross_entropy(widen(token_logits), targets, reduction="sum")
    return token_mean(total, len(targets), num_items)


def reconstruction_loss(reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return E|y - x|, x the images brought to the size of their reconstructions y by means of areas.

    An auxiliary loss of D on real images (Liu et al. 2021, FastGAN, arXiv:2101.04775, who use a
    perceptual distance and crops).

    Args:
        reconstruction: y, (B, C, S', S').
        images: (B, C, S, S).

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If numbers of images or channels differ.
    """
    height, width = reconstruction.shape[-2:]
    small = F.adaptive_avg_pool2d(widen(images), (height, width))
    check_same_shape(reconstruction=reconstruction, images=small)
    return F.l1_loss(widen(reconstruction), small)
