"""Wider words and wordings for generated dialogues: real names and places, and invented words.

A model that only ever meets the closed lists of `phrases` learns them by heart. Here values
come from the world as well, or are made up letter by letter, so that only copying helps.
"""

import dataclasses
import functools
import random
from collections.abc import Callable

from memr1_jax.data import phrases
from memr1_jax.data.phrases import Kind


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split("|"))


NAMES = tuple(
    """Aaron Abigail Adam Agnes Ahmed Alan Alex Alice Amanda Amy Ana Andrea Andrew Anna Anne Anton
    Ben Beth Bill Bob Brian Carl Carla Caroline Cathy Charles Charlie Chen Chloe Chris Claire Dan
    Daniel David Deborah Dennis Diana Diego Donna Doris Dylan Ed Elena Ella Emily Emma Eric Erin Eva
    Evan Felix Fiona Frank Gary George Gina Grace Greg Hannah Harry Helen Henry Ian Ida Isabel Jack
    James Jan Jane Jason Jean Jen Jenny Jim Joan Joe John Jon Joanna Jose Joy Juan Judy Julia Karen
    Kate Kenji Kevin Kim Kofi Kyle Laura Lea Lee Leo Lena Linda Lisa Lou Louis Luis Luke Maria Mark
    Martin Mary Matt Max Maya Melanie Mia Mike Mina Mohamed Nate Nick Nina Nora Oliver Omid Owen Pam
    Pat Paul Pedro Peter Priya Rachel Ravi Ray Rita Rob Robert Rosie Ruth Ryan Sam Sara Sarah Scott
    Sean Simon Sofia Sophie Stella Steve Sue Susan Tara Ted Tim Tina Tom Tony Vera Victor Wei Will
    Xin Yan Yuki Zara""".split()
)
TOWNS = tuple(
    """Accra Adelaide Amsterdam Ankara Athens Austin Bangkok Barcelona Basel Beirut Belfast Bergen
    Berlin Bern Bogota Boston Brighton Bristol Brussels Budapest Cairo Calgary Cardiff Chicago
    Cologne Copenhagen Dakar Dallas Delhi Denver Detroit Dubai Dublin Dundee Edinburgh Florence
    Geneva Genoa Ghent Glasgow Graz Hamburg Hanoi Havana Helsinki Houston Istanbul Kampala Kobe
    Krakow Kyiv Kyoto Lagos Leeds Leipzig Lima Lisbon Liverpool Ljubljana London Lyon Madrid Malmo
    Manchester Manila Marseille Melbourne Miami Milan Montreal Moscow Mumbai Munich Nairobi Naples
    Nice Osaka Oslo Ottawa Oxford Palermo Paris Perth Phoenix Porto Prague Quito Reykjavik Riga Rome
    Rotterdam Salzburg Santiago Seattle Seoul Seville Shanghai Singapore Sofia Stockholm Sydney
    Taipei Tallinn Tampere Tokyo Toronto Trieste Tunis Turin Uppsala Utrecht Valencia Vancouver
    Venice Vienna Vilnius Warsaw Wellington York Zagreb Zurich""".split()
)
JOBS = _listed(
    """actor|analyst|artist|baker|barber|bookseller|builder|bus driver|butcher|chef|chemist|coach
    |consultant|dancer|data scientist|dentist|developer|doctor|editor|farmer|firefighter
    |fisherman|florist|geologist|historian|hairdresser|journalist|judge|lawyer|lecturer|librarian
    |locksmith|midwife|musician|nurse|optician|painter|pharmacist|physicist|pilot|plumber|poet
    |police officer|postman|potter|professor|programmer|psychologist|publisher|sailor
    |scientist|social worker|software engineer|soldier|statistician|surgeon|surveyor|tailor
    |taxi driver|teacher|translator|tutor|vet|waiter|web designer|welder|writer"""
)
_DISHES = _listed(
    """sushi|ramen|paella|fish and chips|pad thai|falafel|hummus|lasagne|carbonara|pho|borscht
    |pierogi|goulash|tiramisu|chilli|dim sum|fried rice|shakshuka|kimchi|moussaka|ceviche|tacos
    |burritos|pancakes|waffles|cheesecake|roast chicken|meatballs|risotto|gnocchi|pizza|curry
    |couscous|omelette|mashed potatoes|apple pie|tomato soup"""
)
PETS = tuple(
    """Rex Bella Luna Max Charlie Milo Rocky Buddy Daisy Coco Toby Oscar Ruby Lola Molly Bailey Jack
    Lucy Simba Nala Felix Smokey Tiger Ginger Shadow Misty Pepper Biscuit Rusty Sandy Fluffy Socks
    Whiskers Snowy Fido Spot Bruno Zeus Apollo Loki""".split()
)
_ACTIVITIES = _listed(
    """yoga|running|swimming|chess|football|tennis|golf|hiking|climbing|painting|pottery|knitting
    |gardening|cooking|karate|judo|boxing|salsa|ballet|singing|piano|guitar|violin|drums
    |photography|birdwatching|sailing|surfing|skiing|cycling|baking|meditation|pilates|squash
    |rowing|fencing|archery|table tennis|board games|poker"""
)
_THINGS = _listed(
    """sofa|lamp|desk|bookshelf|rug|mirror|clock|painting|plant|bed|chair|table|fridge|oven|kettle
    |toaster|heater|bench|shelf|curtain|cushion|blanket|vase|piano|record player|television
    |red chair|blue rug|green lamp|old clock"""
)
_OPEN = {
    "home": TOWNS,
    "job": JOBS,
    "dish": _DISHES,
    "pet": PETS,
    "trip": TOWNS,
    "hobby": _ACTIVITIES,
    "dislike": _ACTIVITIES,
    "skill": _ACTIVITIES,
    "possession": _THINGS,
    "birth": NAMES,
    "plan": TOWNS,
}
_CAPITAL = ("home", "band", "pet", "trip", "birth", "plan")  # kinds whose values are proper names

