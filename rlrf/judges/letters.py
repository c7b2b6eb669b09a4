"""The letter that an answer to a multiple-choice question settles on, read from real writing."""

from __future__ import annotations

import re
from collections import deque

MAX_PLACE = 200
"""How far behind its marker an answer is looked for, in characters."""

MAX_MARKERS = 200
"""How many markers are read, from the last one back; no honest answer has as many."""

UNCLEAR = "unclear"
"""Letters stand where the answer should, but which of them is meant can't be told."""

_QUOTE = "\"'“”‘’`"
_DRESSED = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf)\s?\{\s?\(?([A-Za-z])[.)]?\s?\}"
    r"|\*{1,3}\s?\(?([A-Za-z])[).:]{0,2}\s?\*{1,3}"
    rf"|(?<![\w\\{_QUOTE}])[\[{_QUOTE}$]\(?([A-Za-z])\)?[\]{_QUOTE}$](?!\w)"
)
_MARKUP = re.compile(r"[*`$]+|__+")
_SPACES = re.compile(r"[ \t\r\u00a0]+")

_LINKS = r"(?:\b(?:is|was|be|isn['’]t|wasn['’]t)\b|:|=)"
_MARKER = re.compile(
    r"\\boxed\s?\{|####|\bA\s?:(?=\s{0,3}\(?[A-Za-z]\)?\.?\s{0,3}(?:\n|\Z))"
    rf"|\bans(?:wer)?\b(?!\s(?:choice|option|key)s?\s?:)[^.\n:=]{{0,40}}?{_LINKS}"
    rf"|\b(?:correct|right|best|final)\s(?:option|choice|letter|response|statement|one)\b[^.\n:=]{{0,40}}?{_LINKS}"
    r"|\bI(?:['’]d|['’]ll|['’]m|\swould|\swill|\smust|\sam)?\s(?:\w{1,20}ly\s)?"
    r"(?:choose|chose|pick|picked|select|selected|answer|say|opt\sfor|go\swith|going\swith)\b",
    re.IGNORECASE,
)
_HYPOTHESIS = re.compile(r"\b(?:if|whether|suppose|assume|assuming|unless|had)\b[^.,\n]{0,20}\Z", re.IGNORECASE)
_DENIAL = re.compile(r"\b(?:not|never|cannot)\b|n['’]t\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")
_STOP = re.compile(
    r"\b(?:not|never|rather\sthan|instead\sof|because|since|as(?!\sfollows)|over|but|while|whereas|although)\b",
    re.IGNORECASE,
)

_TOKEN = re.compile(r"\(\s?([A-Za-z])\s?[.)]?\)|(?<![\w'’.\\-])([A-Za-z])(?![\w'’-])")
_BETWEEN = re.compile(r"\s?(?:,?\s?(?:\band\b|\bor\b|\bnor\b|[/&+]|,))\s?\Z", re.IGNORECASE)
_NEXT_WORD = re.compile(r"[\s,]*([A-Za-z]\w*|\d)")
_AFTER = re.compile(r"is|and|or|nor|due|based|which|that", re.IGNORECASE)
_LEAD = re.compile(
    r"the|an?|option|choice|letter|answer|statement|response|correct|right|best|final|clearly|definitely|probably|likely"
    r"|most|almost|certainly|therefore|thus|hence|so|just|simply|indeed|actually|either|both|neither|is|be|i|think|believe"
    r"|would|say|it|as|follows|of|to|here|this|question|one|",
    re.IGNORECASE,
)
_ARTICLES = frozenset("AI")

_LINE = re.compile(
    r"(?:(?:final|correct)\s)?(?:answer|option|choice)?\s?(?:\(\s?([A-Za-z])\s?[.)]?\)|([A-Za-z]))[.!)]?", re.IGNORECASE
)
_SEVERAL = re.compile(r"\(?[A-Z]\)?(?:\s?(?:,|/|&|\band\b|\bor\b)\s?\(?[A-Z]\)?){1,8}\.?")
_LABEL = re.compile(
    r"(?:[Oo]ption\s|[Cc]hoice\s)?(?:\(\s?([A-Za-z])\s?[.)]?\)\s?[:.-]?|([A-Z])[).:])(?=\s)(?!\s?[A-Z]\.)"
)
_VERDICT = re.compile(
    r"(?:\(\s?([A-Z])\s?\)|(?<![\w'’.-])([A-Z])\)?)\s(?:is|was|seems|looks|must\sbe|would\sbe)\s"
    r"(?:(?:the|clearly|indeed|definitely|therefore|thus|only|most)\s){0,3}"
    r"(?:correct|right|best|answer|accurate|appropriate|suitable)\b"
)
_NAMED = re.compile(r"\(\s?([A-Z])\s?\)")


