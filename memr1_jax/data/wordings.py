"""Varied wordings of generated dialogues: a grammar of small talk, and more ways to tell a fact.

The templates of `phrases` are few, so a model soon knows them by heart. Here sentences are expanded
from a grammar in which `[name]` stands for one of several texts, until no such mark is left.
"""

import dataclasses
import random
import re
from collections.abc import Sequence

from memr1_jax.data.phrases import Kind
from memr1_jax.options import between, option

_MARK = re.compile(r"\[(\w+)\]")


@dataclasses.dataclass(frozen=True)
class WordingOptions:
    """Vary the wording of generated dialogues, and tell what a memory need not keep."""

    wordings: float = option(
        0.0,
        "Share of generated turns that are worded by a grammar; above 0 facts are told and noted in"
        " more ways too.",
        within=between(0, 1),
        flag="synthetic_wordings",
    )
    open_words: float = option(
        0.0,
        "Share of generated names and values from outside the closed lists; above 0 nothing is"
        " dated.",
        within=between(0, 1),
        flag="synthetic_open_words",
    )
    rephrased: float = option(
        0.0,
        "Share of generated repeats that come in other words, without saying that they repeat.",
        within=between(0, 1),
        flag="synthetic_rephrased",
    )
    trivia: float = option(
        0.0,
        "Chance that a passing remark is told and noted in place of a generated fact, which a"
        " memory need not keep (NONE).",
        within=between(0, 1),
        flag="synthetic_trivia",
    )
    everyday: bool = option(
        False,
        "Generate everyday statements about the speakers, relatives and others, many of whose names"
        " and values are invented: those that the nano agents were taught.",
        flag="synthetic_everyday",
    )
    small_talk: float = option(
        0.5,
        "Chance of a further exchange without content after each generated fact.",
        within=between(0, 1),
        flag="synthetic_small_talk",
    )


def expand(rng: random.Random, text: str, **fields: str) -> str:
    """Expands the marks of a text; `fields` are words for marks of their names."""

    def one(mark: re.Match) -> str:
        name = mark[1]
        return fields[name] if name in fields else expand(rng, rng.choice(_GRAMMAR[name]), **fields)

    text = _MARK.sub(one, text)
    return re.sub(r"\b([Aa]) (?=[aeio]|u(?!ni|se))", r"\1n ", text)


def _begun(text: str) -> str:
    return text[0].upper() + text[1:]


def sentence(rng: random.Random, symbol: str, **fields: str) -> str:
    """Makes a sentence or two of the grammar, with capitals."""
    text = expand(rng, f"[{symbol}]", **fields)
    return re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda mark: mark[0].upper(), text)


def framed(rng: random.Random, said: str, **fields: str) -> str:
    """Says the same among other words: something before it, after it, or both."""
    shape = rng.choice(("before", "after", "both", "both"))
    before = sentence(rng, "before", **fields) + " " if shape != "after" else ""
    after = " " + sentence(rng, "after", **fields) if shape != "before" else ""
    return before + said + after


def remark(rng: random.Random, name: str) -> tuple[str, str]:
    """Makes a passing remark: what a speaker says, and how an observer would note it."""
    said, noted = rng.choice(_REMARKS)
    fields = {key: expand(rng, f"[{key}]") for key in _MARK.findall(said + noted) if key != "name"}
    return (
        _begun(expand(rng, said, **fields)),
        _begun(expand(rng, noted, name=name, **fields)),
    )


