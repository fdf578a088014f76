/* A provider that is none: answers in OpenAI's and Anthropic's form on a loopback port, made up or out of a
 * table, as fast or as slow as asked, and with every fault that providers have. For tests, benchmarks and the
 * demo. It says everywhere what it is: models are called "mock-...", and each answer has x-bantam-mock.
 *
 * Paths: POST .../chat/completions, .../messages; GET .../models; GET /mock/state (counts as JSON); POST
 * /mock/fault?name=503&count=2 (of the next answers; no count: of all from now on; name=none: no more). One
 * thread serves everybody. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/error.h"
#include "benchmarks/mock_faults.h"

struct mock_provider;
struct mock_table;

struct mock_options {
    const char *host;                    /* an IPv4 address */
    uint16_t port;                       /* 0 = any free one */
    const struct mock_table *table;      /* borrowed; NULL = none */
    uint32_t n_tokens;                   /* of an answer that is made up; 0 = it repeats the prompt */
    int64_t first_byte_ns, per_chunk_ns; /* before an answer, and between two pieces of a stream */
    uint32_t requests_per_minute;        /* more: 429; 0 = any number */
    uint32_t retry_after_s;              /* of a 429, 503 or 529 */
    size_t huge_bytes;                   /* of the line of fault huge-line */
    struct mock_fault fault;             /* of every answer, */
    uint32_t fault_every;                /* or of each n-th; 0 = 1 */
    FILE *log;                           /* each request and how it ended, as JSON lines; NULL = nowhere */
    bool log_bodies;                     /* with what was asked */
};

/* 127.0.0.1, any port, the prompt repeated, no delays, 1 s to retry, 100 MB. */
struct mock_options mock_options_default(void);

/* What was heard and said since the start. */
struct mock_counts {
    uint64_t connections, received_bytes;
    uint64_t requests;  /* for an answer of a model */
    uint64_t answered;  /* to the end that was meant, faults included */
    uint64_t cancelled; /* the client left before */
    uint64_t faults;    /* answers with one */
    uint64_t open;      /* under way now */
};

/* Answers from here on. IO: the address cannot be had. */
err_t mock_provider_open(const struct mock_options *options, struct mock_provider **out) ERR_MUST_CHECK;
uint16_t mock_provider_port(const struct mock_provider *provider);
void mock_provider_counts(const struct mock_provider *provider, struct mock_counts *out);
/* Cuts what is under way. NULL is fine. */
void mock_provider_close(struct mock_provider *provider);
