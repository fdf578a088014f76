"""Product reviews: one word of sentiment.

"positive" praises, "negative" complains, "neutral" is lukewarm or weighs one praise against one complaint. Negated
words ("not bad", "not good") are part of it.
"""

from corpus_common import HELDOUT, TRAIN, check_disjoint, check_templates, expand, fresh_word, phrases, words

SENTIMENTS = ("positive", "negative", "neutral")

ASPECTS = words(
    """battery screen sound picture material price service delivery handle design colour software quality fabric size
    packaging manual motor zipper taste smell fit keyboard camera food room staff light cover button grip lid cable"""
)
THINGS = {
    TRAIN: words(
        """phone laptop chair lamp blender kettle jacket book hotel restaurant headset mattress bike game tent knife
        pan watch printer vacuum backpack pillow drill camera speaker toaster desk bottle coat film cafe course"""
    ),
    HELDOUT: words("tablet scooter sofa grill umbrella novel hostel projector hammock stroller heater fridge sweater guitar"),
}
# Of the fillers of training only.
PLACES = words(
    """garage office bedroom hall cellar garden window school boat attic trip party journey weekend winter summer birthday
    wedding shelf corner bathroom car shed balcony roof table wall door week month year family team dog kids job move"""
)
COLOURS = words("blue red black white yellow brown small large new old second grey pink other first")
GOOD = words(
    """great excellent wonderful fantastic good superb brilliant perfect lovely amazing outstanding impressive solid
    beautiful comfortable reliable delightful awesome nice flawless"""
)
BAD = words(
    """terrible awful poor bad horrible disappointing useless cheap weak dreadful flimsy broken annoying uncomfortable
    unreliable faulty ugly miserable worthless defective"""
)
MIDDLING = words("average okay ordinary mediocre acceptable passable decent unremarkable middling so-so")

