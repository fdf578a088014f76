"""Orders and invoices: text of many shapes to one JSON object with a fixed key order and no spaces between tokens.

Orders have order_id, customer, item, quantity (a number) and city; invoices have invoice_id, vendor, amount (a number
with two decimals), currency (EUR, USD or GBP) and due_date (ISO 8601). A field that the text does not give is null.
"""

from corpus_common import HELDOUT, NUMBER_WORDS, TRAIN, check_templates, digits, expand, phrases, plain_form
from corpus_common import some_amount, some_city, some_code, some_company, some_date, some_item, some_name
from corpus_common import word_to_copy

ORDERS = {
    TRAIN: phrases(
        r"""
        Order {code}: {qty} {item} for {name}, [ship|send|deliver] to {city}.
        Order number: {code}\nCustomer: {name}\nItem: {item}\nQuantity: {qty}\nCity: {city}
        Customer: {name}\nCity: {city}\nOrder: {code}\nItem: {qty} x {item}
        {name} from {city} [ordered|bought|wants] {qty} {item} [under|with] order number {code}.
        Hello, my name is {name}. [I would like|I want] to order {qty} {item}. [Please send|Send] it to {city}. The order number is {code}.
        [Please ship|Please send] {qty} {item} to {name} in {city}, order {code}.
        Hi, I am {name} and I live in {city}. I ordered {qty} {item}, order number {code}.
        New order {code} from {name}, {city}: {qty} x {item}.
        Order no. {code} | {name} | {item} | qty {qty} | {city}
        To {city}: {qty} units of {item} for customer {name}. Order id {code}.
        [We received|Received] order {code} on {date}. Customer {name} [wants|asked for] {qty} {item} delivered to {city}.
        Dear shop, please add {qty} {item} to my order {code}. Regards, {name}, {city}
        Item: {item}\nQty: {qty}\nShip to: {name}, {city}\nOrder id: {code}
        The customer {name} in {city} needs {qty} {item}. Reference: order {code}.
        {qty} {item}, please. My order is {code}, the delivery goes to {city}. {name}
        [Confirmation|Order confirmation] {code}\nThank you, {name}! You ordered {qty} x {item}. [Delivery|Shipping] to {city}.
        Order {code} was placed by {name}. It contains {qty} {item}. It goes to {city}.
        In order {code}, {name} [asks for|requests] {qty} {item}, to be [delivered|sent] to {city} by {date}.
        id={code}; customer={name}; item={item}; quantity={qty}; city={city}
        For {name}: {item}, {qty} pieces, order {code}, destination {city}. Phone {phone}.
        city: {city}, name: {name}, order: {code}, item: {item}, number of pieces: {qty}
        This is {name}, [calling|writing] from {city}, about order {code}. I need {qty} {item}. My phone number is {phone}.
        """
    ),
    HELDOUT: phrases(
        r"""
        Good morning, here is {name} from {city}. Please put {qty} {item} on order {code}.
        Order {code} by customer {name}: we send {qty} {item} to {city}.
        Order: {code}\nShip to: {city}\nName: {name}\nItem: {item}\nQuantity: {qty}
        I want {qty} {item} for my order {code}. Deliver to {city}, please. Thank you, {name}
        On {date} {name} ordered {qty} x {item}. The order id is {code} and the city is {city}.
        {code}: {name} in {city} asked for {qty} {item}.
        My name is {name}, order number {code}. Please ship {qty} {item} to {city}. You can call {phone}.
        Customer {name} | {city} | order {code} | {qty} x {item}
        Delivery to {city}: order {code}, {qty} {item}, customer {name}.
        """
    ),
}
ORDERS_WITHOUT_CITY = {
    TRAIN: phrases(
        r"""
        Order {code}: {qty} {item} for {name}.
        Customer: {name}\nOrder: {code}\nItem: {qty} x {item}
        Hello, I am {name} and I want {qty} {item}. My order number is {code}.
        {name} ordered {qty} {item} with order number {code}.
        """
    ),
    HELDOUT: phrases(
        r"""
        Please put {qty} {item} on order {code}. Thank you, {name}
        Order: {code}\nName: {name}\nItem: {item}\nQuantity: {qty}
        """
    ),
}
INVOICES = {
    TRAIN: phrases(
        r"""
        Invoice {code} from {vendor}. [Total|Amount|Total amount]: {money}. [Due|Due date|Payment due|Pay by]: {due}.
        Invoice number: {code}\nVendor: {vendor}\nAmount: {money}\nDue date: {due}
        {vendor}\nInvoice {code}\nDate: {date}\nTotal: {money}\nDue: {due}
        Please pay {money} to {vendor} by {due}, invoice {code}.
        {vendor} [sent|sends] us invoice {code} over {money}, [due on|payable by|due] {due}.
        [The amount|A total] of {money} for invoice {code} is due on {due}. [Vendor|Issued by]: {vendor}.
        We received invoice {code} on {date}. {vendor} asks for {money} until {due}.
        Bill {code} by {vendor}: {money}, pay before {due}.
        Dear customer, your invoice {code} of {date} is ready. Please transfer {money} by {due}. {vendor}
        Vendor: {vendor}\nDue date: {due}\nInvoice: {code}\nTotal amount: {money}
        Reminder: invoice {code} is still open. You owe {vendor} {money}. The last day to pay is {due}.
        invoice={code}; vendor={vendor}; total={money}; due={due}
        From: {vendor}\nSubject: Invoice {code}\nThe total is {money} and the due date is {due}.
        {code} | {vendor} | {money} | due {due}
        Invoice {code}, issued {date} by {vendor}, net {money2}, total {money}, due {due}.
        Payment of {money} to {vendor} is due by {due}. The invoice number is {code}.
        Our supplier {vendor} [charged|billed] us {money} in invoice {code}. We must pay it by {due}.
        Subtotal: {money2}\nTotal: {money}\nInvoice no. {code}\nSeller: {vendor}\nPayable until {due}
        [Thank you for your order|Thanks for your business]. {vendor}, invoice {code}: {money} payable on {due}.
        Due {due}: {money} for {vendor} (invoice {code}).
        """
    ),
    HELDOUT: phrases(
        r"""
        Here is invoice {code} by {vendor}. We ask you to pay {money} by {due}.
        {vendor} - invoice no. {code}\nIssued: {date}\nAmount due: {money}\nPay by: {due}
        Please transfer the total of {money} for invoice {code} to {vendor} until {due}.
        Invoice: {code}\nTotal: {money}\nDue date: {due}\nVendor: {vendor}
        On {date} our vendor {vendor} sent invoice {code}. Its amount is {money} and it is due on {due}.
        The due date of invoice {code} is {due}. Amount: {money}. Vendor: {vendor}.
        You owe {money} to {vendor}, payable by {due}. Invoice {code}.
        {vendor} | invoice {code} | total {money} | due on {due}
        """
    ),
}
INVOICES_WITHOUT_DATE = {
    TRAIN: phrases(
        r"""
        Invoice {code} from {vendor}. Total: {money}.
        Vendor: {vendor}\nInvoice: {code}\nAmount: {money}
        {vendor} charged us {money} in invoice {code}.
        Please pay {money} to {vendor}, invoice {code}.
        """
    ),
    HELDOUT: phrases(
        r"""
        Here is invoice {code} by {vendor}. We ask you to pay {money}.
        Invoice: {code}\nTotal: {money}\nVendor: {vendor}
        """
    ),
}
# Training also makes texts of its own from parts, so that each field is known by its words and not by its place. A
# sentence says one field or two; the sentences of a record come in any order.
ORDER_PARTS = {
    "name": phrases(
        r"""
        [My name is|I am|This is|Here is|It is for|The customer is|Customer:|Customer is|Ordered by|From] {name}.
        [You are talking to|It is me,|Your customer|Signed,|The buyer is|It was ordered by|Somebody called] {name}.
        {name} [is the customer|is our customer|placed it|called us|wrote to us].
        [Thanks|Thank you|Regards|Greetings|Bye], {name}.
        """
    ),
    "city": phrases(
        r"""
        [Deliver|Ship|Send|Bring] [it|them|this|everything|] to {city}[, please|].
        [The city is|Delivery to|Shipping to|It goes to|Destination:|City:|I live in|The address is in] {city}.
        """
    ),
    "item": phrases(
        r"""
        [I want|I need|I would like|We need|Please send|Please pack|Put in|Add|We send|He wants|She ordered|Content:] {qty} {item}[, please|].
        [We will send|You get|They asked for|It is about|It contains|There are|It has|Goods:|We packed|I take|Get me|Give us] {qty} [x|] {item}.
        [Item: {item}. Quantity: {qty}|Quantity: {qty}. Item: {item}|{qty} x {item}|{qty} pieces of {item}|{item}, {qty} pieces].
        """
    ),
    "code": phrases(
        r"""
        [The order number is|The order id is|Order number|Order id|Order|Order no.|Reference|My order is|This is order|It is order] {code}.
        {code} is [the order|my order number|the order id].
        """
    ),
    "name city": phrases(
        r"""
        [I am|My name is|This is|Here is|Customer|For|Hello from] {name} [from|in|of|at] {city}.
        [Here speaks|Here writes|It is|Again it is|You know me, I am] {name} [from|in|of] {city}.
        """
    ),
    "name item": phrases(
        r"""
        {name} [ordered|wants|asked for|bought|needs|gets|requests|takes] {qty} [x|] {item}.
        {qty} [x|] {item} for {name}.
        """
    ),
    "city item": phrases(
        r"""
        [We send|We ship|We deliver|He sends|They get|Send|Ship|Please ship|Deliver] {qty} [x|] {item} to {city}.
        [We will send|I mail|You can bring|Our driver brings|The shop mails|Somebody must carry] {qty} [x|] {item} to {city}.
        {qty} [x|] {item} [go|to be sent] to {city}.
        """
    ),
    "code name": phrases(
        r"""
        [Order|Order number|In order] {code} [by|from|for|of] [customer|] {name}.
        [Customer|] {name}, order {code}.
        {code}: {name}.
        """
    ),
    "code item": phrases(
        r"""
        [Put|Add] {qty} {item} [on|to] [my|] order {code}.
        Order {code}: {qty} [x|] {item}.
        {qty} {item} for [my|] order {code}.
        {qty} {item} [with|under] order number {code}.
        """
    ),
    "code city": phrases(
        r"""
        Order {code} [goes|is shipped|is sent|] to {city}.
        """
    ),
    "name city item": phrases(
        r"""
        {name} [from|in] {city} [ordered|wants|asked for|bought|needs|gets] {qty} [x|] {item}.
        [Send|Ship] {qty} {item} to {name} in {city}.
        """
    ),
}
INVOICE_PARTS = {
    "vendor": phrases(
        r"""
        [Vendor:|Seller:|From|Issued by|Sent by|The vendor is|It was sent by|Our vendor is] {vendor}.
        {vendor}.
        """
    ),
    "money": phrases(
        r"""
        [Amount:|Total:|Total amount:|Amount due:|Please pay|We ask for|The amount is|The total is|You owe|It is over] {money}[, please|].
        """
    ),
    "due": phrases(
        r"""
        [Due date:|Due:|Due on|Pay by|Pay by:|Payable until|The due date is|It is due on|Please pay before|Payment is due by|Pay until] {due}.
        """
    ),
    "code": phrases(
        r"""
        [Invoice|Invoice number|Invoice no.|Invoice:|The invoice number is|This is invoice|Here is invoice|Bill] {code}.
        """
    ),
    "vendor money": phrases(
        r"""
        [You owe|Please pay|We owe|Transfer] {money} to {vendor}.
        {vendor} [asks for|charges|bills|wants|gets] {money}.
        [You owe|We owe] {vendor} {money}.
        """
    ),
    "money due": phrases(
        r"""
        [Please pay|Pay|Transfer|You owe] {money} [by|until|before|due on] {due}.
        {money} [is due on|is payable by|due|until] {due}.
        """
    ),
    "code vendor": phrases(
        r"""
        Invoice {code} [by|from|of] {vendor}.
        {vendor} [sent|sends|issued] invoice {code}.
        {vendor}, invoice [no.|] {code}.
        {vendor} - invoice [no.|number|] {code}.
        """
    ),
    "code money": phrases(
        r"""
        Invoice {code}[:| over| is over| of] {money}.
        {money} for invoice {code}.
        The [amount|total] of invoice {code} is {money}.
        """
    ),
    "code due": phrases(
        r"""
        Invoice {code} is due [on|by] {due}.
        The due date of invoice {code} is {due}[!|.]
        Invoice {code}, pay by {due}.
        """
    ),
}
LABELS = {
    "name": "[Name|Customer|Client|Buyer|Customer name]",
    "city": "[City|Ship to|Deliver to|Destination|Town|Delivery city]",
    "item": "[Item|Product|Article|Goods]",
    "qty": "[Quantity|Qty|Pieces|Number of pieces|Count]",
    "code": "[Order|Order number|Order id|Order no.|Reference]",
    "vendor": "[Vendor|Seller|Supplier|From|Issued by]",
    "money": "[Amount|Total|Total amount|Amount due|To pay]",
    "due": "[Due|Due date|Pay by|Payable until|Due on]",
    "invoice": "[Invoice|Invoice number|Invoice no.|Bill]",
}
KEPT_SLOTS = {
    name: "{" + name + "}"
    for name in ("name", "city", "item", "qty", "code", "vendor", "money", "money2", "due", "date", "phone")
}
OPENINGS = phrases(
    r"""
    [Hello|Hi|Hey|Greetings|Welcome back|Good day|Good evening|Good afternoon|Good news|Hello again|Dear sir][,|.|:|!| -]
    [Dear|Hello|Hi] [team|friends|colleagues|shop|all|folks|madam|office][,|.|:|!| -]
    [New|News|Note|Attention|Update|Entry|Message|To do|Memo|Reminder|Just in|Copy][,|.|:|!| -]
    [On|Of|From] {date}[,|.|:|!| -]
    [Yesterday|Today|Last week|This morning|At noon|Late at night|On Monday|On Friday][,|.|:|!| -]
    [One more thing|Quick question|Small request|By the way|As agreed|As usual|As you know][,|.|:|!| -]
    """
)
ORDER_ASIDES = phrases(
    r"""
    [It is urgent|There is no rush|Take your time|Please be quick|The door bell is broken|The parcel may be heavy].
    [Call|Phone:|Please call|The phone number is|I am at] {phone}.
    [It was placed on|It came in on|We got it on|Needed by|It must arrive by] {date}.
    [We hope you are well|The weather is nice here|Your shop is great|It is a present|Payment is by card|No gift wrap].
    """
)
INVOICE_ASIDES = phrases(
    r"""
    [It was issued on|Issued|Dated|The invoice date is|It came in on|Date:] {date}.
    [The net amount is|Net:|Without tax it is|Subtotal:] {money2}.
    [We hope you are well|Thank you for your business|Please pay in time|Keep it for your files|Bank transfer only].
    """
)
COMPOSED_SHARE = 0.65
ORDER_INSTRUCTIONS = phrases(
    r"""
    Extract the order as JSON with the keys order_id, customer, item, quantity, city.
    Extract the fields of this order as JSON.
    Turn this order into JSON.
    """
)
INVOICE_INSTRUCTIONS = phrases(
    r"""
    Extract the invoice as JSON with the keys invoice_id, vendor, amount, currency, due_date.
    Extract the fields of this invoice as JSON.
    Turn this invoice into JSON.
    """
)
WRITTEN_CURRENCY = {"EUR": ["EUR {a}", "{a} EUR", "€{a}", "{a} euros"], "USD": ["USD {a}", "{a} USD", "${a}", "{a} dollars"]}
WRITTEN_CURRENCY["GBP"] = ["GBP {a}", "{a} GBP", "£{a}", "{a} pounds"]


