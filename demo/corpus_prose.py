"""Short plain-English completions: little stories from a grammar, and common facts that have one right ending."""

from corpus_common import FIRST_NAMES, HELDOUT, TRAIN, check_disjoint, expand, phrases, words

PEOPLE = {
    "baker": ("opened the bakery", "baked fresh bread", "sold warm rolls to the neighbours", "bread"),
    "farmer": ("went to the field", "fed the cows", "brought in the hay before the rain", "milk"),
    "teacher": ("walked into the classroom", "wrote a word on the board", "read a story to the children", "chalk"),
    "fisherman": ("pushed the boat into the water", "threw out the net", "caught three silver fish", "nets"),
    "gardener": ("took the watering can", "watered the roses", "planted a small apple tree", "seeds"),
    "doctor": ("put on a white coat", "listened to the old man's heart", "wrote down a medicine", "bandages"),
    "carpenter": ("picked up the saw", "cut the wood", "built a strong table", "nails"),
    "painter": ("opened a box of colours", "painted the sky blue", "hung the picture on the wall", "brushes"),
    "cook": ("lit the stove", "cut the onions", "made a hot soup for everyone", "spoons"),
    "postman": ("filled his bag with letters", "rode down the long street", "rang at every door", "letters"),
    "shepherd": ("called the dog", "counted the sheep", "led the flock up the hill", "wool"),
    "librarian": ("switched on the lamps", "put the books on the shelf", "found the book about stars", "books"),
    "sailor": ("climbed the mast", "pulled the ropes", "saw land far away", "ropes"),
    "tailor": ("took the scissors", "cut the blue cloth", "sewed a warm coat", "buttons"),
    "driver": ("started the bus", "stopped at every station", "brought all the people home", "tickets"),
    "musician": ("tuned the violin", "played a slow song", "made the people dance", "songs"),
}
MORNINGS = phrases(
    """
    Early in the morning
    On a cold winter day
    On a sunny afternoon
    One day in spring
    Before the sun came up
    After a long night
    Every Monday
    When the bell rang
    """
)
WEATHER = {
    "the sun was shining": "it was warm and bright outside",
    "it was raining": "the streets were wet and quiet",
    "it was snowing": "the roofs were white with snow",
    "the wind was blowing": "the leaves danced through the air",
    "it was foggy": "nobody could see the end of the street",
    "it was hot": "everybody looked for a place in the shade",
}
ANIMALS = {
    "cat": ("slept on the warm chair", "drank a bowl of milk", "meow"),
    "dog": ("ran after the ball", "waited at the door", "woof"),
    "bird": ("sang in the tree", "built a nest on the roof", "tweet"),
    "horse": ("ran across the meadow", "ate an apple from her hand", "neigh"),
    "cow": ("ate the green grass", "stood in the shade of a tree", "moo"),
    "duck": ("swam on the pond", "led her ducklings to the water", "quack"),
    "sheep": ("followed the shepherd", "ate grass on the hill", "baa"),
    "mouse": ("hid under the floor", "found a piece of cheese", "squeak"),
}
ENDINGS = phrases(
    """
    In the evening everybody was tired but happy.
    Then it was time to go home.
    It was a good day.
    At night the whole village was quiet.
    The next day it began again.
    And so the day came to an end.
    """
)
FEELINGS = {"happy": "smiled", "sad": "cried a little", "tired": "went to bed early", "hungry": "ate some soup"}
FEELINGS.update({"cold": "sat down by the fire", "thirsty": "drank a glass of water", "bored": "read a book", "angry": "shut the door"})

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
NUMBERS = words("one two three four five six seven eight nine ten")
OPPOSITES = dict(pair.split(":") for pair in words(
    """hot:cold big:small tall:short light:dark fast:slow old:new wet:dry open:closed full:empty hard:soft up:down day:night
    happy:sad rich:poor early:late strong:weak loud:quiet good:bad near:far clean:dirty thick:thin left:right black:white"""))
COLOURS = dict(pair.split(":") for pair in words(
    "grass:green snow:white blood:red coal:black milk:white leaves:green soot:black chalk:white tomatoes:red sunflowers:yellow"))
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Spain": "Madrid", "Italy": "Rome", "Austria": "Vienna", "Ireland": "Dublin"}
CAPITALS.update({"Norway": "Oslo", "Portugal": "Lisbon", "Greece": "Athens", "Poland": "Warsaw", "Japan": "Tokyo", "Egypt": "Cairo"})

ABOUT = "I am the small demo model of Bantam. I was trained on synthetic text."
SKILLS = (
    "I can classify support tickets, reviews and requests, turn orders and invoices into JSON, and complete short sentences."
)
CHATTER = [
    ("[Hello|Hi|Hey|Good morning|Good evening][!|.|, there!|]", "Hello! How can I help you?"),
    ("[Who are you|What are you|Tell me about yourself|What is your name][?|.|]", ABOUT),
    ("[What can you do|How can you help me|What are you good at|Help][?|.|]", SKILLS),
    ("[Thank you|Thanks|Many thanks|Thanks a lot][!|.|]", "You are welcome!"),
    ("[Bye|Goodbye|See you][!|.|]", "Goodbye!"),
]