def settled_letter(text: str, letters: str) -> str | None:
    """The capital letter that `text` settles on; None where it names none, `UNCLEAR` where it names several or hedges.

    The last explicit marker decides ('the answer is', 'Answer:', '\\boxed{}', 'I choose', a last line that is a letter); a
    letter behind one need not be among `letters`. Without one: letters that are called correct, else lines that begin with
    a label; they must all be the same. A letter named anywhere else is unclear. The article 'A' and the pronoun 'I' are
    never read as letters.
    """
    text = _plain(text)
    lines = [line.strip() for line in text.rstrip().split("\n")]
    last = _LINE.fullmatch(lines[-1][:40])
    if last and _group(last) in letters:
        return _group(last)
    if _SEVERAL.fullmatch(lines[-1][:80]):
        return UNCLEAR
    if (marked := _marked(text)) is not None:
        return marked
    for found in (_verdicts(text, letters), _labels(lines, letters)):
        if found:
            return found.pop() if len(found) == 1 else UNCLEAR
    return UNCLEAR if any(_group(one) in letters for one in _NAMED.finditer(text)) else None


def reference_letter(reference: str | None, letters: str) -> str | None:
    """The letter of a reference: a letter, a labelled option ('B) Paris') or a text that settles on one; else None."""
    letter = settled_letter(reference, letters) if reference else None
    return letter if letter and letter in letters else None


def _plain(text: str) -> str:
    """Bold, quoted and otherwise dressed single letters as '(B)'; other markup taken out."""
    text = _MARKUP.sub("", _DRESSED.sub(lambda found: f"({_group(found, upper=False)})", text))
    return _SPACES.sub(" ", text)


def _group(found: re.Match[str], upper: bool = True) -> str:
    letter = next(group for group in found.groups() if group)
    return letter.upper() if upper else letter


def _marked(text: str) -> str | None:
    """What the last marker with a letter behind it says."""
    for marker in reversed(deque(_MARKER.finditer(text), MAX_MARKERS)):
        if _HYPOTHESIS.search(text, max(0, marker.start() - 40), marker.start()):
            continue
        read = _read_place(_place(text, marker.end(), marker[0]), bool(_DENIAL.search(marker[0])))
        if read is not None:
            return read
    return None


def _place(text: str, start: int, marker: str) -> str:
    """The text behind a marker, to the end of its sentence or brace; line breaks right behind the marker are skipped."""
    place = text[start : start + MAX_PLACE].lstrip(" \t\n:=")
    if marker.startswith("\\"):
        return place.partition("}")[0]
    # A full stop right behind a letter can be its label's: 'B. Paris'.
    return place[: end.start()] if (end := _SENTENCE_END.search(place)) else place


def _read_place(place: str, denied: bool) -> str | None:
    stop = _STOP.search(place)
    if stop and (stop[0].lower() in {"not", "never"} and not _letters(place[: stop.start()])[0]):
        denied = True
    elif stop:
        place = place[: stop.start()]
    letters, unclear = _letters(place)
    if not letters:
        return UNCLEAR if unclear else None
    return UNCLEAR if denied or unclear or len(letters) > 1 else letters.pop()


def _letters(place: str) -> tuple[set[str], bool]:
    """The letters that a place names as the answer, and whether it names one in a way that can be meant otherwise."""
    letters: set[str] = set()
    end = 0
    for found in _TOKEN.finditer(place):
        dressed = found[1] is not None
        if not dressed and not _stands_alone(found, place):
            continue
        if not dressed and letters and not _BETWEEN.search(place, end, found.start()):
            continue  # the words of the option that was named: '(B) Vitamin C'
        if not dressed and not letters and (not _leads(place[: found.start()]) or _is_followed(found, place)):
            return set(), True
        letters.add(_group(found))
        end = found.end()
    return letters, False


def _stands_alone(found: re.Match[str], place: str) -> bool:
    """Whether a bare letter is one, not an article, a pronoun or a word of one letter."""
    letter, rest = found[2], place[found.end() :]
    word = _NEXT_WORD.match(rest) if rest[:1].isspace() else None
    followed = word is not None and not _AFTER.fullmatch(word[1])
    if letter.islower():
        return found.start() == 0 and word is None and (not rest or rest[0] in ".,;:)!")
    return not (letter in _ARTICLES and followed)


def _is_followed(found: re.Match[str], place: str) -> bool:
    """Whether a word comes right behind a bare letter that may belong to it: 'C major'."""
    rest = place[found.end() :]
    word = _NEXT_WORD.match(rest) if rest[:1].isspace() else None
    return word is not None and not _AFTER.fullmatch(word[1]) and not _TOKEN.match(rest.lstrip())


def _leads(before: str) -> bool:
    return all(_LEAD.fullmatch(word.strip(",:;()\"'“”-")) for word in before.split())


def _verdicts(text: str, letters: str) -> set[str]:
    return {_group(found) for found in _VERDICT.finditer(text)} & set(letters)


def _labels(lines: list[str], letters: str) -> set[str]:
    """The letters of the lines that are a letter alone or begin with one as their label."""
    found = [_LINE.fullmatch(line[:40]) or _LABEL.match(line) for line in lines if line]
    labels = {_group(one) for one in found if one} & set(letters)
    # 'A: Paris' may be option A or short for 'Answer: Paris'.
    return labels | ({UNCLEAR} if any(one and one[0].startswith("A:") for one in found) else set())
