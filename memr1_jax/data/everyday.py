"""Everyday facts for generated dialogues: plain statements about oneself, relatives and others.

A fact is written once, in the third person. What is said follows from it: "I live in Oslo." of
oneself, "My sister Lena lives in Oslo." of a relative, "Lena lives in Oslo." of somebody else.
Relatives and the words of loose statements are drawn for each dialogue.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from memr1_jax.data import open_phrases
from memr1_jax.data.open_phrases import NAMES, invented
from memr1_jax.data.phrases import Kind


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split("|"))


_Draw = Callable[[random.Random], str]
_MONTHS = """January February March April May June July August September October November
    December""".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_RELATIVES = """sister brother mother father mum mom dad husband wife son daughter uncle aunt cousin
    nephew niece friend boss neighbour neighbor roommate flatmate girlfriend boyfriend partner
    grandmother grandfather grandma colleague teacher""".split()
_ANIMALS = """dog cat parrot rabbit hamster turtle horse goldfish puppy kitten snake pony lizard
    canary donkey goat guinea_pig""".split()
_LANGUAGES = """English French German Spanish Italian Norwegian Swedish Danish Dutch Polish Russian
    Greek Turkish Arabic Hindi Chinese Japanese Korean Portuguese Finnish Czech Hebrew Latin Thai
    Swahili Urdu Irish Welsh Farsi Tamil""".split()
_INSTRUMENTS = """piano guitar violin cello flute drums trumpet harp clarinet saxophone accordion
    organ banjo ukulele oboe trombone""".split()
_SUBJECTS = """biology chemistry physics history law medicine music art philosophy economics
    mathematics geography psychology engineering literature politics sociology architecture
    linguistics nursing astronomy computer_science""".split()
_FOODS = """peanuts milk nuts eggs fish shellfish wheat gluten soy strawberries shrimp cats dogs
    pollen dust penicillin bees latex tomatoes apples oranges bananas bread cheese rice pasta soup
    salad coffee tea chocolate cake mushrooms onions garlic olives carrots beans honey lemons
    peaches cherries grapes noodles dumplings spinach broccoli butter sugar cinnamon mango
    pineapple coconut avocado""".split()
_COLOURS = "red blue green yellow black white purple orange pink brown grey silver gold".split()
_ADJECTIVES = """red blue green yellow black white old new small big wooden cheap heavy round used
    little nice second-hand warm broken Italian French long short soft""".split()
_THINGS = """bag ball bank basket bed bell belt bike bird blanket boat book bottle bowl box bread
    bridge brush bus camera candle car card castle chair clock coat coin computer cup cushion desk
    doll door dress drum fence flag flat flower fork garden gate glass guitar hammer hat house
    jacket jar kettle key kite knife ladder lamp laptop letter lock map mask mirror mug necklace
    notebook novel oven painting pan pen pencil phone photo piano picture pillow plant plate poem
    pot printer puzzle radio ring road rope rug saddle sandwich scarf scooter shed shelf ship shirt
    shoe shop shovel skirt sofa spoon stamp statue stone story sweater table tablet tent ticket tool
    towel toy train tree truck umbrella van vase violin wagon wall wallet watch window""".split()
_MASSES = """jazz opera coffee tea chess football music history cheese wine chocolate poetry maths
    theatre cinema rain snow summer winter cooking swimming running dancing sailing skiing hiking
    gardening painting reading fishing yoga tennis golf stamps coins comics birds horses roses
    tomatoes stories puzzles films""".split()
_STATUSES = """married single divorced engaged retired pregnant vegetarian vegan unemployed
    left-handed widowed colour-blind""".split()
_CARS = "van|bus|truck|tractor|scooter|Volvo|Toyota|Fiat|Ford|Skoda|BMW|Honda|taxi".split("|")
_COUNTS = "two three four five six seven".split()
_HOURS = ("nine", "noon", "3 pm", "10 am", "five", "half past six", "8:30", "7 pm")
_WHENS = _listed(
    """next week|next month|next summer|in July|in August|in December|on Friday|on Sunday
    |next year|this weekend|at Easter|for Christmas|in spring|tomorrow|next Tuesday"""
)
_PAST_WHENS = _listed(
    """last week|last month|last summer|in June|in 2019|yesterday|on Monday|last year
    |last weekend|two years ago|as a child|in winter|last Friday|in March"""
)
_FAVOURITES = """food colour color song book film movie band sport season animal drink dish game
    fruit singer author city subject flower team meal snack writer""".split()
_APPOINTMENTS = _listed(
    """dentist appointment|meeting|exam|interview|concert|doctor's appointment|piano
    lesson|party|flight|haircut|test|wedding|game|driving lesson"""
)
_NUMBERS = _listed(
    """phone number|door code|room number|locker number|wifi password|seat number|customer
    number|PIN"""
)


def _some(words: Sequence[str], *, proper: bool = False, described: float = 0.0) -> _Draw:
    """Makes a function that draws one of the words, or a word that it invents."""

    def draw(rng: random.Random) -> str:
        word = invented(rng) if rng.random() < 0.4 else rng.choice(words).replace("_", " ")
        word = word[0].upper() + word[1:] if proper else word
        return f"{rng.choice(_ADJECTIVES)} {word}" if rng.random() < described else word

    return draw


def _date(rng: random.Random) -> str:
    day, month = rng.randint(1, 28), rng.choice(_MONTHS)
    return rng.choice((f"{day} {month}", f"{month} {day}", f"{month} {day}"))


def _moment(rng: random.Random) -> str:
    day = rng.choice(_DAYS) if rng.random() < 0.7 else _date(rng)
    return day if rng.random() < 0.6 else f"{day} at {rng.choice(_HOURS)}"


def _digits(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 6)))


def _company(rng: random.Random) -> str:
    name = invented(rng).capitalize()
    return name + rng.choice(("", "", " Foods", " Bank", " Books", " Hospital", " School"))


_town = _some(open_phrases.TOWNS, proper=True)
_person = _some(NAMES, proper=True)
_job = _some(open_phrases.JOBS)
_food = _some(_FOODS)
_thing = _some(_THINGS, described=0.4)
_mass = _some(_MASSES)


class _Fact(NamedTuple):
    """A kind of fact in the third person: `{s}` is whom it is about; alternatives are split by |.

    `of` says whom it may be about: "s" the speaker, "o" others as well. `we`: a speaker may say we.
    """

    name: str
    says: str
    note: str
    asks: str
    draw: _Draw
    changed: str = ""
    changed_note: str = ""
    ended: str = ""
    ended_note: str = ""
    topics: Sequence[str] = ("",)
    of: str = "so"
    we: bool = False


_FACTS = (
    _Fact(
        "home",
        "{s} lives in {value}.|{s} lives in {value}.|{s} is living in {value}.|{s}'s home is in"
        " {value}.|{s} lives in {value} these days.|{s} has a flat in {value}.",
        "{s} lives in {value}.",
        "Where does {s} live?|Where does {s} live?|Where does {s} live now?|Which city does {s}"
        " live in?|What town does {s} live in?|Where is {s}'s home?|Where is {s} living?",
        _town,
        "{s} moved to {value}.|{s} moved to {value}.|{s} has moved to {value}.|{s} just moved to"
        " {value}.|{s} lives in {value} now.|{s} now lives in {value}.|{s} moved house to {value}."
        "|{s} has just moved to {value}.",
        "{s} now lives in {value}.",
        we=True,
    ),
    _Fact(
        "origin",
        "{s} comes from {value}.|{s} is from {value}.|{s} is originally from {value}.",
        "{s} comes from {value}.",
        "Where does {s} come from?|Where is {s} from?",
        _town,
    ),
    _Fact(
        "birthplace",
        "{s} grew up in {value}.|{s} spent {s}'s childhood in {value}.",
        "{s} grew up in {value}.",
        "Where did {s} grow up?",
        _town,
    ),
    _Fact(
        "job",
        "{s} works as a {value}.|{s} works as a {value}.|{s} is a {value}.|{s} is a {value} by"
        " trade.|{s} has a job as a {value}.",
        "{s} works as a {value}.",
        "What does {s} do for a living?|What is {s}'s job?|What does {s} do?|What does {s} work as?"
        "|What is the job of {s}?",
        _job,
        "{s} now works as a {value}.|{s} got a new job as a {value}.|{s} is a {value} now.|{s}"
        " became a {value}.|{s} works as a {value} now.|{s} started working as a {value}.",
        "{s} now works as a {value}.",
        "{s} no longer works as a {value}.|{s} quit {s}'s job as a {value}.|{s} is not a {value}"
        " any more.",
        "{s} no longer works as a {value}.",
    ),
    _Fact(
        "employer",
        "{s} works at {value}.|{s} works for {value}.|{s} has a job at {value}.",
        "{s} works at {value}.",
        "Where does {s} work?|Which company does {s} work for?|Who does {s} work for?",
        _company,
        "{s} now works at {value}.|{s} works at {value} now.|{s} started a new job at {value}.|{s}"
        " left and joined {value}.",
        "{s} now works at {value}.",
        "{s} no longer works at {value}.|{s} left {value}.",
        "{s} no longer works at {value}.",
    ),
    _Fact(
        "born",
        "{s} was born in {value}.",
        "{s} was born in {value}.",
        "Where was {s} born?|In which town was {s} born?",
        _town,
    ),
    _Fact(
        "status",
        "{s} is {value}.|{s} is {value}.|{s} is {value} now.",
        "{s} is {value}.",
        "",
        lambda rng: rng.choice(_STATUSES),
    ),
    _Fact(
        "hobby",
        "{s}'s hobby is {value}.|{s} does {value} every week.|{s} does {value} for fun.",
        "{s}'s hobby is {value}.",
        "What is {s}'s hobby?|What hobby does {s} have?|What does {s} do for fun?",
        _mass,
        "{s}'s hobby is {value} now.|{s}'s hobby is now {value}.|{s}'s new hobby is {value}.",
        "{s}'s hobby is now {value}.",
        "{s} no longer does {value}.|{s} does not do {value} any more.|{s} gave up {value}.",
        "{s} no longer does {value}.",
    ),
    _Fact(
        "car",
        "{s} drives a {value}.|{s} has a car, a {value}.",
        "{s} drives a {value}.",
        "What does {s} drive?|What car does {s} drive?|Which car does {s} have?",
        _some(_CARS, described=0.2),
        "{s} now drives a {value}.|{s} drives a {value} now.|{s}'s new car is a {value}.",
        "{s} now drives a {value}.",
        "{s} sold the {value}.|{s} no longer drives a {value}.",
        "{s} no longer drives a {value}.",
        we=True,
    ),
    _Fact(
        "count",
        "{s} has {value} {topic}.",
        "{s} has {value} {topic}.",
        "How many {topic} does {s} have?",
        lambda rng: rng.choice((*_COUNTS, str(rng.randint(2, 12)))),
        "{s} now has {value} {topic}.|{s} has {value} {topic} now.",
        "{s} now has {value} {topic}.",
        topics="children kids sons daughters brothers sisters cats dogs cars grandchildren".split(),
        we=True,
    ),
    _Fact(
        "pet",
        "{s} has a {topic} called {value}.|{s} has a {topic} named {value}.|{s} adopted a {topic}"
        " called {value}.|{s}'s {topic} is called {value}.|{s}'s {topic}'s name is {value}.|{s} got"
        " a {topic} called {value}.|{s} has a {topic}, {value}.|{s} adopted a {topic} and named it"
        " {value}.",
        "{s} has a {topic} called {value}.",
        "What is {s}'s {topic} called?|What is the name of {s}'s {topic}?|What is {s}'s {topic}'s"
        " name?|Which {topic} does {s} have?|Who is {s}'s {topic}?",
        _some(open_phrases.PETS, proper=True),
        ended="{s}'s {topic} {value} died.|{s} no longer has the {topic} {value}.|{s} gave the"
        " {topic} {value} away.|{s}'s {topic} {value} ran away.|{s} no longer has {value} the"
        " {topic}.",
        ended_note="{s} no longer has the {topic} {value}.",
        topics=_ANIMALS,
        we=True,
    ),
    _Fact(
        "relative",
        "{s}'s {topic} is called {value}.|{s}'s {topic}'s name is {value}.|{s} has a {topic} called"
        " {value}.|{s} has a {topic} named {value}.|{s}'s {topic} is {value}.",
        "{s}'s {topic} is called {value}.",
        "What is {s}'s {topic} called?|What is the name of {s}'s {topic}?|Who is {s}'s {topic}?",
        _person,
        topics=[*_RELATIVES, "best friend", "doctor", "landlord", "coach", "dentist"],
        of="s",
    ),
    _Fact(
        "allergy",
        "{s} is allergic to {value}.|{s} is allergic to {value}.|{s} has an allergy to {value}.|{s}"
        " is very allergic to {value}.",
        "{s} is allergic to {value}.",
        "What is {s} allergic to?|What allergy does {s} have?|Which allergy does {s} have?",
        _food,
        ended="{s} is no longer allergic to {value}.|{s} is not allergic to {value} any more.",
        ended_note="{s} is no longer allergic to {value}.",
    ),
    _Fact(
        "favourite",
        "{s}'s favourite {topic} is {value}.|{s}'s favorite {topic} is {value}.",
        "{s}'s favourite {topic} is {value}.",
        "What is {s}'s favourite {topic}?|What is {s}'s favorite {topic}?|Which {topic} does {s}"
        " like best?",
        _some((*_MASSES, *_FOODS, *_COLOURS), described=0.1),
        "{s}'s favourite {topic} is {value} now.|{s}'s favourite {topic} is now {value}.|{s}'s new"
        " favourite {topic} is {value}.",
        "{s}'s favourite {topic} is now {value}.",
        topics=_FAVOURITES,
    ),
    _Fact(
        "birthday",
        "{s}'s birthday is on {value}.|{s}'s birthday is {value}.|{s} was born on {value}.",
        "{s}'s birthday is on {value}.",
        "When is {s}'s birthday?|When was {s} born?|What day is {s}'s birthday?",
        _date,
    ),
    _Fact(
        "age",
        "{s} is {value} years old.|{s} is {value}.|{s} is {value} years of age.",
        "{s} is {value} years old.",
        "How old is {s}?|What is {s}'s age?",
        lambda rng: str(rng.randint(2, 97)),
        "{s} is {value} now.|{s} just turned {value}.|{s} turned {value}.",
        "{s} is now {value} years old.",
    ),
    _Fact(
        "language",
        "{s} is learning {value}.|{s} is taking lessons in {value}.",
        "{s} is learning {value}.",
        "What language is {s} learning?|What is {s} learning?",
        _some(_LANGUAGES, proper=True),
        ended="{s} stopped learning {value}.|{s} is no longer learning {value}.",
        ended_note="{s} is no longer learning {value}.",
    ),
    _Fact(
        "study",
        "{s} studies {value}.|{s} is studying {value}.|{s} studies {value} at university.",
        "{s} studies {value}.",
        "What does {s} study?|What is {s} studying?|Which subject does {s} study?",
        _some(_SUBJECTS),
        "{s} now studies {value}.|{s} studies {value} now.|{s} switched to {value}.",
        "{s} now studies {value}.",
    ),
    _Fact(
        "instrument",
        "{s} plays the {value}.|{s} is playing the {value}.",
        "{s} plays the {value}.",
        "What instrument does {s} play?|Which instrument does {s} play?",
        _some(_INSTRUMENTS),
        ended="{s} no longer plays the {value}.|{s} stopped playing the {value}.",
        ended_note="{s} no longer plays the {value}.",
    ),
    _Fact(
        "plan",
        "{s} is going to {value} {topic}.|{s} is travelling to {value} {topic}.|{s} is flying to"
        " {value} {topic}.|{s} will go to {value} {topic}.",
        "{s} is going to {value} {topic}.",
        "Where is {s} going {topic}?|Where will {s} go {topic}?|Where is {s} travelling {topic}?",
        _town,
        "{s} is going to {value} {topic} instead.|{s} changed {s}'s mind, it is {value} {topic}.",
        "{s} is now going to {value} {topic}.",
        "{s} is no longer going to {value}.|{s} is not going to {value} any more.|{s} cancelled"
        " {s}'s trip to {value}.",
        "{s} is no longer going to {value}.",
        topics=_WHENS,
        we=True,
    ),
    _Fact(
        "trip",
        "{s} went to {value} {topic}.|{s} was in {value} {topic}.|{s} visited {value} {topic}.|{s}"
        " travelled to {value} {topic}.",
        "{s} went to {value} {topic}.",
        "Where did {s} go {topic}?|Where was {s} {topic}?|Which place did {s} visit {topic}?",
        _town,
        topics=_PAST_WHENS,
        we=True,
    ),
    _Fact(
        "number",
        "{s}'s {topic} is {value}.",
        "{s}'s {topic} is {value}.",
        "What is {s}'s {topic}?",
        _digits,
        "{s}'s {topic} is {value} now.|{s}'s new {topic} is {value}.",
        "{s}'s {topic} is now {value}.",
        topics=_NUMBERS,
        of="s",
    ),
    _Fact(
        "marriage",
        "{s} is married to {value}.|{s} married {value}.|{s} got married to {value}.",
        "{s} is married to {value}.",
        "Who is {s} married to?|Who did {s} marry?",
        _person,
        ended="{s} is no longer married to {value}.|{s} got divorced from {value}.|{s} and {value}"
        " split up.",
        ended_note="{s} is no longer married to {value}.",
    ),
    _Fact(
        "date",
        "{s} has a {topic} on {value}.|{s}'s {topic} is on {value}.",
        "{s} has a {topic} on {value}.",
        "When is {s}'s {topic}?|When does {s} have a {topic}?",
        _moment,
        "{s}'s {topic} was moved to {value}.|{s}'s {topic} is on {value} now.|{s}'s {topic} is now"
        " on {value}.",
        "{s}'s {topic} is now on {value}.",
        "{s}'s {topic} is cancelled.|{s}'s {topic} was cancelled.|{s} no longer has a {topic}.",
        "{s} no longer has a {topic}.",
        topics=_APPOINTMENTS,
        of="s",
    ),
    _Fact(
        "meeting",
        "{s} met {value} {topic}.|{s} saw {value} {topic}.|{s} visited {value} {topic}.",
        "{s} met {value} {topic}.",
        "Who did {s} meet {topic}?|Who did {s} see {topic}?",
        _person,
        topics=_PAST_WHENS,
        we=True,
    ),
)
BARE = 0.25  # share of changes that do not say that anything changed
SUDDEN = 0.25  # share of new facts that are told as changes
_LOOSE_FACTS = 5  # statements with verbs of their own in each dialogue
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


def _loose(rng: random.Random) -> _Fact:
    """Draws a statement about what somebody does, or did, with an object."""
    if rng.random() < 0.5:
        verb = rng.choice(_NOW)
        base, third = verb.replace("_", " "), _third(verb)
        return _Fact(
            verb,
            f"{{s}} {third} {{value}}.|{{s}} really {third} {{value}}.|{{s}} {third} {{value}}.",
            f"{{s}} {third} {{value}}.",
            f"What does {{s}} {base}?",
            _some((*_MASSES, *_FOODS), described=0.15),
            ended=f"{{s}} no longer {third} {{value}}.|{{s}} does not {base} {{value}} any more.",
            ended_note=f"{{s}} no longer {third} {{value}}.",
            we=True,
        )
    base, past = rng.choice(_ONCE).split("/")
    article = rng.choice(("a", "a", "a", "the", "{s}'s", "two", "some"))
    return _Fact(
        base,
        f"{{s}} {past} {article} {{value}}.|{{s}} just {past} {article} {{value}}.",
        f"{{s}} {past} {article} {{value}}.",
        f"What did {{s}} {base}?",
        _thing,
        we=True,
    )


def everyday_kinds(rng: random.Random) -> tuple[Kind, ...]:
    """Draws the kinds of facts of one dialogue: about its speakers, two relatives and another."""
    facts = [
        *_FACTS,
        *{fact.name: fact for fact in (_loose(rng) for _ in range(_LOOSE_FACTS))}.values(),
    ]
    kinds = [_kind(rng, fact, "") for fact in rng.sample(facts, len(facts) * 2 // 3)]
    shared = [fact for fact in facts if "o" in fact.of]
    for relative in rng.sample(_RELATIVES, 2):
        whom = f"{relative} {_person(rng)}" if rng.random() < 0.5 else relative
        kinds += [_kind(rng, fact, "{name}'s " + whom) for fact in rng.sample(shared, 4)]
    kinds += [_kind(rng, fact, _person(rng)) for fact in rng.sample(shared, 2)]
    return tuple(kinds)


def _kind(rng: random.Random, fact: _Fact, whom: str) -> Kind:
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
        name = "user" if rng.random() < 0.12 else _person(rng)
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


_QUESTIONS = tuple(fact.asks.split("|")[0] for fact in _FACTS if fact.topics == ("",) and fact.asks)


def passing_question(rng: random.Random, name: str) -> str:
    """Asks something, which tells no fact."""
    text = rng.choice(_QUESTIONS).replace("{s}", name)
    return rng.choice((text, text.replace(f"{name}'s", "your").replace(f"is {name}", "are you")))
