/* What was decided and how it went, a JSON line for each request: enough to replay the decisions, and, where
 * that is wished, the requests. Content is off unless the configuration says otherwise, and never written for
 * a request that must stay: then hashes and lengths stand for it. A disk that is full or a pipe that is
 * blocked loses lines, counts them, and holds nobody up.
 *
 * The key of the hashes is drawn anew at every start and never leaves the process: within one run equal
 * requests can be told, and nobody, not even who has the log, can find a short prompt by trying. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/config/yaml_fields.h"
#include "router/log/decision_entry.h"

enum {
    DECISION_QUEUE_BYTES_MAX = 16 << 20, /* lines that wait for the disk; what comes then is lost */
    DECISION_KEEP_MAX = 1000,
};

/* log: {path: decisions.jsonl, content: no, max_bytes: 100000000, keep: 5, retention: 30d} */
struct decision_log_options {
    const char *path;     /* NULL = no log; the string is copied at open */
    bool content;         /* prompts and answers too, of requests that may be shared */
    int64_t max_bytes;    /* of a file, which is then renamed PATH.1, PATH.1 to PATH.2, ... */
    uint32_t keep;        /* renamed ones */
    int64_t retention_ms; /* no line gets older: a file is renamed after a quarter of this, and deleted when
                             its last line has three quarters of it; 0 = as long as `keep` allows */
};
err_t decision_log_options_read(const struct yaml_value *value,
                                struct decision_log_options *out) ERR_MUST_CHECK;

struct decision_log;

/* FAILED_PRECONDITION: another process writes this log. IO. A pipe must have its reader. */
err_t decision_log_open(const struct decision_log_options *options, struct decision_log **out) ERR_MUST_CHECK;
/* Writes what is queued, but waits no longer than a second for a blocked pipe; NULL is fine. */
void decision_log_close(struct decision_log *log);
/* Any thread; never blocks on the file. The entry is read before it returns. */
void decision_log_write(struct decision_log *log, const struct decision_entry *entry);
uint64_t decision_log_lost(const struct decision_log *log); /* lines since the start */

struct decision_log_reader {
    /* A line; it lives until this returns. An error ends the reading and is what it returns. */
    err_t (*take)(void *context, const struct decision_line *line);
    /* A line that is none, by its number from 1: cut short, too long, no JSON. It is passed over. NULL = not
     * told. */
    void (*bad)(void *context, uint64_t number, err_t why);
    void *context;
};

/* Reads a log, also one that is being written, from its first line to its last. NOT_FOUND, IO. */
err_t decision_log_read(const char *path, const struct decision_log_reader *reader) ERR_MUST_CHECK;

/* Deletes a tenant's lines from the log and its renamed files, and lines that cannot be read, since they may
 * be his. *n_deleted: how many. NOT_FOUND; FAILED_PRECONDITION: a process writes the log; IO: the file in
 * question is as it was. */
err_t decision_log_forget(const char *path, const char *tenant, uint64_t *n_deleted) ERR_MUST_CHECK;
