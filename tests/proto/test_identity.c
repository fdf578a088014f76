/* Who comes in, as which tenant, and what the tenant may use; over the fake service, in virtual time. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "base/log.h"
#include "proto/tenant_service.h"
#include "tests/proto/answer_scripts.h"
#include "tests/proto/fake_service.h"

struct world {
    char path[64];
    struct virtual_clock clock;
    struct identity *identity;
    struct fake_service *fake;
    struct tenant_service *tenants;
};

static void write_file(struct world *world, const char *text)
{
    char aside[80];
    (void)snprintf(aside, sizeof aside, "%s.new", world->path);
    FILE *file = fopen(aside, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rename(aside, world->path), 0);
}

/* "key HASH TENANT" */
static const char *key_line(const char *key, const char *tenant)
{
    static char lines[4][256];
    static int next;
    char hash_text[API_KEY_HASH_TEXT_BYTES];
    struct api_key_hash hash = api_key_hash_of(key, strlen(key));
    api_key_hash_format(&hash, hash_text);
    char *line = lines[next++ % 4];
    (void)snprintf(line, sizeof lines[0], "key %s %s\n", hash_text, tenant);
    return line;
}

static void write_tenants(struct world *world, const char *a_options, const char *b_options)
{
    char text[2048];
    (void)snprintf(text, sizeof text, "tenant a %s\ntenant b %s\n%s%ssan uri:spiffe://x/b b\n", a_options,
                   b_options, key_line("key-of-a", "a"), key_line("key-of-b", "b"));
    write_file(world, text);
}

static void world_open(struct world *world, const char *a_options, const char *b_options)
{
    *world = (struct world){0};
    (void)snprintf(world->path, sizeof world->path, "/tmp/bantam-identity-%ld", (long)getpid());
    virtual_clock_init(&world->clock, 5);
    write_tenants(world, a_options, b_options);
    struct identity_options options = {.keys_file = world->path, .clock = &world->clock.clock};
    assert_int_equal(identity_open(&options, &world->identity).code, ERR_OK);
    struct fake_options fake = {0};
    assert_int_equal(fake_service_open(&fake, &world->fake).code, ERR_OK);
    assert_int_equal(tenant_service_open(fake_service_of(world->fake), world->identity, &world->tenants).code,
                     ERR_OK);
}

static void world_close(struct world *world)
{
    tenant_service_close(world->tenants);
    identity_close(world->identity);
    fake_service_close(world->fake);
    (void)unlink(world->path);
}

static struct credentials bearer(const char *header)
{
    return (struct credentials){.authorization = header,
                                .authorization_bytes = header ? strlen(header) : 0,
                                .n_authorizations = header != NULL};
}

static err_t ask(struct identity *identity, const char *header, const struct peer_names *peer,
                 struct caller *caller)
{
    struct credentials credentials = bearer(header);
    credentials.peer = peer;
    *caller = (struct caller){.tenant = ""};
    return identity_authenticate(identity, &credentials, caller);
}

static void expect_tenant(struct identity *identity, const char *header, const struct peer_names *peer,
                          const char *tenant)
{
    struct caller caller;
    err_t e = ask(identity, header, peer, &caller);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_string_equal(caller.tenant, tenant);
}

static void expect_refusal(struct identity *identity, const char *header, const struct peer_names *peer,
                           enum err_code code)
{
    struct caller caller;
    err_t e = ask(identity, header, peer, &caller);
    assert_int_equal(e.code, code);
    assert_null(strstr(e.message, "key-of"));
    assert_string_equal(caller.tenant, "");
}

static struct peer_names peer_of(const char *uri)
{
    struct peer_names peer = {.has_certificate = true};
    peer_names_add(&peer, PEER_NAME_DNS, "any.example", 11);
    peer_names_add(&peer, PEER_NAME_URI, uri, strlen(uri));
    return peer;
}

