"""Requests to an assistant: what is wanted (intent) and whether a small model could do it (difficulty).

"easy" is short, single-step work on common things; "hard" asks for length, several steps, expert knowledge, proofs,
trade-offs or many constraints at once.
"""

from corpus_common import HELDOUT, TRAIN, check_disjoint, digits, expand, fresh_word, phrases, some_city, some_name

INTENTS = ("translate", "summarize", "calculate", "code", "write", "explain", "plan")
DIFFICULTIES = ("easy", "hard")

LANGUAGES = "[German|French|Spanish|Italian|Polish|Dutch|Japanese|Portuguese|Swedish|{word}]"
EXPERT = "[legal|medical|technical|financial|scientific|academic]"

REQUESTS = {
    TRAIN: {
        ("translate", "easy"): phrases(
            f"""
            [Translate|Please translate|Can you translate] [the word|this word|the phrase] "{{topic}}" [into|to] {LANGUAGES}.
            How do you say "{{topic}}" in {LANGUAGES}?
            What is [the {LANGUAGES} word|the word] for {{topic}} in {LANGUAGES}?
            [Put|Turn] this short sentence into {LANGUAGES}: I like {{topic}}.
            What does "{{topic}}" mean in English?
            """
        ),
        ("translate", "hard"): phrases(
            f"""
            Translate this [whole|entire|long|twenty page] {EXPERT} [contract|document|report] [into|to] {LANGUAGES} and keep [every term exact|the clauses|the terminology].
            Translate the [poem|sonnet|song] about {{topic}} into {LANGUAGES} [so that it still rhymes|keeping rhyme and metre|with the same rhythm].
            [Translate|Please translate] the [novel|chapter|book] on {{topic}} to {LANGUAGES} and [keep|preserve] [all puns|the dialect|the old style].
            Localise our [website|app|manual] about {{topic}} for [three|four|five] countries, translate into each language and adapt the [laws|idioms|culture].
            """
        ),
        ("summarize", "easy"): phrases(
            """
            [Summarize|Sum up|Shorten] this [short note|message|mail|paragraph] about {topic} in [one|a single] sentence.
            Give me [the main point|the gist|a one line summary] of this [short text|note|message] on {topic}.
            What is [the text|this paragraph|the note] about {topic} about, in [a few|five|ten] words?
            [TLDR|A short summary] of this [mail|post] about {topic}, please.
            """
        ),
        ("summarize", "hard"): phrases(
            f"""
            Summarize [these|all] [forty|twelve|sixty] {EXPERT} [papers|studies|reports] on {{topic}} and [compare|weigh] their [methods|conflicting results|evidence].
            [Sum up|Condense|Summarize] the whole [book|trial|archive] about {{topic}}, chapter by chapter, with [a critique|all contradictions|every argument] .
            Write a [critical|detailed] summary of the {EXPERT} literature on {{topic}} with [sources|citations|open questions].
            Summarize the [two hundred|hundred] page {EXPERT} report on {{topic}} for [three audiences|the board and the engineers] and list [all risks|every assumption].
            """
        ),
        ("calculate", "easy"): phrases(
            """
            What is {n} [plus|minus|times|+|-] {m}?
            [Calculate|Add|Compute] {n} + {m}.
            [What is|How much is] {m} percent of {n}?
            [How many minutes are|How many seconds are] {m} hours?
            If one {topic} costs {m} [dollars|euros], what do {n} cost?
            [Convert|Change] {n} [km to miles|metres to feet|kg to pounds].
            What is half of {n}?
            """
        ),
        ("calculate", "hard"): phrases(
            """
            [Prove|Show] that [there are infinitely many|the sum of all|no such] [primes|squares|numbers] of the form {n}k + {m} [exists|exist|diverges].
            [Solve|Find all solutions of] the [differential equation|system of equations|integral equation] for {topic} with {n} unknowns [step by step|and prove uniqueness].
            [Compute|Derive] the [eigenvalues|probability distribution|expected value|gradient] of [a {n} by {n} matrix|a random walk with {n} steps|the model of {topic}] and justify every step.
            [Optimise|Minimise] the cost of {n} [routes|trucks|factories] for {topic} under {m} constraints.
            Calculate the [present value|yield|risk] of a portfolio of {n} [bonds|options|loans] with [varying rates|inflation and tax] over {m} years.
            """
        ),
        ("code", "easy"): phrases(
            """
            Write a [short|small|simple|one line] [Python|C|Java|shell|{word}] [function|script] that [adds two numbers|prints hello|reverses a word|counts to {n}|reads a file].
            How do I [print a line|write a loop|make a list|open a file|read a line] in [Python|C|Java|{word}]?
            [Fix the typo|Find the missing bracket] in this [line|one line] of [code|Python|C].
            Which [command|function] [deletes|copies|lists|sorts] [files|a list|lines] in [Python|Linux|{word}]?
            """
        ),
        ("code", "hard"): phrases(
            """
            [Design|Implement|Build|Write] a [distributed|fault tolerant|scalable|lock free] [database|queue|cache|scheduler] for {topic} [with consensus|with tests and benchmarks|in Rust|in C++].
            [Refactor|Rewrite|Port] our [whole|entire|huge] [code base|program|backend] [from Python to C++|to microservices|to Rust] [without downtime|and keep all tests green].
            [Debug|Find the cause of] a [race condition|memory leak|deadlock|rare crash] in our [multithreaded|distributed] [server|kernel driver|program] for {topic}.
            Write a [compiler|kernel|parser|database engine] for [a new language|{word}] with [type inference|an optimiser|full tests].
            [Review|Audit] the security of our [authentication|payment|encryption] [code|system|protocol] and [fix every flaw|prove it correct].
            """
        ),
        ("write", "easy"): phrases(
            """
            Write a [short|one line|two line|brief|quick] [birthday wish|thank you note|greeting|message|caption] [for {name}|about {topic}].
            [Give me|Suggest] [a name|a title|one slogan|three names] for [a shop that sells {topic}|a post about {topic}|my cat].
            Write [one sentence|two sentences|a short line] about {topic}.
            [Correct the spelling|Fix the grammar|Fix the commas] [in|of] this [sentence|line] about {topic}.
            """
        ),
        ("write", "hard"): phrases(
            f"""
            Write a [complete|long|full|detailed] [novel chapter|screenplay|thesis|{EXPERT} paper|grant proposal] [about|on] {{topic}} with [references|several characters|subplots|a literature review].
            Write [a ten page|a thirty page|an in depth] {EXPERT} [essay|article|opinion] on {{topic}} that [argues both sides|cites sources|refutes the critics].
            [Draft|Write] a [binding|complete] [contract|patent|policy|law] [about|for] {{topic}} that covers [all cases|liability and termination|three jurisdictions].
            Compose an [epic poem|opera text|cycle of sonnets] on {{topic}} in the style of [an old master|{{word}}].
            """
        ),
        ("explain", "easy"): phrases(
            """
            What is [a|an|the] {topic}?
            [Who|What] is {name}?
            What colour [is|are] {topic}?
            [Define|Explain] {topic} in [one sentence|simple words|a few words].
            [Where is|In which country is] {city}?
            Is {topic} [big or small|a plant or an animal|hot or cold]?
            """
        ),
        ("explain", "hard"): phrases(
            f"""
            Explain [in depth|in detail|rigorously] how {{topic}} [works|came about|evolved], [including the mathematics|with all competing theories|and the open problems].
            [Compare|Contrast] [three|four|five] [theories|schools|models] of {{topic}} and [weigh|discuss] their [trade-offs|limits|assumptions].
            [Analyse|Discuss] the {EXPERT} [causes and consequences|implications|background] of {{topic}} [over two centuries|from several points of view|with evidence].
            Why [do experts disagree|is there no agreement] about {{topic}}, and which [argument|evidence|theory] [is strongest|holds up]?
            """
        ),
        ("plan", "easy"): phrases(
            """
            [Remind me|Set a reminder] to [buy|call about|look at] {topic} [at {m} o'clock|tomorrow].
            [Make|Write|Give me] a [short|small|simple] [shopping list|packing list|to-do list] for [{topic}|a day in {city}].
            [Suggest|Name] [one thing|a place|a cafe] to [see|visit] in {city} [today|on Sunday].
            [Put|Add] a meeting with {name} [on Monday|at {m} o'clock] [in my calendar|to the calendar].
            """
        ),
        ("plan", "hard"): phrases(
            """
            Plan a [three week|two month|six month] [trip|tour|expedition] through [five|eight|ten] countries [from {city}|] with [a budget|visas, trains and hotels|all bookings].
            [Create|Develop|Work out] a [five year|complete|detailed] [business plan|strategy|roadmap] for [a company that sells {topic}|{topic}] with [risks|market analysis|cash flow] and milestones.
            [Organise|Plan] a [conference|festival|wedding] for {n} guests in {city}, with [staff, budget and a backup plan|a schedule for every hour|suppliers and permits].
            [Schedule|Coordinate] {n} [workers|teams|machines] over {m} shifts so that [no rule is broken|all constraints hold|costs are lowest].
            """
        ),
    },
    HELDOUT: {
        ("translate", "easy"): phrases(
            """
            I need the word "{topic}" translated into German.
            What is "{topic}" called in Spanish?
            Say "{topic}" in French, please.
            """
        ),
        ("translate", "hard"): phrases(
            """
            Our entire legal contract about {topic} must be translated into Japanese with exact terminology.
            Please translate a long poem on {topic} to Italian and preserve its rhyme.
            I want the technical manual for {topic} translated into four languages and adapted to the laws of each country.
            """
        ),
        ("summarize", "easy"): phrases(
            """
            Please summarize my note about {topic} in one short sentence.
            I only want the main point of this message on {topic}.
            Shorten the mail about {topic} to ten words.
            """
        ),
        ("summarize", "hard"): phrases(
            """
            I need a critical summary of sixty scientific studies on {topic}, with their conflicting evidence.
            Condense the entire archive about {topic} and list every contradiction.
            Summarize the hundred page financial report on {topic} and all its risks for the board.
            """
        ),
        ("calculate", "easy"): phrases(
            """
            Please add {n} and {m}.
            Tell me how much {n} times {m} is.
            How many minutes do {m} hours have?
            """
        ),
        ("calculate", "hard"): phrases(
            """
            Give a proof that there are infinitely many primes of the form {n}k + {m}, and justify every step.
            For {n} trucks and {m} constraints, optimise the cost of transporting {topic}.
            Derive the probability distribution of a random walk for {topic} step by step.
            """
        ),
        ("code", "easy"): phrases(
            """
            I need a small Python script that reverses a word.
            Show me how to write a loop in C.
            What Linux command copies files?
            """
        ),
        ("code", "hard"): phrases(
            """
            We need a fault tolerant distributed cache for {topic}, implemented in C++ with benchmarks.
            Somewhere in our multithreaded server for {topic} there is a deadlock, find the cause and fix it.
            Port the entire backend for {topic} to Rust without downtime.
            """
        ),
        ("write", "easy"): phrases(
            """
            I need a short thank you note for {name}.
            Please suggest a title for my post about {topic}.
            One sentence about {topic}, please write it.
            """
        ),
        ("write", "hard"): phrases(
            """
            I need a full thesis on {topic} with a literature review and references.
            Please draft a complete contract for {topic} covering liability and termination.
            An in depth academic essay on {topic} that refutes the critics, write it for me.
            """
        ),
        ("explain", "easy"): phrases(
            """
            Tell me what {topic} is in simple words.
            Please define {topic}.
            Which country is {city} in?
            """
        ),
        ("explain", "hard"): phrases(
            """
            I would like a rigorous explanation of how {topic} works, including the mathematics and the open problems.
            Please compare four competing theories of {topic} and discuss their limits.
            Discuss the consequences of {topic} over two centuries from several points of view.
            """
        ),
        ("plan", "easy"): phrases(
            """
            Please remind me to call {name} tomorrow.
            I need a simple packing list for a day in {city}.
            A meeting with {name} on Monday, add it to my calendar.
            """
        ),
        ("plan", "hard"): phrases(
            """
            I want a detailed business plan for {topic}, with market analysis, cash flow and milestones.
            Plan a two month tour through eight countries with all bookings, trains and visas.
            A conference for {n} guests in {city} has to be organised, with budget, staff and permits.
            """
        ),
    },
}

