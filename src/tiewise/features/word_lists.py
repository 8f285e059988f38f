"""Short lists of English words and phrases that the pair features count."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


STOP_WORDS = _set(
    "a about all also an and any are as at be been but by can could did do does for from had has "
    "have he her here his how i if in into is it its just may might more most my no not of on one "
    "or other our out over she should so some than that the their then there these they this those "
    "to two up was we were what when where which who why will with would you your"
)
HEDGES = _set(
    "maybe perhaps might possibly unsure unclear could seems likely probably generally typically "
    "usually sometimes apparently depends"
)
CONNECTIVES = _set(
    "additionally because conclusion example finally first furthermore however moreover overall "
    "second summary therefore third thus"
)
FIRST_PERSON = _set("i me my mine myself")
SECOND_PERSON = _set("you your yours yourself")
REFUSALS = (
    *("i'm sorry", "i am sorry", "i apologi", "as an ai", "language model", "i cannot", "i can't"),
    *("i am unable", "i'm unable", "not able to", "i do not have", "i don't have", "i won't"),
    *("i will not", "unfortunately", "inappropriate"),
)
OPENERS = ("sure", "certainly", "of course", "absolutely", "great", "here", "happy to")
DIALOGUE = ("###", "human:", "user:", "assistant:", "instruction:", "input:", "output:")

PROMPT_KINDS = {
    "code": _set("python java javascript html css sql code function program algorithm script c"),
    "numbers": _set("calculate solve equation probability sum percent average many much triangle"),
    "writing": _set("write compose draft create generate story poem essay email letter speech"),
    "listing": _set("list name give suggest ideas examples provide recommend tips"),
    "explaining": _set("explain why how describe what difference compare discuss"),
    "editing": _set(
        "rewrite edit correct translate summarize summarise paraphrase classify rephrase convert "
        "extract identify sentence text following"
    ),
    "acting": _set("pretend act imagine role suppose you"),
    "brevity": _set("short brief briefly concise one single only words limit exactly"),
}
"""Words of a prompt that tell what kind of work it asks for."""