PRAISE = {
    TRAIN: phrases(
        """
        my [wife|son|mother|friend|daughter|family] [really|] [loves|likes|adores] [her|his|the] {thing}[, and I do too| and I love it too| and we all do|]
        I [had doubts|was not sure|was afraid], but [in the end|] the {aspect} [turned out|was] {good}
        I feared a {bad} {aspect}, but it [is|turned out|was] {good}
        the {aspect} [turned out|proved] [to be|very|really] {good}
        [contrary to my fears|in spite of my doubts] [it|the {aspect}] [turned out|proved|was] {good}
        {good}
        {good}, {good2}
        {good} {aspect}
        [simply|just|really|absolutely] {good}
        [I can|I will|we can] [recommend|praise|only praise] [this {thing}|it|the {aspect}]
        [the {aspect} and|both] the {aspect2} are {good}
        [I doubted it|I had doubts|at first I hesitated], [but|yet] [the {aspect} is|everything is|it was] {good}
        [no complaints|no problems|nothing bad to say], {good} {thing}
        [beats|better than] [all others|every other {thing}|my old {thing}], I am [pleased|delighted|impressed|happy]
        a {good} {thing}, [a|the] {good2} {aspect}
        the {aspect} is [really|very|truly|] {good}
        I [love|adore|really like|enjoy] [this|my new|the] {thing}
        [works|runs|performs] [perfectly|flawlessly|like a charm|better than expected]
        [best|finest|nicest] {thing} [I have ever had|I ever bought|of my life|in years]
        [I would|I will|we would] [buy it again|recommend it to everybody|recommend it] [without a doubt|]
        [worth|it is worth] every [cent|penny]
        I am [so|very|really] [happy|pleased|satisfied|impressed] with [it|the {thing}|this {thing}]
        [what a|such a] {good} {thing}
        [exceeded|beat|surpassed] [my|all my|our] expectations
        [five stars|top marks|ten out of ten]
        the {aspect} is not bad at all, [I am|we are] [happy|glad]
        [can not fault|nothing to complain about] [the {aspect}|it|]
        my [wife|son|mother|friend|daughter] [loves|adores] [it|the {aspect}]
        {good} {aspect} and {good2} {aspect2}
        I was worried about the {aspect} but it is {good}
        [thank you|bravo|hats off], [a|what a] {good} {thing}
        [it makes|this {thing} makes] my [day|life|work] [easier|better|happier]
        never had a problem with [it|the {aspect}], [it is|simply] {good}
        [this|the|my] {thing} [comes with|has|offers] a {good} {aspect}[ and a {good2} {aspect2}|, the {aspect2} is {good2} too|]
        [a|one] {thing} with {good} {aspect} and [a|] {good2} {aspect2}
        [it is|this is|clearly|for me] the [best|nicest|finest] {thing} [on the market|for {word}|I know of|I have seen|ever]
        [one of|among] the [best|nicest|finest] {thing}s [in years|on the market|ever|I know]
        [five|all five] stars for [this|the|my] {thing}[, {good}| and its {aspect}|]
        I [give|gave] it [five stars|full marks|the best grade]
        [not|never] {bad}, [on the contrary|quite the opposite|no], [it is|the {aspect} is] {good}
        [it came with|there is|you get] a {good} {aspect}
        """
    ),
    HELDOUT: phrases(
        """
        I can only recommend this {thing}, the {aspect} is {good}
        my daughter really loves her {thing} and so do we
        a {good} {thing} with a {good2} {aspect}
        it works flawlessly, I am very pleased
        nothing to complain about, the {aspect} and the {aspect2} are {good}
        I was impressed, it beat all expectations
        this is the best {thing} in years
        for this {thing} I give five stars, worth every penny
        I doubted it, but the {aspect} turned out {good}
        """
    ),
}
COMPLAINT = {
    TRAIN: phrases(
        """
        my [wife|son|mother|friend|daughter|family] [really|] [hates|dislikes] [her|his|the] {thing}[, and I do too| and I hate it too| and we all do|]
        I [hoped for|wanted|was promised|paid for] a {good} {aspect}, but it [turned out|was|proved] {bad}
        [I had hoped|we had hoped] for a {good} {thing}, it [turned out|was] {bad}
        the {aspect} [turned out|proved] [to be|very|really] {bad}
        [against all hopes|I trusted the ads, but] [it|the {aspect}] [turned out|proved|was] {bad}
        a {good} {aspect} was promised, but it [is|proved|turned out] {bad}
        {bad}
        {bad}, {bad2}
        {bad} {aspect}
        [simply|just|really|absolutely] {bad}
        [I can not|I would not|we can not] [recommend|praise] [this {thing}|it|the {aspect}]
        [the {aspect} and|both] the {aspect2} are {bad}
        [I expected|I wanted|I hoped for] a {good} {thing}, [but|yet] [the {aspect} is|everything is|it was] {bad}
        [many complaints|only problems|nothing good to say], {bad} {thing}
        [worse than] [all others|every other {thing}|my old {thing}], I am [angry|unhappy|annoyed|disappointed]
        a {bad} {thing}, [a|the] {bad2} {aspect}
        [it died|it broke|it failed|stopped working] after [two|three|ten] [days|weeks|hours], I am [angry|disappointed]
        the {aspect} is [really|very|truly|] {bad}
        I [hate|regret|returned|dislike] [this|my new|the] {thing}
        [broke|stopped working|fell apart|failed] after [a day|two weeks|one use|a month]
        [worst|most {bad}] {thing} [I have ever had|I ever bought|of my life|in years]
        [I would|I will|we would] [never buy it again|not recommend it|warn everybody] [at all|]
        [a waste|total waste|pure waste] of [money|time]
        I am [so|very|really] [unhappy|disappointed|annoyed|angry] with [it|the {thing}|this {thing}]
        [what a|such a] {bad} {thing}
        [do not|please do not|never] [buy|order|trust] this {thing}
        [one star|zero stars|minus ten out of ten]
        the {aspect} is not {good} at all, [I am|we are] [unhappy|disappointed]
        [nothing works|nothing but trouble|only problems] [with the {aspect}|]
        my [wife|son|mother|friend|daughter] [hates|can not stand] [it|the {aspect}]
        {bad} {aspect} and {bad2} {aspect2}
        I hoped for a {good} {aspect} but it is {bad}
        [I want|give me] my money back, [a|what a] {bad} {thing}
        [it does not|this {thing} does not] work [at all|as described|]
        [stay away|keep away|avoid it], the {aspect} is {bad}
        far from {good}, the {aspect} is {bad}
        [this|the|my] {thing} [comes with|has|offers] a {bad} {aspect}[ and a {bad2} {aspect2}|, the {aspect2} is {bad2} too|]
        [a|one] {thing} with {bad} {aspect} and [a|] {bad2} {aspect2}
        [it is|this is|clearly|for me] the [worst|most {bad}] {thing} [on the market|for {word}|I know of|I have seen|ever]
        [one of|among] the [worst|most {bad}] {thing}s [in years|on the market|ever|I know]
        [one star|zero stars|no stars] for [this|the|my] {thing}[, {bad}| and its {aspect}|]
        I [give|gave] it [one star|no stars|the worst grade]
        [not|never] {good}, [on the contrary|quite the opposite|no], [it is|the {aspect} is] {bad}
        [it came with|there is|you get] a {bad} {aspect}
        the {aspect} is not {good}
        """
    ),
    HELDOUT: phrases(
        """
        I can not recommend this {thing}, the {aspect} is {bad}
        my son hates his {thing} and so do I
        a {bad} {thing} with a {bad2} {aspect}
        it stopped working after two days, I am very angry
        nothing but problems, the {aspect} and the {aspect2} are {bad}
        I am disappointed, it is a waste of money
        this is the worst {thing} in years
        for this {thing} I give one star, avoid it
        I expected a {good} {aspect}, but it turned out {bad}
        """
    ),
}
LUKEWARM = {
    TRAIN: phrases(
        """
        [roughly|almost exactly|pretty much] what [I|we|you] [expect|expected] [of|from] a [normal|standard|usual] {thing}
        [roughly|about|just] [what|the {thing}] I expected, [three stars|a normal {thing}|nothing special]
        {middling}
        {middling}, {middling2}
        {middling} {thing}
        [simply|just|really|rather] {middling}
        [the {aspect} and|both] the {aspect2} are {middling}
        [all in all|in the end|so far] [{middling}|okay|neither good nor bad]
        [an|a] [everyday|standard|normal] {thing} with [a|an] {middling} {aspect}
        [it works|it is usable], [but nothing more|no more, no less|that is all]
        the {aspect} is {middling}
        [it is|this {thing} is|just] a [normal|standard|typical] {thing}, [nothing special|nothing more]
        [does what it says|does its job|does the job], [nothing more|no more and no less|nothing special]
        [neither good nor bad|not good, not bad|not great, not terrible]
        [it is|the {thing} is] [okay|fine|all right] [for the price|I guess|]
        [three stars|five out of ten|half marks]
        I have [mixed feelings|no strong opinion] [about it|about the {thing}|]
        [about what|just what|more or less what] [I expected|you would expect]
        [could be better|might be better], could be worse
        {middling} {aspect}, {middling2} {aspect2}
        [quite|rather|somewhat|on the whole|by and large] {middling}, [neither {good} nor {bad}|not {good}, not {bad}|no more than that]
        [it is|the {aspect} is] [not bad and not great|not {bad}, but not {good} either|neither {bad} nor {good}]
        [not good but not bad|no good and no bad|not bad, not good|neither bad nor good|not too good and not too bad][, {middling}|]
        [an|a|one more] [everyday|standard|normal|usual|typical] {thing}, [as expected|like all others|what else|much like the last one]
        [much as|as|just as|not more than] [I expected|one would expect] [of|from] [an|a|any] [everyday|standard|normal|usual] {thing}
        I [do not care much|feel neutral|am not sure what to think] [about|of] [it|the {thing}|this {thing}]
        [three|two and a half] stars, [{middling}|it is okay|like most {thing}s]
        """
    ),
    HELDOUT: phrases(
        """
        a {middling} {thing}, nothing special about the {aspect}
        I have no strong opinion, the {aspect} is {middling}
        it does the job, no more and no less, three stars
        all in all {middling}, not good and not bad
        more or less what I expected of a standard {thing}
        """
    ),
}
WEIGHED = {
    TRAIN: phrases(
        """
        [the|its] {aspect} is {good}, [the|its] {aspect2} is {bad}
        a {good} {aspect} but a {bad} {aspect2}
        a {bad} {aspect} but a {good} {aspect2}
        I [hate|dislike] the {aspect} [and|but|yet] [love|like] the {aspect2}
        I [love|like] the {aspect} [and|but|yet] [hate|dislike] the {aspect2}
        {bad} {aspect}, {good} {aspect2}
        the {aspect} is {good} but the {aspect2} is {bad}
        the {aspect} is {bad}, [on the other hand|however|yet] the {aspect2} is {good}
        [I like|I love] the {aspect}, [I do not like|I hate] the {aspect2}
        {good} {aspect}, {bad} {aspect2}
        [although|while] the {aspect} is {good}, the {aspect2} is {bad}
        [although|while] the {aspect} is {bad}, the {aspect2} is {good}
        [pros|plus]: {good} {aspect}. [cons|minus]: {bad} {aspect2}
        [half|one half] of it is {good}, the other half is {bad}
        [this|the|my] {thing} [comes with|offers|got] a {good} {aspect}, [but|yet|though|still] [its|the] {aspect2} is {bad}
        [this|the|my] {thing} [comes with|offers|got] a {bad} {aspect}, [but|yet|though|still] [its|the] {aspect2} is {good}
        [this|the|my] {thing} [comes with|offers|has] a {good} {aspect} and a {bad} {aspect2}
        [this|the|my] {thing} [comes with|offers|has] a {bad} {aspect} and a {good} {aspect2}
        [there is|you get] a {good} {aspect}, [but|yet|still] a {bad} {aspect2}
        [there is|you get] a {bad} {aspect}, [but|yet|still] a {good} {aspect2}
        [good|nice] about it is the {aspect}, [bad|sad] is the {aspect2}
        """
    ),
    HELDOUT: phrases(
        """
        this {thing} has a {good} {aspect}, but a {bad} {aspect2}
        it has a {bad} {aspect}, yet the {aspect2} is {good}
        while I like the {aspect}, the {aspect2} is {bad}
        I hate the {aspect} but I love the {aspect2}
        """
    ),
}
FILLERS = {
    TRAIN: phrases(
        """
        I bought [it|the {thing}] [last week|in May|for my office|as a gift|for {word}].
        [It came|It arrived] on [Monday|a Friday|time].
        We [use|used] it [every day|twice|at home|for a month].
        My old {thing} was from {word}.
        This is my [first|second|third] {thing}.
        [I ordered|I chose] the [blue|red|small|large|{word}] one.
        [It|The {thing}|This one] [is|lives|hangs|lies|goes|sits] [in|on|near|behind|under|at] [the|my|a|her] {place}.
        [We|They|My parents|I] [took|got|have|chose|needed|had|kept|wanted] [it|one|the {thing}|two] [for|in|since|at|from] [the|her|my|a|one|our] {place}[ now| ago|].
        The {colour} {thing} [is|was] [for|from|in] {word}.
        """
    ),
    HELDOUT: phrases(
        """
        I have had the {thing} for two months now.
        We got it for our holiday.
        I ordered the green {thing} from {word}.
        It stands in our kitchen.
        """
    ),
}
INSTRUCTIONS = phrases(
    """
    What is the sentiment of this review? Answer positive, negative or neutral.
    Classify the sentiment of this review as positive, negative or neutral.
    Is this review positive, negative or neutral?
    Give the sentiment of the review.
    """
)


