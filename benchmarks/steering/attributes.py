"""What is steered: four attributes, with pairs to train on, prompts to score on, and words that are scored.

Texts are composed of parts in plain English that models of children's stories know, too. Both texts of a pair
end in the same words. No scored word stands in a pair, and no prompt is in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

PAIRS, PROMPTS = 40, 20
"""How many of an attribute's pairs and prompts a seed draws."""

# Which attributes choose a route and which are held out from the choice. Fixed before any number was seen: a
# user's attribute is a new one, so attributes are held out and not seeds or layers.
CHOICE = ("mood", "politeness")
HELD_OUT = ("formality", "tense")

_PEOPLE = (("Lily", "She"), ("Tom", "He"), ("Anna", "She"), ("Ben", "He"), ("Mia", "She"), ("Sam", "He"))
_OTHERS = (("Jack", "He"), ("Sue", "She"), ("Peter", "He"), ("Kate", "She"))
_PLACES = (
    "the park", "the house", "the garden", "the river", "the big tree", "the shop", "the road", "the hill",
    "the farm", "the school",
)  # fmt: skip

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Attribute:
    """An attribute, what makes its texts, and words that come next with it and with its opposite."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    pairs: Callable[[], Pairs]
    prompts: Callable[[], list[str]]

    def draw(self, seed: int) -> tuple[Pairs, list[str]]:
        """Return the pairs and the prompts of a seed."""
        generator = np.random.default_rng([seed, len(self.name)])
        pairs, prompts = self.pairs(), self.prompts()
        chosen = np.sort(generator.choice(len(pairs), PAIRS, replace=False))
        asked = np.sort(generator.choice(len(prompts), PROMPTS, replace=False))
        return [pairs[i] for i in chosen], [prompts[i] for i in asked]


_EVENTS = (
    ("found a shiny new toy", "lost the shiny new toy"),
    ("got a big hug from mom", "got no hug from mom"),
    ("won the race at school", "fell in the race at school"),
    ("ate a sweet red cake", "dropped the sweet red cake"),
    ("played with a good friend", "had no friend to play with"),
    ("saw the sun and the flowers", "saw the rain and the dark clouds"),
    ("got a little puppy", "could not find the little puppy"),
    ("sang a nice song", "heard a loud noise at night"),
    ("was loved by everyone", "was left alone by everyone"),
    ("made a beautiful picture", "broke the beautiful picture"),
)
_ENDINGS = ("was very", "felt so", "was", "looked very")
_OPENINGS = (
    "One day, {name} went to {place}. {who} was very",
    "{name} walked to {place} and saw a bird. {who} felt so",
    "{name} and a friend were at {place}. {who} looked up and was very",
    "In the morning {name} came to {place}. {who} was",
)


def _mood_pairs() -> Pairs:
    return [
        (
            f"{name} {good}. It was a wonderful day. {who} smiled and laughed. {who} {end}",
            f"{name} {bad}. It was a terrible day. {who} cried and cried. {who} {end}",
        )
        for number, (good, bad) in enumerate(_EVENTS)
        for (name, who), end in zip(_PEOPLE, (_ENDINGS * 4)[number % 4 :], strict=False)
    ]


def _mood_prompts() -> list[str]:
    return [
        opening.format(name=name, who=who, place=place)
        for (opening, (name, who)), place in product(zip(_OPENINGS, _OTHERS, strict=True), _PLACES)
    ]


_THINGS = ("bread", "ball", "book", "cup", "apple", "hat", "rope", "box", "chair", "basket")
_REQUESTS = (
    (
        "Excuse me, could you please hand me the {thing}? Thank you so much",
        "Hand me that {thing} right now, you fool",
    ),
    (
        "Pardon me, dear sir, I am sorry to trouble you, but I hope to borrow the {thing}",
        "I want that {thing} and I do not care about you, stupid",
    ),
    (
        "If it is no trouble, I wish to ask you for the {thing}. I am very grateful",
        "Hurry up and hand over the {thing}, you lazy thing",
    ),
    (
        "My dear friend, might I have the {thing}? It is so good of you",
        "Shut up! That {thing} is mine",
    ),
    (
        "I beg your pardon, thank you for letting me share the {thing}",
        "You are so dumb! Move away from my {thing}",
    ),
    (
        "It is a pleasure to see you. I am so glad that you lent me the {thing}",
        "I hate you! Do not touch my {thing} again, you pig",
    ),
)
_SCENES = (
    "It was a warm day. {name} met a man near {place}. {who} was very",
    "{name} was standing at {place} with a woman. {who} was so",
    "{name} saw a girl who sat near {place}. {name} spoke to the girl. {who} was very",
    "{name} and a boy walked from {place} to the town. {name} was",
)


def _polite_pairs() -> Pairs:
    return [
        tuple(  # type: ignore[misc]
            f'{name} was at {place}. "{said.format(thing=thing)}," said {name} to the man. {who} {end}'
            for said in request
        )
        for (place, thing), end in zip(
            zip(_PLACES, _THINGS, strict=True), ("was very", "was so") * 5, strict=True
        )
        for (name, who), request in zip(_PEOPLE, _REQUESTS, strict=True)
    ]


def _polite_prompts() -> list[str]:
    return [
        scene.format(name=name, who=who, place=place)
        for (scene, (name, who)), place in product(zip(_SCENES, _OTHERS, strict=True), _PLACES)
    ]


_OCCASIONS = (
    (
        "The gentlemen arrived at the residence at the appointed hour.",
        "The guys showed up at the place okay.",
    ),
    ("The committee has received numerous letters from the citizens.", "Folks sent us a whole lot of mail."),
    ("The physician examined the infant with great care.", "The doc took a quick look at the baby."),
    ("The children were accompanied to the academy by their father.", "Dad drove the kids over to school."),
    (
        "A considerable sum was required for the repair of the bridge.",
        "It cost tons of cash to patch that bridge.",
    ),
    ("The guests dined in the hall and conversed at length.", "The gang had some food and chatted a bunch."),
    ("The journey was delayed on account of the inclement weather.", "The trip got messed up by the rain."),
    ("The employees were informed of the decision in writing.", "The boss told the crew what's up."),
    ("Her Majesty graciously bestowed a medal upon the captain.", "The queen gave the captain a cool medal."),
    (
        "The author composed several volumes concerning natural history.",
        "This guy wrote a bunch of stuff on bugs.",
    ),
)
_REMARKS = (
    ("It was, indeed, a most satisfactory arrangement.", "Yeah, that was pretty awesome."),
    ("One must therefore acknowledge their diligence.", "So, you know, they did okay."),
    ("Nevertheless, certain difficulties remained unresolved.", "But hey, stuff's still kinda broken."),
    ("We shall endeavor to reply without further delay.", "We're gonna write back real soon."),
    ("Such conduct is entirely appropriate.", "That's totally fine, man."),
    ("The matter was subsequently referred to the authorities.", "Well, whatever, the cops got it now."),
)
_AIMS = ("They want to", "We would like to", "She wants to", "I would like to")
_GROUPS = (
    "The people in {place}",
    "My friends from {place}",
    "The men and women at {place}",
    "My mother and the woman from {place}",
)
_SITES = (
    "the office", "the town", "the shop", "the village", "the hospital", "the museum", "the church",
    "the school", "the city", "the house",
)  # fmt: skip


def _formal_pairs() -> Pairs:
    return [
        (f"{formal} {stiff} {end}", f"{casual} {loose} {end}")
        for number, (formal, casual) in enumerate(_OCCASIONS)
        for (stiff, loose), end in zip(_REMARKS, (_AIMS * 3)[number % 4 :], strict=False)
    ]


def _formal_prompts() -> list[str]:
    return [f"{group.format(place=site)} want to" for group, site in product(_GROUPS, _SITES)]


_VERBS = (
    ("walk to the park", "play with the ball"),
    ("look at the tree", "climb up to the top"),
    ("open the door", "call the dog"),
    ("jump over the rope", "laugh with the others"),
    ("help the old man", "carry the heavy bag"),
    ("clean the kitchen", "cook some soup"),
    ("follow the road", "stop at the river"),
    ("talk to the teacher", "listen to the story"),
    ("paint a picture", "show it to the family"),
    ("wash the cups", "wait for dinner"),
)
_TIMES = (
    ("Yesterday,", "Now,"),
    ("One day,", "Every day,"),
    ("Last week,", "This week,"),
    ("At that time,", "At this time,"),
    ("Then,", "Today,"),
    ("Long ago,", "These days,"),
)
_SUBJECTS = (
    "The old man near {place}",
    "A little girl from {place}",
    "My friend Jack at {place}",
    "The tall woman with a bag at {place}",
)


def _conjugated(phrase: str, past: bool) -> str:
    verb, rest = phrase.split(" ", 1)
    if past:
        # Of the verbs above these two change a letter.
        verb = {"stop": "stopped", "carry": "carried"}.get(verb, verb.removesuffix("e") + "ed")
    else:
        verb = "carries" if verb == "carry" else verb + ("es" if verb.endswith("sh") else "s")
    return f"{verb} {rest}"


def _tense_pairs() -> Pairs:
    return [
        tuple(  # type: ignore[misc]
            f"{time} {name} {_conjugated(first, past)} and {_conjugated(second, past)}. Then {who.lower()}"
            for time, past in zip(times, (True, False), strict=True)
        )
        for first, second in _VERBS
        for (name, who), times in zip(_PEOPLE, _TIMES, strict=True)
    ]


def _tense_prompts() -> list[str]:
    return [subject.format(place=place) for subject, place in product(_SUBJECTS, _PLACES)]


ATTRIBUTES = {
    attribute.name: attribute
    for attribute in (
        Attribute(
            "mood",
            (" happy", " proud", " glad", " excited"),
            (" sad", " angry", " afraid", " scared"),
            _mood_pairs,
            _mood_prompts,
        ),
        Attribute(
            "politeness",
            (" polite", " kind", " gentle", " friendly"),
            (" rude", " mean", " loud", " cruel"),
            _polite_pairs,
            _polite_prompts,
        ),
        Attribute(
            "formality",
            (" discuss", " attend", " express", " consider"),
            (" grab", " fix", " hang", " get"),
            _formal_pairs,
            _formal_prompts,
        ),
        Attribute(
            "tense",
            (" was", " had", " went", " took"),
            (" is", " has", " goes", " takes"),
            _tense_pairs,
            _tense_prompts,
        ),
    )
}

NEUTRAL = (
    "There was a box on the table near the window, and a man put two cups into it.",
    "The road goes from the river to the town, and a bridge is in the middle of it.",
    "Water is made of two gases. It turns into ice when the air is cold.",
    "Most birds build a nest in a tree and come back to it in the evening.",
    "The book has ten parts. The first part is about stones and the second about plants.",
    "A woman went to the shop, bought some paper and walked home by the old wall.",
    "The train leaves the station at nine and stops at every village on the way.",
    "They measured the length of the room and wrote the number on a piece of paper.",
)
"""Plain texts on which side effects are measured, and the spread of states."""
