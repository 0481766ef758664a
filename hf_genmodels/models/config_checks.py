"""Checks that the configurations of the model families share.

Each raises a ValueError that names the field, its value and what would be allowed.
"""

from collections.abc import Collection, Iterable, Mapping

from transformers import PreTrainedConfig


def check_sizes(config: PreTrainedConfig, names: Iterable[str]) -> None:
    """Check that the fields of these names are at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be at least 1.")


def check_heads(config: PreTrainedConfig) -> None:
    """Check that heads divide the width, and key heads the query heads."""
    if config.hidden_size % config.num_attention_heads:
        divisors = [n for n in range(1, config.hidden_size + 1) if config.hidden_size % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - config.num_attention_heads))
        raise ValueError(
            f"num_attention_heads={config.num_attention_heads} does not divide "
            f"hidden_size={config.hidden_size}. The nearest number that does is {nearest}."
        )
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError(
            f"num_key_value_heads={config.num_key_value_heads} does not divide "
            f"num_attention_heads={config.num_attention_heads}: each key head serves a whole "
            "group of query heads."
        )


def check_position_widths(config: PreTrainedConfig) -> None:
    """Check that the kind of positions fits the widths."""
    if config.position_embedding == "rotary" and config.head_dim % 2:
        raise ValueError(
            f"Rotary positions turn pairs of channels, but a head is {config.head_dim} wide "
            f"(hidden_size={config.hidden_size} / num_attention_heads="
            f"{config.num_attention_heads}). Choose an even width of the head."
        )
    if config.position_embedding == "sinusoidal" and config.hidden_size % 2:
        raise ValueError(
            f"Sinusoidal positions need an even hidden_size, not {config.hidden_size}."
        )


def check_choices(config: PreTrainedConfig, choices: Mapping[str, Collection[object]]) -> None:
    """Check that each field has one of its allowed values."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"{name}={getattr(config, name)!r} is unknown. Choose from: "
                f"{', '.join(map(str, allowed))}."
            )


def check_shares(config: PreTrainedConfig, names: Iterable[str]) -> None:
    """Check that the fields of these names, dropouts say, lie in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must lie in [0, 1).")


def check_positive(config: PreTrainedConfig, names: Iterable[str]) -> None:
    """Check that the fields of these names are above 0, if they are set."""
    for name in names:
        if getattr(config, name) is not None and getattr(config, name) <= 0:
            raise ValueError(f"{name}={getattr(config, name)} must be above 0.")


__all__ = [
    "check_choices",
    "check_heads",
    "check_position_widths",
    "check_positive",
    "check_shares",
    "check_sizes",
]