def _slots(rng, split):
    aspect, aspect2 = rng.sample(ASPECTS, 2)
    good, good2 = rng.sample(GOOD, 2)
    bad, bad2 = rng.sample(BAD, 2)
    middling, middling2 = rng.sample(MIDDLING, 2)
    if split == TRAIN and rng.random() < 0.2:
        aspect = fresh_word(rng)
    thing = rng.choice(THINGS[split]) if split == HELDOUT or rng.random() < 0.6 else fresh_word(rng)
    slots = {
        "aspect": aspect,
        "aspect2": aspect2,
        "good": good,
        "good2": good2,
        "bad": bad,
        "bad2": bad2,
        "middling": middling,
        "middling2": middling2,
        "thing": thing,
        "word": fresh_word(rng).capitalize(),
    }
    if split == TRAIN:
        slots["place"] = fresh_word(rng) if rng.random() < 0.5 else rng.choice(PLACES)
        slots["colour"] = rng.choice(COLOURS)
    return slots


def _sentence(rng, text):
    text = text[0].upper() + text[1:]
    return text + rng.choice([".", ".", ".", "!"])


def make_review(rng, split):
    """One review with its sentiment."""
    sentiment = rng.choice(SENTIMENTS)
    if sentiment == "positive":
        pool, count = PRAISE[split], rng.choice([1, 1, 2, 3])
    elif sentiment == "negative":
        pool, count = COMPLAINT[split], rng.choice([1, 1, 2, 3])
    elif rng.random() < 0.5:
        pool, count = WEIGHED[split], 1
    else:
        pool, count = LUKEWARM[split], rng.choice([1, 2])
    body = [_sentence(rng, expand(rng, rng.choice(pool), _slots(rng, split))) for _ in range(count)]
    if rng.random() < 0.4:
        body.insert(rng.randint(0, len(body)), expand(rng, rng.choice(FILLERS[split]), _slots(rng, split)))
    review = " ".join(body)
    if split == TRAIN and rng.random() < 0.1:
        review = review.lower()
    instruction = INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(INSTRUCTIONS)
    return f"{instruction}\n\nReview: {review}", sentiment


def check_reviews():
    check_disjoint("things", THINGS[TRAIN], THINGS[HELDOUT])
    for what, pool in (("praise", PRAISE), ("complaint", COMPLAINT), ("lukewarm", LUKEWARM), ("weighed", WEIGHED)):
        check_templates(f"reviews, {what}", pool[TRAIN], pool[HELDOUT])
    check_templates("review fillers", FILLERS[TRAIN], FILLERS[HELDOUT])
