/* Keys, names of certificates, and the file that lists them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "proto/tenant_file.h"

#define ABC_HASH  "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* FIPS 180-2 */
#define ZERO_HASH "sha256:0000000000000000000000000000000000000000000000000000000000000000"

static void keys_and_hashes(void **state)
{
    (void)state;
    char text[API_KEY_HASH_TEXT_BYTES];
    struct api_key_hash abc = api_key_hash_of("abc", 3), parsed;
    api_key_hash_format(&abc, text);
    assert_string_equal(text, ABC_HASH);
    assert_true(api_key_hash_parse(text, &parsed));
    assert_true(api_key_hash_equal(&abc, &parsed));
    for (size_t i = 0; i < API_KEY_HASH_BYTES; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct api_key_hash other = abc;
            other.bytes[i] ^= (uint8_t)(1 << bit);
            assert_false(api_key_hash_equal(&abc, &other));
        }
    }
    static const char *const bad[] = {
        "",
        "sha256:",
        "abc",
        "sha256:00",
        "md5:0000",
        ABC_HASH "0",
        "sha256:zz00000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(api_key_hash_parse(bad[i], &parsed));
}

static void fresh_keys_differ_and_can_be_sent(void **state)
{
    (void)state;
    enum { N = 100 };
    static char keys[N][API_KEY_TEXT_BYTES];
    for (int i = 0; i < N; i++) {
        assert_int_equal(api_key_make(keys[i]).code, ERR_OK);
        assert_int_equal(strlen(keys[i]), API_KEY_TEXT_BYTES - 1);
        assert_int_equal(strncmp(keys[i], "sk-bantam-", 10), 0);
        assert_true(api_key_is_well_formed(keys[i], strlen(keys[i])));
        for (int j = 0; j < i; j++)
            assert_string_not_equal(keys[i], keys[j]);
    }
    char long_key[API_KEY_BYTES_MAX + 1];
    memset(long_key, 'k', sizeof long_key);
    assert_true(api_key_is_well_formed(long_key, API_KEY_BYTES_MAX));
    assert_false(api_key_is_well_formed(long_key, API_KEY_BYTES_MAX + 1));
    assert_false(api_key_is_well_formed("", 0));
    assert_false(api_key_is_well_formed("a b", 3));
    assert_false(api_key_is_well_formed("a\xff", 2));
}

static void names_are_compared_as_they_are(void **state)
{
    (void)state;
    static const struct {
        const char *expected;
        enum peer_name_kind kind;
        const char *name;
        bool matches;
    } cases[] = {
        {"dns:api.example", PEER_NAME_DNS, "api.example", true},
        {"api.example", PEER_NAME_DNS, "API.Example", true},
        {"DNS:api.example", PEER_NAME_DNS, "xapi.example", false},
        {"dns:api.example", PEER_NAME_DNS, "*.example", false},
        {"dns:api.example", PEER_NAME_URI, "api.example", false},
        {"dns:api.example", PEER_NAME_DNS, "api.example.", false},
        {"spiffe://acme/a", PEER_NAME_URI, "spiffe://acme/a", true},
        {"uri:spiffe://acme/a", PEER_NAME_URI, "spiffe://ACME/a", false},
        {"uri:spiffe://acme/a", PEER_NAME_URI, "spiffe://acme/ab", false},
        {"ops@example", PEER_NAME_EMAIL, "ops@example", true},
        {"email:ops@example", PEER_NAME_EMAIL, "Ops@example", false},
    };
    struct peer_name_text expected;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(peer_name_parse(cases[i].expected, &expected).code, ERR_OK);
        struct peer_name name = {cases[i].kind, cases[i].name, strlen(cases[i].name)};
        if (peer_name_matches(&expected, &name) != cases[i].matches)
            fail_msg("%s against %s", cases[i].expected, cases[i].name);
    }
    /* A NUL within a name cuts nothing off. */
    assert_int_equal(peer_name_parse("dns:api.example", &expected).code, ERR_OK);
    assert_false(peer_name_matches(&expected, &(struct peer_name){PEER_NAME_DNS, "api.example\0.evil", 17}));
    static const char *const bad[] = {"", "dns:", "*.example", "uri:spiffe://acme/*", "a b", "dns:a\x01"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(peer_name_parse(bad[i], &expected).code, ERR_INVALID_ARGUMENT);
    struct peer_names names = {.n = 0};
    for (int i = 0; i < 2 * PEER_NAMES_MAX; i++)
        peer_names_add(&names, PEER_NAME_DNS, "x", 1);
    assert_int_equal(names.n, PEER_NAMES_MAX);
}

