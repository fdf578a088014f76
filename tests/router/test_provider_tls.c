/* Calls over TLS, to our own HTTP door as the provider: who is trusted, and who is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buffer.h"
#include "base/event_count.h"
#include "proto/http_door.h"
#include "proto/tls_files.h"
#include "router/providers/provider_call.h"
#include "tests/proto/cert_maker.h"
#include "tests/proto/fake_service.h"

enum { VALID_S = 3000, PATH_BYTES = 96 };

struct world {
    char folder[64], ca[PATH_BYTES], cert[PATH_BYTES], key[PATH_BYTES];
    struct cert_authority *authority;
    struct tls_files *files;
    struct fake_service *fake;
    struct http_door *door;
};

static void open_world(struct world *world, const char *alternatives, long valid_s)
{
    *world = (struct world){.folder = "/tmp/bantam-provider-XXXXXX"};
    assert_non_null(mkdtemp(world->folder));
    snprintf(world->ca, PATH_BYTES, "%s/ca.pem", world->folder);
    snprintf(world->cert, PATH_BYTES, "%s/server.pem", world->folder);
    snprintf(world->key, PATH_BYTES, "%s/server.key", world->folder);
    world->authority = cert_authority_make();
    cert_authority_write(world->authority, world->ca);
    cert_make(world->authority, alternatives, valid_s, world->cert, world->key);
    struct tls_options tls = {world->cert, world->key, NULL, TLS_CLIENT_CERTS_NONE};
    struct fake_options fake = {0};
    struct http_door_options options = http_door_options_default();
    assert_int_equal(tls_files_open(&tls, &world->files).code, ERR_OK);
    assert_int_equal(fake_service_open(&fake, &world->fake).code, ERR_OK);
    options.port = 0;
    options.tls = world->files;
    assert_int_equal(http_door_open(fake_service_of(world->fake), &options, &world->door).code, ERR_OK);
}

static void close_world(struct world *world)
{
    http_door_close(world->door);
    fake_service_close(world->fake);
    tls_files_close(world->files);
    cert_authority_free(world->authority);
    unlink(world->ca);
    unlink(world->cert);
    unlink(world->key);
    assert_int_equal(rmdir(world->folder), 0);
}

struct hearer {
    size_t n_text_bytes;
    enum answer_finish finish;
    err_t error;
    struct answer_usage usage;
    struct event_count ended;
};

static err_t take_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct hearer *hearer = context;
    (void)pause;
    hearer->n_text_bytes += piece->text_bytes;
    if (piece->kind == ANSWER_FINISH)
        hearer->finish = piece->finish;
    return err_ok();
}

static void take_end(void *context, const struct provider_result *result)
{
    struct hearer *hearer = context;
    hearer->error = result->error;
    hearer->usage = result->usage;
    event_count_bump(&hearer->ended);
}

static const struct provider_handler HANDLER = {.piece = take_piece, .end = take_end};

static void run_call(const struct world *world, const char *ca_file, bool is_stream, struct hearer *hearer)
{
    struct egress *egress;
    struct egress_options options = egress_options_default();
    options.ca_file = ca_file;
    assert_int_equal(egress_open(&options, &egress).code, ERR_OK);
    char url[64];
    snprintf(url, sizeof url, "https://localhost:%u/v1", http_door_port(world->door));
    struct provider_model model = {.kind = PROVIDER_COMPATIBLE, .name = ""};
    struct provider provider = {
        .name = "p", .kind = PROVIDER_COMPATIBLE, .url = url, .models = &model, .n_models = 1};
    json_t *request =
        json_pack("{s:[{s:s, s:s}], s:i}", "messages", "role", "user", "content", "Hi", "max_tokens", 5);
    struct provider_dropped dropped;
    uint64_t number;
    *hearer = (struct hearer){0};
    struct shareable shareable;
    assert_true(privacy_release(&(struct policy_decision){0}, false, request, &shareable));
    err_t e = provider_call_start(egress, &provider, &model, &shareable, is_stream, &HANDLER, hearer,
                                  &dropped, &number);
    assert_int_equal(e.code, ERR_OK);
    shareable_free(&shareable);
    json_decref(request);
    while (event_count_read(&hearer->ended) == 0)
        event_count_wait(&hearer->ended, 0, -1);
    egress_close(egress);
}

static void a_trusted_provider_answers(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, "DNS:localhost", VALID_S);
    for (int is_stream = 0; is_stream < 2; is_stream++) {
        struct hearer hearer;
        run_call(&world, world.ca, is_stream, &hearer);
        if (hearer.error.code != ERR_OK)
            fail_msg("%s", hearer.error.message);
        assert_true(hearer.n_text_bytes > 0);
        assert_int_equal(hearer.finish, ANSWER_LENGTH);
        assert_int_equal(hearer.usage.output_tokens, 5);
    }
    close_world(&world);
}

/* Nothing of the request leaves: the service behind the door has heard of none. */
static void assert_not_trusted(const struct world *world, const char *ca_file)
{
    struct hearer hearer;
    run_call(world, ca_file, true, &hearer);
    assert_int_equal(hearer.error.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(hearer.error.message, "cannot be reached"));
    assert_int_equal(hearer.n_text_bytes, 0);
    assert_int_equal(fake_service_counts(world->fake).submitted, 0);
}

static void others_are_not(void **state)
{
    (void)state;
    struct world world;
    open_world(&world, "DNS:localhost", VALID_S);
    assert_not_trusted(&world, NULL); /* the system knows nothing of this authority */
    close_world(&world);
    open_world(&world, "DNS:elsewhere.example", VALID_S);
    assert_not_trusted(&world, world.ca);
    close_world(&world);
    open_world(&world, "DNS:localhost", -60);
    assert_not_trusted(&world, world.ca);
    close_world(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_trusted_provider_answers),
        cmocka_unit_test(others_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
