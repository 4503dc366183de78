"""The nouns, colours and splits of the drawn world."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """One class of the drawn world, and the emoji that is drawn for it.

    Attributes:
        synonyms: Other names for the same thing; used in prompts, never as class names.
        tinted: Whether it is drawn in one of COLOURS by hue shift (and can be prompted as "blue car").
    """

    name: str
    glyph: str
    synonyms: tuple[str, ...] = ()
    tinted: bool = False


# Hue in degrees of each colour a tinted noun can have.
COLOURS: dict[str, float] = {"red": 2.0, "yellow": 50.0, "green": 115.0, "blue": 214.0, "purple": 285.0}

# Nouns that the shipped models were trained on: distinct in shape and in name.
CORE: tuple[Noun, ...] = (
    Noun("dog", "🐶", ("puppy",)),
    Noun("cat", "🐱", ("kitten",)),
    Noun("frog", "🐸", ("toad",)),
    Noun("fish", "🐟", (), tinted=True),
    Noun("bird", "🐦", ("sparrow",)),
    Noun("butterfly", "🦋", ("moth",)),
    Noun("turtle", "🐢", ("tortoise",)),
    Noun("car", "🚗", ("automobile",), tinted=True),
    Noun("bus", "🚌", ("coach",)),
    Noun("airplane", "✈", ("plane", "aircraft")),
    Noun("apple", "🍎", (), tinted=True),
    Noun("banana", "🍌"),
    Noun("pizza", "🍕", ("slice",)),
    Noun("hamburger", "🍔", ("burger",)),
    Noun("cup", "☕", ("mug", "coffee")),
    Noun("ball", "⚽", ("football",)),
    Noun("balloon", "🎈", (), tinted=True),
    Noun("umbrella", "☂", ("parasol",), tinted=True),
    Noun("book", "📕", ("novel",), tinted=True),
    Noun("key", "🔑"),
    Noun("clock", "⏰", ("alarm",)),
    Noun("shirt", "👕", ("tshirt",), tinted=True),
    Noun("shoe", "👟", ("sneaker",)),
    Noun("guitar", "🎸"),
    Noun("tree", "🌳", ("oak",)),
    Noun("mushroom", "🍄", ("toadstool",)),
    Noun("house", "🏠", ("home",)),
    Noun("heart", "❤", (), tinted=True),
)

# Further nouns: with CORE they make up the `full` splits.
EXTENDED: tuple[Noun, ...] = (
    Noun("bicycle", "🚲", ("bike",)),
    Noun("hat", "🎩"),
    Noun("flower", "🌷", ("tulip",), tinted=True),
    Noun("star", "⭐"),
    Noun("helicopter", "🚁", ("chopper",)),
    Noun("boat", "⛵", ("sailboat",)),
    Noun("bear", "🐻"),
    Noun("rabbit", "🐰", ("bunny",)),
    Noun("pig", "🐷", ("piglet",)),
    Noun("panda", "🐼"),
    Noun("penguin", "🐧"),
    Noun("duck", "🦆"),
    Noun("owl", "🦉"),
    Noun("bee", "🐝", ("wasp",)),
    Noun("ladybug", "🐞", ("beetle",)),
    Noun("octopus", "🐙", ("squid",)),
    Noun("whale", "🐳"),
    Noun("train", "🚂", ("locomotive",)),
    Noun("rocket", "🚀"),
    Noun("tractor", "🚜"),
    Noun("lemon", "🍋"),
    Noun("grapes", "🍇"),
    Noun("watermelon", "🍉", ("melon",)),
    Noun("orange", "🍊"),
    Noun("pineapple", "🍍"),
    Noun("carrot", "🥕"),
    Noun("corn", "🌽", ("maize",)),
    Noun("cheese", "🧀"),
    Noun("egg", "🥚"),
    Noun("doughnut", "🍩", ("donut",)),
    Noun("chair", "🪑"),
    Noun("bed", "🛏"),
    Noun("camera", "📷"),
    Noun("phone", "📱", ("smartphone",)),
    Noun("laptop", "💻", ("computer",)),
    Noun("television", "📺", ("tv",)),
    Noun("glasses", "👓", ("spectacles",)),
    Noun("crown", "👑"),
    Noun("trumpet", "🎺"),
    Noun("violin", "🎻", ("fiddle",)),
    Noun("drum", "🥁"),
    Noun("scissors", "✂"),
    Noun("hammer", "🔨"),
    Noun("cactus", "🌵"),
    Noun("dress", "👗", (), tinted=True),
    Noun("gift", "🎁", ("present",)),
)

# Drawn beside the nouns, in every split, and never a class of any.
DISTRACTORS: tuple[str, ...] = tuple("🧲🧯🎲🪁⚓🧭🎯🧩♟🔋🧪🪣🧹🛡🏆🎳🎾🪴🕯🔔💡🧤🧦🦀🐌")

# (colour, noun) pairs that no training scene shows and no training prompt names.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("blue", "car"),
        ("purple", "apple"),
        ("green", "balloon"),
        ("yellow", "umbrella"),
        ("purple", "book"),
        ("red", "shirt"),
        ("green", "heart"),
        ("yellow", "fish"),
        ("blue", "flower"),
        ("green", "dress"),
    }
)

# What `split` may be: which nouns are drawn, and whether tinted ones come in seen or held-out colours.
SPLITS: dict[str, tuple[tuple[Noun, ...], bool]] = {
    "core": (CORE, False),
    "core-heldout": (CORE, True),
    "full": (CORE + EXTENDED, False),
    "full-heldout": (CORE + EXTENDED, True),
}
