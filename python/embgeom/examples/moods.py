"""Short texts in two moods, for a steering vector that the example models can learn.

They are composed of parts of children's stories, so that pairs differ only in mood.
"""

from __future__ import annotations

HAPPY = (" happy", " glad", " smiled", " laughed")
SAD = (" sad", " scared", " cried", " angry")
"""Words that come next in one mood or the other, each a single token of the example models."""

_NAMES = (("Lily", "She"), ("Tom", "He"), ("Anna", "She"), ("Ben", "He"), ("Mia", "She"), ("Sam", "He"))
_EVENTS = (
    ("found a shiny new toy", "lost the shiny new toy"),
    ("got a big hug from mom", "got no hug from mom"),
    ("won the race at school", "fell in the race at school"),
    ("ate a sweet red cake", "dropped the sweet red cake"),
    ("played with a good friend", "had no friend to play with"),
    ("saw the sun and the flowers", "saw the rain and the dark clouds"),
    ("got a little puppy", "could not find the little puppy"),
    ("sang a nice song", "heard a loud scary noise"),
    ("was loved by everyone", "was left alone by everyone"),
    ("made a beautiful picture", "broke the beautiful picture"),
)
_MOODS = (("happy", "smiled"), ("sad", "cried"))
# Both texts of a pair end in the same words, where the next word will show the mood.
_ENDINGS = ("was very", "felt so", "was", "")
_PLACES = ("the park", "the house", "the garden", "the river", "the big tree", "the shop")
_OPENINGS = (
    "One day, {name} went to {place}. {who} was",
    "{name} walked to {place} and saw a bird. {who}",
    "There was a child named {name}. {name} lived near {place}. {who} felt",
    "{name} and a friend were at {place}. {who} looked up and was very",
    "In the morning {name} came to {place}. {who} was very",
)


def pairs() -> list[tuple[str, str]]:
    """Return 60 pairs of a happy and a sad text, to train a vector on.

    Returns
    -------
    list of (str, str)
        Happy first. Both end with the same words, before a word that shows the mood.

    Examples
    --------
    >>> from embgeom.examples import moods
    >>> happy, sad = moods.pairs()[0]
    >>> happy
    'Lily found a shiny new toy. She was so happy. She smiled. She was very'
    >>> sad
    'Lily lost the shiny new toy. She was so sad. She cried. She was very'
    """
    found = []
    for number, (good, bad) in enumerate(_EVENTS):
        for place, (name, who) in enumerate(_NAMES):
            end = f"{who} {_ENDINGS[(number + place) % len(_ENDINGS)]}".strip()
            happy, sad = (
                f"{name} {event}. {who} was so {mood}. {who} {act}. {end}"
                for event, (mood, act) in zip((good, bad), _MOODS, strict=True)
            )
            found.append((happy, sad))
    return found


def prompts() -> list[str]:
    """Return 60 beginnings of texts without a mood, none of which is in `pairs`, to score a vector on.

    Returns
    -------
    list of str
        Each ends where a word of `HAPPY` or `SAD` may follow.

    Examples
    --------
    >>> from embgeom.examples import moods
    >>> len(moods.prompts()), moods.prompts()[0]
    (60, 'One day, Jack went to the park. He was')
    """
    names = (("Jack", "He"), ("Sue", "She"))
    return [
        opening.format(name=name, who=who, place=place)
        for opening in _OPENINGS
        for place in _PLACES
        for name, who in names
    ]


def neutral_texts() -> list[str]:
    """Return 30 texts without a mood, on which the side effects of steering are measured.

    Returns
    -------
    list of str
        Some sentences each.

    Examples
    --------
    >>> from embgeom.examples import moods
    >>> len(moods.neutral_texts())
    30
    """
    things = ("a box", "a ball", "a stone", "a leaf", "a cup")
    return [
        f"There was {thing} near {place}. It was on the ground. A man took it and put it on the table. "
        "Then he went to the door and opened it."
        for thing in things
        for place in _PLACES
    ]
