/* `local:` in YAML, right and wrong; targets, and the addresses that their names have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/local/local_fleet.h"
#include "router/local/replica_target.h"

static char *only_key(const char *name)
{
    static char key[] = "secret-1", salt[] = "secret-of-16-byt";
    if (strcmp(name, "SALT") == 0)
        return salt;
    return strcmp(name, "KEY") == 0 ? key : NULL;
}

struct config {
    struct yaml_file *file;
    struct local_model_options *models;
    size_t n;
};

static err_t read_config(const char *text, struct config *out)
{
    *out = (struct config){NULL, NULL, 0};
    TRY(yaml_file_parse("route.yaml", text, strlen(text), &out->file));
    struct yaml_value root = yaml_root(out->file), local = yaml_at(&root, "local");
    return local_models_read(&local, only_key, &out->models, &out->n);
}

static void forget(struct config *config)
{
    local_models_free(config->models, config->n);
    yaml_file_close(config->file);
}

static void assert_wrong(const char *text, const char *message)
{
    struct config config;
    err_t e = read_config(text, &config);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_null(config.models);
    if (strstr(e.message, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.message, message);
    assert_null(strstr(e.message, "secret"));
    forget(&config);
}

static void everything_is_read(void **state)
{
    (void)state;
    struct config config;
    err_t e =
        read_config("local:\n"
                    "  - name: demo\n"
                    "    targets: [\"127.0.0.1:50051\", \"dns:///engines.svc:50051\", \"[::1]:1\"]\n"
                    "    model: tickets\n"
                    "    tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name: e.svc}\n"
                    "    key_env: KEY\n"
                    "    cost: {per_hour: 0.40}\n"
                    "    salt: {key_env: SALT}\n"
                    "  - name: big\n"
                    "    targets: [\"unix:/run/bantam.sock\"]\n"
                    "    tls: {}\n"
                    "    cost: {watts: 65, per_kwh: 0.30}\n"
                    "  - {name: plain, targets: [\"ipv4:10.0.0.1:50051\"]}\n",
                    &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(config.n, 3);
    const struct local_model_options *demo = &config.models[0], *big = &config.models[1],
                                     *plain = &config.models[2];
    assert_string_equal(demo->name, "demo");
    assert_string_equal(demo->model, "tickets");
    assert_int_equal(demo->n_targets, 3);
    assert_string_equal(demo->targets[1], "dns:///engines.svc:50051");
    assert_true(demo->tls && big->tls && !plain->tls);
    assert_string_equal(demo->ca_file, "ca.pem");
    assert_string_equal(demo->cert_file, "c.pem");
    assert_string_equal(demo->key_file, "k.pem");
    assert_string_equal(demo->server_name, "e.svc");
    assert_string_equal(demo->api_key, "secret-1");
    assert_int_equal(demo->nanodollars_per_hour, 400000000);
    assert_int_equal(big->nanodollars_per_hour, 19500000);
    assert_null(plain->model);
    assert_null(plain->api_key);
    assert_string_equal(demo->salt_key, "secret-of-16-byt");
    assert_null(plain->salt_key);
    assert_int_equal(plain->nanodollars_per_hour, 0);
    forget(&config);
    assert_int_equal(read_config("other: 1\n", &config).code, ERR_OK);
    assert_int_equal(config.n, 0);
    forget(&config);
}

#define DEMO  "local:\n  - name: demo\n"
#define WHERE "    targets: [\"h:1\"]\n"

static void errors_say_where(void **state)
{
    (void)state;
    assert_wrong("local: 3\n", "route.yaml:1: local: this is a single value; it must be a list");
    assert_wrong(DEMO, "local[0].targets must be given");
    assert_wrong("local:\n  - targets: [\"h:1\"]\n", "local[0].name must be given");
    assert_wrong("local:\n  - name: a/b\n" WHERE,
                 "route.yaml:2: local[0].name: a local model's name has letters");
    assert_wrong(DEMO WHERE "    port: 3\n", "route.yaml:4: local[0]: unknown key \"port\"");
    assert_wrong(DEMO "    targets: []\n", "there must be a target");
    assert_wrong(DEMO "    targets: [\"h\"]\n",
                 "route.yaml:3: local[0].targets[0]: \"h\" must end in a port");
    assert_wrong(DEMO "    targets: [\"h:1\", \"h:1\"]\n", "targets[1]: the target \"h:1\" is there twice");
    assert_wrong(DEMO WHERE "    tls: {cert_file: c}\n", "local[0].tls: cert_file and key_file go together");
    assert_wrong(DEMO WHERE "    key_env: OTHER\n", "the environment has no variable OTHER");
    assert_wrong(DEMO WHERE "    key_env: KEY\n    key_file: k\n", "which?");
    assert_wrong(DEMO WHERE "    key: secret\n", "unknown key \"key\"");
    assert_wrong(DEMO WHERE "    salt: {}\n", "local[0].salt: it must be {key_env: NAME}");
    assert_wrong(DEMO WHERE "    salt: {key_env: KEY}\n", "the key must have 16 bytes at least");
    assert_wrong(DEMO WHERE "    salt: {key: secret}\n", "unknown key \"key\"");
    assert_wrong(DEMO WHERE "    cost: {watts: 65}\n", "local[0].cost: it must be {per_hour");
    assert_wrong(DEMO WHERE "    cost: {per_hour: 1, watts: 65, per_kwh: 1}\n", "it must be {per_hour");
    assert_wrong(DEMO WHERE "    cost: {per_hour: cheap}\n", "\"cheap\" is not an amount in dollars");
    assert_wrong(DEMO WHERE "  - name: demo\n" WHERE,
                 "route.yaml:4: local[1]: the local model \"demo\" is there twice");
}

static void limits_are_kept(void **state)
{
    (void)state;
    char text[8192];
    size_t used = (size_t)snprintf(text, sizeof text, "local:\n");
    for (int i = 0; i <= LOCAL_MODELS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "  - {name: m%d, targets: [\"h:1\"]}\n", i);
    assert_wrong(text, "there are 17 local models; at most 16 are read");
    used = (size_t)snprintf(text, sizeof text, DEMO "    targets:\n");
    for (int i = 0; i <= LOCAL_TARGETS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "      - h%d:1\n", i);
    assert_wrong(text, "there are 65 targets; at most 64 are read");
}

static void a_key_comes_out_of_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/key-XXXXXX", text[256];
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "secret-2\n", 9), 9);
    close(file);
    (void)snprintf(text, sizeof text, DEMO WHERE "    key_file: %s\n", path);
    struct config config;
    assert_int_equal(read_config(text, &config).code, ERR_OK);
    assert_string_equal(config.models[0].api_key, "secret-2");
    forget(&config);
    unlink(path);
    assert_int_equal(read_config(text, &config).code, ERR_NOT_FOUND);
    forget(&config);
}

static void assert_target(const char *text, const char *host, const char *port, bool is_numeric)
{
    struct replica_target target;
    err_t e = replica_target_parse(text, &target);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_string_equal(target.host, host);
    assert_string_equal(target.port, port);
    assert_int_equal(target.is_numeric, is_numeric);
}

static void targets_are_read(void **state)
{
    (void)state;
    static const char *const WRONG[] = {
        "",          "h",      "h:",         ":1",      "h:0",   "h:65536",
        "h:1x",      "h:-1",   "::1:1",      "[h]:1",   "a b:1", "ipv4:h:1",
        "ipv6:h:1",  "unix:x", "http://h:1", "dns:///", "[]:1",  "ipv4:1.2.3.4:1,1.2.3.5:1",
        "ipv6:::1:1"};
    assert_target("127.0.0.1:50051", "127.0.0.1", "50051", true);
    assert_target("[::1]:1", "::1", "1", true);
    assert_target("engines.svc:65535", "engines.svc", "65535", false);
    assert_target("dns:///a_b-c.d:2", "a_b-c.d", "2", false);
    assert_target("ipv4:10.0.0.1:3", "10.0.0.1", "3", true);
    assert_target("ipv6:[fe80::1]:3", "fe80::1", "3", true);
    assert_target("unix:/run/x.sock", "/run/x.sock", "", false);
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        struct replica_target target;
        if (replica_target_parse(WRONG[i], &target).code != ERR_INVALID_ARGUMENT)
            fail_msg("\"%s\" is taken", WRONG[i]);
    }
    char text[400];
    memset(text, 'a', sizeof text);
    memcpy(text + TARGET_HOST_BYTES_MAX, ":1", 3);
    struct replica_target target;
    assert_int_equal(replica_target_parse(text, &target).code, ERR_OK);
    memcpy(text + TARGET_HOST_BYTES_MAX, "a:1", 4);
    assert_int_equal(replica_target_parse(text, &target).code, ERR_INVALID_ARGUMENT);
}

static void what_is_here_is_told(void **state)
{
    (void)state;
    static const char *const HERE[] = {"127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/run/x"},
                             *const ELSEWHERE[] = {"128.0.0.1:1", "[fe80::1]:1", "localhosts:1", "a.b:1"};
    struct replica_target target;
    for (size_t i = 0; i < sizeof HERE / sizeof *HERE; i++) {
        assert_int_equal(replica_target_parse(HERE[i], &target).code, ERR_OK);
        assert_true(replica_target_is_here(&target));
    }
    for (size_t i = 0; i < sizeof ELSEWHERE / sizeof *ELSEWHERE; i++) {
        assert_int_equal(replica_target_parse(ELSEWHERE[i], &target).code, ERR_OK);
        assert_false(replica_target_is_here(&target));
    }
}

static void names_have_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *target, *address;
    } CASES[] = {{"127.0.0.1:7", "127.0.0.1:7"},
                 {"[::1]:7", "[::1]:7"},
                 {"unix:/run/x", "unix:/run/x"},
                 {"localhost:7", "127.0.0.1:7"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct replica_target target;
        struct replica_addresses addresses;
        assert_int_equal(replica_target_parse(CASES[i].target, &target).code, ERR_OK);
        assert_int_equal(replica_target_resolve(&target, &addresses).code, ERR_OK);
        assert_int_equal(addresses.n, 1);
        assert_string_equal(addresses.address[0], CASES[i].address);
    }
    struct replica_target target;
    struct replica_addresses addresses;
    assert_int_equal(replica_target_parse("no-such-host.invalid:7", &target).code, ERR_OK);
    err_t e = replica_target_resolve(&target, &addresses);
    assert_true(e.code == ERR_NOT_FOUND || e.code == ERR_UNAVAILABLE);
    assert_int_equal(addresses.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),   cmocka_unit_test(errors_say_where),
        cmocka_unit_test(limits_are_kept),      cmocka_unit_test(a_key_comes_out_of_a_file),
        cmocka_unit_test(targets_are_read),     cmocka_unit_test(what_is_here_is_told),
        cmocka_unit_test(names_have_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
