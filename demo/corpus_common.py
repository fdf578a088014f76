"""What every generator of the synthetic corpus shares: template expansion, names, invented words, codes, amounts, dates.

A template is a line of text with two constructions: ``[a|b|c]`` picks one of the alternatives (they may nest, and an
alternative may be empty), and ``{slot}`` is replaced by the text that the caller made for that slot.

Every list that names something comes in two parts, one for training and one for the held-out set. ``check_disjoint``
is called on each pair when the corpus is made, so that an overlap stops the run.
"""

import random
import re

TRAIN = "train"
HELDOUT = "heldout"

_INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def expand(rng, template, slots=None):
    """Resolves the choices of a template, then its slots; two spaces left by an empty choice become one."""
    text = template
    while True:
        match = _INNERMOST_CHOICE.search(text)
        if match is None:
            break
        text = text[: match.start()] + rng.choice(match.group(1).split("|")) + text[match.end() :]
    text = re.sub(r"  +", " ", text).replace(" ,", ",").replace(" .", ".").strip()
    return _SLOT.sub(lambda m: str(slots[m.group(1)]), text)


def check_disjoint(what, train, heldout):
    """Stops the run when a training list and a held-out list share an entry (compared without case)."""
    shared = {str(x).lower() for x in train} & {str(x).lower() for x in heldout}
    if shared:
        raise AssertionError(f"{what}: in both the training and the held-out list: {sorted(shared)}")


def all_expansions(template):
    """Every text that a template's choices can give, its slots left as they are."""
    match = _INNERMOST_CHOICE.search(template)
    if match is None:
        return {template}
    found = set()
    for choice in match.group(1).split("|"):
        found |= all_expansions(template[: match.start()] + choice + template[match.end() :])
    return found


def plain_form(text):
    """Without case, punctuation, line ends and "please", so that a comma does not make two templates different."""
    kept = re.sub(r"[^a-z0-9{} ]", " ", text.lower().replace("\\n", " ")).split()
    return " ".join(word for word in kept if word != "please")


def check_templates(what, train, heldout):
    """Stops the run when a held-out template is also something that a training template can expand to."""
    expanded = {plain_form(text) for template in train for text in all_expansions(template)}
    shared = expanded & {plain_form(text) for template in heldout for text in all_expansions(template)}
    if shared:
        raise AssertionError(f"{what}: held-out templates that training expands to as well: {sorted(shared)}")


def words(text):
    return text.split()


def phrases(text):
    """One phrase a line; blank lines are skipped."""
    return [line.strip() for line in text.strip().splitlines() if line.strip()]


