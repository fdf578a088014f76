"""`bantam cost`: tables, JSON and refusals. A ledger is made here as the router makes it."""

import json
import sqlite3

from cli_tools import assert_refused, run, run_json

CONFIG = """
local:
  - {name: demo, targets: ["127.0.0.1:1"], cost: {per_hour: 0.40}}
providers:
  - name: openai
    kind: openai
    url: https://api.openai.com/v1
    key_env: NO_SUCH_KEY
    models: [{name: big, price: {input: 2, output: 8, as_of: 2026-11-01}}]
tiers:
  - {name: small, models: [local/demo]}
  - {name: frontier, models: [openai/big]}
default: small
"""


def make_ledger(path):
    book = sqlite3.connect(path)
    book.executescript("""PRAGMA application_id = 0x42414e4c; PRAGMA user_version = 1;
        CREATE TABLE entries (id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, attempt INTEGER NOT NULL, day TEXT NOT NULL,
          at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, reason TEXT NOT NULL,
          outcome INTEGER, estimate INTEGER NOT NULL, charged INTEGER NOT NULL, ended_ms INTEGER, input_tokens INTEGER,
          cached_tokens INTEGER, output_tokens INTEGER, UNIQUE (request_id, attempt));
        CREATE TABLE balances (tenant TEXT NOT NULL, day TEXT NOT NULL, spent INTEGER NOT NULL, reserved INTEGER NOT NULL,
          PRIMARY KEY (tenant, day)) WITHOUT ROWID;""")
    rows = [("2026-11-27", "hr", "local", "demo", 0, 1000), ("2026-11-28", "hr", "openai", "big", 0, 2800000),
            ("2026-11-28", "it", "openai", "big", 1, 5000000)]
    for number, (day, tenant, provider, model, outcome, charged) in enumerate(rows):
        tokens = (1000, 100) if outcome == 0 else (None, None)
        book.execute("INSERT INTO entries VALUES (NULL, ?, 1, ?, 0, ?, ?, ?, 'rule', ?, 0, ?, 0, ?, NULL, ?)",
                     (str(number), day, tenant, provider, model, outcome, charged, *tokens))
    book.commit()
    book.close()


def test_cost(tmp_path):
    make_ledger(tmp_path / "book.db")
    (tmp_path / "route.yaml").write_text(CONFIG)
    (all_of_it,) = run_json("cost", tmp_path / "book.db", "--config", tmp_path / "route.yaml", "--json")
    assert [line["tenant"] for line in all_of_it["lines"]] == ["hr", "hr", "it"]
    total = all_of_it["total"]
    assert total["calls"] == 3 and total["calls_with_estimated_cost"] == 1
    assert total["cost_nanodollars"] == 1000 + 2800000 + 5000000
    assert total["frontier_nanodollars"] == 2800000 + 2800000 + 5000000
    assert all_of_it["engines_nanodollars_per_day"] == 9_600_000_000
    assert [row["calls_per_day"] for row in all_of_it["projection"]] == [10**4, 10**5, 10**6, 10**7]
    (part,) = run_json("cost", tmp_path / "book.db", "--json", "--from", "2026-11-28", "--tenant", "hr")
    assert part["total"]["cost_nanodollars"] == 2800000 and "frontier_nanodollars" not in part["total"]
    table = run("cost", tmp_path / "book.db", "--frontier-price", "2/8", "--to", "2026-11-27")
    assert table.returncode == 0 and "local/demo" in table.stdout and "frontier alone" in table.stdout
    assert "openai" not in table.stdout


def test_refusals(tmp_path):
    make_ledger(tmp_path / "book.db")
    (tmp_path / "text").write_text("no ledger, however one looks at it\n" * 100)
    book = tmp_path / "book.db"
    assert_refused(run("cost", tmp_path / "none"), 1, "No such file")
    assert not (tmp_path / "none").exists()
    assert_refused(run("cost", tmp_path / "text"), 2, "not a ledger")
    assert_refused(run("cost", book, "--from", "yesterday"), 2, "--from", "2026-11-27")
    assert_refused(run("cost", book, "--frontier-price", "5"), 2, "IN/OUT")
    assert_refused(run("cost", book, "--frontier-price", "5/x"), 2, "--frontier-price")
    assert_refused(run("cost", book, "--config", tmp_path / "none.yaml"), 1, "none.yaml")
    assert json.loads(run("cost", book, "--json").stdout)["total"]["calls"] == 3
