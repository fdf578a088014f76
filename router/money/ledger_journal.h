/* What the ledger has promised and its database does not have yet: a file beside it, to which each promise is
 * appended by one write(), which kill -9 cannot undo. Records are numbered without a gap; the database says
 * up to which number it has them, so that reading them once more changes nothing. A record that is cut off or
 * damaged ends the file: it was not promised.
 *
 * One process writes. Appending and clearing take turns; reading is for a start, and for others while they
 * hold the file, which keeps it from being cleared. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/money/ledger.h"

enum journal_kind {
    JOURNAL_ENTRY = 1, /* reserved */
    JOURNAL_END = 2,   /* and over */
};

struct journal_record {
    enum journal_kind kind;
    uint64_t number; /* from 1 */
    int64_t entry;
    /* Of an entry. */
    struct ledger_call call;
    int64_t at_ms;
    nanodollars estimate;
    /* Of an end. */
    enum ledger_outcome outcome;
    nanodollars charged;
    int64_t ended_ms, input_tokens, cached_tokens, output_tokens; /* tokens: -1 = not told */
};

struct ledger_journal;

/* Of the ledger at path; makes the file. durable: each append is on the disk itself. good_bytes: where its
 * last whole entry ends; what is behind that is cut off. */
err_t journal_open(const char *ledger_path, bool durable, size_t good_bytes,
                   struct ledger_journal **out) ERR_MUST_CHECK;
/* Removes the file when that is wanted: nothing in it is needed any more. NULL is fine. */
void journal_close(struct ledger_journal *journal, bool removes);
/* All of them or none, and what waits before them. IO: the disk is full, or fails. */
err_t journal_append(struct ledger_journal *journal, const struct journal_record *records,
                     size_t n) ERR_MUST_CHECK;
/* The record waits for the next append or flush, with which it goes into the file in one write(); until then
 * nobody who reads the file knows it. Where too much waits it goes at once, and IO says that it cannot. */
err_t journal_append_later(struct ledger_journal *journal,
                           const struct journal_record *record) ERR_MUST_CHECK;
/* IO: what waits goes on waiting. */
err_t journal_flush(struct ledger_journal *journal) ERR_MUST_CHECK;
size_t journal_bytes(const struct ledger_journal *journal);
/* Empties it, with what waits, since the database has it; not while somebody holds it. */
void journal_clear(struct ledger_journal *journal);

/* The journal beside a ledger that another process may be writing, held until journal_view_close. NOT_FOUND:
 * there is none. */
struct journal_view {
    int file;
    char *bytes; /* owned */
    size_t size;
};
err_t journal_view_open(const char *ledger_path, struct journal_view *out) ERR_MUST_CHECK;
void journal_view_close(struct journal_view *view);
/* The record at *at, which moves behind it; false at the end. Strings live as long as the view. */
bool journal_view_next(const struct journal_view *view, size_t *at, struct journal_record *out);
