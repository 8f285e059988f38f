"""Languages of pairs, by the codes of ISO 639-1 that the Hugging Face hub uses."""

from __future__ import annotations

import pandas as pd

_NAMES = (
    "arabic ar|armenian hy|azerbaijani az|basque eu|belarusian be|bengali bn|bosnian bs|"
    "bulgarian bg|catalan ca|chinese zh|croatian hr|czech cs|danish da|dutch nl|english en|"
    "esperanto eo|estonian et|finnish fi|french fr|galician gl|georgian ka|german de|greek el|"
    "gujarati gu|hebrew he|hindi hi|hungarian hu|icelandic is|indonesian id|irish ga|italian it|"
    "japanese ja|kazakh kk|korean ko|latin la|latvian lv|lithuanian lt|macedonian mk|malay ms|"
    "malayalam ml|marathi mr|mongolian mn|norwegian no|persian fa|polish pl|portuguese pt|"
    "punjabi pa|romanian ro|russian ru|serbian sr|slovak sk|slovenian sl|somali so|spanish es|"
    "swahili sw|swedish sv|tagalog tl|tamil ta|telugu te|thai th|turkish tr|ukrainian uk|urdu ur|"
    "uzbek uz|vietnamese vi|welsh cy"
)
_CODES = dict(entry.split() for entry in _NAMES.split("|"))
_CODES |= {code: code for code in _CODES.values()}
_SMALLEST_SHARE = 0.01


def count_languages(pairs: pd.DataFrame) -> dict[str, int]:
    """Return the number of rows of each language by its code, the most frequent first.

    The column ``language`` has names or codes; values that are neither are not counted, nor are
    languages of less than 1 % of the rows.

    >>> count_languages(pd.DataFrame({"language": ["English", "en-US", "German", "?", None]}))
    {'en': 2, 'de': 1}
    """
    if "language" not in pairs:
        return {}
    words = pairs["language"].astype("string").str.casefold().str.split(r"[-_]", n=1).str[0]
    counts = words.map(_CODES).value_counts()
    return {str(code): int(n) for code, n in counts.items() if n >= _SMALLEST_SHARE * len(pairs)}