static void keys_and_certificates_name_tenants(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "", "admin=yes");
    struct identity *identity = world.identity;
    struct peer_names known = peer_of("spiffe://x/b"), unknown = peer_of("spiffe://x/c"), none = {.n = 0};
    expect_tenant(identity, "Bearer key-of-a", NULL, "a");
    expect_tenant(identity, "bearer  key-of-b", NULL, "b");
    static const char *const wrong[] = {
        "Bearer key-of-",   "Bearer key-of-aa",        "Bearer ", "Bearer", "Basic key-of-a", "key-of-a", "",
        "Bearer key-of-a ", "Bearer key-of-a,key-of-b"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        expect_refusal(identity, wrong[i], NULL, ERR_UNAUTHENTICATED);
    expect_refusal(identity, NULL, NULL, ERR_UNAUTHENTICATED);
    expect_tenant(identity, NULL, &known, "b");
    expect_tenant(identity, "Bearer key-of-a", &known, "a");
    expect_tenant(identity, "Bearer key-of-a", &unknown, "a");
    expect_refusal(identity, "Bearer wrong", &known, ERR_UNAUTHENTICATED);
    expect_refusal(identity, NULL, &unknown, ERR_UNAUTHENTICATED);
    expect_refusal(identity, NULL, &none, ERR_UNAUTHENTICATED);
    struct caller caller;
    assert_int_equal(ask(identity, "Bearer key-of-a", NULL, &caller).code, ERR_OK);
    assert_false(caller.is_admin);
    assert_int_equal(ask(identity, "Bearer key-of-b", NULL, &caller).code, ERR_OK);
    assert_true(caller.is_admin);
    struct credentials twice = bearer("Bearer key-of-a");
    twice.n_authorizations = 2;
    assert_int_equal(identity_authenticate(identity, &twice, &caller).code, ERR_UNAUTHENTICATED);
    world_close(&world);
}

static struct identity *open_flags(const struct identity_options *options)
{
    struct identity *identity;
    err_t e = identity_open(options, &identity);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return identity;
}

static void flags_alone(void **state)
{
    (void)state;
    const char *keys[] = {"first", "second"}, *names[] = {"spiffe://x/a", "dns:c.example"};
    struct peer_names listed = peer_of("spiffe://x/a"), other = peer_of("spiffe://x/z"), none = {.n = 0};
    struct identity_options options = {.keys = keys, .n_keys = 2, .clock = clock_monotonic()};
    struct identity *identity = open_flags(&options);
    expect_tenant(identity, "Bearer first", NULL, "default");
    expect_tenant(identity, "Bearer second", &other, "default");
    expect_refusal(identity, "Bearer third", NULL, ERR_UNAUTHENTICATED);
    expect_refusal(identity, NULL, &other, ERR_UNAUTHENTICATED);
    identity_close(identity);
    /* With a list of names, a certificate needs one of them, and alone it is enough. */
    options =
        (struct identity_options){.client_names = names, .n_client_names = 2, .clock = clock_monotonic()};
    identity = open_flags(&options);
    expect_tenant(identity, NULL, &listed, "default");
    expect_refusal(identity, NULL, &other, ERR_PERMISSION_DENIED);
    expect_refusal(identity, NULL, &none, ERR_UNAUTHENTICATED);
    identity_close(identity);
    /* With keys too, both are needed. */
    options.keys = keys;
    options.n_keys = 1;
    identity = open_flags(&options);
    expect_tenant(identity, "Bearer first", &listed, "default");
    expect_refusal(identity, NULL, &listed, ERR_UNAUTHENTICATED);
    expect_refusal(identity, "Bearer first", &other, ERR_PERMISSION_DENIED);
    identity_close(identity);
    const char *bad_keys[] = {"a b"}, *bad_names[] = {"*.example"};
    options = (struct identity_options){.keys = bad_keys, .n_keys = 1, .clock = clock_monotonic()};
    assert_int_equal(identity_open(&options, &identity).code, ERR_INVALID_ARGUMENT);
    options = (struct identity_options){.client_names = bad_names, .n_client_names = 1};
    assert_int_equal(identity_open(&options, &identity).code, ERR_INVALID_ARGUMENT);
    options = (struct identity_options){.keys_file = "/nowhere/tenants"};
    assert_int_equal(identity_open(&options, &identity).code, ERR_NOT_FOUND);
}

