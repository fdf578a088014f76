/* Kept answers: records, the store in memory, keys, and one call for equal questions. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "router/cache/answer_record.h"
#include "router/cache/response_cache.h"

#define SECOND_NS INT64_C(1000000000)

/* ---- Records ---- */

static void write_pieces(struct answer_record *record)
{
    static const struct answer_piece PIECES[] = {
        {.kind = ANSWER_TEXT, .text = "Gr\xc3\xbc\xc3\x9f", .text_bytes = 6},
        {.kind = ANSWER_TEXT, .choice_index = 1, .text = "a\0b", .text_bytes = 3},
        {.kind = ANSWER_TOOL_CALL,
         .tool_index = 2,
         .tool_id = "t",
         .tool_name = "f",
         .text = "{}",
         .text_bytes = 2},
        {.kind = ANSWER_TOOL_CALL, .tool_index = 2, .text = "", .text_bytes = 0},
        {.kind = ANSWER_FINISH, .text = "", .finish = ANSWER_TOOL_CALLS},
    };
    for (size_t i = 0; i < sizeof PIECES / sizeof *PIECES; i++)
        answer_record_piece(record, &PIECES[i]);
}

static const struct answer_facts FACTS = {"m", "id", "", {10, 5, -1, 20, -1}};

static err_t gather(void *context, const struct answer_piece *piece)
{
    struct buffer *text = context;
    assert_true(buffer_append_format(text, "%d.%u.%u.%d ", piece->kind, piece->choice_index,
                                     piece->tool_index, piece->finish));
    assert_true(buffer_append(text, piece->text, piece->text_bytes));
    assert_true(buffer_append_format(text, "%s%s;", piece->tool_id ? piece->tool_id : "-",
                                     piece->tool_name ? piece->tool_name : "-"));
    return err_ok();
}

static void a_record_gives_back_what_was_put_in(void **state)
{
    (void)state;
    struct answer_record record = {.bytes = {.limit_bytes = 4096}};
    write_pieces(&record);
    assert_true(answer_record_end(&record, &FACTS));
    struct buffer text = {.limit_bytes = 4096};
    struct answer_sink sink = {.take = gather, .context = &text};
    struct answer_facts facts;
    assert_int_equal(answer_record_replay(record.bytes.data, record.bytes.size, &sink, &facts).code, ERR_OK);
    const char expected[] = "0.0.0.0 Gr\xc3\xbc\xc3\x9f--;0.1.0.0 a\0b--;3.0.2.0 {}tf;3.0.2.0 --;4.0.0.3 --;";
    assert_int_equal(text.size, sizeof expected - 1);
    assert_memory_equal(text.data, expected, sizeof expected - 1);
    assert_string_equal(facts.model, "m");
    assert_string_equal(facts.id, "id");
    assert_string_equal(facts.fingerprint, "");
    assert_memory_equal(&facts.usage, &FACTS.usage, sizeof facts.usage);
    buffer_free(&text);
    answer_record_free(&record);
}

static void damaged_records_are_refused(void **state)
{
    (void)state;
    struct answer_record record = {.bytes = {.limit_bytes = 4096}};
    write_pieces(&record);
    assert_true(answer_record_end(&record, &FACTS));
    for (size_t size = 0; size < record.bytes.size; size++) { /* cut anywhere, of the exact size */
        char *copy = mem_strndup(record.bytes.data, size);
        assert_int_equal(answer_record_check(copy, size).code, ERR_DATA_LOSS);
        mem_free(copy);
    }
    for (size_t at = 0; at < record.bytes.size;
         at++) { /* a byte changed: damaged or another answer, never a crash */
        for (int bit = 0; bit < 8; bit++) {
            record.bytes.data[at] ^= (char)(1 << bit);
            err_t e = answer_record_check(record.bytes.data, record.bytes.size);
            assert_true(e.code == ERR_OK || e.code == ERR_DATA_LOSS);
            record.bytes.data[at] ^= (char)(1 << bit);
        }
    }
    record.bytes.data[3]++; /* the version */
    assert_int_equal(answer_record_check(record.bytes.data, record.bytes.size).code, ERR_DATA_LOSS);
    answer_record_free(&record);
    struct answer_record small = {.bytes = {.limit_bytes = 50}};
    write_pieces(&small);
    assert_false(answer_record_end(&small, &FACTS));
    answer_record_free(&small);
}

