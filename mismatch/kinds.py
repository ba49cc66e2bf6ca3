"""What kind of token a text is: one table for the breakdown of a gap and for the token viewer."""

from __future__ import annotations

import re

KINDS = ("special", "tool/template", "digit", "code", "whitespace", "other")
# of a text that a model may have made long: none takes more than one pass over it
_KIND = (
    # <|im_end|>, <s>, [INST], <pad>: written so by no one but a template
    (
        "special",
        re.compile(r"<\|.*\|>|<｜.*｜>|</?(s|pad|unk|bos|eos|mask)>|\[/?(INST|PAD|UNK|CLS|SEP)\]"),
    ),
    ("tool/template", re.compile(r"</?[a-z]+([_-][a-z]+)*>", re.IGNORECASE)),
    ("whitespace", re.compile(r"\s+")),
    ("digit", re.compile(r"\s*[+-]?[.,]*\d[\d.,]*\s*")),
    ("code", re.compile(r"(?=[\W_]*[{}\[\]()<>=;_/\\|&*^%$#@`~+])[\W_]+")),
)


def kind_of(text: str) -> int:
    """A token's text -> its index in KINDS; a token without text is `special`.

    By the text alone, so that it is the same for every tokenizer: a role's name in a template reads
    as a word, and is `other`.
    """
    if not text:
        return 0
    for name, pattern in _KIND:
        if pattern.fullmatch(text):
            return KINDS.index(name)
    return KINDS.index("other")