static void a_changed_file_is_read_again(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "", "");
    struct identity *identity = world.identity;
    write_file(&world, "tenant a\ntenant c\n");
    expect_tenant(identity, "Bearer key-of-a", NULL, "a"); /* nobody has looked yet */
    identity_refresh(identity, false);
    expect_refusal(identity, "Bearer key-of-a", NULL, ERR_UNAUTHENTICATED);
    write_tenants(&world, "", "");
    identity_refresh(identity, false);
    expect_tenant(identity, "Bearer key-of-a", NULL, "a");
    /* A bad one, and none: the old one stays. */
    write_file(&world, "tenant a\nkey nothing a\n");
    identity_refresh(identity, false);
    expect_tenant(identity, "Bearer key-of-a", NULL, "a");
    assert_int_equal(unlink(world.path), 0);
    identity_refresh(identity, false);
    identity_refresh(identity, true);
    expect_tenant(identity, "Bearer key-of-b", NULL, "b");
    write_file(&world, "tenant c\n");
    identity_refresh(identity, false);
    expect_refusal(identity, "Bearer key-of-b", NULL, ERR_UNAUTHENTICATED);
    world_close(&world);
}

/* --- behind the tenants' service */

static err_t submit(struct world *world, const char *tenant, const char *id, struct stream **out)
{
    static const char text[] = "0123456789012345678901234567890123456789"; /* 40 tokens of the fake service */
    struct request request = {.tenant = tenant,
                              .request_id = id,
                              .prompt_kind = PROMPT_TEXT,
                              .text = text,
                              .text_bytes = sizeof text - 1,
                              .deadline_ns = REQUEST_NO_DEADLINE};
    request.sampling.set = SAMPLING_MAX_TOKENS;
    request.sampling.max_tokens = 5;
    struct service *service = tenant_service_of(world->tenants);
    return service->vtable->submit(service, &request, out);
}

static void read_all(struct world *world, struct stream *stream)
{
    struct service *service = tenant_service_of(world->tenants);
    struct event event;
    do {
        uint32_t seen = event_count_read(service->vtable->progress(service));
        if (!service->vtable->stream_next(stream, &event)) {
            event_count_wait(service->vtable->progress(service), seen, -1);
            event.last = false;
        }
    } while (!event.last);
}

static void release(struct world *world, struct stream *stream)
{
    tenant_service_of(world->tenants)->vtable->stream_release(stream);
}

static uint32_t tokens_left(struct world *world, const char *tenant)
{
    struct tenant_rates rates;
    assert_true(identity_rates(world->identity, tenant, &rates));
    return rates.tokens.remaining;
}

static void tokens_are_counted_as_they_come(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "tokens-per-minute=1000", "");
    struct stream *stream;
    fake_service_hold(world.fake, true);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    assert_int_equal(tokens_left(&world, "a"), 1000 - (40 / 4 + 1)); /* a guess at the prompt */
    fake_service_hold(world.fake, false);
    read_all(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 40 - 5);
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 40 - 5);
    /* Who goes before the first token has had a prompt computed. */
    fake_service_hold(world.fake, true);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 45 - 11);
    /* What the service refuses costs nothing. */
    fake_service_fail_submit(world.fake, ERR_INVALID_ARGUMENT);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 45 - 11);
    world_close(&world);
}

/* Of answers without ids: a guess while they pass, then what who answered tells. */
static void tokens_of_others_are_charged_as_told(void **state)
{
    (void)state;
    struct world world;
    struct stream *stream;
    struct event event;
    world_open(&world, "tokens-per-minute=1000", "");
    fake_service_pass_on(world.fake, script_tool_answer, 3);
    struct tenant_service *tenants;
    assert_int_equal(tenant_service_open(fake_service_of(world.fake), world.identity, &tenants).code, ERR_OK);
    tenant_service_close(world.tenants);
    world.tenants = tenants;
    struct service *service = tenant_service_of(tenants);
    struct model_card card;
    assert_true(service->vtable->passes_on);
    assert_true(service->vtable->model_card(service, 1, &card));
    assert_string_equal(card.name, "strong");
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    assert_true(service->vtable->stream_next(stream, &event)); /* 7 bytes of text */
    assert_int_equal(tokens_left(&world, "a"), 1000 - 11 - 2);
    assert_true(service->vtable->stream_next(stream, &event)); /* 2 of reasoning, 6 of arguments */
    assert_int_equal(tokens_left(&world, "a"), 1000 - 11 - 4);
    read_all(&world, stream);
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 11 - 7); /* 11 and 7 are told */
    /* Who goes early pays the guess; and so does everybody where nobody tells. */
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    assert_true(service->vtable->stream_next(stream, &event));
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 18 - 13);
    fake_service_pass_on(world.fake, script_refusal, 2);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    read_all(&world, stream);
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 31 - 11 - 2 - 1);
    /* Of n > 1 one end may tell for all. */
    fake_service_pass_on(world.fake, script_two_choices, 3);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    read_all(&world, stream);
    release(&world, stream);
    assert_int_equal(tokens_left(&world, "a"), 1000 - 45 - 5 - 9);
    world_close(&world);
}