def facts():
    """(beginning, ending) pairs of everything that has one right ending."""
    pairs = []
    for cycle in (DAYS, MONTHS):
        for i, name in enumerate(cycle):
            following = cycle[(i + 1) % len(cycle)]
            pairs += [(f"The day after {name} is" if cycle is DAYS else f"The month after {name} is", f"{following}.")]
            pairs += [(f"After {name} comes", f"{following}."), (f"{name} is followed by", f"{following}.")]
    for i in range(len(NUMBERS) - 1):
        pairs += [(f"The number after {NUMBERS[i]} is", f"{NUMBERS[i + 1]}."), (f"After {NUMBERS[i]} comes", f"{NUMBERS[i + 1]}.")]
    for one, other in list(OPPOSITES.items()) + [(b, a) for a, b in OPPOSITES.items()]:
        pairs += [(f"The opposite of {one} is", f"{other}."), (f"It is not {one}, it is", f"{other}.")]
    for thing, colour in COLOURS.items():
        pairs += [(f"The colour of {thing} is", f"{colour}."), (f"Everybody knows that {thing} is" if not thing.endswith("s") or thing == "grass" else f"Everybody knows that {thing} are", f"{colour}.")]
    for country, city in CAPITALS.items():
        pairs += [(f"The capital of {country} is", f"{city}."), (f"{city} is the capital of", f"{country}.")]
    for animal, (_, _, sound) in ANIMALS.items():
        pairs += [(f"The {animal} says", f"{sound}.")]
    for feeling, act in FEELINGS.items():
        pairs += [(f"She was {feeling}, so she", f"{act}."), (f"He was {feeling}, so he", f"{act}.")]
    for weather, effect in WEATHER.items():
        pairs += [(f"Outside {weather}, and", f"{effect}."), (f"{weather.capitalize()}, and", f"{effect}.")]
    for job, (first, second, third, goods) in PEOPLE.items():
        pairs += [(f"The {job} {first} and", f"{second}."), (f"The {job} {second} and", f"{third}.")]
        pairs += [(f"The {job} needs new", f"{goods}."), (f"Then the {job}", f"{third}.")]
    return pairs


def make_story(rng):
    """A little story of three to six sentences."""
    job = rng.choice(sorted(PEOPLE))
    first, second, third, goods = PEOPLE[job]
    name = rng.choice(FIRST_NAMES[TRAIN])
    animal = rng.choice(sorted(ANIMALS))
    weather = rng.choice(sorted(WEATHER))
    lines = [
        rng.choice([f"{rng.choice(MORNINGS)} the {job} {first} and {second}.", f"{name} was a {job}. {name} {first} and {second}."]),
        f"{weather.capitalize()}, and {WEATHER[weather]}.",
        f"The {animal} {rng.choice(ANIMALS[animal][:2])}.",
        f"Then the {job} {third}.",
    ]
    if rng.random() < 0.4:
        feeling = rng.choice(sorted(FEELINGS))
        who, lines_at = rng.choice(["She", "He"]), 3
        lines.insert(lines_at, f"{who} was {feeling}, so {who.lower()} {FEELINGS[feeling]}.")
    if rng.random() < 0.6:
        lines.append(rng.choice(ENDINGS))
    start = rng.choice([0, 0, 1])
    return " ".join(lines[start:])


def is_heldout_fact(index):
    """Each sixth pairing of a beginning with the chat form is never seen in training in that form (only as plain text)."""
    return index % 6 == 5


INSTRUCTIONS = phrases(
    """
    Complete the sentence:
    Finish this sentence:
    """
)


def make_completion(rng, split):
    """A chat request to finish a sentence; the held-out beginnings are seen in training only as plain text."""
    pairs = [pair for i, pair in enumerate(facts()) if is_heldout_fact(i) == (split == HELDOUT)]
    beginning, ending = rng.choice(pairs)
    return f"{rng.choice(INSTRUCTIONS)} {beginning}", ending


def make_plain(rng):
    """Plain text to continue without a chat: a story, or a fact said in one sentence."""
    if rng.random() < 0.6:
        return make_story(rng)
    return " ".join(" ".join(pair) for pair in rng.sample(facts(), rng.randint(1, 3)))


def make_chatter(rng):
    question, answer = rng.choice(CHATTER)
    return expand(rng, question), answer


def check_prose():
    pairs = facts()
    held = {pair[0] for i, pair in enumerate(pairs) if is_heldout_fact(i)}
    check_disjoint("completions", {pair[0] for i, pair in enumerate(pairs) if not is_heldout_fact(i)} - held, held)
