"""Values that nobody should give, and texts that are hard to carry: what the strategies of this folder are made of."""

from typing import Final

from hypothesis import strategies as st

HARD_TEXTS: Final = (
    "", " ", "\0", "\n", "\r\n", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\ud800", "\udfff", "\udc80",
    "\u202eRTL", "עברית", "e\u0301", "\U0001f600", "\uffff", '"', "\\", '\\"', "\\n", "{}", "}{", "=", ",", "#", "'",
    "<script>alert(1)</script>", "</td>", "&amp;", "%s%n", "${x}", "0", "-1", "1e400", "nan", "+Inf", "NULL", "none",
    "unknown", "other", "http", "x" * 256, "x" * 257, "\n" * 300, "é" * 10_000,
)  # fmt: skip

# Every code point, halves of surrogate pairs too.
any_text = st.one_of(
    st.sampled_from(HARD_TEXTS),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=30),
    st.lists(st.sampled_from(HARD_TEXTS), max_size=4).map("".join),
)
# What can be written as UTF-8.
unicode_text = any_text.map(lambda text: text.encode("utf-8", "replace").decode())
any_number = st.one_of(
    st.integers(-3, 700),
    # Python refuses to write the longest of them.
    st.sampled_from([31, 53, 56, 63, 64, 1_300, 16_000]).map(lambda bits: 1 << bits),
    st.sampled_from([53, 63, 16_000]).map(lambda bits: -1 - (1 << bits)),
    st.floats(),
    st.booleans(),
)
any_value = st.recursive(
    st.one_of(st.none(), any_text, any_number, st.binary(max_size=20), st.just(object())),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=5,
)
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), any_text, st.integers(-(2**70), 2**70), st.floats(allow_nan=True)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4)),
    max_leaves=8,
)
