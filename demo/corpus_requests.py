"""Requests to an assistant: what is wanted (intent) and whether a small model could do it (difficulty).

"easy" is short, single-step work on common things; "hard" asks for length, several steps, expert knowledge, proofs,
trade-offs or many constraints at once.
"""

from corpus_common import HELDOUT, TRAIN, check_disjoint, check_templates, digits, expand, fresh_word, phrases, some_city, some_name

INTENTS = ("translate", "summarize", "calculate", "code", "write", "explain", "plan")
DIFFICULTIES = ("easy", "hard")

LANGUAGES = "[German|French|Spanish|Italian|Polish|Dutch|Japanese|Portuguese|Swedish|{word}]"
EXPERT = "[legal|medical|technical|financial|scientific|academic]"

REQUESTS = {
    TRAIN: {
        ("translate", "easy"): phrases(
            f"""
            I need [the translation of|a translation for] "{{topic}}" in {LANGUAGES}.
            [The|A] {LANGUAGES} word for {{topic}}, please.
            [Tell me|Show me] how {{topic}} is [said|called|written] in {LANGUAGES}.
            [Translate|Please translate|Can you translate] [the word|this word|the phrase] "{{topic}}" [into|to] {LANGUAGES}.
            How do you say "{{topic}}" in {LANGUAGES}?
            What is [the {LANGUAGES} word|the word] for {{topic}} in {LANGUAGES}?
            [Put|Turn] this short sentence into {LANGUAGES}: I like {{topic}}.
            What does "{{topic}}" mean in English?
            """
        ),
        ("translate", "hard"): phrases(
            f"""
            [I need|We need|I want] [a faithful|a complete|an exact] translation of [a long|an entire|our whole] {EXPERT} [treatise|contract|manual] [about|on] {{topic}} into {LANGUAGES}[, with every term checked| and {LANGUAGES}|].
            The [entire|whole|long] [poem|play|contract|manual] about {{topic}} [has to|should|must] be translated into {LANGUAGES} [with its rhyme|with exact terms|and adapted to local law].
            [Adapt and translate|Translate and adapt] [a comic opera|legal clauses|a technical standard] on {{topic}} for [five|six|several] countries with [exact terminology|all word play].
            Translate this [whole|entire|long|twenty page] {EXPERT} [contract|document|report] [into|to] {LANGUAGES} and keep [every term exact|the clauses|the terminology].
            Translate the [poem|sonnet|song] about {{topic}} into {LANGUAGES} [so that it still rhymes|keeping rhyme and metre|with the same rhythm].
            [Translate|Please translate] the [novel|chapter|book] on {{topic}} to {LANGUAGES} and [keep|preserve] [all puns|the dialect|the old style].
            Localise our [website|app|manual] about {{topic}} for [three|four|five] countries, translate into each language and adapt the [laws|idioms|culture].
            """
        ),
        ("summarize", "easy"): phrases(
            """
            I [need|want] [a short summary|the main idea|only the gist] of this [message|mail|note|paragraph] on {topic}.
            [Make|Cut] this [mail|text|note|post] about {topic} [shorter|down to one line|down to ten words].
            [In one sentence|In short|Briefly]: what does this [note|message|mail] on {topic} say?
            [Summarize|Sum up|Shorten] this [short note|message|mail|paragraph] about {topic} in [one|a single] sentence.
            Give me [the main point|the gist|a one line summary] of this [short text|note|message] on {topic}.
            What is [the text|this paragraph|the note] about {topic} about, in [a few|five|ten] words?
            [TLDR|A short summary] of this [mail|post] about {topic}, please.
            """
        ),
        ("summarize", "hard"): phrases(
            f"""
            I [need|want] a [detailed|critical|thorough] summary of [all|fifty|ninety] {EXPERT} [studies|papers|books] on {{topic}} [with their contradictions|and their evidence|and its open questions].
            [Condense|Boil down|Sum up] [the entire|the complete] [archive|collection|court record] [about|on] {{topic}} and [list|name|compare] [every contradiction|all arguments|each risk].
            The [three hundred|hundred] page report on {{topic}} [must|has to] be summarized [for the board|for experts] with all [risks|assumptions|conflicts].
            Summarize [these|all] [forty|twelve|sixty] {EXPERT} [papers|studies|reports] on {{topic}} and [compare|weigh] their [methods|conflicting results|evidence].
            [Sum up|Condense|Summarize] the whole [book|trial|archive] about {{topic}}, chapter by chapter, with [a critique|all contradictions|every argument] .
            Write a [critical|detailed] summary of the {EXPERT} literature on {{topic}} with [sources|citations|open questions].
            Summarize the [two hundred|hundred] page {EXPERT} report on {{topic}} for [three audiences|the board and the engineers] and list [all risks|every assumption].
            """
        ),
        ("calculate", "easy"): phrases(
            """
            [Tell me|I need] the sum of {n} and {m}.
            [Tell me|I want to know] [what|how much] {n} [times|plus|minus] {m} [is|makes].
            [Add|Multiply] {n} [and|by|with] {m}, please.
            How many [hours|days|minutes] [are in|do] {m} [weeks|days|years] [have|make|]?
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
            I need [a proof|a rigorous proof|a full derivation] that [there are infinitely many|no largest] [primes|numbers|squares] [of this form|with {n} digits|exist], [with every step justified|step by step].
            [Derive|Work out] the [variance|distribution|limit|equation] of [a random process|a model|a walk] [for|about] {topic} [step by step|with proof].
            For {n} [machines|ships|trucks|plants], find the [optimal|cheapest] [assignment|allocation|cost] under {m} constraints.
            [Prove|Show] that [there are infinitely many|the sum of all|no such] [primes|squares|numbers] of the form {n}k + {m} [exists|exist|diverges].
            [Solve|Find all solutions of] the [differential equation|system of equations|integral equation] for {topic} with {n} unknowns [step by step|and prove uniqueness].
            [Compute|Derive] the [eigenvalues|probability distribution|expected value|gradient] of [a {n} by {n} matrix|a random walk with {n} steps|the model of {topic}] and justify every step.
            [Optimise|Minimise] the cost of {n} [routes|trucks|factories] for {topic} under {m} constraints.
            Calculate the [present value|yield|risk] of a portfolio of {n} [bonds|options|loans] with [varying rates|inflation and tax] over {m} years.
            """
        ),
        ("code", "easy"): phrases(
            """
            I need a [small|short|tiny] [Python|C|Java|shell|{word}] [script|function|program] that [prints a word|adds numbers|reads a line|counts words].
            [Show me|Tell me] how to [write|make|print] a [loop|list|string|comment] in [Python|C|Java|{word}].
            [What|Which] [shell|Linux|Python] command [shows|moves|renames|counts|prints] [files|lines|words]?
            Write a [short|small|simple|one line] [Python|C|Java|shell|{word}] [function|script] that [adds two numbers|prints hello|reverses a word|counts to {n}|reads a file].
            How do I [print a line|write a loop|make a list|open a file|read a line] in [Python|C|Java|{word}]?
            [Fix the typo|Find the missing bracket] in this [line|one line] of [code|Python|C].
            Which [command|function] [deletes|copies|lists|sorts] [files|a list|lines] in [Python|Linux|{word}]?
            """
        ),
        ("code", "hard"): phrases(
            """
            [We need|I need] a [distributed|fault tolerant|lock free|scalable] [file system|cache|queue|database] [for {topic}|], [written|implemented] in [Rust|C++|{word}] with [tests|benchmarks|proofs].
            [Somewhere|Something] in our [distributed|multithreaded|huge] [program|server|backend] [for {topic}|] [there is|causes] a [deadlock|race condition|memory leak], [find it|find the cause] and [fix it|repair it].
            [Port|Move|Migrate] [the entire|our whole] [backend|code base|server] [for {topic}|] to [Rust|C++|the cloud] [without downtime|with all tests|in stages].
            [Design|Implement|Build|Write] a [distributed|fault tolerant|scalable|lock free] [database|queue|cache|scheduler] for {topic} [with consensus|with tests and benchmarks|in Rust|in C++].
            [Refactor|Rewrite|Port] our [whole|entire|huge] [code base|program|backend] [from Python to C++|to microservices|to Rust] [without downtime|and keep all tests green].
            [Debug|Find the cause of] a [race condition|memory leak|deadlock|rare crash] in our [multithreaded|distributed] [server|kernel driver|program] for {topic}.
            Write a [compiler|kernel|parser|database engine] for [a new language|{word}] with [type inference|an optimiser|full tests].
            [Review|Audit] the security of our [authentication|payment|encryption] [code|system|protocol] and [fix every flaw|prove it correct].
            """
        ),
        ("write", "easy"): phrases(
            """
            [A name|A caption|A headline|One title] for [my|our] [shop|photo|blog post|page] about {topic}, [any idea|what do you suggest|can you help]?
            [One line|Two lines|A sentence] about {topic}, [write it|please write it down|just write that] [for me|now|].
            I need a [short|nice|brief] [greeting|birthday message|thank you note|wish] for {name}.
            [Suggest|Find|Think of] a [title|headline|name|caption] for [my|our] [post|photo|shop|blog] [about|on] {topic}.
            [One|Two|A] [sentence|short sentences|short line] [about|on] {topic}, please.
            Write a [short|one line|two line|brief|quick] [birthday wish|thank you note|greeting|message|caption] [for {name}|about {topic}].
            [Give me|Suggest] [a name|a title|one slogan|three names] for [a shop that sells {topic}|a post about {topic}|my cat].
            Write [one sentence|two sentences|a short line] about {topic}.
            [Correct the spelling|Fix the grammar|Fix the commas] [in|of] this [sentence|line] about {topic}.
            """
        ),
        ("write", "hard"): phrases(
            f"""
            [Please draft|Draft|Prepare] a [full|complete] [agreement|policy|statute] for {{topic}} [covering|that covers|with] [liability|warranty|all penalties] and [notice|termination|courts].
            [I need|I want] a [full|long|complete] [thesis|novel|dissertation|{EXPERT} essay] [on|about] {{topic}} with [references|a literature review|footnotes|many characters].
            [An in depth|A thirty page|A detailed] {EXPERT} [essay|article|paper] [on|about] {{topic}} that [refutes|weighs|answers] [the critics|both sides|all objections].
            [Draft|Prepare|Write] a [complete|legally binding|detailed] [contract|agreement|law] on {{topic}} [covering|with] [liability|termination|all cases|penalties].
            Write a [complete|long|full|detailed] [novel chapter|screenplay|thesis|{EXPERT} paper|grant proposal] [about|on] {{topic}} with [references|several characters|subplots|a literature review].
            Write [a ten page|a thirty page|an in depth] {EXPERT} [essay|article|opinion] on {{topic}} that [argues both sides|cites sources|refutes the critics].
            [Draft|Write] a [binding|complete] [contract|patent|policy|law] [about|for] {{topic}} that covers [all cases|liability and termination|three jurisdictions].
            Compose an [epic poem|opera text|cycle of sonnets] on {{topic}} in the style of [an old master|{{word}}].
            """
        ),
        ("explain", "easy"): phrases(
            """
            [Tell me|I want to know|Say] what {topic} [is|are] [in simple words|in short|].
            [Define|Describe] {topic}[ briefly| in a few words| for a child|].
            [Which|What] country is {city} [in|a part of]?
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
            [I want|I would like|Give me] a [rigorous|deep|detailed|thorough] [explanation|analysis|account] of [how {{topic}} works|{{topic}}], [with|including] [the mathematics|all theories|open problems].
            [Compare|Contrast|Weigh] [several|four|three] [competing theories|schools|explanations] of {{topic}} [and their limits|and discuss them|in depth].
            [Discuss|Analyse] the [consequences|causes|history] of {{topic}} [over three centuries|from many points of view|in depth, with evidence].
            Explain [in depth|in detail|rigorously] how {{topic}} [works|came about|evolved], [including the mathematics|with all competing theories|and the open problems].
            [Compare|Contrast] [three|four|five] [theories|schools|models] of {{topic}} and [weigh|discuss] their [trade-offs|limits|assumptions].
            [Analyse|Discuss] the {EXPERT} [causes and consequences|implications|background] of {{topic}} [over two centuries|from several points of view|with evidence].
            Why [do experts disagree|is there no agreement] about {{topic}}, and which [argument|evidence|theory] [is strongest|holds up]?
            """
        ),
        ("plan", "easy"): phrases(
            """
            [Remind me|Please remind me] to [call|meet|write to] {name} [tomorrow|on Friday|tonight].
            I need a [short|simple] [packing list|shopping list|to-do list] for [a day in {city}|the weekend|{topic}].
            [A meeting|Lunch|A call] with {name} [tomorrow|on Monday|on Friday], [note it|add it|put it in my calendar].
            [Remind me|Set a reminder] to [buy|call about|look at] {topic} [at {m} o'clock|tomorrow].
            [Make|Write|Give me] a [short|small|simple] [shopping list|packing list|to-do list] for [{topic}|a day in {city}].
            [Suggest|Name] [one thing|a place|a cafe] to [see|visit] in {city} [today|on Sunday].
            [Put|Add] a meeting with {name} [on Monday|at {m} o'clock] [in my calendar|to the calendar].
            """
        ),
        ("plan", "hard"): phrases(
            """
            [I want|I need|We need] a [detailed|complete|five year] [business plan|strategy|roadmap] for {topic}, [with|including] [market analysis|cash flow|risks] and [milestones|budget|staff].
            [A conference|A festival|A congress|A wedding] for {n} guests in {city} [must be|has to be|should be] [organised|planned], with [budget|permits|suppliers] and [staff|a backup plan].
            [Plan|Arrange|Organise] a [two month|six week|long] [tour|journey|trip] through [nine|seven|eight|twelve] countries with [visas|all bookings|trains|hotels] and [budget|permits|visas].
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
            Please condense all forty medical papers about {topic} into one critical review.
            Summarize the hundred page financial report on {topic} and all its risks for the board.
            """
        ),
        ("calculate", "easy"): phrases(
            """
            I have {n} and add {m}, what is the sum?
            Please multiply {m} by {n} for me.
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
            How does one print a word in Python?
            What Linux command copies files?
            """
        ),
        ("code", "hard"): phrases(
            """
            We need a fault tolerant distributed cache for {topic}, implemented in C++ with benchmarks.
            Our distributed server for {topic} has a rare race condition, debug it and fix the cause.
            Our whole code base for {topic} has to be rewritten in Rust, without downtime and with all tests.
            """
        ),
        ("write", "easy"): phrases(
            """
            Could you write a short birthday message for {name}?
            A title for my post about {topic}, do you have one?
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
            In simple words, what is meant by {topic}?
            Do you know what {topic} means?
            Do you know which country {city} belongs to?
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
            I must call {name} tomorrow, set a reminder please.
            What goes on a simple packing list for {city}?
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
    TRAIN: ("", "", "", "Hi! ", "Hello, ", "Hey, ", "A question: ", "I have a task for you. ", "For {word}: ", "Good evening! "),
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
        check_templates(f"requests, {key}", templates, REQUESTS[HELDOUT][key])
    check_disjoint("topics", TOPICS[TRAIN], TOPICS[HELDOUT])