TOPICS = {
    TRAIN: phrases(
        """
        bread
        the moon
        rain
        old bridges
        coffee
        bees
        trees
        money
        the ocean
        gravity
        trains
        horses
        winter
        music
        electric cars
        glass
        the heart
        salt
        water
        dreams
        birds
        tea
        fire
        schools
        robots
        maps
        chess
        solar power
        wool
        mountains
        sleep
        cheese
        black holes
        the roman empire
        inflation
        trade
        vaccines
        ice
        """
    ),
    HELDOUT: phrases(
        """
        volcanoes
        apple pie
        the printing press
        butterflies
        lighthouses
        climate change
        quantum physics
        bicycles
        earthquakes
        chocolate
        sailing ships
        penguins
        """
    ),
}
OPENERS = {
    TRAIN: ("", "", "", "Hi! ", "Hello, ", "Hey, ", "A question: ", "I have a task for you. ", "For {word}: "),
    HELDOUT: ("", "", "Good morning! ", "One more thing. "),
}
INSTRUCTIONS = phrases(
    """
    What is the intent of this request, and is it easy or hard?
    Give the intent and the difficulty of this request.
    Classify the request by intent and difficulty.
    Name the intent and the difficulty (easy or hard) of this request.
    """
)


def make_request(rng, split):
    """One request with its intent and difficulty."""
    intent, difficulty = rng.choice(INTENTS), rng.choice(DIFFICULTIES)
    topic = rng.choice(TOPICS[split]) if split == HELDOUT or rng.random() < 0.6 else fresh_word(rng)
    slots = {
        "topic": topic,
        "word": fresh_word(rng).capitalize(),
        "name": some_name(rng, split),
        "city": some_city(rng, split),
        "n": digits(rng, 2, 3),
        "m": digits(rng, 1, 2),
    }
    text = expand(rng, rng.choice(OPENERS[split]) + rng.choice(REQUESTS[split][(intent, difficulty)]), slots)
    if split == TRAIN:
        if rng.random() < 0.15:
            text = text.lower()
        if rng.random() < 0.15:
            text = rng.choice(["Please ", "I need help: ", "I want this: ", "I would like you to do this. "]) + text
    instruction = INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(INSTRUCTIONS)
    return f"{instruction}\n\nRequest: {text}", f"intent: {intent}\ndifficulty: {difficulty}"


def check_requests():
    for key, templates in REQUESTS[TRAIN].items():
        check_disjoint(f"requests, {key}", templates, REQUESTS[HELDOUT][key])
    check_disjoint("topics", TOPICS[TRAIN], TOPICS[HELDOUT])