def _real_lines(templates):
    return [template.replace("\\n", "\n") for template in templates]


def _money(rng, currency):
    written, number = some_amount(rng)
    return rng.choice(WRITTEN_CURRENCY[currency]).replace("{a}", written), number


def _json_text(value):
    return '"' + value + '"'


def _lower_start(sentence):
    return sentence if sentence.startswith(("I ", "{")) else sentence[0].lower() + sentence[1:]


def _sentences(rng, parts, fields, asides):
    """Sentences that say each of the fields once, in a random order, perhaps after a greeting and beside other talk; or
    the same joined to one long sentence."""
    left, chosen = list(fields), []
    while left:
        fitting = [key for key in parts if set(key.split()) <= set(left)]
        key = rng.choice(fitting)
        chosen.append(expand(rng, rng.choice(_real_lines(parts[key])), KEPT_SLOTS))
        left = [field for field in left if field not in key.split()]
    if rng.random() < 0.25:
        chosen.append(expand(rng, rng.choice(asides), KEPT_SLOTS))
    rng.shuffle(chosen)
    start = expand(rng, rng.choice(OPENINGS), KEPT_SLOTS) if rng.random() < 0.6 else ""
    joint = rng.choice([". ", ". ", ". ", ".\n", ", ", ", ", ": ", " - ", ", and ", "; "])
    if joint[0] != ".":
        chosen = [sentence.rstrip(".!") for sentence in chosen]
        if rng.random() < 0.8:
            chosen = chosen[:1] + [_lower_start(sentence) for sentence in chosen[1:]]
    else:
        chosen = [sentence.rstrip(".") for sentence in chosen]
    if start and start[-1] not in ".!" and rng.random() < 0.7:
        chosen[0] = _lower_start(chosen[0])
    return (start + " " + joint.join(chosen)).strip() + "."


