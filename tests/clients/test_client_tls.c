/* The client's TLS, keys and files against a door that asks for them. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "proto/identity.h"
#include "proto/tls_files.h"
#include "tests/clients/client_world.h"
#include "tests/proto/cert_maker.h"

enum { PATH_BYTES = 96 };

struct secured {
    char folder[64], target[32];
    char ca[PATH_BYTES], other_ca[PATH_BYTES], cert[PATH_BYTES], key[PATH_BYTES], client_cert[PATH_BYTES],
        client_key[PATH_BYTES], key_file[PATH_BYTES], empty[PATH_BYTES];
    struct tls_files *files;
    struct identity *identity;
    struct fake_service *fake;
    struct grpc_door *door;
};

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void make_files(struct secured *secured)
{
    struct {
        char *path;
        const char *name;
    } files[] = {{secured->ca, "ca.pem"},           {secured->other_ca, "other.pem"},
                 {secured->cert, "server.pem"},     {secured->key, "server.key"},
                 {secured->client_cert, "cli.pem"}, {secured->client_key, "cli.key"},
                 {secured->key_file, "api.txt"},    {secured->empty, "empty.pem"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        (void)snprintf(files[i].path, PATH_BYTES, "%s/%s", secured->folder, files[i].name);
    struct cert_authority *authority = cert_authority_make(), *other = cert_authority_make();
    cert_make(authority, "DNS:models.example", 3000, secured->cert, secured->key);
    cert_make(authority, "URI:spiffe://example/client", 3000, secured->client_cert, secured->client_key);
    cert_authority_write(authority, secured->ca);
    cert_authority_write(other, secured->other_ca);
    cert_authority_free(authority);
    cert_authority_free(other);
    write_text(secured->key_file, "sk-good\r\n");
    write_text(secured->empty, "nothing\n");
}

static void secured_open(struct secured *secured, enum tls_client_certs client_certs)
{
    static const char *const keys[] = {"sk-good"};
    *secured = (struct secured){.folder = "/tmp/bantam-client-tls-XXXXXX"};
    assert_non_null(mkdtemp(secured->folder));
    make_files(secured);
    struct tls_options tls = {secured->cert, secured->key, client_certs ? secured->ca : NULL, client_certs};
    struct identity_options identity = {.keys = keys, .n_keys = 1, .clock = clock_monotonic()};
    struct fake_options fake = {0};
    assert_int_equal(tls_files_open(&tls, &secured->files).code, ERR_OK);
    assert_int_equal(identity_open(&identity, &secured->identity).code, ERR_OK);
    assert_int_equal(fake_service_open(&fake, &secured->fake).code, ERR_OK);
    struct grpc_door_options options = grpc_door_options_default();
    options.port = 0;
    options.tls = secured->files;
    options.identity = secured->identity;
    assert_int_equal(grpc_door_open(fake_service_of(secured->fake), &options, &secured->door).code, ERR_OK);
    (void)snprintf(secured->target, sizeof secured->target, "127.0.0.1:%u", grpc_door_port(secured->door));
}

static void secured_close(struct secured *secured)
{
    grpc_door_close(secured->door);
    fake_service_close(secured->fake);
    identity_close(secured->identity);
    tls_files_close(secured->files);
    const char *paths[] = {secured->ca,          secured->other_ca,   secured->cert,     secured->key,
                           secured->client_cert, secured->client_key, secured->key_file, secured->empty};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        (void)unlink(paths[i]);
    assert_int_equal(rmdir(secured->folder), 0);
}

static struct bantam_client_options good_options(const struct secured *secured)
{
    struct bantam_client_options options = bantam_client_options_default();
    options.target = secured->target;
    options.own_connection = true;
    options.ca_file = secured->ca;
    options.server_name = "models.example";
    options.api_key = "sk-good";
    options.retry.max_attempts = 1;
    return options;
}

/* What one question to the server comes to. */
static err_t outcome_of(const struct bantam_client_options *options)
{
    const struct bantam_query query = {.method = BANTAM_MODEL_INFO};
    struct bantam_client *client;
    struct bantam_reply *reply = NULL;
    err_t e = bantam_client_open(options, &client);
    if (e.code != ERR_OK)
        return e;
    e = bantam_client_ask(client, &query, NULL, &reply);
    bantam_reply_free(reply);
    bantam_client_close(client);
    return e;
}