# One way to note a fact, so that what changes it shares its words; more ways to say and to ask it.
# `notes`, `changed_notes` and `ended_notes` replace those in `phrases`, the rest joins them.
_WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "home": {
        "notes": ("{name} lives in {value}.",),
        "changed_notes": ("{name} now lives in {value}.",),
        "says": (
            "I live in {value}.",
            "I'm from {value}.",
            "I am living in {value} at the moment.",
        ),
        "asks": ("Where does {name} live?", "In which town does {name} live?"),
        "changed": (
            "I moved to {value}.",
            "I've just moved to {value}.",
            "I live in {value} now.",
            "We moved house, I'm in {value} now.",
        ),
    },
    "job": {
        "notes": ("{name} works as a {value}.",),
        "changed_notes": ("{name} now works as a {value}.",),
        "says": ("I'm a {value}.", "I am a {value} by trade.", "I work as a {value} in town."),
        "asks": ("What is {name}'s job?", "What does {name} do for a living?"),
        "changed": ("I got a new job as a {value}.", "I started working as a {value}."),
    },
    "dish": {
        "notes": ("{name}'s favourite dish is {value}.",),
        "changed_notes": ("{name}'s favourite dish is now {value}.",),
        "says": ("I love {value}.", "My favourite food is {value}."),
        "asks": ("What is {name}'s favourite food?", "What does {name} like to eat?"),
        "changed": ("My favourite food is {value} now.",),
    },
    "band": {
        "notes": ("{name}'s favourite band is {value}.",),
        "changed_notes": ("{name}'s favourite band is now {value}.",),
        "says": ("I really like the band {value}.", "I listen to {value} all day."),
        "asks": ("What is {name}'s favourite band?", "Which band does {name} like?"),
    },
    "status": {
        "notes": ("{name} is {value}.",),
        "changed_notes": ("{name} is now {value}.",),
        "says": ("I'm {value}.", "I am {value}."),
        "asks": ("Is {name} married, single or something else?",),
        "changed": ("I'm {value} now.",),
    },
    "pet": {
        "notes": ("{name} has a {topic} called {value}.",),
        "ended_notes": ("{name} no longer has the {topic} {value}.",),
        "says": ("I have a {topic} called {value}.", "My {topic}'s name is {value}."),
        "asks": ("What is {name}'s {topic}'s name?",),
        "ended": ("I no longer have the {topic} {value}.", "My {topic} {value} died."),
    },
    "trip": {
        "notes": ("{name} travelled to {value} with {topic}.",),
        "says": ("I was in {value} with {topic}.",),
        "asks": ("Where did {name} go with {topic}?",),
    },
    "hobby": {
        "notes": ("{name} does {value} {topic}.",),
        "ended_notes": ("{name} no longer does {value}.",),
        "says": ("I do {value} {topic}.", "I started {value} {topic}."),
        "asks": ("What does {name} do {topic}?",),
        "ended": ("I stopped doing {value}.", "No more {value} for me."),
    },
    "dislike": {
        "notes": ("{name} hated {value} {topic}.",),
        "ended_notes": ("{name} no longer hates {value}.",),
    },
    "skill": {"notes": ("{name} learned {value} from {topic}.",)},
    "possession": {
        "notes": ("{name} bought a {value} for {topic}.",),
        "ended_notes": ("{name} no longer has the {value}.",),
        "says": ("I got a new {value} for {topic}.",),
        "ended": ("I gave the {value} away.",),
    },
    "birth": {"notes": ("{name}'s {topic} has a baby called {value}.",)},
    "plan": {
        "notes": ("{name} plans to go to {value} for {topic}.",),
        "changed_notes": ("{name} now plans to go to {value} for {topic}.",),
        "ended_notes": ("{name} no longer plans to go to {value}.",),
        "says": ("I'm going to {value} for {topic}.",),
        "asks": ("Where is {name} going for {topic}?",),
        "changed": ("I changed my mind, it's {value} for {topic}.",),
    },
}
_REPLACED = ("notes", "changed_notes", "ended_notes")
_ONSETS = (
    "b bl br c ch cl cr d dr f fl g gr h j k kl l m n p pl pr qu r s sh sk sl st t th tr v w z"
)
_CODAS = "b ck d l ll m n nd ng r rn rt s sh st t x".split() + [""] * 12