def _labelled(rng, fields):
    """Fields in a random order, as on a form: each with its label, or only those whose value does not speak for itself."""
    fields = list(fields)
    rng.shuffle(fields)
    separator = rng.choice(["\n", "\n", " | ", "; ", ", "])
    sign = rng.choice([": ", ": ", "=", " "])
    bare = rng.random() < 0.4
    lines = []
    for field in fields:
        slot = "{code}" if field == "invoice" else "{" + field + "}"
        if bare and field in ("name", "city", "vendor", "money") and rng.random() < 0.5:
            lines.append(slot)
        elif bare and field == "item" and "qty" in fields:
            lines.append("{qty} x {item}")
        elif not (bare and field == "qty" and "item" in fields):
            lines.append(LABELS[field] + sign + slot)
    return separator.join(lines)


def _compose(rng, parts, fields, labels, asides, heldout):
    """A template from parts, its choices made, that is none of the held-out ones."""
    forbidden = {plain_form(template) for template in heldout}
    while True:
        template = _labelled(rng, labels) if rng.random() < 0.3 else _sentences(rng, parts, fields, asides)
        template = expand(rng, template, KEPT_SLOTS)
        if plain_form(template) not in forbidden:
            return template


def make_order(rng, split, word_pool):
    """One order with its JSON; one in ten gives no city."""
    quantity = rng.randint(1, 12) if rng.random() < 0.6 else int(digits(rng, 1, 3))
    written = NUMBER_WORDS[quantity - 1] if quantity <= 12 and rng.random() < 0.35 else str(quantity)
    has_city = rng.random() < 0.9
    slots = {
        "code": some_code(rng, ["ORD", "PO", "A", "SO"]),
        "name": some_name(rng, split),
        "item": some_item(rng, split, word_pool),
        "qty": written,
        "city": some_city(rng, split),
        "date": some_date(rng)[0],
        "phone": digits(rng, 7, 9),
    }
    templates = ORDERS if has_city else ORDERS_WITHOUT_CITY
    template = rng.choice(_real_lines(templates[split]))
    if split == TRAIN and rng.random() < COMPOSED_SHARE:
        given = ["name", "item", "code"] + ["city"] * has_city
        template = _compose(rng, ORDER_PARTS, given, given + ["qty"], ORDER_ASIDES, templates[HELDOUT])
    text = expand(rng, template, slots)
    city = _json_text(slots["city"]) if has_city else "null"
    answer = (
        f'{{"order_id":"{slots["code"]}","customer":"{slots["name"]}","item":"{slots["item"]}",'
        f'"quantity":{quantity},"city":{city}}}'
    )
    instruction = ORDER_INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(ORDER_INSTRUCTIONS)
    return f"{instruction}\n\n{text}", answer


