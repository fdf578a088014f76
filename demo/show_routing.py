#!/usr/bin/env python3
"""Sends requests to a running router and says where each went and why, by the headers of its answers.

    python3 demo/show_routing.py ROUTER_URL MOCK_URL

Standard library only: any HTTP client does.
"""

import concurrent.futures
import json
import sys
import urllib.request

TIMEOUT_S = 60
BURST = 48
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")
TICKET = ("Classify this support ticket. Answer with its category and urgency.\n\n"
          "Ticket: Good morning, my card was charged twice for the pro plan. Could you have a look this week?")
PRIVATE = TICKET.replace("my card", "the card of Ms Okafor, who works in our payroll department,")
CODE = "Why does this not end?\n\n```c\nfor (unsigned i = 9; i >= 0; i--)\n    use(i);\n```"
WHY = {"default": "nothing spoke against the small model", "privacy": "it must not leave this machine", "wish": "the caller wished it",
       "rule": "a rule says so", "context": "it does not fit the small model's context", "difficulty": "it is too hard for the small model",
       "overflow": "the queue here is too long for the first token's target", "down": "the engine is down"}


def ask(router, prompt, **hints):
    """(headers, text, cost in dollars or None)"""
    body = {"model": "", "messages": [{"role": "user", "content": prompt}], "max_tokens": 24, "temperature": 0}
    if hints:
        body["bantam"] = hints
    request = urllib.request.Request(f"{router}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        answer = json.load(response)
        return response.headers, answer["choices"][0]["message"]["content"], answer["usage"].get("bantam", {}).get("cost_usd")


def is_local(headers):
    return headers["x-bantam-provider"] == "local"


def is_kept(headers):
    """Or just about to be: shared with whoever asked first."""
    return headers.get("x-bantam-cache") in ("hit", "shared")


def why(headers):
    """In words for people."""
    if is_kept(headers):
        return "the same question was answered before"
    rule = f' ("{headers["x-bantam-rule"]}")' if headers.get("x-bantam-rule") else ""
    return WHY.get(headers["x-bantam-reason"], headers["x-bantam-reason"]) + rule


def show(title, router, prompt, **hints):
    headers, text, cost = ask(router, prompt, **hints)
    place = "out of the cache" if is_kept(headers) else "here" if is_local(headers) else "by the mock frontier"
    print(f"{BOLD}{title}{PLAIN}: answered {place}, since {why(headers)}" + (f"; ${float(cost):.6f}" if cost is not None else ""))
    print(f"     {DIM}{' '.join(text.split())[:100]}{PLAIN}", flush=True)
    return headers


def long_ticket(i):
    """Some hundred tokens that no other one begins with: nothing of it is in the engine's prefix cache."""
    return f"Customer {i} writes. " + TICKET + " And again I was charged, and nobody answered me." * 24


def show_overflow(router):
    with concurrent.futures.ThreadPoolExecutor(BURST) as pool:
        found = list(pool.map(lambda i: ask(router, long_ticket(i))[0], range(BURST)))
    here = sum(is_local(headers) for headers in found)
    spilled = [headers for headers in found if headers["x-bantam-reason"] == "overflow"]
    print(f"{BOLD}{BURST} long ones at once{PLAIN}: {here} answered here, {len(found) - here} by the mock frontier"
          + (f"; {len(spilled)} were spilled, since {why(spilled[0])}" if spilled else "; the queue here was never too long"), flush=True)


def main():
    router, mock = sys.argv[1:]
    show("an easy one", router, TICKET)
    show("a hard one", router, TICKET + " Say which law applies.", complexity=9)
    show("code", router, CODE)
    show("the easy one again", router, TICKET)
    kept = show("a private one, though hard", router, PRIVATE, privacy="local_only", complexity=9)
    assert is_local(kept), "what is private has left"
    show_overflow(router)
    with urllib.request.urlopen(f"{mock}/mock/state", timeout=TIMEOUT_S) as response:
        print(f"the mock frontier was asked {json.load(response)['requests']} times\n", flush=True)


if __name__ == "__main__":
    main()