static void keys_and_authorities(void **state)
{
    (void)state;
    struct secured secured;
    secured_open(&secured, TLS_CLIENT_CERTS_NONE);
    struct bantam_client_options options = good_options(&secured);
    assert_int_equal(outcome_of(&options).code, ERR_OK);
    options.api_key = NULL;
    assert_int_equal(outcome_of(&options).code, ERR_UNAUTHENTICATED);
    options.api_key_file = secured.key_file;
    assert_int_equal(outcome_of(&options).code, ERR_OK);
    options.api_key = "sk-good";
    assert_int_equal(outcome_of(&options).code, ERR_INVALID_ARGUMENT); /* both */
    options.api_key_file = NULL;
    options.api_key = "sk-bad";
    assert_int_equal(outcome_of(&options).code, ERR_UNAUTHENTICATED);
    options.api_key = "sk-\ngood";
    err_t e = outcome_of(&options);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_null(strstr(e.message, "sk-")); /* a key is in no message */
    options = good_options(&secured);
    options.ca_file = secured.other_ca;
    assert_int_equal(outcome_of(&options).code, ERR_UNAVAILABLE);
    options = good_options(&secured);
    options.server_name = NULL; /* 127.0.0.1 is not its name */
    assert_int_equal(outcome_of(&options).code, ERR_UNAVAILABLE);
    options = good_options(&secured);
    options.ca_file = options.server_name = NULL; /* in clear */
    assert_int_equal(outcome_of(&options).code, ERR_UNAVAILABLE);
    options.tls = true; /* the system's authorities do not know ours */
    assert_int_equal(outcome_of(&options).code, ERR_UNAVAILABLE);
    secured_close(&secured);
}

static void certificates_of_clients(void **state)
{
    (void)state;
    struct secured secured;
    secured_open(&secured, TLS_CLIENT_CERTS_REQUIRED);
    struct bantam_client_options options = good_options(&secured);
    assert_int_equal(outcome_of(&options).code, ERR_UNAVAILABLE);
    options.cert_file = secured.client_cert;
    options.key_file = secured.client_key;
    assert_int_equal(outcome_of(&options).code, ERR_OK);
    secured_close(&secured);
}

static void wrong_files_are_named(void **state)
{
    (void)state;
    struct secured secured;
    secured_open(&secured, TLS_CLIENT_CERTS_NONE);
    struct bantam_client_options options = good_options(&secured);
    options.ca_file = secured.empty;
    err_t e = outcome_of(&options);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "empty.pem"));
    options.ca_file = "/nowhere/ca.pem";
    assert_int_equal(outcome_of(&options).code, ERR_NOT_FOUND);
    options = good_options(&secured);
    options.cert_file = secured.client_cert;
    assert_int_equal(outcome_of(&options).code, ERR_INVALID_ARGUMENT); /* without its key */
    options.key_file = secured.client_cert;
    e = outcome_of(&options);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "PRIVATE KEY"));
    options = good_options(&secured);
    options.api_key = NULL;
    options.api_key_file = "/nowhere/key";
    assert_int_equal(outcome_of(&options).code, ERR_NOT_FOUND);
    char *huge = mem_alloc(BANTAM_PEM_BYTES_MAX + 2);
    memset(huge, 'x', BANTAM_PEM_BYTES_MAX + 1);
    write_text(secured.empty, huge);
    options = good_options(&secured);
    options.ca_file = secured.empty;
    assert_int_equal(outcome_of(&options).code, ERR_RESOURCE_EXHAUSTED);
    options = good_options(&secured);
    options.api_key = NULL;
    options.api_key_file = secured.empty;
    huge[BANTAM_KEY_FILE_BYTES_MAX + 1] = '\0';
    write_text(secured.empty, huge);
    assert_int_equal(outcome_of(&options).code, ERR_RESOURCE_EXHAUSTED);
    mem_free(huge);
    struct bantam_header headers[BANTAM_HEADERS_MAX + 1];
    for (int i = 0; i <= BANTAM_HEADERS_MAX; i++)
        headers[i] = (struct bantam_header){"x-a", "b", 1};
    options = good_options(&secured);
    options.headers = headers;
    options.n_headers = BANTAM_HEADERS_MAX + 1;
    assert_int_equal(outcome_of(&options).code, ERR_INVALID_ARGUMENT);
    options.n_headers = BANTAM_HEADERS_MAX - 1; /* the key is one more */
    assert_int_equal(outcome_of(&options).code, ERR_OK);
    options = good_options(&secured);
    options.max_calls = 0;
    assert_int_equal(outcome_of(&options).code, ERR_INVALID_ARGUMENT);
    options = good_options(&secured);
    options.target = "";
    assert_int_equal(outcome_of(&options).code, ERR_INVALID_ARGUMENT);
    secured_close(&secured);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_authorities),
        cmocka_unit_test(certificates_of_clients),
        cmocka_unit_test(wrong_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
