"""Values of generated facts, drawn at random: towns, jobs, dishes, bands and the like."""

import random
from collections.abc import Callable


def _compound(*parts: str, glue: str = "") -> Callable[[random.Random], str]:
    """Makes a function that draws composed values, so many that two seeds share few."""
    choices = [part.split() for part in parts]
    return lambda rng: glue.join(map(rng.choice, choices))


_STEMS = """Alder Ash Birch Black Bram Bright Bur Cald Cedar Clay Cold Copper Crow Dun East Elder
    Elm Fair Fern Gold Gran Grey Har Hazel High Holm Iron Kel Lark Lin Long March Mill Moss North
    Oak Ox Penn Quarry Raven Red Rook Rose Sand Shel South Stan Stone Thorn Wel West White Win
    Wood"""
_ENDINGS = """borough bridge brook bury by combe dale den field ford gate ham haven hurst leigh mere
    mouth port ridge shaw stead thorpe ton vale wick worth"""
town = _compound(_STEMS, _ENDINGS)


def place(rng: random.Random) -> str:
    """Draws the name of a place to travel to."""
    return f"{rng.choice('Cape Fort Glen Isle Lake Mount Port Saint'.split())} {town(rng)}"


person = _compound(
    "Al Be Bri Ca Co Da De El Em Fa Fi Ga Ha Il Is Jo Ka Ki La Le Li Lo Ma Mi Na Ni Or Ro Sa Vi",
    "bi da di la le li ma mi na ni ra ri sa va",
    "bel bert dan dia fin lan lena lin mila mond na nette nor ra ric rin ron",
)
pet = _compound(
    "B Ch D F Fl G J K L M N P Ph R S Sn T V W Z",
    "a e i o u",
    "bbie bble cky ddy do ffy gles ggo ka la lo mmy mo nny pper ppy rio rly sky ssy tter via zzo",
)
job = _compound(
    """airport archive bakery bank brewery cinema clinic dairy ferry forest garden gallery harbour
    hospital hotel library market museum opera orchard postal prison railway school shipyard stadium
    theatre tram university zoo""",
    """accountant announcer architect caretaker carpenter cleaner clerk cook courier designer driver
    electrician engineer gardener guard guide inspector interpreter manager mechanic nurse painter
    photographer planner plumber receptionist researcher secretary technician trainer""",
    glue=" ",
)
dish = _compound(
    """apple barley bean beetroot cabbage carrot cheese chestnut chickpea corn fennel fig garlic
    ginger leek lemon lentil mango mint mushroom nettle onion parsnip peanut pepper potato pumpkin
    rhubarb salmon sesame spinach tofu tomato trout turnip walnut""",
    """burritos cake casserole crumble curry dumplings fritters gratin gumbo lasagne noodles
    omelette pancakes pasta pie pilaf pizza porridge pudding quiche ravioli risotto salad soup stew
    tacos tart waffles""",
    glue=" ",
)
band = _compound(
    """Amber Arctic Broken Burning Crimson Crystal Dancing Distant Electric Endless Fading Frozen
    Gentle Hidden Hollow Howling Humble Lonely Lunar Magnetic Midnight Northern Paper Quiet Restless
    Royal Silent Sleepy Solar Tangled Velvet Wandering Wicked Wild""",
    """Anchors Arrows Badgers Bells Comets Crows Engines Falcons Foxes Ghosts Giants Harbours Herons
    Islands Kings Lanterns Letters Lions Mirrors Moths Owls Parrots Pilots Pines Rivers Rockets
    Sailors Shadows Sparrows Strangers Tigers Towers Tulips Wolves""",
    glue=" ",
)


def status(rng: random.Random) -> str:
    """Draws a relationship status."""
    return rng.choice("single dating engaged married divorced widowed separated".split())


activity = _compound(
    """alpine amateur beach coastal competitive desert evening experimental family forest freestyle
    historic indoor island miniature modern moonlight mountain outdoor retro river rural seaside
    solo summer traditional urban winter""",
    """archery astronomy badminton baking beekeeping birdwatching blogging bowling boxing camping
    carving chess climbing cycling dancing drawing fencing filmmaking fishing gardening golf hiking
    juggling kayaking knitting origami painting photography poetry pottery rowing sailing sculpting
    skating sketching surfing swimming theatre weaving yoga""",
    glue=" ",
)
skill = _compound(
    """Baroque Bulgarian Celtic Cuban Finnish French Georgian Greek Hungarian Icelandic
    Indian Irish Italian Japanese Korean Latin Mexican Moroccan Nordic Persian Peruvian Polish
    Scottish Spanish Swedish Thai Turkish Welsh""",
    """accordion baking calligraphy carving ceramics chess cooking dance drumming embroidery
    fencing fiddle flute folklore gardening grammar guitar harp juggling lacework massage mosaic
    opera painting piano poetry pottery puppetry singing tailoring trumpet weaving woodwork""",
    glue=" ",
)
thing = _compound(
    """amber bamboo beige black blue brass bronze brown ceramic copper cotton cream crystal glass
    golden green grey iron ivory leather linen marble oak orange pewter pine pink porcelain purple
    red silver steel striped turquoise velvet violet walnut wicker woollen yellow""",
    """armchair basket bench blanket bookcase bowl cabinet carpet chandelier chest clock cupboard
    curtain cushion desk drawer globe hammock jug kettle ladder lamp lantern mirror pot radio rug
    screen shelf sofa statue stool table tray vase wardrobe""",
    glue=" ",
)