/* ---- The store ---- */

static struct response_key key_of(int number)
{
    struct response_key key = {{0}};
    snprintf((char *)key.bytes, sizeof key.bytes, "%d", number);
    return key;
}

static struct response_store *open_store(size_t max_bytes, struct virtual_clock *clock)
{
    struct response_store *store;
    virtual_clock_init(clock, 1000);
    struct memory_store_options options = {
        .max_bytes = max_bytes, .max_entry_bytes = 1000, .clock = &clock->clock};
    assert_int_equal(memory_store_open(&options, &store).code, ERR_OK);
    return store;
}

static bool has(struct response_store *store, int number, const char *expected)
{
    struct buffer out = {.limit_bytes = 4096};
    struct response_key key = key_of(number);
    bool found;
    assert_int_equal(store->vtable->get(store, &key, &out, &found).code, ERR_OK);
    if (found)
        assert_string_equal(out.data, expected);
    buffer_free(&out);
    return found;
}

static void put(struct response_store *store, int number, const char *bytes, int64_t ttl_ns)
{
    struct response_key key = key_of(number);
    assert_int_equal(store->vtable->put(store, &key, bytes, strlen(bytes), ttl_ns).code, ERR_OK);
}

static void entries_end_with_their_time(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_store *store = open_store(1 << 20, &clock);
    put(store, 1, "one", SECOND_NS);
    put(store, 2, "two", INT64_MAX);
    put(store, 3, "none", 0);
    clock.now_ns += SECOND_NS - 1;
    assert_true(has(store, 1, "one"));
    clock.now_ns++;
    assert_false(has(store, 1, ""));
    assert_true(has(store, 2, "two") && !has(store, 3, ""));
    put(store, 2, "other", SECOND_NS);
    assert_true(has(store, 2, "other"));
    struct memory_store_view view = memory_store_look(store);
    assert_int_equal(view.n_entries, 1);
    assert_int_equal(view.n_expired, 1);
    assert_int_equal(store->vtable->clear(store).code, ERR_OK);
    view = memory_store_look(store);
    assert_int_equal(view.n_entries + view.n_bytes, 0);
    store->vtable->close(store);
}

static void what_was_not_asked_for_longest_goes_first(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_store *store = open_store(1 << 20, &clock);
    put(store, 0, "0123456789", SECOND_NS);
    size_t one = memory_store_look(store).n_bytes;
    store->vtable->close(store);
    store = open_store(4 * one, &clock);
    for (int i = 0; i < 4; i++)
        put(store, i, "0123456789", SECOND_NS);
    assert_true(has(store, 0, "0123456789"));
    put(store, 4, "0123456789", SECOND_NS);
    assert_false(has(store, 1, ""));
    assert_true(has(store, 0, "0123456789") && has(store, 2, "0123456789") && has(store, 4, "0123456789"));
    assert_int_equal(memory_store_look(store).n_evicted, 1);
    char large[1002];
    memset(large, 'x', 1001);
    large[1001] = '\0';
    put(store, 5, large, SECOND_NS); /* larger than an entry may be */
    assert_false(has(store, 5, ""));
    assert_int_equal(memory_store_look(store).n_entries, 4);
    store->vtable->close(store);
}

static void many_entries_are_found(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_store *store = open_store(64 << 20, &clock);
    enum { N = 5000 };
    char text[32];
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "answer %d", i);
        put(store, i, text, SECOND_NS);
    }
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "answer %d", i);
        assert_true(has(store, i, text));
    }
    assert_int_equal(memory_store_look(store).n_entries, N);
    store->vtable->close(store);
}

/* ---- Keys ---- */

static struct response_cache *open_cache(bool draws_too, struct virtual_clock *clock)
{
    struct response_cache *cache;
    struct response_cache_options options = {
        .store = open_store(1 << 20, clock), .ttl_ns = SECOND_NS, .draws_too = draws_too};
    assert_int_equal(response_cache_open(&options, &cache).code, ERR_OK);
    return cache;
}

static bool make_salted_key(struct response_cache *cache, const char *request, const char *tenant,
                            const char *salt, const char *model, struct response_key *out)
{
    json_error_t error;
    json_t *parsed = json_loads(request, 0, &error);
    if (parsed == NULL)
        fail_msg("%s", error.text);
    struct response_question question = {
        .request = parsed, .tenant = tenant, .cache_salt = salt, .model = model, .fingerprint = "f"};
    bool is_kept;
    assert_int_equal(response_cache_key(cache, &question, out, &is_kept).code, ERR_OK);
    json_decref(parsed);
    return is_kept;
}