static void quotas_refuse_and_come_back(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "requests-per-minute=2", "max-concurrent=1");
    struct stream *streams[3];
    assert_int_equal(submit(&world, "a", NULL, &streams[0]).code, ERR_OK);
    assert_int_equal(submit(&world, "a", NULL, &streams[1]).code, ERR_OK);
    err_t e = submit(&world, "a", NULL, &streams[2]);
    assert_int_equal(e.code, ERR_QUOTA_EXCEEDED);
    assert_in_range(e.retry_after_ms, 30000, 30001);
    assert_non_null(strstr(e.message, "2 requests a minute"));
    release(&world, streams[0]);
    release(&world, streams[1]);
    assert_int_equal(submit(&world, "a", NULL, &streams[0]).code, ERR_QUOTA_EXCEEDED);
    world.clock.now_ns += e.retry_after_ms * 1000000;
    assert_int_equal(submit(&world, "a", NULL, &streams[0]).code, ERR_OK);
    release(&world, streams[0]);
    /* The other tenant has limits of its own. */
    assert_int_equal(submit(&world, "b", NULL, &streams[0]).code, ERR_OK);
    e = submit(&world, "b", NULL, &streams[1]);
    assert_int_equal(e.code, ERR_QUOTA_EXCEEDED);
    assert_int_equal(e.retry_after_ms, 0);
    release(&world, streams[0]);
    assert_int_equal(submit(&world, "b", NULL, &streams[0]).code, ERR_OK);
    release(&world, streams[0]);
    world_close(&world);
}

static void use_outlives_a_reload(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "requests-per-minute=1", "max-concurrent=1");
    struct stream *stream, *other;
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK);
    assert_int_equal(submit(&world, "b", NULL, &other).code, ERR_OK);
    identity_refresh(world.identity, true);
    struct stream *refused;
    assert_int_equal(submit(&world, "a", NULL, &refused).code, ERR_QUOTA_EXCEEDED);
    assert_int_equal(submit(&world, "b", NULL, &refused).code, ERR_QUOTA_EXCEEDED);
    /* A tenant that is gone keeps its running request and gets no other. */
    write_file(&world, "tenant a\n");
    identity_refresh(world.identity, false);
    assert_int_equal(submit(&world, "b", NULL, &refused).code, ERR_UNAUTHENTICATED);
    read_all(&world, other);
    release(&world, other);
    release(&world, stream);
    assert_int_equal(submit(&world, "a", NULL, &stream).code, ERR_OK); /* its limit has gone too */
    release(&world, stream);
    world_close(&world);
}

static void wishes_are_the_tenants(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "priority=5 best-priority=2", "cache=shared:a");
    static const int32_t asked[] = {0, 1, 2, 3, 9, -7}, given[] = {5, 2, 2, 3, 9, 2};
    struct service *service = tenant_service_of(world.tenants);
    struct stream *stream;
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        uint32_t id = 7;
        struct request request = {.tenant = "a",
                                  .priority = asked[i],
                                  .prompt_kind = PROMPT_TOKEN_IDS,
                                  .token_ids = &id,
                                  .n_token_ids = 1,
                                  .deadline_ns = REQUEST_NO_DEADLINE};
        assert_int_equal(service->vtable->submit(service, &request, &stream).code, ERR_OK);
        assert_int_equal(fake_service_asked(world.fake).priority, given[i]);
        assert_string_equal(fake_service_asked(world.fake).tenant, "a");
        release(&world, stream);
    }
    char own[256];
    memcpy(own, fake_service_asked(world.fake).cache_salt, sizeof own);
    assert_int_equal(submit(&world, "b", NULL, &stream).code, ERR_OK);
    assert_string_not_equal(fake_service_asked(world.fake).cache_salt, own); /* a group named like a tenant */
    assert_true(strlen(own) > 0 && strlen(fake_service_asked(world.fake).cache_salt) > 0);
    release(&world, stream);
    world_close(&world);
}