static void a_file_says_what_it_says(void **state)
{
    (void)state;
    static const char text[] =
        "# tenants\n"
        "\n"
        "tenant acme max-concurrent=8 requests-per-minute=600 tokens-per-minute=200000\r\n"
        "  tenant ops priority=-10 best-priority=-20 admin=yes cache=shared:office\n"
        "key " ABC_HASH " acme\n"
        "key " ZERO_HASH "\tops\n"
        "san uri:spiffe://acme/batch acme\n"
        "san dns:ops.example ops";
    struct tenant_file file;
    assert_int_equal(tenant_file_parse(text, sizeof text - 1, &file).code, ERR_OK);
    assert_int_equal(file.n_tenants, 2);
    assert_int_equal(file.n_keys, 2);
    assert_int_equal(file.n_names, 2);
    const struct tenant_settings *acme = &file.tenants[0], *ops = &file.tenants[1];
    assert_string_equal(acme->name, "acme");
    assert_int_equal(acme->limits.max_concurrent, 8);
    assert_int_equal(acme->limits.requests_per_minute, 600);
    assert_int_equal(acme->limits.tokens_per_minute, 200000);
    assert_false(acme->is_admin);
    assert_int_equal(acme->priority, 0);
    assert_int_equal(acme->best_priority, 0);
    assert_string_equal(acme->cache_group, "");
    assert_int_equal(ops->limits.max_concurrent, 0);
    assert_int_equal(ops->priority, -10);
    assert_int_equal(ops->best_priority, -20);
    assert_true(ops->is_admin);
    assert_string_equal(ops->cache_group, "office");
    assert_int_equal(file.keys[1].tenant, 1);
    assert_int_equal(file.names[0].tenant, 0);
    assert_int_equal(file.names[0].name.kind, PEER_NAME_URI);
    tenant_file_free(&file);
}

static void mistakes_are_named_by_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"tenant a\ntenant a\n", "line 2: tenant \"a\" stands here twice"},
        {"\n\ntenant\n", "line 3: tenant needs a name"},
        {"tenant a/b\n", "line 1: the tenant's name \"a/b\""},
        {"tenant a admin\n", "line 1: \"admin\" is no option: they are NAME=VALUE"},
        {"tenant a admin=maybe\n", "line 1: admin is \"maybe\""},
        {"tenant a speed=9\n", "line 1: \"speed\" is no option of a tenant"},
        {"tenant a priority=1 priority=1\n", "line 1: priority stands here twice"},
        {"tenant a max-concurrent=0\n", "line 1: max-concurrent is \"0\""},
        {"tenant a max-concurrent=\n", "line 1: max-concurrent is \"\""},
        {"tenant a max-concurrent= 3\n", "line 1: max-concurrent is \"\""},
        {"tenant a max-concurrent=3x\n", "line 1: max-concurrent is \"3x\""},
        {"tenant a max-concurrent=+3\n", "line 1: max-concurrent is \"+3\""},
        {"tenant a tokens-per-minute=99999999999999999999\n", "line 1: tokens-per-minute"},
        {"tenant a priority=-1000001\n", "line 1: priority"},
        {"tenant a priority=2 best-priority=3\n", "line 1: best-priority 3 is worse"},
        {"tenant a cache=common\n", "line 1: cache is \"common\""},
        {"tenant a cache=shared:\n", "line 1: the cache's group"},
        {"key " ABC_HASH " a\n", "line 1: there is no tenant \"a\" above"},
        {"tenant a\nkey sk-secret a\n", "line 2: key takes sha256:"},
        {"tenant a\nkey a sk-secret\n", "line 2: key takes sha256:"},
        {"tenant a\nkey sk-secret\n", "line 2: key takes sha256:"},
        {"tenant a\nkey " ABC_HASH " a\nkey " ABC_HASH " a\n", "line 3: this key stands here twice"},
        {"tenant a\nsan *.example a\n",
         "line 2: \"*.example\": names of certificates are compared as they are"},
        {"tenant a\nsan x.example\n", "line 2: san takes"},
        {"tenant a\nsan x.example a\nsan dns:X.example a\n", "line 3: \"dns:X.example\" stands here twice"},
        {"sk-secret\n", "line 1: a line begins with tenant, key, san or #"},
        {"a b c d e f g h i j k l m\n", "line 1: the line has more than 12 words"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tenant_file file;
        err_t e = tenant_file_parse(cases[i].text, strlen(cases[i].text), &file);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        if (strncmp(e.message, cases[i].expected, strlen(cases[i].expected)) != 0)
            fail_msg("%s: %s", cases[i].text, e.message);
        assert_null(strstr(e.message, "secret")); /* a key in the wrong place is not logged */
    }
    struct tenant_file file;
    assert_int_equal(tenant_file_parse("tenant a\0b\n", 11, &file).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(tenant_file_parse("", 0, &file).code, ERR_OK);
    tenant_file_free(&file);
}