def richer(kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Returns kinds of facts with more ways to tell and to note them."""
    return tuple(
        dataclasses.replace(
            kind,
            **{
                field: getattr(kind, field) + more
                for field, more in _MORE.get(kind.name, {}).items()
                if getattr(kind, field)
            },
        )
        for kind in kinds
    )


def _lines(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split("|"))


_GRAMMAR: dict[str, tuple[str, ...]] = {
    "greeting": _lines(
        """[hello] [other]! [glad]|[hello] [other], [howare]|[hello], [other]! [since] [howare]
        |[other], [glad] [howare]|[hello] [other]. [since] [small_talk]|[glad] [smalltalk_me]"""
    ),
    "hello": _lines("hi|hey|hello|hiya|good to see you|there you are|well, look who it is|oh hey"),
    "glad": _lines(
        """it is lovely to hear from you!|what a nice surprise!|I was hoping you'd write.|I've been
        meaning to call you!|your message made my [daypart].|perfect timing, I just finished
        [chore].|you caught me in the middle of [chore]!"""
    ),
    "since": _lines(
        """it feels like ages since we talked.|we haven't spoken for weeks!|time really flies, it
        must be a month.|last time we talked you sounded [feeling].|how long has it been?"""
    ),
    "howare": _lines(
        """how have you been?|how's everything on your side?|what's new with you?|how is life
        treating you?|did you have a good [daypart]?|are you well?|tell me everything!"""
    ),
    "smalltalk_me": _lines("[mood]|[mood] [howare]|[weather] [howare]"),
    "small_talk": _lines(
        """[mood]|[weather]|[errand]|[street]|[screen]|[table]|[thought]|[mood] [thought]|[errand]
        [howare]|[weather] [thought]|[street] [feel_short]|[table] [feel_short]|[screen] [ask_short]
        |[errand] [feel_short]"""
    ),
    "reply": _lines(
        """[react] [follow]|[react] [small_talk]|[react] [ask_short]|[react]|[react] [wish]|[follow]
        [wish]|[react] [feel_short] [follow]"""
    ),
    "react": _lines(
        """oh wow!|no way!|that's [adjective] to hear, [other].|really? I had no idea.|well, that
        is [adjective]!|I didn't see that coming, [other].|you don't say!|thanks for letting me
        know.|ha, that sounds just like you.|goodness, [other], you never stop surprising me.|hm,
        interesting.|I'm [feeling] for you!|I can hardly believe it.|good to know!|that makes sense,
        I suppose.|okay, now I'm curious.|fair enough!|how [adjective]!|I see what you mean."""
    ),
    "follow": _lines(
        """how do you feel about that?|what made you think of it?|was it hard to decide?|what does
        your [relative] say to that?|did anything [adjective] come of it?|how did that come
        about?|and are you happy with it?|was anybody there with you?|did it go the way you
        hoped?|I'd love to hear more over [drink].|you have to tell me the rest when we meet
        [daypart].|does that change much for you?|is it as [adjective] as people say?"""
    ),
    "wish": _lines(
        """I hope it all works out.|I'm keeping my fingers crossed.|you deserve it, honestly.|let me
        know if I can lend a hand.|I'm sure it will turn out [adjective].|don't forget to rest,
        though.|take it one step at a time.|be kind to yourself."""
    ),
    "feel_short": _lines(
        """it left me a bit [feeling].|I felt [feeling] all [daypart].|that was rather
        [adjective].|I couldn't stop laughing.|never mind, it passes.|not that I'm
        complaining.|honestly, it was [adjective].|typical, isn't it?|it could be worse."""
    ),
    "ask_short": _lines(
        """do you know the feeling?|have you ever tried that?|what would you do?|does that happen to
        you?|what do you make of it?|am I the only one?|isn't that [adjective]?|shall we try it
        together some [daypart]?"""
    ),
    "mood": _lines(
        """I've been a bit [feeling] since the [daypart].|I slept badly, so I'm on my [ordinal]
        [drink].|work was [adjective] and I'm glad it's over.|honestly, I feel [feeling] these
        days.|I spent the whole [daypart] on [chore].|my head is full of [mindful].|I needed a quiet
        [daypart], and I got one.|it has been one of those weeks with too much [mindful]."""
    ),
    "weather": _lines(
        """the [sky] this [daypart] was [adjective].|we had [sky] all week, and I got soaked
        on the way to the [venue].|they say more [sky] is coming.|I love it when there's [sky]
        outside and a [drink] inside.|who ordered this [sky]?|the [sky] kept me away from the
        [venue]."""
    ),
    "errand": _lines(
        """I queued for an hour at the [venue] and then forgot my [thing].|the [venue] round the
        corner was closed, so I went home with nothing.|someone at the [venue] had lost a [thing],
        it took all of us to find it.|I finally got round to [chore].|I still have to do
        [chore] before the [daypart].|they are painting the [venue] [colour], of all colours."""
    ),
    "street": _lines(
        """a [animal] crossed the road in front of my bus.|there was a [musician] outside the
        [venue], rather [adjective] too.|the traffic near the [venue] gets worse every
        [daypart].|I saw a [animal] asleep on a [colour] [thing].|a stranger at the [venue]
        told me all about [mindful].|the bus broke down and we all walked to the [venue]."""
    ),
    "screen": _lines(
        """I watched a [adjective] [programme] about [subject].|somebody lent me a [programme] on
        [subject], it is quite [adjective].|the news was all about [subject] again.|I read half a
        page about [subject] and fell asleep.|my phone keeps showing me a [programme] about
        [subject]."""
    ),
    "table": _lines(
        """I burnt the [food] while I was [doing].|the [food] at the [venue] was [adjective].|I had
        [food] twice this week, out of laziness.|there is nothing left in the fridge but
        [food].|I could do with a [drink] and some [food] now.|the neighbours' kitchen smells
        of [food] again."""
    ),
    "thought": _lines(
        """funny how [mindful] always comes at the wrong moment.|I keep thinking about
        [subject].|we should really meet at the [venue] some [daypart].|time goes faster when
        you're [doing].|I wonder who first thought of [subject].|some days [doing] is all I can
        manage.|life is [adjective], don't you think?"""
    ),
    "before": _lines(
        """so, [other], guess what.|by the way, [other].|oh, before I forget!|I wanted to tell you
        something.|[small_talk] Anyway.|well, here's a thing.|I don't think I ever
        mentioned this.|you asked about me, so here goes.|since you ask.|between [doing] and
        [doing] I nearly forgot.|over [food] with my [relative] it came up again.|it is
        [adjective], but true.|okay, listen.|let me think.|[mood] But listen."""
    ),
    "after": _lines(
        """[feel_short]|[ask_short]|my [relative] was [feeling] about it.|nobody at the [venue]
        could believe it.|it took me a whole [daypart] to tell anyone.|I'll show you a photo when we
        meet.|I hope you're not too [feeling] about that.|so much for [mindful]!|I thought you'd
        like to know.|I told a [musician] at the [venue] before I told you, sorry!|that's how it is.
        |I'm still [feeling] when I think of it.|there was [food] to celebrate.|[thought]"""
    ),
    "daypart": _lines(
        "morning|afternoon|evening|weekend|day|night|lunch break|Sunday|Wednesday|week"
    ),
    "feeling": _lines(
        """tired|cheerful|nervous|proud|relieved|confused|restless|grateful|homesick|hopeful
        |grumpy|excited|lazy|calm|worried|thrilled|moved|puzzled|jealous|content|sleepy|sad"""
    ),
    "adjective": _lines(
        """odd|wonderful|dull|brilliant|strange|lovely|dreadful|charming|noisy|touching|clever
        |gloomy|spectacular|awkward|peaceful|hilarious|tedious|impressive|exhausting|sweet
        |surprising|ordinary|magical|disappointing|fantastic|messy"""
    ),
    "drink": _lines("coffee|tea|hot chocolate|lemonade|ginger ale|espresso|glass of water|cocoa"),
    "food": _lines(
        """toast|porridge|beans|leftover rice|crackers|scrambled eggs|popcorn|pickles|noodles
        |biscuits|grapes|lettuce|cereal|sandwiches|oatmeal|plums|pretzels|yoghurt"""
    ),
    "venue": _lines(
        """post office|chemist|corner shop|bus stop|station|town hall|car park|launderette|petrol
        station|bank|swimming pool|playground|cafe|hardware store|dentist's|florist's|fish
        market|bridge|bakery|supermarket|cinema|library|tram stop|waiting room"""
    ),
    "thing": _lines(
        """purse|umbrella|scarf|key|glove|ticket|shopping list|bicycle|suitcase|backpack|wallet
        |pair of glasses|helmet|newspaper|parcel|bottle|trolley|doormat|letterbox|raincoat"""
    ),
    "animal": _lines("fox|pigeon|squirrel|hedgehog|duck|swan|magpie|toad|crow|heron|beetle|moth"),
    "colour": _lines("orange|mint green|lilac|yellow|sky blue|beige|crimson|silver|turquoise"),
    "musician": _lines(
        "drummer|choir|man with an accordion|juggler|street poet|girl with a violin|clown|painter"
    ),
    "programme": _lines("documentary|series|quiz show|cartoon|podcast|film|article|book|lecture"),
    "subject": _lines(
        """lighthouses|submarines|volcanoes|old maps|train timetables|bees|glaciers|castles
        |comets|the price of butter|dinosaurs|deserts|elections|clouds|detectives|bridges|pirates
        |ancient coins|penguins|fountains|street names|windmills|chess openings|lost cities"""
    ),
    "mindful": _lines(
        """paperwork|emails|deadlines|laundry|good intentions|numbers|old songs|worries|bills|phone
        calls|meetings|luck|gossip|patience|noise|silence|regrets|ideas|courage|doubts"""
    ),
    "chore": _lines(
        """the ironing|the dishes|my tax forms|sorting old photos|watering the plants|hoovering the
        stairs|fixing the tap|cleaning the windows|answering letters|defrosting the freezer|changing
        a light bulb|clearing out a drawer|taking down the curtains|the recycling"""
    ),
    "doing": _lines(
        """daydreaming|humming|tidying up|waiting|scrolling|yawning|packing|counting change
        |folding shirts|sweeping|staring out of the window|stirring soup|looking for my keys"""
    ),
    "sky": _lines("rain|fog|sunshine|wind|drizzle|hail|snow|heat|frost|thunder|mist|sleet"),
    "relative": _lines(
        "dentist|landlady|boss|hairdresser|mother-in-law|doctor|old teacher|postman"
    ),
    "ordinal": _lines("second|third|fourth|fifth"),
}