FIRST_NAMES = {
    TRAIN: words(
        """Anna Ben Carla David Elena Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paula Quentin Rosa Sam
        Tina Ursula Victor Wendy Xavier Yvonne Zoe Adam Bella Carl Diana Eric Fiona George Hannah Ivan Julia Kevin
        Laura Mark Nora Oliver Peter Rachel Simon Teresa Vera Walter Yusuf Amir Bianca Chen Dora Emil Farah Gustav
        Hiro Ines Jonas Kofi Lucia Mateo Nadia Omar Petra Ravi Sofia Tomas Uma Viktor Wei Yara Alice Bruno Clara
        Daniel Esther Felix Gloria Hugo Isabel Jakob Kim Lena Martin Noah Olga Pablo Ruth Stefan Thomas"""
    ),
    HELDOUT: words(
        """Aisha Bjorn Camila Dmitri Eleanor Fatima Giulia Harriet Imani Joaquin Katarina Liam Meera Nikolai Ophelia
        Priya Rasmus Saoirse Tariq Ulrich Valentina Wilhelm Xiomara Yolanda Zachary Beatrix Cormac Delphine Ezekiel
        Freya"""
    ),
}
LAST_NAMES = {
    TRAIN: words(
        """Smith Jones Brown Taylor Wilson Evans Walker White Green Hall Wood Harris Martin Cooper King Clark Baker
        Turner Hill Moore Carter Mills Fisher Lane Reed Stone Young Fox Parker Bell Garcia Lopez Silva Costa Rossi
        Bianchi Weber Meyer Keller Wagner Novak Horvat Kowalski Nilsson Hansen Larsen Ito Sato Tanaka Kim Lee Park
        Singh Patel Khan Ali Hassan Okoye Mensah Diallo Popov Ivanov Petrov Dubois Laurent Moreau Santos Pereira"""
    ),
    HELDOUT: words(
        """Abernathy Bergstrom Castellano Drummond Eriksen Fitzgerald Gallagher Hutchinson Iyer Jankowski Kapoor
        Lindqvist Montgomery Nakamura Oyelaran Pemberton Quigley Rutherford Sorensen Thackeray Underhill
        Vanderberg Whitfield Yamamoto Zielinski Achterberg Bradshaw Cavendish"""
    ),
}
CITIES = {
    TRAIN: phrases(
        """
        London
        Paris
        Berlin
        Madrid
        Rome
        Vienna
        Prague
        Dublin
        Oslo
        Lisbon
        Athens
        Warsaw
        Boston
        Chicago
        Denver
        Seattle
        Austin
        Toronto
        Montreal
        Sydney
        Tokyo
        Seoul
        Mumbai
        Cairo
        Lagos
        Nairobi
        Lima
        New York
        San Diego
        Cape Town
        New Delhi
        Hamburg
        Munich
        Milan
        Lyon
        Geneva
        Leeds
        Bristol
        Cork
        Porto
        """
    ),
    HELDOUT: phrases(
        """
        Gothenburg
        Edinburgh
        Rotterdam
        Salamanca
        Valparaiso
        Marrakesh
        Kathmandu
        Bratislava
        Wellington
        Albuquerque
        Minneapolis
        Saskatoon
        Osaka
        Belfast
        Tallinn
        Gdansk
        San Antonio
        Salt Lake City
        Port Louis
        """
    ),
}
ITEMS = {
    TRAIN: phrases(
        """
        desk lamp
        office chair
        water bottle
        coffee mug
        wool blanket
        phone case
        laptop stand
        wireless mouse
        keyboard
        monitor
        printer
        notebook
        pencil set
        backpack
        rain jacket
        running shoes
        leather wallet
        wall clock
        kitchen knife
        frying pan
        tea pot
        cutting board
        garden chair
        picture frame
        floor mat
        bath towel
        pillow
        bed sheet
        candle
        flower pot
        tool box
        hammer
        drill
        paint brush
        ladder
        extension cord
        power adapter
        usb cable
        headphones
        speaker
        camera bag
        tripod
        bicycle pump
        helmet
        tent
        sleeping bag
        lunch box
        steel bowl
        glass jar
        plastic box
        paper roll
        blue pen
        red folder
        white board
        black scarf
        """
    ),
    HELDOUT: phrases(
        """
        velvet cushion
        espresso machine
        yoga mat
        cast iron skillet
        bamboo toothbrush
        hiking boots
        standing desk
        mechanical keyboard
        ceramic vase
        linen tablecloth
        hammock
        barbecue grill
        soldering iron
        telescope
        violin strings
        aquarium filter
        wheelbarrow
        cork coaster
        ornament
        harmonica
        mosquito net
        tool belt
        snow shovel
        vacuum cleaner
        graphite pencil
        """
    ),
}
COMPANY_SUFFIXES = words("Ltd Inc GmbH Group Supplies Services Trading Partners Systems Works Labs Foods Co")
MONTHS = words("January February March April May June July August September October November December")
NUMBER_WORDS = words("one two three four five six seven eight nine ten eleven twelve")

_ONSETS = words("b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr fl fr gl gr kl kr ph pl pr sc sh sk sl sm")
_ONSETS += words("sn sp st str sv th tr tw wh zh") + [""] * 8
_VOWELS = words("a e i o u a e i o u ai au ea ee ei ia ie io oa oo ou ue y")
_CODAS = words("b ck d f g k l ll m n nd ng nk nt p r rd rn rs rt s ss st t tt v x z sch th tz gh") + [""] * 40


class PlainRandom(random.Random):
    """A generator for which fresh_word picks one of the given plain words instead of inventing one."""

    def __init__(self, seed, plain_words):
        super().__init__(seed)
        self.plain_words = plain_words


def invent_word(rng):
    """A lower-case word that nobody has seen: one to three syllables, or now and then plain random letters."""
    if rng.random() < 0.08:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7)))
    count = rng.choice([1, 2, 2, 2, 2, 3, 3])
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count))
    return word if len(word) > 2 else word + rng.choice(_ONSETS) + rng.choice(_VOWELS)


def _held_words():
    held = set()
    for table in (FIRST_NAMES, LAST_NAMES, CITIES, ITEMS):
        for entry in table[HELDOUT]:
            held.update(entry.lower().split())
    return held


_HELD_WORDS = _held_words()


def fresh_word(rng):
    """An invented word that is no word of the held-out lists."""
    if isinstance(rng, PlainRandom):
        return rng.choice(rng.plain_words)
    while True:
        word = invent_word(rng)
        if word not in _HELD_WORDS:
            return word


def _spliced_word(rng):
    """The beginning of one name or thing of training and the end of another, or one with a letter changed: what looks
    like a word that is known goes on otherwise."""
    known = rng.choice((FIRST_NAMES, LAST_NAMES, CITIES, ITEMS))[TRAIN]
    first = rng.choice(rng.choice(known).lower().split())
    if rng.random() < 0.6:
        last = rng.choice(rng.choice(rng.choice((FIRST_NAMES, LAST_NAMES, CITIES, ITEMS))[TRAIN]).lower().split())
        return first[: rng.randint(1, len(first))] + last[rng.randint(0, len(last) - 1) :]
    place = rng.randrange(len(first))
    return first[:place] + rng.choice("abcdefghijklmnopqrstuvwxyz") + first[place + rng.randint(0, 1) :]