static bool make_key(struct response_cache *cache, const char *request, const char *tenant, const char *model,
                     struct response_key *out)
{
    return make_salted_key(cache, request, tenant, NULL, model, out);
}

static void a_key_has_what_an_answer_depends_on(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct response_key key, other;
#define ASK "\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"temperature\": 0"
    assert_true(make_key(cache, "{" ASK "}", "a", "p/m", &key));
    const char *SAME[] = {
        "{\"temperature\": 0, \"messages\": [{\"content\": \"Hi\", \"role\": \"user\"}]}",
        "{" ASK
        ", \"stream\": true, \"stream_options\": {\"include_usage\": true}, \"user\": \"u\", \"n\": 1}",
        "{" ASK ", \"model\": \"x\", \"bantam\": {\"route\": \"auto\"}, \"priority\": 3, \"logprobs\": "
        "false, \"x\": null}",
    };
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) {
        assert_true(make_key(cache, SAME[i], "a", "p/m", &other));
        assert_memory_equal(&key, &other, sizeof key);
    }
    const char *OTHERS[] = {
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"temperature\": 0}",
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Hi\"}], \"temperature\": 0}",
        "{" ASK ", \"max_tokens\": 5}",
        "{" ASK ", \"tools\": [{}]}",
        "{" ASK ", \"seed\": 1}",
        "{" ASK ", \"unknown\": 1}",
    };
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        assert_true(make_key(cache, OTHERS[i], "a", "p/m", &other));
        assert_memory_not_equal(&key, &other, sizeof key);
    }
    const char *WHO[][2] = {{"b", "p/m"}, {"", "p/m"}, {"a", "p/n"}, {"ap", "/m"}};
    for (size_t i = 0; i < sizeof WHO / sizeof *WHO; i++) {
        assert_true(make_key(cache, "{" ASK "}", WHO[i][0], WHO[i][1], &other));
        assert_memory_not_equal(&key, &other, sizeof key);
    }
    struct response_key salted;
    assert_true(make_salted_key(cache, "{" ASK "}", "a", "tenant a salt x", "p/m", &salted));
    assert_memory_not_equal(&key, &salted, sizeof key);
    assert_true(make_salted_key(cache, "{" ASK "}", "a", "tenant a salt y", "p/m", &other));
    assert_memory_not_equal(&salted, &other, sizeof key);
    response_cache_close(cache);
}

static void drawn_answers_are_kept_only_where_that_is_wished(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock), *draws = open_cache(true, &clock);
    struct response_key key;
    assert_false(make_key(cache, "{\"messages\": []}", "", "m", &key));
    assert_false(make_key(cache, "{\"temperature\": 0.7}", "", "m", &key));
    assert_true(make_key(cache, "{\"temperature\": 0.7, \"seed\": 5}", "", "m", &key));
    assert_true(make_key(cache, "{\"temperature\": 0}", "", "m", &key));
    assert_true(make_key(draws, "{\"temperature\": 0.7}", "", "m", &key));
    response_cache_close(cache);
    response_cache_close(draws);
}

/* ---- Asking ---- */

struct waiter {
    struct response_waiter base;
    char got[64];
    int n_calls;
};

static void get_ready(struct response_waiter *base, const char *bytes, size_t size, bool leads)
{
    struct waiter *waiter = (struct waiter *)base;
    assert_false(bytes && leads);
    snprintf(waiter->got, sizeof waiter->got, "%s %zu", bytes ? "record" : leads ? "lead" : "nothing", size);
    waiter->n_calls++;
}

static void make_record(struct answer_record *record)
{
    *record = (struct answer_record){.bytes = {.limit_bytes = 4096}};
    write_pieces(record);
    assert_true(answer_record_end(record, &FACTS));
}