# What is said in passing, and how it would be noted; both hold for a day and matter to nobody.
_REMARKS = tuple(
    tuple(" ".join(part.split()) for part in pair.split("=>"))
    for pair in """I burnt my [food] this [daypart]. => [name] burnt some [food] in the [daypart].
    |I'm a bit [feeling] today. => [name] is a bit [feeling] today.
    |The [sky] here is [adjective]. => [name] finds the [sky] [adjective].
    |I just had a [drink] and some [food]. => [name] just had a [drink] and some [food].
    |I waited forever at the [venue]. => [name] waited at the [venue] for a long time.
    |I saw a [animal] near the [venue]. => [name] saw a [animal] near the [venue].
    |I read something about [subject] just now. => [name] read something about [subject].
    |I still have to do [chore]. => [name] still has to do [chore].
    |I misplaced my [thing] for a minute. => [name] misplaced a [thing] for a minute.
    |I heard a [musician] at the [venue]. => [name] heard a [musician] at the [venue].
    |I dozed off over a [programme] on [subject].
        => [name] dozed off over a [programme] on [subject].
    |Too much [mindful] this week. => [name] had too much [mindful] this week.""".split("|")
)

_MORE: dict[str, dict[str, tuple[str, ...]]] = {
    "home": {
        "says": ("You'll find me in {value}, that's where I live.", "{value} is where I live."),
        "notes": ("{value} is where {name} lives.", "{name} is at home in {value}."),
        "changed": ("The boxes are unpacked: I live in {value} now.",),
        "changed_notes": ("{name} has settled in {value} after a move.",),
    },
    "job": {
        "says": ("They pay me as a {value}.", "If anyone asks, I'm a {value} by profession."),
        "notes": ("{name} earns a living as a {value}.", "{name}'s job is that of a {value}."),
        "changed": ("New badge, new desk: they made me a {value}.",),
        "changed_notes": ("{name} has a new job as a {value}.",),
    },
    "dish": {
        "says": ("Put {value} in front of me and I'm happy, no dish is better.",),
        "notes": ("No dish pleases {name} more than {value}.", "{name} loves {value} most of all."),
        "changed": ("My taste has changed, {value} is my favourite dish now.",),
        "changed_notes": ("{value} has become {name}'s favourite dish.",),
    },
    "band": {
        "says": ("No band beats {value} for me.", "{value} is the band I play on repeat."),
        "notes": ("The band {value} is {name}'s favourite.", "{name} is a fan of {value}."),
        "changed": ("Forget the old records, {value} is my favourite band now.",),
        "changed_notes": ("{value} has become {name}'s favourite band.",),
    },
    "status": {
        "says": ("On paper I'm {value}.", "I'm {value}, since you wonder about my love life."),
        "notes": ("As for love, {name} is {value}.",),
        "changed": ("It's official, I'm {value}.",),
        "changed_notes": ("{name} has become {value}.",),
    },
    "pet": {
        "ended": ("{value}, my {topic}, lives with someone else these days.",),
        "ended_notes": ("The {topic} {value} no longer lives with {name}.",),
    },
    "hobby": {
        "says": ("You can find me at {value} {topic}.", "What keeps me sane {topic} is {value}."),
        "notes": (
            "{topic} {name} is busy with {value}.",
            "{value} is what {name} does {topic}.",
        ),
        "ended": ("I quit {value} for good.", "{value} and I have parted ways."),
        "ended_notes": ("{name} has stopped {value}.",),
    },
    "dislike": {
        "says": ("{value} {topic} put me off it for life.", "Whoever made me try {value} {topic}!"),
        "notes": ("{name} had to try {value} {topic} and could not stand it.",),
        "ended": ("I gave {value} another chance and liked it.",),
        "ended_notes": ("{name} has made peace with {value}.",),
    },
    "skill": {
        "says": (
            "It was {topic} that taught me {value}.",
            "Ask {topic} how I got into {value}.",
        ),
        "notes": (
            "{topic} taught {name} {value}.",
            "{name} knows {value} thanks to {topic}.",
        ),
    },
    "possession": {
        "ended": ("The {value} went to a flea market.", "I said goodbye to the {value}."),
        "ended_notes": ("{name} got rid of the {value}.", "The {value} is no longer {name}'s."),
    },
    "plan": {
        "says": ("{topic} will see me in {value}.", "My ticket to {value} for {topic} is booked."),
        "notes": (
            "{name} wants to go to {value} for {topic}.",
            "{name} plans {topic} in {value}.",
        ),
        "changed": ("Scrap what I said about {topic}, I'm off to {value}.",),
        "changed_notes": ("For {topic} {name} now wants to go to {value}.",),
        "ended": ("{value} won't happen, I got my money back.",),
        "ended_notes": ("{name} has called off the trip to {value}.",),
    },
}
