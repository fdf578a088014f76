"""`bantam forget`: a tenant's lines and the kept answers go, those of others stay."""

import fcntl
import json
import sqlite3

from cli_tools import assert_refused, run

CONFIG = """
local:
  - {{name: demo, targets: ["127.0.0.1:1"]}}
providers:
  - name: openai
    kind: openai
    url: https://api.openai.com/v1
    key_env: NO_SUCH_KEY
    models: [{{name: big, price: {{input: 2, output: 8, as_of: 2026-11-01}}}}]
tiers:
  - {{name: small, models: [local/demo]}}
  - {{name: frontier, models: [openai/big]}}
log: {{path: {folder}/decisions.jsonl, keep: 2}}
cache: {{kind: sqlite, path: {folder}/answers.db, max_bytes: 1000000, ttl: 1h}}
"""


def line(tenant, number):
    return json.dumps({"version": 1, "unix_ms": 1795781758932, "id": f"d{number}", "request_id": f"r{number}", "tenant": tenant,
                       "provider": "local", "answered_by": "demo", "tier": "small", "reason": "default", "cache": "miss",
                       "policy_id": "57e472f03e09cc3b", "stage": "promoted", "finish_reason": "stop", "seed": "0"}) + "\n"


def make(tmp_path):
    config = tmp_path / "route.yaml"
    config.write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "decisions.jsonl").write_text(line("acme", 1) + line("other", 2) + line("acme", 3))
    (tmp_path / "decisions.jsonl.1").write_text(line("acme", 4) + line("other", 5))
    return config


def kept(tmp_path):
    return [json.loads(text)["id"] for name in ("decisions.jsonl", "decisions.jsonl.1")
            for text in (tmp_path / name).read_text().splitlines()]


def answers(tmp_path):
    book = sqlite3.connect(tmp_path / "answers.db")
    count = book.execute("SELECT count(*) FROM answers").fetchone()[0]
    book.close()
    return count


def test_a_tenants_lines_and_all_answers_go(tmp_path):
    config = make(tmp_path)
    assert run("forget", "nobody", str(config)).returncode == 0  # makes the store
    assert kept(tmp_path) == ["d1", "d2", "d3", "d4", "d5"]
    book = sqlite3.connect(tmp_path / "answers.db")
    book.execute("INSERT INTO answers VALUES (NULL, x'00', 9e15, 0, 1, 0, x'00')")
    book.commit()
    book.close()
    assert run("forget", "nobody", str(config), "--no-answers").returncode == 0
    assert answers(tmp_path) == 1
    done = run("forget", "acme", str(config))
    assert done.returncode == 0 and "3 lines are deleted" in done.stdout and "answers.db are deleted" in done.stdout, done
    assert kept(tmp_path) == ["d2", "d5"]
    assert answers(tmp_path) == 0


def test_a_log_that_is_written_is_left_alone(tmp_path):
    config = make(tmp_path)
    with (tmp_path / "decisions.jsonl").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert_refused(run("forget", "acme", str(config)), 1, "stop the router first")
    assert len(kept(tmp_path)) == 5


def test_what_is_wrong_is_said(tmp_path):
    assert_refused(run("forget", "acme"), 2, "CONFIG")
    assert run("forget", "acme", str(tmp_path / "none.yaml")).returncode != 0