static enum response_turn ask(struct response_cache *cache, int number, struct waiter *waiter, bool *is_alone)
{
    struct buffer answer = {.limit_bytes = 4096};
    struct response_key key = key_of(number);
    if (waiter)
        *waiter = (struct waiter){.base = {.ready = get_ready}};
    enum response_turn turn =
        response_cache_ask(cache, &key, waiter ? &waiter->base : NULL, &answer, is_alone);
    if (turn == RESPONSE_HIT)
        assert_int_equal(answer_record_check(answer.data, answer.size).code, ERR_OK);
    else
        assert_int_equal(answer.size, 0);
    buffer_free(&answer);
    return turn;
}

static void done(struct response_cache *cache, int number, const struct answer_record *record)
{
    struct response_key key = key_of(number);
    response_cache_done(cache, &key, record ? RESPONSE_WHOLE : RESPONSE_NOT_HIS,
                        record ? record->bytes.data : NULL, record ? record->bytes.size : 0);
}

static void end_without(struct response_cache *cache, int number, enum response_end end)
{
    struct response_key key = key_of(number);
    response_cache_done(cache, &key, end, NULL, 0);
}

static void equal_questions_make_one_call(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct answer_record record;
    struct waiter first, second, third, fourth;
    bool is_alone;
    make_record(&record);
    assert_int_equal(ask(cache, 1, &first, &is_alone), RESPONSE_LEAD);
    assert_false(is_alone);
    assert_int_equal(ask(cache, 1, &second, &is_alone), RESPONSE_WAIT);
    assert_int_equal(ask(cache, 1, &third, &is_alone), RESPONSE_WAIT);
    assert_int_equal(ask(cache, 2, &fourth, &is_alone), RESPONSE_LEAD); /* another question */
    assert_int_equal(ask(cache, 1, NULL, &is_alone), RESPONSE_LEAD);    /* who cannot wait */
    assert_true(is_alone);
    struct response_key key = key_of(1);
    assert_true(response_cache_leave(cache, &key, &third.base));
    assert_false(response_cache_leave(cache, &key, &third.base));
    done(cache, 1, &record);
    char expected[64];
    snprintf(expected, sizeof expected, "record %zu", record.bytes.size);
    assert_string_equal(second.got, expected);
    assert_int_equal(first.n_calls + second.n_calls + third.n_calls, 1);
    assert_false(response_cache_leave(cache, &key, &second.base));
    assert_int_equal(ask(cache, 1, &first, &is_alone), RESPONSE_HIT);
    done(cache, 2, NULL);
    struct response_cache_counts counts = response_cache_counts(cache);
    assert_int_equal(counts.hits, 1);
    assert_int_equal(counts.misses, 3);
    assert_int_equal(counts.shared, 1);
    clock.now_ns += SECOND_NS;
    assert_int_equal(ask(cache, 1, &first, &is_alone), RESPONSE_LEAD); /* it has become too old */
    done(cache, 1, NULL);
    answer_record_free(&record);
    response_cache_close(cache);
}

static void a_failure_is_not_kept(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct waiter first, second;
    bool is_alone;
    assert_int_equal(ask(cache, 1, &first, &is_alone), RESPONSE_LEAD);
    assert_int_equal(ask(cache, 1, &second, &is_alone), RESPONSE_WAIT);
    done(cache, 1, NULL);
    assert_string_equal(second.got, "nothing 0");
    assert_int_equal(ask(cache, 1, &second, &is_alone), RESPONSE_LEAD);
    done(cache, 1, NULL);
    response_cache_close(cache);
}

static void one_takes_the_lead_after_another(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct waiter leader, waiters[5];
    struct answer_record record;
    bool is_alone;
    make_record(&record);
    assert_int_equal(ask(cache, 1, &leader, &is_alone), RESPONSE_LEAD);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(cache, 1, &waiters[i], &is_alone), RESPONSE_WAIT);
    for (int i = 0; i < 2; i++) { /* two that lead leave: who has waited longest follows, and nobody else */
        end_without(cache, 1, RESPONSE_LEFT);
        for (int j = 0; j < 5; j++)
            assert_string_equal(waiters[j].got, j <= i ? "lead 0" : "");
    }
    struct response_key key = key_of(1);
    assert_false(response_cache_leave(cache, &key, &waiters[1].base));
    assert_true(response_cache_leave(cache, &key, &waiters[2].base));
    end_without(cache, 1, RESPONSE_FAILED);
    assert_string_equal(waiters[3].got, "lead 0");
    assert_int_equal(waiters[4].n_calls, 0);
    done(cache, 1, &record);
    assert_memory_equal(waiters[4].got, "record ", 7);
    assert_int_equal(waiters[2].n_calls, 0);
    assert_int_equal(response_cache_counts(cache).misses, 4);
    assert_int_equal(ask(cache, 2, &leader, &is_alone), RESPONSE_LEAD);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(cache, 2, &waiters[i], &is_alone), RESPONSE_WAIT);
    end_without(cache, 2, RESPONSE_FAILED);
    assert_int_equal(waiters[1].n_calls + waiters[2].n_calls, 0);
    end_without(cache, 2, RESPONSE_FAILED); /* nobody waits for one failure after the other */
    assert_string_equal(waiters[1].got, "nothing 0");
    assert_string_equal(waiters[2].got, "nothing 0");
    answer_record_free(&record);
    response_cache_close(cache);
}

