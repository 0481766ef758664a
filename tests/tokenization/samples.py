"""Text that is hard on tokenizers."""

from hypothesis import strategies as st

SENTENCES = [
    "It is a truth universally acknowledged, that a single man isn't in want of 12 wives.",
    "El niño comió 345 piñas; ¿por qué no?\n\n  Sangría —dijo— y se fue.",
    "床前明月光，疑是地上霜。\t舉頭望明月，低頭思故鄉。",  # noqa: RUF001
    '👩‍👩‍👧 said: "we\'ll see 2024-11-22" & e\u0301te\u0301 \x01\x1b[0m\r\n',
]
SPECIAL = "<|user|>"


def texts() -> st.SearchStrategy[str]:
    """Text that is hard on tokenizers: any Unicode, white space of all kinds, special tokens."""
    parts = st.sampled_from(
        [
            *SENTENCES, " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c",
            "\u200b", "\ufeff", "a", "é", "e\u0301", "1", "²", "٣", "'s", "'ll", "...", "-", "世界",
            "🤗", "👨‍👩‍👧‍👦", "\x00", "<|endoftext|>", "<|pad|>", SPECIAL, "<|endof", "text|>",
        ]
    )  # fmt: skip
    return st.one_of(
        st.text(max_size=60),
        st.lists(st.one_of(parts, st.text(max_size=3)), max_size=30).map("".join),
    )
