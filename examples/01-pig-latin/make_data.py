"""Writes train.jsonl: short English sentences and their Pig Latin. Run it again and the file is the same."""
# ruff: noqa: INP001, SIM905 - a script beside its output; words read better in a sentence

from __future__ import annotations

import json
import random
from pathlib import Path

ROWS = 320
SEED = 7
VOWELS = "aeiou"

ADJECTIVES = "big brown clever happy hungry little old quick quiet small".split()
ANIMALS = "bear bird cat dog fish fox frog horse owl rabbit".split()
VERBS = "hides jumps paints runs sings sleeps swims waits walks watches".split()
PLACES = "bridge forest garden hill house lake market river school tree".split()
PREPOSITIONS = "behind in near over to under".split()


def pig_latin(word: str) -> str:
    """The word in Pig Latin: leading consonants (and the u of a qu) go to the end, then `ay`; a vowel takes `way`."""
    lower = word.lower()
    if lower[0] in VOWELS:
        latin = lower + "way"
    else:
        cut = next(i for i, letter in enumerate(lower) if letter in VOWELS + "y" and i > 0)
        if lower[cut - 1 : cut + 1] == "qu":
            cut += 1
        latin = lower[cut:] + lower[:cut] + "ay"
    return latin.capitalize() if word[0].isupper() else latin


def sentence(pick: random.Random) -> list[str]:
    """The words of a sentence such as `The quick fox runs over the hill`."""
    words = ["The", pick.choice(ADJECTIVES), pick.choice(ANIMALS), pick.choice(VERBS)]
    if pick.random() < 2 / 3:
        words += [pick.choice(PREPOSITIONS), "the", pick.choice(PLACES)]
    return words


def rows() -> list[dict[str, str]]:
    """`ROWS` different prompt and completion pairs, in a fixed order."""
    pick = random.Random(SEED)  # noqa: S311 (not for secrets)
    found: dict[str, dict[str, str]] = {}
    while len(found) < ROWS:
        words = sentence(pick)
        english = " ".join(words) + "."
        latin = " ".join(pig_latin(word) for word in words) + "."
        found[english] = {"prompt": f"Translate to Pig Latin: {english}", "completion": latin}
    return list(found.values())


if __name__ == "__main__":
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows()]
    Path(__file__).with_name("train.jsonl").write_text("".join(lines), encoding="utf-8")
