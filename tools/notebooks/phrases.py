"""Phrases that nobody would say aloud, with what to write instead; grown from what was found."""

import re

# The "X a Y" tic, as in "a dot a departure", "ten numbers an image", "a line a row".
_COUNT = r"(?:an?|one|two|three|four|five|ten|each|\d[\d,]*)"
_THING = (
    r"(?:bytes?|cells?|columns?|dots?|examples?|features?|files?|folders?|lines?|models?|notebooks?"
    r"|numbers?|pages?|points?|process(?:es)?|requests?|rows?|skills?|tests?|values?|words?)"
)
_UNIT = (
    r"(?:cell|class|column|day|departure|file|flight|hour|image|line|model|month|notebook|part"
    r"|period|request|result|row|run|skill|task|term|test|version|week|word)"
)

PHRASES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), instead)
    for pattern, instead in (
        (rf"\b{_COUNT} (?:[a-z-]+ )?{_THING} an? {_UNIT}\b", "one row per flight"),
        (r"\bcolumns?, one a word\b", "one column for each word"),
        (r"\bthe past tells\b", "The past tells us what's usual."),
        (r"\bwhat is \w+, the \w+ (?:tells|says|knows)\b", "The past tells us what's usual."),
        (r"\banother question decides\b", "The answer depends on another question."),
        (r"\bit is the one of this\b", "the one this notebook is about"),
        (r"\bof above\b", "the one from before"),
        (r"^side by side\b", "Let's plot both."),
        (r"^(?:\d+, )+\d+\.", "The naive check raises 26 alarms; with thresholds it's 16."),
        (r"\bis what was \w+ worth\b", "Do these delays help the model at all?"),
        (r"\bso [A-Z][\w ]{0,30}? has it\b", "that's how TensorFlow Serving behaves"),
        (r"\bas we shall see\b|\bshall\b", "we'll see"),
        (r"\bwho divides all the same\b|\ball the same gets\b", "still"),
        (r"\bin small\b(?! letters)", "a small feature store"),
        (r"\bstands? in the (?:file|text|table|source)\b", "it's in the file"),
        (r"\bgoes? by the\b", "uses"),
        (r"\bwhat becomes? of\b", "what happens to"),
        (r"\bno other than\b|\bnone other than\b", "the same"),
        (r"\bnext to no\b", "almost no"),
        (r"\bin its way\b\.", "after a fashion"),
        (r"\b(?:needs?|has|have) no use for\b", "doesn't use"),
        (r"\bis no (?:component|notebook|proof|oracle|argument|check)\b", "isn't a proof"),
        (r"\bthat is not so\b|\bis that so\b", "Is that true?"),
        (r"\bsay(?:s)? of itself\b", "describes"),
        (r"\bwhatever (?:you|we) take\b", "whichever you choose"),
        (r"\bto the eye\b", "to look at"),
    )
)


def first_found(text: str) -> tuple[str, str] | None:
    """Find a phrase that fails: its words, and what to write instead; None if there's none.

    Args:
        text: Prose, with code left out.

    >>> first_found("We draw a dot a departure.")
    ('a dot a departure', 'one row per flight')
    >>> first_found("We draw one dot per departure, twice a day.")
    """
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(paragraph.split())
        for pattern, instead in PHRASES:
            if found := pattern.search(joined):
                return found[0], instead
    return None
