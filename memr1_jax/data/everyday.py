"""Everyday facts for generated dialogues: plain statements about oneself, relatives and others.

A fact is written once, in the third person. What is said follows from it: "I live in Oslo." of
oneself, "My sister Lena lives in Oslo." of a relative, "Lena lives in Oslo." of somebody else.
Relatives and the words of loose statements are drawn for each dialogue.
"""

import random
import re

from memr1_jax.data.everyday_facts import FACTS, Fact, loose
from memr1_jax.data.everyday_words import RELATIVES, person
from memr1_jax.data.phrases import Kind

BARE = 0.25  # share of changes that do not say that anything changed
SUDDEN = 0.25  # share of new facts that are told as changes
_LOOSE_FACTS = 5  # statements with verbs of their own in each dialogue


def everyday_kinds(rng: random.Random) -> tuple[Kind, ...]:
    """Draws the kinds of facts of one dialogue: about its speakers, two relatives and another."""
    facts = [
        *FACTS,
        *{fact.name: fact for fact in (loose(rng) for _ in range(_LOOSE_FACTS))}.values(),
    ]
    kinds = [_kind(rng, fact, "") for fact in rng.sample(facts, len(facts) * 2 // 3)]
    shared = [fact for fact in facts if "o" in fact.of]
    for relative in rng.sample(RELATIVES, 2):
        whom = f"{relative} {person(rng)}" if rng.random() < 0.5 else relative
        kinds += [_kind(rng, fact, "{name}'s " + whom) for fact in rng.sample(shared, 4)]
    kinds += [_kind(rng, fact, person(rng)) for fact in rng.sample(shared, 2)]
    return tuple(kinds)


def _kind(rng: random.Random, fact: Fact, whom: str) -> Kind:
    """Makes the kind of a fact about the speaker (""), a relative ("{name}'s sister") or others."""
    notes, asked = {}, [whom or "{name}"]
    for field in ("note", "changed_note", "ended_note"):
        notes[field] = _third_person(getattr(fact, field), whom or "{name}")
    if whom.count(" ") == 2:  # a relative with a name
        first, last = whom.rsplit(" ", 1)
        asked += [first, last]
    asks = [_third_person(ask, who) for ask in fact.asks.split("|") if ask for who in asked]

    def said(templates: str) -> tuple[str, ...]:
        return tuple(
            _said(rng, template, whom, fact.we) for template in templates.split("|") if template
        )

    return Kind(
        f"{fact.name} of {whom}",
        tuple(topic.replace("_", " ") for topic in map(str.strip, fact.topics)),
        fact.draw,
        said(fact.says),
        (notes["note"],),
        tuple(asks),
        said(fact.changed),
        (notes["changed_note"],),
        said(fact.ended),
        (notes["ended_note"],),
    )


def _third_person(template: str, whom: str) -> str:
    """Puts a person in place of `{s}`; the second time it is "their"."""
    first, *rest = re.split(r"(?<=\{s\})(?!$)", template, maxsplit=1)
    later = "".join(rest).replace("{s}'s", "their")
    return (first + later).replace("{s}", whom)


def _said(rng: random.Random, template: str, whom: str, we: bool) -> str:
    """Says it as the speaker would."""
    if whom:
        return _third_person(template, whom.replace("{name}'s", "my"))
    text = template.replace("{s}'s", "my")
    text = re.sub(
        r"\{s\} ((?:now|just|really|also|no longer|recently) )?(\w+)",
        lambda found: f"I {found[1] or ''}{_first_person(found[2])}",
        text,
    )
    if we and rng.random() < 0.2:
        text = text.replace("I am ", "We are ").replace("I was ", "We were ")
        return re.sub(r"\bI ", "we ", re.sub(r"\bmy\b", "our", text))
    if rng.random() < 0.7:
        text = text.replace("I am ", "I'm ").replace(" do not ", " don't ")
        text = re.sub(r"\bI will ", "I'll ", text)
        text = re.sub(r"I have (just )?moved", r"I've \1moved", text)
    return text


_FIRST = {"is": "am", "has": "have", "was": "was", "does": "do", "goes": "go"}


def _first_person(verb: str) -> str:
    if verb in _FIRST:
        return _FIRST[verb]
    if verb.endswith("ies"):
        return verb[:-3] + "y"
    if re.search("(ch|sh|ss|x)es$", verb):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") else verb


def speakers(rng: random.Random) -> tuple[str, str]:
    """Draws two speakers; some are called "user", as in chats."""
    drawn: list[str] = []
    while len(drawn) < 2:
        name = "user" if rng.random() < 0.12 else person(rng)
        if name not in drawn:
            drawn.append(name)
    return drawn[0], drawn[1]


_BEFORE = (
    "By the way, |Guess what, |Oh, |Well, |You know, |Hi! |Hey, |Hello. |So, |Yes, |No, |Actually, "
    "|Good news: |Big news! |Just so you know, |I wanted to tell you: |Please remember: |Remember: "
    "|Thanks! |Did you know? |Sadly, |Luckily, "
).split("|")
_AFTER = (
    " It's great.| What about you?| Isn't that nice?| I'm happy.| How are you?| Really.| Thanks."
    "| What do you think?| That's all.| It was fun.| Yes."
).split("|")


def loosened(rng: random.Random, said: str) -> str:
    """Says the same as people write: with a word before or after it, or another ending."""
    chance = rng.random()
    if chance < 0.15:
        before = rng.choice(_BEFORE)
        keep = (
            before[-2] in "!.?"
            or re.match(r"I\b|[A-Z]\w+ ", said)
            and said[:2] not in ("My", "We", "Ou")
        )
        said = before + (said if keep else said[0].lower() + said[1:])
    elif chance < 0.25:
        said += rng.choice(_AFTER)
    elif chance < 0.35:
        said = said.rstrip(".") + rng.choice(("!", "", "!", "..", " :)"))
    elif chance < 0.38:
        said = said[0].lower() + said[1:]
    return said


def asked_of(rng: random.Random, question: str, name: str) -> str:
    """Asks the same without the name of the only speaker: as "I", or as "he" or "she"."""
    if rng.random() < 0.5:
        who = rng.choice(("she", "he"))
        owned = {"she": "her", "he": "his"}[who]
    else:
        who, owned = "I", "my"
        for verb, mine in (("is", "am"), ("does", "do")):
            question = re.sub(rf"\b{verb} {re.escape(name)}\b(?!'s)", f"{mine} {name}", question)
    question = question.replace(f"{name}'s", owned)
    return re.sub(rf"\b{re.escape(name)}\b", who, question)


_QUESTIONS = tuple(fact.asks.split("|")[0] for fact in FACTS if fact.topics == ("",) and fact.asks)


def passing_question(rng: random.Random, name: str) -> str:
    """Asks something, which tells no fact."""
    text = rng.choice(_QUESTIONS).replace("{s}", name)
    return rng.choice((text, text.replace(f"{name}'s", "your").replace(f"is {name}", "are you")))
