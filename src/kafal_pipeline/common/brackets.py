"""Splits what `--params` is given."""

from __future__ import annotations


def split_outside_brackets(text: str) -> list[str]:
    """Split at the commas that stand in no brackets, braces or quotes.

    Examples
    --------
    >>> split_outside_brackets("seed=1, compare.queries=[random,{name: ksas, a: 1}],query='a,b'")
    ['seed=1', 'compare.queries=[random,{name: ksas, a: 1}]', "query='a,b'"]
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
