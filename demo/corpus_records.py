"""Orders and invoices: text of many shapes to one JSON object with a fixed key order and no spaces between tokens.

Orders have order_id, customer, item, quantity (a number) and city; invoices have invoice_id, vendor, amount (a number
with two decimals), currency (EUR, USD or GBP) and due_date (ISO 8601). A field that the text does not give is null.
"""

from corpus_common import HELDOUT, NUMBER_WORDS, TRAIN, check_templates, digits, expand, phrases
from corpus_common import some_amount, some_city, some_code, some_company, some_date, some_item, some_name

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
    text = expand(rng, rng.choice(_real_lines(templates[split])), slots)
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
    text = expand(rng, rng.choice(_real_lines(templates[split])), slots)
    due_json = _json_text(iso) if has_date else "null"
    answer = (
        f'{{"invoice_id":"{slots["code"]}","vendor":"{slots["vendor"]}","amount":{number},'
        f'"currency":"{currency}","due_date":{due_json}}}'
    )
    instruction = INVOICE_INSTRUCTIONS[0] if rng.random() < 0.6 else rng.choice(INVOICE_INSTRUCTIONS)
    return f"{instruction}\n\n{text}", answer


def make_echo(rng, word_pool, fresh_word):
    """A training aid, no task of its own: text to repeat word by word, so that copying is learnt early."""
    parts = []
    for _ in range(rng.randint(2, 9)):
        pick = rng.random()
        if pick < 0.35:
            parts.append(rng.choice(word_pool))
        elif pick < 0.8:
            word = fresh_word(rng)
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
