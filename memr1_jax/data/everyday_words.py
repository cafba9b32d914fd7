"""The words of everyday facts: close to half of those that are drawn are invented."""

import random
from collections.abc import Callable, Sequence

from memr1_jax.data import open_phrases
from memr1_jax.data.open_phrases import NAMES, invented


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split("|"))


Draw = Callable[[random.Random], str]
_MONTHS = """January February March April May June July August September October November
    December""".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
RELATIVES = """sister brother mother father mum mom dad husband wife son daughter uncle aunt cousin
    nephew niece friend boss neighbour neighbor roommate flatmate girlfriend boyfriend partner
    grandmother grandfather grandma colleague teacher""".split()
ANIMALS = """dog cat parrot rabbit hamster turtle horse goldfish puppy kitten snake pony lizard
    canary donkey goat guinea_pig""".split()
LANGUAGES = """English French German Spanish Italian Norwegian Swedish Danish Dutch Polish Russian
    Greek Turkish Arabic Hindi Chinese Japanese Korean Portuguese Finnish Czech Hebrew Latin Thai
    Swahili Urdu Irish Welsh Farsi Tamil""".split()
INSTRUMENTS = """piano guitar violin cello flute drums trumpet harp clarinet saxophone accordion
    organ banjo ukulele oboe trombone""".split()
SUBJECTS = """biology chemistry physics history law medicine music art philosophy economics
    mathematics geography psychology engineering literature politics sociology architecture
    linguistics nursing astronomy computer_science""".split()
FOODS = """peanuts milk nuts eggs fish shellfish wheat gluten soy strawberries shrimp cats dogs
    pollen dust penicillin bees latex tomatoes apples oranges bananas bread cheese rice pasta soup
    salad coffee tea chocolate cake mushrooms onions garlic olives carrots beans honey lemons
    peaches cherries grapes noodles dumplings spinach broccoli butter sugar cinnamon mango
    pineapple coconut avocado""".split()
COLOURS = "red blue green yellow black white purple orange pink brown grey silver gold".split()
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
MASSES = """jazz opera coffee tea chess football music history cheese wine chocolate poetry maths
    theatre cinema rain snow summer winter cooking swimming running dancing sailing skiing hiking
    gardening painting reading fishing yoga tennis golf stamps coins comics birds horses roses
    tomatoes stories puzzles films""".split()
STATUSES = """married single divorced engaged retired pregnant vegetarian vegan unemployed
    left-handed widowed colour-blind""".split()
CARS = "van|bus|truck|tractor|scooter|Volvo|Toyota|Fiat|Ford|Skoda|BMW|Honda|taxi".split("|")
COUNTS = "two three four five six seven".split()
_HOURS = ("nine", "noon", "3 pm", "10 am", "five", "half past six", "8:30", "7 pm")
WHENS = _listed(
    """next week|next month|next summer|in July|in August|in December|on Friday|on Sunday
    |next year|this weekend|at Easter|for Christmas|in spring|tomorrow|next Tuesday"""
)
PAST_WHENS = _listed(
    """last week|last month|last summer|in June|in 2019|yesterday|on Monday|last year
    |last weekend|two years ago|as a child|in winter|last Friday|in March"""
)
FAVOURITES = """food colour color song book film movie band sport season animal drink dish game
    fruit singer author city subject flower team meal snack writer""".split()
APPOINTMENTS = _listed(
    """dentist appointment|meeting|exam|interview|concert|doctor's appointment|piano
    lesson|party|flight|haircut|test|wedding|game|driving lesson"""
)
NUMBERS = _listed(
    """phone number|door code|room number|locker number|wifi password|seat number|customer
    number|PIN"""
)


def some(words: Sequence[str], *, proper: bool = False, described: float = 0.0) -> Draw:
    """Makes a function that draws one of the words, or a word that it invents."""

    def draw(rng: random.Random) -> str:
        word = invented(rng) if rng.random() < 0.4 else rng.choice(words).replace("_", " ")
        word = word[0].upper() + word[1:] if proper else word
        return f"{rng.choice(_ADJECTIVES)} {word}" if rng.random() < described else word

    return draw


def date(rng: random.Random) -> str:
    """Draws a day of the year."""
    day, month = rng.randint(1, 28), rng.choice(_MONTHS)
    return rng.choice((f"{day} {month}", f"{month} {day}", f"{month} {day}"))


def moment(rng: random.Random) -> str:
    """Draws when an appointment is."""
    day = rng.choice(_DAYS) if rng.random() < 0.7 else date(rng)
    return day if rng.random() < 0.6 else f"{day} at {rng.choice(_HOURS)}"


def digits(rng: random.Random) -> str:
    """Draws a number of two to six digits."""
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 6)))


def company(rng: random.Random) -> str:
    """Draws where somebody may work."""
    name = invented(rng).capitalize()
    return name + rng.choice(("", "", " Foods", " Bank", " Books", " Hospital", " School"))


town = some(open_phrases.TOWNS, proper=True)
person = some(NAMES, proper=True)
job = some(open_phrases.JOBS)
food = some(FOODS)
thing = some(_THINGS, described=0.4)
mass = some(MASSES)
