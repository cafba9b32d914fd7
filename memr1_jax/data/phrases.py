"""The words of generated dialogues: kinds of facts, their wordings, and small talk."""

import dataclasses
import random
from collections.abc import Callable

from memr1_jax.data import phrase_values as values

NAMES = tuple(
    """Ada Amir Anouk Arjun Astrid Bela Bruno Carmen Chidi Clara Dara Dmitri Elif Emeka Esther Fabio
    Farah Freya Gustav Hana Hugo Ines Iris Ivan Jamal Jonas Kaito Keiko Lars Leila Linnea Lucia
    Malik Mara Mateo Mei Milan Nadia Naomi Nikhil Noor Olga Omar Oscar Paloma Petra Quinn Rafael
    Rosa Ruben Sanna Selma Soren Tariq Tessa Theo Uma Viktor Wanda Yara Yusuf Zoe""".split()
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fact and the ways to say, note and ask it.

    A speaker has one live fact per topic, so a question that names the topic has one answer.
    Templates may use {name}, {topic}, {value}, {when}; `pairs` use {first} and {second} topics.
    """

    name: str
    topics: tuple[str, ...]  # ("",) where a person has only one
    draw: Callable[[random.Random], str]
    says: tuple[str, ...]  # a turn that tells the fact, in the first person
    notes: tuple[str, ...]  # the same as an observation, in the third person
    asks: tuple[str, ...]  # category 4: the value of one topic
    changed: tuple[str, ...] = ()  # a turn that tells that the value is now another one
    changed_notes: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()  # a turn that tells that the fact no longer holds
    ended_notes: tuple[str, ...] = ()
    whens: tuple[str, ...] = ()  # category 2; such a kind has {when} in `says` and `notes`
    lists: tuple[str, ...] = ()  # category 1: all live values
    counts: tuple[str, ...] = ()  # category 1: how many live values
    pairs: tuple[str, ...] = ()  # category 1: the values of two topics
    likely: str = ""  # category 3: the answer to LIKELY


HOME = "home"
LIKELY = (
    "Would {name} likely enjoy a course in {value}?",
    "Would {name} likely be happy about a ticket for {value}?",
    "Is {name} likely to join a club for {value}?",
)

KINDS = (
    Kind(
        HOME,
        ("",),
        values.town,
        ("I live in {value} these days.", "My flat is in {value}.", "Home for me is {value}."),
        ("{name} lives in {value}.", "{name} has a flat in {value}.", "{name}'s home is {value}."),
        ("Where does {name} live now?", "Which town is {name}'s home now?"),
        ("Big news, I moved to {value}!", "I packed up everything, {value} is home now."),
        ("{name} has moved and now lives in {value}.", "{name}'s new home is {value}."),
    ),
    Kind(
        "job",
        ("",),
        values.job,
        ("I work as a {value}.", "My job is being a {value}.", "I earn my living as a {value}."),
        ("{name} works as a {value}.", "{name} is employed as a {value}."),
        ("What is {name}'s current job?", "What does {name} work as now?"),
        ("I changed jobs, I'm a {value} now.", "I quit and started over as a {value}."),
        ("{name} changed jobs and is now a {value}.", "{name} now works as a {value}."),
    ),
    Kind(
        "dish",
        ("",),
        values.dish,
        ("Nothing beats {value}, my favourite dish.", "If I could, I'd eat {value} every day."),
        ("{name}'s favourite dish is {value}.", "{name} likes {value} more than any other dish."),
        ("What is {name}'s favourite dish now?", "Which dish does {name} like best now?"),
        ("I have a new favourite dish: {value}.", "These days I like {value} best of all dishes."),
        ("{name}'s favourite dish is now {value}.", "{name} now prefers {value} to other dishes."),
    ),
    Kind(
        "band",
        ("",),
        values.band,
        ("My favourite band is {value}.", "I can't stop listening to {value}, the best band ever."),
        ("{name}'s favourite band is {value}.", "{name} likes the band {value} best."),
        ("What is {name}'s favourite band now?", "Which band does {name} like best now?"),
        ("I've got a new favourite band, {value}.", "My band of choice is {value} now."),
        ("{name}'s favourite band is now {value}.", "{name} now likes the band {value} best."),
    ),
    Kind(
        "status",
        ("",),
        values.status,
        ("I'm {value}, in case you wondered.", "As for love, I'm {value}."),
        ("{name} is {value}.", "{name}'s relationship status is {value}."),
        ("What is {name}'s relationship status now?",),
        ("Things changed in my love life: I'm {value} now.", "Guess what, I'm {value} now."),
        ("{name} is now {value}.", "{name}'s relationship status changed to {value}."),
    ),
    Kind(
        "pet",
        tuple("cat dog parrot rabbit hamster turtle gecko ferret pony goat snake hedgehog".split()),
        values.pet,
        (
            "I adopted a {topic} {when} and named it {value}!",
            "I got a {topic} {when}, it's {value}.",
        ),
        (
            "{name} adopted a {topic} called {value} {when}.",
            "{name} got a {topic}, {value}, {when}.",
        ),
        ("What is the name of {name}'s {topic}?", "What is {name}'s {topic} called?"),
        ended=("Sadly I had to give {value} the {topic} away.", "My {topic} {value} moved out."),
        ended_notes=("{name} gave the {topic} {value} away.", "{name} no longer has {value}."),
        whens=("When did {name} get {value} the {topic}?", "When did {name} adopt {value}?"),
        lists=("What are the names of all of {name}'s pets?", "What are {name}'s pets called?"),
        counts=("How many pets does {name} have?",),
        pairs=("What are {name}'s {first} and {second} called?",),
    ),
    Kind(
        "trip",
        (
            "a cousin",
            "an uncle",
            "an old classmate",
            "a colleague",
            "a neighbour",
            "a choir",
            "a tour group",
            "a nephew",
            "an aunt",
            "a flatmate",
            "a running club",
            "a pen friend",
        ),
        values.place,
        ("I went to {value} with {topic} {when}.", "{when} I travelled to {value} with {topic}."),
        (
            "{name} travelled to {value} with {topic} {when}.",
            "{name} visited {value} with {topic} {when}.",
        ),
        ("Where did {name} travel with {topic}?", "Which place did {name} visit with {topic}?"),
        whens=("When did {name} travel to {value}?", "When was {name} in {value}?"),
        pairs=("Where did {name} travel with {first} and with {second}?",),
    ),
    Kind(
        "hobby",
        tuple(
            f"on {day} {part}"
            for day in ("Monday", "Tuesday", "Thursday", "Friday", "Saturday", "Sunday")
            for part in ("mornings", "evenings")
        ),
        values.activity,
        ("I do {value} {topic}, I love it.", "{value} {topic} is my favourite pastime."),
        ("{name} enjoys {value} {topic}.", "{name}'s hobby {topic} is {value}."),
        ("What does {name} do for fun {topic}?", "Which hobby does {name} have {topic}?"),
        ended=("I gave up {value}, it was too much.", "I don't do {value} any more."),
        ended_notes=("{name} gave up {value}.", "{name} no longer does {value}."),
        lists=("Which hobbies does {name} have now?", "What are {name}'s current hobbies?"),
        counts=("How many hobbies does {name} have now?",),
        pairs=("What does {name} do for fun {first} and {second}?",),
        likely="Yes",
    ),
    Kind(
        "dislike",
        (
            "at school",
            "on holiday",
            "at a team event",
            "at a birthday party",
            "on a first date",
            "at a festival",
            "during an open day",
            "at summer camp",
        ),
        values.activity,
        ("I tried {value} {topic} and hated it.", "{value} {topic} was awful, never again."),
        (
            "{name} tried {value} {topic} and hated it.",
            "{name} dislikes {value} since trying it {topic}.",
        ),
        ("What did {name} try {topic} and hate?", "Which activity did {name} dislike {topic}?"),
        ended=("I was wrong about {value}, it is fine.", "Forget that I hated {value}, I don't."),
        ended_notes=("{name} no longer dislikes {value}.", "{name} changed their mind on {value}."),
        likely="No",
    ),
    Kind(
        "skill",
        (
            "a retired sailor",
            "an online course",
            "a grandmother",
            "a street artist",
            "a librarian",
            "an exchange student",
            "a summer school",
            "a former teacher",
            "a travelling musician",
            "a shopkeeper",
        ),
        values.skill,
        ("I learned {value} from {topic}.", "I can do {value} now, thanks to {topic}."),
        ("{name} learned {value} from {topic}.", "{name} picked up {value} thanks to {topic}."),
        ("What did {name} learn from {topic}?", "Which skill does {name} owe to {topic}?"),
        pairs=("What did {name} learn from {first} and from {second}?",),
    ),
    Kind(
        "possession",
        tuple(
            f"the {room}"
            for room in (
                "kitchen bathroom hallway balcony cellar attic bedroom office garage porch garden "
                "staircase"
            ).split()
        ),
        values.thing,
        ("I bought a {value} for {topic} {when}.", "{when} I found a {value} for {topic}."),
        ("{name} bought a {value} for {topic} {when}.", "{name} got a {value} for {topic} {when}."),
        ("What did {name} buy for {topic}?", "Which new thing does {name} have in {topic}?"),
        ended=("I sold the {value} again.", "The {value} broke, so I threw it out."),
        ended_notes=("{name} no longer has the {value}.", "{name} parted with the {value}."),
        whens=("When did {name} buy the {value}?", "When did {name} get the {value}?"),
        pairs=("What did {name} buy for {first} and for {second}?",),
    ),
    Kind(
        "birth",
        (
            "older sister",
            "younger sister",
            "older brother",
            "younger brother",
            "cousin",
            "niece",
            "best friend",
            "neighbour",
        ),
        values.person,
        (
            "My {topic} had a baby {when}, little {value}!",
            "My {topic}'s baby {value} was born {when}.",
        ),
        (
            "{name}'s {topic} had a baby called {value} {when}.",
            "{value}, the baby of {name}'s {topic}, was born {when}.",
        ),
        ("What is the name of the baby of {name}'s {topic}?",),
        whens=("When was {value}, the baby of {name}'s {topic}, born?",),
        pairs=("What are the babies of {name}'s {first} and {second} called?",),
    ),
    Kind(
        "plan",
        (
            "the spring break",
            "the autumn holidays",
            "New Year",
            "midsummer",
            "the next anniversary",
            "the first week of August",
            "the long weekend in May",
            "the family reunion",
            "the ski season",
            "the school reunion",
        ),
        values.place,
        ("For {topic} I plan to go to {value}.", "I booked {value} for {topic}."),
        (
            "{name} plans to go to {value} for {topic}.",
            "{name} booked a stay in {value} for {topic}.",
        ),
        ("Where does {name} plan to go for {topic}?", "Which place is {name}'s plan for {topic}?"),
        ("New plan for {topic}: it will be {value}.", "I'm going to {value} for {topic} instead."),
        (
            "{name} now plans to go to {value} for {topic}.",
            "{name}'s new plan for {topic} is {value}.",
        ),
        ended=("I cancelled {value}, no trip for {topic}.", "My trip to {value} is off."),
        ended_notes=("{name} cancelled the trip to {value}.", "{name} no longer goes to {value}."),
        lists=("Which places does {name} still plan to visit?",),
        counts=("How many trips does {name} still have planned?",),
        pairs=("Where does {name} plan to go for {first} and for {second}?",),
    ),
)

# Facts that depend on another: where such a thing is follows from where its owner lives.
KEPT_AT_HOME = Kind(
    "kept",
    tuple("piano telescope kayak aquarium typewriter loom harp sledge".split()),
    lambda rng: rng.choice("attic cellar garage hallway kitchen library porch study".split()),
    (
        "My {topic} stays at home, in the {value}.",
        "I keep the {topic} at home now, in the {value}.",
    ),
    (
        "{name} keeps the {topic} at home, in the {value}.",
        "{name}'s {topic} is at home, in the {value}.",
    ),
    ("In which room at home does {name} keep the {topic}?",),
)
TOWN_OF_THING = (
    "In which town is {name}'s {topic} now?",
    "Which town is {name}'s {topic} in these days?",
)
ABSENT = "not mentioned"  # as LoCoMo's own script expects it

REPEATED = ("As I told you: {said}", "Like I said before: {said}", "You may remember: {said}")

GREETINGS = (
    "Hi {other}! Good to hear from you.",
    "Hey {other}, it has been a while!",
    "Hello {other}, how are things?",
    "{other}! I was just thinking of you.",
    "Good to see you again, {other}.",
)
REPLIES = (
    "Oh, thanks for telling me!",
    "Really? I had no idea.",
    "That is quite something.",
    "I see. How do you feel about it?",
    "Good to know, {other}.",
    "Wow, {other}, life never stands still.",
    "Interesting! Tell me more one day.",
    "I would not have guessed that.",
    "You always have something to tell.",
    "I hope it goes well.",
)
SMALL_TALK = (
    "The weather has been odd lately, hasn't it?",
    "I could use another coffee.",
    "My week was long and rather dull.",
    "The traffic was terrible this morning.",
    "I slept badly, but I'm fine.",
    "Do you ever feel that time flies?",
    "My phone keeps losing its charge.",
    "We should meet in person soon.",
    "I've been meaning to write to you.",
    "The news is hard to follow these days.",
    "I'm looking forward to a quiet evening.",
    "Honestly, I just want to rest.",
)
