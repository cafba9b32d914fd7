"""Everyday facts in the third person, and loose statements of what somebody does or did."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from memr1_jax.data import open_phrases
from memr1_jax.data.everyday_words import (
    ANIMALS,
    APPOINTMENTS,
    CARS,
    COLOURS,
    COUNTS,
    FAVOURITES,
    FOODS,
    INSTRUMENTS,
    LANGUAGES,
    MASSES,
    NUMBERS,
    PAST_WHENS,
    RELATIVES,
    STATUSES,
    SUBJECTS,
    WHENS,
    Draw,
    company,
    date,
    digits,
    food,
    job,
    mass,
    moment,
    person,
    some,
    thing,
    town,
)


class Fact(NamedTuple):
    """A kind of fact in the third person: `{s}` is whom it is about; alternatives are split by |.

    `of` says whom it may be about: "s" the speaker, "o" others as well. `we`: a speaker may say we.
    """

    name: str
    says: str
    note: str
    asks: str
    draw: Draw
    changed: str = ""
    changed_note: str = ""
    ended: str = ""
    ended_note: str = ""
    topics: Sequence[str] = ("",)
    of: str = "so"
    we: bool = False


FACTS = (
    Fact(
        "home",
        "{s} lives in {value}.|{s} lives in {value}.|{s} is living in {value}.|{s}'s home is in"
        " {value}.|{s} lives in {value} these days.|{s} has a flat in {value}.",
        "{s} lives in {value}.",
        "Where does {s} live?|Where does {s} live?|Where does {s} live now?|Which city does {s}"
        " live in?|What town does {s} live in?|Where is {s}'s home?|Where is {s} living?",
        town,
        "{s} moved to {value}.|{s} moved to {value}.|{s} has moved to {value}.|{s} just moved to"
        " {value}.|{s} lives in {value} now.|{s} now lives in {value}.|{s} moved house to {value}."
        "|{s} has just moved to {value}.",
        "{s} now lives in {value}.",
        we=True,
    ),
    Fact(
        "origin",
        "{s} comes from {value}.|{s} is from {value}.|{s} is originally from {value}.",
        "{s} comes from {value}.",
        "Where does {s} come from?|Where is {s} from?",
        town,
    ),
    Fact(
        "birthplace",
        "{s} grew up in {value}.|{s} spent {s}'s childhood in {value}.",
        "{s} grew up in {value}.",
        "Where did {s} grow up?",
        town,
    ),
    Fact(
        "job",
        "{s} works as a {value}.|{s} works as a {value}.|{s} is a {value}.|{s} is a {value} by"
        " trade.|{s} has a job as a {value}.",
        "{s} works as a {value}.",
        "What does {s} do for a living?|What is {s}'s job?|What does {s} do?|What does {s} work as?"
        "|What is the job of {s}?",
        job,
        "{s} now works as a {value}.|{s} got a new job as a {value}.|{s} is a {value} now.|{s}"
        " became a {value}.|{s} works as a {value} now.|{s} started working as a {value}.",
        "{s} now works as a {value}.",
        "{s} no longer works as a {value}.|{s} quit {s}'s job as a {value}.|{s} is not a {value}"
        " any more.",
        "{s} no longer works as a {value}.",
    ),
    Fact(
        "employer",
        "{s} works at {value}.|{s} works for {value}.|{s} has a job at {value}.",
        "{s} works at {value}.",
        "Where does {s} work?|Which company does {s} work for?|Who does {s} work for?",
        company,
        "{s} now works at {value}.|{s} works at {value} now.|{s} started a new job at {value}.|{s}"
        " left and joined {value}.",
        "{s} now works at {value}.",
        "{s} no longer works at {value}.|{s} left {value}.",
        "{s} no longer works at {value}.",
    ),
    Fact(
        "born",
        "{s} was born in {value}.",
        "{s} was born in {value}.",
        "Where was {s} born?|In which town was {s} born?",
        town,
    ),
    Fact(
        "status",
        "{s} is {value}.|{s} is {value}.|{s} is {value} now.",
        "{s} is {value}.",
        "",
        lambda rng: rng.choice(STATUSES),
    ),
    Fact(
        "hobby",
        "{s}'s hobby is {value}.|{s} does {value} every week.|{s} does {value} for fun.",
        "{s}'s hobby is {value}.",
        "What is {s}'s hobby?|What hobby does {s} have?|What does {s} do for fun?",
        mass,
        "{s}'s hobby is {value} now.|{s}'s hobby is now {value}.|{s}'s new hobby is {value}.",
        "{s}'s hobby is now {value}.",
        "{s} no longer does {value}.|{s} does not do {value} any more.|{s} gave up {value}.",
        "{s} no longer does {value}.",
    ),
    Fact(
        "car",
        "{s} drives a {value}.|{s} has a car, a {value}.",
        "{s} drives a {value}.",
        "What does {s} drive?|What car does {s} drive?|Which car does {s} have?",
        some(CARS, described=0.2),
        "{s} now drives a {value}.|{s} drives a {value} now.|{s}'s new car is a {value}.",
        "{s} now drives a {value}.",
        "{s} sold the {value}.|{s} no longer drives a {value}.",
        "{s} no longer drives a {value}.",
        we=True,
    ),
    Fact(
        "count",
        "{s} has {value} {topic}.",
        "{s} has {value} {topic}.",
        "How many {topic} does {s} have?",
        lambda rng: rng.choice((*COUNTS, str(rng.randint(2, 12)))),
        "{s} now has {value} {topic}.|{s} has {value} {topic} now.",
        "{s} now has {value} {topic}.",
        topics="children kids sons daughters brothers sisters cats dogs cars grandchildren".split(),
        we=True,
    ),
    Fact(
        "pet",
        "{s} has a {topic} called {value}.|{s} has a {topic} named {value}.|{s} adopted a {topic}"
        " called {value}.|{s}'s {topic} is called {value}.|{s}'s {topic}'s name is {value}.|{s} got"
        " a {topic} called {value}.|{s} has a {topic}, {value}.|{s} adopted a {topic} and named it"
        " {value}.",
        "{s} has a {topic} called {value}.",
        "What is {s}'s {topic} called?|What is the name of {s}'s {topic}?|What is {s}'s {topic}'s"
        " name?|Which {topic} does {s} have?|Who is {s}'s {topic}?",
        some(open_phrases.PETS, proper=True),
        ended="{s}'s {topic} {value} died.|{s} no longer has the {topic} {value}.|{s} gave the"
        " {topic} {value} away.|{s}'s {topic} {value} ran away.|{s} no longer has {value} the"
        " {topic}.",
        ended_note="{s} no longer has the {topic} {value}.",
        topics=ANIMALS,
        we=True,
    ),
    Fact(
        "relative",
        "{s}'s {topic} is called {value}.|{s}'s {topic}'s name is {value}.|{s} has a {topic} called"
        " {value}.|{s} has a {topic} named {value}.|{s}'s {topic} is {value}.",
        "{s}'s {topic} is called {value}.",
        "What is {s}'s {topic} called?|What is the name of {s}'s {topic}?|Who is {s}'s {topic}?",
        person,
        topics=[*RELATIVES, "best friend", "doctor", "landlord", "coach", "dentist"],
        of="s",
    ),
    Fact(
        "allergy",
        "{s} is allergic to {value}.|{s} is allergic to {value}.|{s} has an allergy to {value}.|{s}"
        " is very allergic to {value}.",
        "{s} is allergic to {value}.",
        "What is {s} allergic to?|What allergy does {s} have?|Which allergy does {s} have?",
        food,
        ended="{s} is no longer allergic to {value}.|{s} is not allergic to {value} any more.",
        ended_note="{s} is no longer allergic to {value}.",
    ),
    Fact(
        "favourite",
        "{s}'s favourite {topic} is {value}.|{s}'s favorite {topic} is {value}.",
        "{s}'s favourite {topic} is {value}.",
        "What is {s}'s favourite {topic}?|What is {s}'s favorite {topic}?|Which {topic} does {s}"
        " like best?",
        some((*MASSES, *FOODS, *COLOURS), described=0.1),
        "{s}'s favourite {topic} is {value} now.|{s}'s favourite {topic} is now {value}.|{s}'s new"
        " favourite {topic} is {value}.",
        "{s}'s favourite {topic} is now {value}.",
        topics=FAVOURITES,
    ),
    Fact(
        "birthday",
        "{s}'s birthday is on {value}.|{s}'s birthday is {value}.|{s} was born on {value}.",
        "{s}'s birthday is on {value}.",
        "When is {s}'s birthday?|When was {s} born?|What day is {s}'s birthday?",
        date,
    ),
    Fact(
        "age",
        "{s} is {value} years old.|{s} is {value}.|{s} is {value} years of age.",
        "{s} is {value} years old.",
        "How old is {s}?|What is {s}'s age?",
        lambda rng: str(rng.randint(2, 97)),
        "{s} is {value} now.|{s} just turned {value}.|{s} turned {value}.",
        "{s} is now {value} years old.",
    ),
    Fact(
        "language",
        "{s} is learning {value}.|{s} is taking lessons in {value}.",
        "{s} is learning {value}.",
        "What language is {s} learning?|What is {s} learning?",
        some(LANGUAGES, proper=True),
        ended="{s} stopped learning {value}.|{s} is no longer learning {value}.",
        ended_note="{s} is no longer learning {value}.",
    ),
    Fact(
        "study",
        "{s} studies {value}.|{s} is studying {value}.|{s} studies {value} at university.",
        "{s} studies {value}.",
        "What does {s} study?|What is {s} studying?|Which subject does {s} study?",
        some(SUBJECTS),
        "{s} now studies {value}.|{s} studies {value} now.|{s} switched to {value}.",
        "{s} now studies {value}.",
    ),
    Fact(
        "instrument",
        "{s} plays the {value}.|{s} is playing the {value}.",
        "{s} plays the {value}.",
        "What instrument does {s} play?|Which instrument does {s} play?",
        some(INSTRUMENTS),
        ended="{s} no longer plays the {value}.|{s} stopped playing the {value}.",
        ended_note="{s} no longer plays the {value}.",
    ),
    Fact(
        "plan",
        "{s} is going to {value} {topic}.|{s} is travelling to {value} {topic}.|{s} is flying to"
        " {value} {topic}.|{s} will go to {value} {topic}.",
        "{s} is going to {value} {topic}.",
        "Where is {s} going {topic}?|Where will {s} go {topic}?|Where is {s} travelling {topic}?",
        town,
        "{s} is going to {value} {topic} instead.|{s} changed {s}'s mind, it is {value} {topic}.",
        "{s} is now going to {value} {topic}.",
        "{s} is no longer going to {value}.|{s} is not going to {value} any more.|{s} cancelled"
        " {s}'s trip to {value}.",
        "{s} is no longer going to {value}.",
        topics=WHENS,
        we=True,
    ),
    Fact(
        "trip",
        "{s} went to {value} {topic}.|{s} was in {value} {topic}.|{s} visited {value} {topic}.|{s}"
        " travelled to {value} {topic}.",
        "{s} went to {value} {topic}.",
        "Where did {s} go {topic}?|Where was {s} {topic}?|Which place did {s} visit {topic}?",
        town,
        topics=PAST_WHENS,
        we=True,
    ),
    Fact(
        "number",
        "{s}'s {topic} is {value}.",
        "{s}'s {topic} is {value}.",
        "What is {s}'s {topic}?",
        digits,
        "{s}'s {topic} is {value} now.|{s}'s new {topic} is {value}.",
        "{s}'s {topic} is now {value}.",
        topics=NUMBERS,
        of="s",
    ),
    Fact(
        "marriage",
        "{s} is married to {value}.|{s} married {value}.|{s} got married to {value}.",
        "{s} is married to {value}.",
        "Who is {s} married to?|Who did {s} marry?",
        person,
        ended="{s} is no longer married to {value}.|{s} got divorced from {value}.|{s} and {value}"
        " split up.",
        ended_note="{s} is no longer married to {value}.",
    ),
    Fact(
        "date",
        "{s} has a {topic} on {value}.|{s}'s {topic} is on {value}.",
        "{s} has a {topic} on {value}.",
        "When is {s}'s {topic}?|When does {s} have a {topic}?",
        moment,
        "{s}'s {topic} was moved to {value}.|{s}'s {topic} is on {value} now.|{s}'s {topic} is now"
        " on {value}.",
        "{s}'s {topic} is now on {value}.",
        "{s}'s {topic} is cancelled.|{s}'s {topic} was cancelled.|{s} no longer has a {topic}.",
        "{s} no longer has a {topic}.",
        topics=APPOINTMENTS,
        of="s",
    ),
    Fact(
        "meeting",
        "{s} met {value} {topic}.|{s} saw {value} {topic}.|{s} visited {value} {topic}.",
        "{s} met {value} {topic}.",
        "Who did {s} meet {topic}?|Who did {s} see {topic}?",
        person,
        topics=PAST_WHENS,
        we=True,
    ),
)
_NOW = """like love enjoy hate collect drink eat watch read sell need want own miss grow teach
    practise use prefer play cook bake study draw make want_to_learn want_to_try""".split()
_ONCE = """buy/bought lose/lost find/found sell/sold write/wrote build/built paint/painted
    cook/cooked break/broke fix/fixed order/ordered win/won make/made get/got see/saw eat/ate
    plant/planted borrow/borrowed rent/rented steal/stole clean/cleaned draw/drew read/read
    watch/watched choose/chose keep/kept wash/washed carry/carried return/returned""".split()


def _third(verb: str) -> str:
    head, *rest = verb.split("_")
    if head.endswith(("ch", "sh", "ss", "x")):
        head += "es"
    else:
        head = head[:-1] + "ies" if re.search("[^aeiou]y$", head) else head + "s"
    return " ".join([head, *rest])


def loose(rng: random.Random) -> Fact:
    """Draws a statement about what somebody does, or did, with an object."""
    if rng.random() < 0.5:
        verb = rng.choice(_NOW)
        base, third = verb.replace("_", " "), _third(verb)
        return Fact(
            verb,
            f"{{s}} {third} {{value}}.|{{s}} really {third} {{value}}.|{{s}} {third} {{value}}.",
            f"{{s}} {third} {{value}}.",
            f"What does {{s}} {base}?",
            some((*MASSES, *FOODS), described=0.15),
            ended=f"{{s}} no longer {third} {{value}}.|{{s}} does not {base} {{value}} any more.",
            ended_note=f"{{s}} no longer {third} {{value}}.",
            we=True,
        )
    base, past = rng.choice(_ONCE).split("/")
    article = rng.choice(("a", "a", "a", "the", "{s}'s", "two", "some"))
    return Fact(
        base,
        f"{{s}} {past} {article} {{value}}.|{{s}} just {past} {article} {{value}}.",
        f"{{s}} {past} {article} {{value}}.",
        f"What did {{s}} {base}?",
        thing,
        we=True,
    )