@functools.cache
def widened(share: float) -> tuple[Kind, ...]:
    """Returns `phrases.KINDS` with other wordings, and `share` of the values from outside them.

    One in three of these is invented, the others are common words. Nothing is dated: the time
    stamps of memories say when a thing happened.
    """
    return tuple(_widened(kind, share) for kind in phrases.KINDS)


def _widened(kind: Kind, share: float) -> Kind:
    fields: dict[str, tuple[str, ...]] = {"says": kind.says, "whens": ()}
    for field, wordings in _WORDINGS[kind.name].items():
        old = () if field in _REPLACED else getattr(kind, field)
        fields[field] = old + wordings
    fields["says"] = tuple(_undated(template) for template in fields["says"])
    return dataclasses.replace(kind, draw=_drawer(kind, share), **fields)


def _undated(template: str) -> str:
    return template.replace("{when} I", "I").replace(" {when}", "")


def two_names(rng: random.Random, share: float) -> tuple[str, str]:
    """Draws two different speakers; `share` of them from outside `phrases.NAMES`."""
    drawn: list[str] = []
    while len(drawn) < 2:
        if rng.random() >= share:
            name = rng.choice(phrases.NAMES)
        else:
            name = rng.choice(NAMES) if rng.random() < 0.67 else invented(rng).capitalize()
        if name not in drawn:
            drawn.append(name)
    return drawn[0], drawn[1]


def invented(rng: random.Random) -> str:
    """Makes up a word of two or three syllables."""
    syllables = rng.choice((2, 2, 3))
    onsets = _ONSETS.split()
    parts = [
        rng.choice(onsets) + rng.choice("aeiou") + rng.choice(_CODAS) for _ in range(syllables)
    ]
    return "".join(parts)[:10]


def _drawer(kind: Kind, share: float) -> Callable[[random.Random], str]:
    words = _OPEN.get(kind.name)

    def draw(rng: random.Random) -> str:
        if kind.name == "status" or rng.random() >= share:
            return kind.draw(rng)
        if words and rng.random() < 0.67:
            return rng.choice(words)
        word = invented(rng)
        return word.capitalize() if kind.name in _CAPITAL else word

    return draw