/* n lines, each made by the format from its number. */
static err_t parse_many(const char *start, const char *format, int n, struct tenant_file *out)
{
    struct buffer text = {.limit_bytes = TENANT_FILE_BYTES_MAX};
    assert_true(buffer_append_text(&text, start));
    for (int i = 0; i < n; i++) {
        char line[256];
        (void)snprintf(line, sizeof line, format, i, i, i);
        assert_true(buffer_append_text(&text, line));
    }
    err_t e = tenant_file_parse(text.data, text.size, out);
    buffer_free(&text);
    return e;
}

static void limits_hold(void **state)
{
    (void)state;
    static const struct {
        const char *start, *format;
        int max;
    } cases[] = {
        {"", "tenant t%d\n", TENANTS_MAX},
        {"tenant a\n", "key sha256:%064x a\n", TENANT_KEYS_MAX},
        {"tenant a\n", "san x%d.example a\n", TENANT_NAMES_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tenant_file file;
        assert_int_equal(parse_many(cases[i].start, cases[i].format, cases[i].max, &file).code, ERR_OK);
        tenant_file_free(&file);
        err_t e = parse_many(cases[i].start, cases[i].format, cases[i].max + 1, &file);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(e.message, "more than"));
    }
    static char long_line[TENANT_LINE_BYTES_MAX + 2];
    memset(long_line, ' ', sizeof long_line);
    struct tenant_file file;
    assert_int_equal(tenant_file_parse(long_line, TENANT_LINE_BYTES_MAX, &file).code, ERR_OK);
    tenant_file_free(&file);
    assert_int_equal(tenant_file_parse(long_line, sizeof long_line - 1, &file).code, ERR_INVALID_ARGUMENT);
    char *large = mem_alloc(TENANT_FILE_BYTES_MAX + 1);
    assert_int_equal(tenant_file_parse(large, TENANT_FILE_BYTES_MAX + 1, &file).code, ERR_INVALID_ARGUMENT);
    mem_free(large);
}

static void without_memory_nothing_is_left(void **state)
{
    (void)state;
    static const char text[] = "tenant a\nkey " ABC_HASH " a\nsan x.example a\n";
    for (int nth = 0;; nth++) {
        struct tenant_file file;
        mem_fail_nth(nth);
        err_t e = tenant_file_parse(text, sizeof text - 1, &file);
        mem_fail_nth(-1);
        if (e.code == ERR_OK) {
            assert_int_equal(nth, 3);
            tenant_file_free(&file);
            return;
        }
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_hashes),
        cmocka_unit_test(fresh_keys_differ_and_can_be_sent),
        cmocka_unit_test(names_are_compared_as_they_are),
        cmocka_unit_test(a_file_says_what_it_says),
        cmocka_unit_test(mistakes_are_named_by_line),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(without_memory_nothing_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