def make_invoice(rng, split, word_pool):
    """One invoice with its JSON; one in ten gives no due date."""
    currency = rng.choice(sorted(WRITTEN_CURRENCY))
    money, number = _money(rng, currency)
    due, iso = some_date(rng)
    has_date = rng.random() < 0.9
    slots = {
        "code": some_code(rng, ["INV", "RE", "F", "2024"]),
        "vendor": some_company(rng, split, word_pool),
        "money": money,
        "money2": _money(rng, currency)[0],
        "due": due,
        "date": some_date(rng)[0],
    }
    templates = INVOICES if has_date else INVOICES_WITHOUT_DATE
    template = rng.choice(_real_lines(templates[split]))
    if split == TRAIN and rng.random() < COMPOSED_SHARE:
        given = ["vendor", "money"] + ["due"] * has_date
        template = _compose(rng, INVOICE_PARTS, given + ["code"], given + ["invoice"], INVOICE_ASIDES, templates[HELDOUT])
    text = expand(rng, template, slots)
    due_json = _json_text(iso) if has_date else "null"
    answer = (
        f'{{"invoice_id":"{slots["code"]}","vendor":"{slots["vendor"]}","amount":{number},'
        f'"currency":"{currency}","due_date":{due_json}}}'
    )
    instruction = INVOICE_INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(INVOICE_INSTRUCTIONS)
    return f"{instruction}\n\n{text}", answer