static void a_damaged_entry_is_asked_for_anew(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct waiter waiter;
    struct answer_record nonsense = {.bytes = {.limit_bytes = 100}};
    bool is_alone;
    assert_true(buffer_append_text(&nonsense.bytes, "nonsense"));
    assert_int_equal(ask(cache, 1, &waiter, &is_alone), RESPONSE_LEAD);
    done(cache, 1, &nonsense);
    assert_int_equal(ask(cache, 1, &waiter, &is_alone), RESPONSE_LEAD);
    done(cache, 1, NULL);
    answer_record_free(&nonsense);
    response_cache_close(cache);
}

/* ---- Threads ---- */

enum { THREADS = 4, QUESTIONS = 500 };

struct thread_waiter {
    struct response_waiter base;
    struct event_count called;
};

struct asker {
    struct response_cache *cache;
    struct answer_record *record;
    struct thread_waiter waiters[QUESTIONS]; /* whoever wakes one may still look at it when it has gone on */
    int n_answers;
};

static void wake(struct response_waiter *base, const char *bytes, size_t size, bool leads)
{
    assert_true(bytes && size > 0 && !leads);
    event_count_bump(&((struct thread_waiter *)base)->called);
}

static void *ask_many(void *context)
{
    struct asker *asker = context;
    for (int i = 0; i < QUESTIONS; i++) {
        struct thread_waiter *waiter = &asker->waiters[i];
        waiter->base.ready = wake;
        struct buffer answer = {.limit_bytes = 4096};
        struct response_key key = key_of(i / 2);
        bool is_alone;
        enum response_turn turn = response_cache_ask(asker->cache, &key, &waiter->base, &answer, &is_alone);
        if (turn == RESPONSE_LEAD)
            response_cache_done(asker->cache, &key, RESPONSE_WHOLE, asker->record->bytes.data,
                                asker->record->bytes.size);
        while (turn == RESPONSE_WAIT && event_count_read(&waiter->called) == 0)
            event_count_wait(&waiter->called, 0, -1);
        asker->n_answers++;
        buffer_free(&answer);
    }
    return NULL;
}

static void threads_all_get_their_answers(void **state)
{
    (void)state;
    struct virtual_clock clock;
    struct response_cache *cache = open_cache(false, &clock);
    struct answer_record record;
    static struct asker askers[THREADS];
    pthread_t threads[THREADS];
    make_record(&record);
    for (int i = 0; i < THREADS; i++) {
        askers[i] = (struct asker){.cache = cache, .record = &record};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_many, &askers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(askers[i].n_answers, QUESTIONS);
    }
    struct response_cache_counts counts = response_cache_counts(cache);
    assert_int_equal(counts.hits + counts.misses + counts.shared, THREADS * QUESTIONS);
    answer_record_free(&record);
    response_cache_close(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_gives_back_what_was_put_in),
        cmocka_unit_test(damaged_records_are_refused),
        cmocka_unit_test(entries_end_with_their_time),
        cmocka_unit_test(what_was_not_asked_for_longest_goes_first),
        cmocka_unit_test(many_entries_are_found),
        cmocka_unit_test(a_key_has_what_an_answer_depends_on),
        cmocka_unit_test(drawn_answers_are_kept_only_where_that_is_wished),
        cmocka_unit_test(equal_questions_make_one_call),
        cmocka_unit_test(a_failure_is_not_kept),
        cmocka_unit_test(one_takes_the_lead_after_another),
        cmocka_unit_test(a_damaged_entry_is_asked_for_anew),
        cmocka_unit_test(threads_all_get_their_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