static void requests_of_others_are_out_of_reach(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "", "");
    fake_service_hold(world.fake, true);
    struct service *service = tenant_service_of(world.tenants);
    struct stream *stream;
    assert_int_equal(submit(&world, "a", "mine", &stream).code, ERR_OK);
    assert_false(service->vtable->abort(service, "b", "mine"));
    assert_false(service->vtable->abort(service, "", "mine"));
    assert_false(service->vtable->abort(service, NULL, "mine"));
    assert_true(service->vtable->abort(service, "a", "mine"));
    read_all(&world, stream);
    release(&world, stream);
    /* A door that asks nobody gets nothing. */
    assert_int_equal(submit(&world, "", NULL, &stream).code, ERR_UNAUTHENTICATED);
    assert_int_equal(submit(&world, NULL, NULL, &stream).code, ERR_UNAUTHENTICATED);
    assert_int_equal(submit(&world, "c", NULL, &stream).code, ERR_UNAUTHENTICATED);
    world_close(&world);
}

/* --- threads */

struct crowd {
    struct world *world;
    _Atomic bool ends;
    _Atomic uint32_t n_served;
};

static void *come_and_go(void *argument)
{
    struct crowd *crowd = argument;
    for (int i = 0; i < 300; i++) {
        struct caller caller;
        struct stream *stream;
        struct credentials credentials = bearer("Bearer key-of-a");
        if (identity_authenticate(crowd->world->identity, &credentials, &caller).code != ERR_OK ||
            submit(crowd->world, caller.tenant, NULL, &stream).code != ERR_OK)
            continue;
        read_all(crowd->world, stream);
        release(crowd->world, stream);
        atomic_fetch_add(&crowd->n_served, 1);
    }
    return NULL;
}

static void *reload_meanwhile(void *argument)
{
    struct crowd *crowd = argument;
    while (!atomic_load(&crowd->ends))
        identity_refresh(crowd->world->identity, true);
    return NULL;
}

static void reloads_disturb_nobody(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "max-concurrent=3 tokens-per-minute=100000000", "");
    struct crowd crowd = {.world = &world};
    pthread_t threads[3], reloader;
    assert_int_equal(pthread_create(&reloader, NULL, reload_meanwhile, &crowd), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &crowd), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&crowd.ends, true);
    pthread_join(reloader, NULL);
    assert_int_equal(atomic_load(&crowd.n_served), 900);
    assert_int_equal(tokens_left(&world, "a"), 100000000 - 900 * 45);
    world_close(&world);
}

static void without_memory_nothing_is_left_open(void **state)
{
    (void)state;
    struct world world;
    world_open(&world, "", "");
    const char *keys[] = {"first"}, *names[] = {"dns:c.example"};
    struct identity_options options = {.keys_file = world.path,
                                       .keys = keys,
                                       .n_keys = 1,
                                       .client_names = names,
                                       .n_client_names = 1,
                                       .clock = &world.clock.clock};
    for (int nth = 0;; nth++) {
        struct identity *identity;
        mem_fail_nth(nth);
        err_t e = identity_open(&options, &identity);
        mem_fail_nth(-1);
        if (e.code == ERR_OK) {
            assert_true(nth > 5);
            identity_close(identity);
            break;
        }
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    }
    world_close(&world);
}

int main(void)
{
    log_init(LOG_ERROR, LOG_FORMAT_TEXT); /* thousands of reloads */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_certificates_name_tenants),
        cmocka_unit_test(flags_alone),
        cmocka_unit_test(a_changed_file_is_read_again),
        cmocka_unit_test(tokens_are_counted_as_they_come),
        cmocka_unit_test(tokens_of_others_are_charged_as_told),
        cmocka_unit_test(quotas_refuse_and_come_back),
        cmocka_unit_test(use_outlives_a_reload),
        cmocka_unit_test(wishes_are_the_tenants),
        cmocka_unit_test(requests_of_others_are_out_of_reach),
        cmocka_unit_test(reloads_disturb_nobody),
        cmocka_unit_test(without_memory_nothing_is_left_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