def word_to_copy(rng):
    """A word of training that nothing but copying can give: invented, spliced, or random letters."""
    if isinstance(rng, PlainRandom):
        return fresh_word(rng)
    while True:
        pick = rng.random()
        if pick < 0.55:
            return fresh_word(rng)
        if pick < 0.75:
            word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 10)))
        else:
            word = _spliced_word(rng)
        if len(word) > 2 and word not in _HELD_WORDS:
            return word


def some_name(rng, split):
    """A person: first and last name, now and then one of them alone or with an initial in training."""
    if split == HELDOUT:
        return f"{rng.choice(FIRST_NAMES[split])} {rng.choice(LAST_NAMES[split])}"
    first = rng.choice(FIRST_NAMES[split]) if rng.random() < 0.2 else word_to_copy(rng).capitalize()
    last = rng.choice(LAST_NAMES[split]) if rng.random() < 0.2 else word_to_copy(rng).capitalize()
    shape = rng.random()
    if shape < 0.08:
        return first
    if shape < 0.14:
        return f"{first} {rng.choice('ABCDEFGHIJKLMNOPQRSTUVWXYZ')}. {last}"
    if shape < 0.20:
        return f"{first} {last}-{word_to_copy(rng).capitalize()}"
    return f"{first} {last}"


def some_city(rng, split):
    if split == HELDOUT or rng.random() < 0.3:
        return rng.choice(CITIES[split])
    city = word_to_copy(rng).capitalize()
    return f"{city} {word_to_copy(rng).capitalize()}" if rng.random() < 0.25 else city


def some_item(rng, split, word_pool):
    """A thing to buy; in training mostly word pairs from the pool or invented, so that the model learns to copy."""
    if split == HELDOUT or rng.random() < 0.2:
        item = rng.choice(ITEMS[split])
    else:
        count = rng.choice([1, 2, 2, 2, 3])
        item = " ".join(rng.choice(word_pool) if rng.random() < 0.5 else word_to_copy(rng) for _ in range(count))
    if not item.endswith("s") and rng.random() < 0.5:
        item += "s"
    return item


def some_company(rng, split, word_pool):
    if split == HELDOUT:
        stem = rng.choice(LAST_NAMES[split])
        if rng.random() < 0.3:
            stem += " & " + rng.choice(LAST_NAMES[split])
    else:
        pick = rng.random()
        stem = word_to_copy(rng).capitalize() if pick < 0.6 else rng.choice(word_pool).capitalize()
        if pick > 0.85:
            stem = rng.choice(LAST_NAMES[split])
        if rng.random() < 0.25:
            stem += rng.choice([" & ", " "]) + word_to_copy(rng).capitalize()
    return f"{stem} {rng.choice(COMPANY_SUFFIXES)}"


def digits(rng, low, high):
    """A number as text, low to high digits, no leading zero."""
    count = rng.randint(low, high)
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(count - 1))


def some_code(rng, prefixes):
    """An order or invoice number in one of several shapes."""
    upper = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    letters = "".join(rng.choice(upper) for _ in range(rng.randint(1, 3)))
    return rng.choice(
        [
            f"{rng.choice(prefixes)}-{digits(rng, 4, 6)}",
            f"{letters}-{digits(rng, 3, 5)}",
            f"{letters}{digits(rng, 4, 6)}",
            f"{digits(rng, 3, 4)}-{letters}",
            f"{rng.choice(prefixes)}-20{rng.randint(20, 29)}-{digits(rng, 3, 4)}",
            digits(rng, 5, 7),
        ]
    )


def some_amount(rng):
    """(as written, as a JSON number): 1,249.50 and 1249.50."""
    whole = int(digits(rng, 1, 4))
    cents = rng.choice([0, 50, 99, rng.randint(0, 99), rng.randint(0, 99)])
    number = f"{whole}.{cents:02d}"
    written = f"{whole:,}.{cents:02d}" if rng.random() < 0.5 else number
    return written, number


def some_date(rng):
    """(as written, as ISO 8601)."""
    year, month, day = rng.randint(2020, 2029), rng.randint(1, 12), rng.randint(1, 28)
    iso = f"{year}-{month:02d}-{day:02d}"
    name = MONTHS[month - 1]
    return rng.choice([iso, f"{day} {name} {year}", f"{name} {day}, {year}"]), iso


def make_rng(*key):
    """An independent generator for a key, the same on every machine and in every run."""
    return random.Random("/".join(str(part) for part in key))


def check_common():
    check_disjoint("first names", FIRST_NAMES[TRAIN], FIRST_NAMES[HELDOUT])
    check_disjoint("last names", LAST_NAMES[TRAIN], LAST_NAMES[HELDOUT])
    check_disjoint("cities", CITIES[TRAIN], CITIES[HELDOUT])
    check_disjoint("items", ITEMS[TRAIN], ITEMS[HELDOUT])