def make_echo(rng, word_pool):
    """A training aid, no task of its own: text to repeat word by word, so that copying is learnt early."""
    parts = []
    for _ in range(rng.randint(2, 9)):
        pick = rng.random()
        if pick < 0.35:
            parts.append(rng.choice(word_pool))
        elif pick < 0.8:
            word = word_to_copy(rng)
            parts.append(word.capitalize() if rng.random() < 0.6 else word)
        elif pick < 0.9:
            parts.append(some_code(rng, ["ORD", "INV", "RE", "PO", "SO", "A", "F"]))
        else:
            parts.append(digits(rng, 1, 6))
    text = " ".join(parts)
    shape = rng.random()
    if shape < 0.2:
        return f"Repeat this text.\n\n{text}", text
    if shape < 0.75:
        return f"List the words of this text as JSON.\n\n{text}", '["' + '","'.join(parts) + '"]'
    return f"Put this text into a JSON string.\n\n{text}", f'{{"text":"{text}"}}'


def check_records():
    pools = (("orders", ORDERS), ("orders without city", ORDERS_WITHOUT_CITY), ("invoices", INVOICES))
    for what, pool in pools + (("invoices without date", INVOICES_WITHOUT_DATE),):
        check_templates(what, pool[TRAIN], pool[HELDOUT])
