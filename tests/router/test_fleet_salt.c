/* Tenants of a router and the engines' prefix caches: each has a salt of its own, which nobody can guess. */
#include <string.h>
#include "router/local/local_salt.h"
#include "router/local/prefix_memory.h"
#include "tests/router/fleet_world.h"

/* What the engine was told with a request of this tenant and this salt. */
static void salt_of(struct fleet_world *world, const char *tenant, const char *cache_salt,
                    char out[LOCAL_SALT_BYTES + 1])
{
    struct said *said = said_make();
    struct request request = say("hello", 1);
    request.tenant = tenant;
    request.cache_salt = cache_salt;
    assert_int_equal(said_start(world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_said(said, "hello", 1);
    said_free(said);
    struct fake_asked asked = fake_service_asked(world->engines[0].fake);
    assert_string_equal(asked.tenant, ""); /* names do not leave the router */
    assert_true(strlen(asked.cache_salt) == 0 || strlen(asked.cache_salt) == LOCAL_SALT_BYTES);
    memcpy(out, asked.cache_salt, LOCAL_SALT_BYTES + 1);
}

typedef char salt_text[LOCAL_SALT_BYTES + 1];

static void each_tenant_has_its_own(void **state)
{
    (void)state;
    struct fleet_world world, other;
    salt_text nobody, a, again, b, group, same_group, elsewhere;
    fleet_world_open(&world, 1, NULL);
    fleet_world_open(&other, 1, NULL);
    salt_of(&world, NULL, NULL, nobody);
    assert_string_equal(nobody, "");
    salt_of(&world, "", NULL, nobody);
    assert_string_equal(nobody, "");
    salt_of(&world, "a", NULL, a);
    salt_of(&world, "b", NULL, b);
    salt_of(&world, "a", NULL, again);
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_string_not_equal(a, "");
    salt_of(&world, "a", "group g", group);
    salt_of(&world, "b", "group g", same_group);
    assert_string_equal(group, same_group);
    assert_true(strcmp(group, a) != 0 && strcmp(group, b) != 0);
    salt_of(&other, "a", NULL, elsewhere);
    assert_string_not_equal(a, elsewhere); /* its key was drawn by another router */
    world.model.salt_key = other.model.salt_key = "one key of many routers";
    salt_of(&world, "a", NULL, again);
    salt_of(&other, "a", NULL, elsewhere);
    assert_string_equal(again, elsewhere);
    assert_string_not_equal(again, a);
    fleet_world_close(&world);
    fleet_world_close(&other);
}

static void who_goes_on_is_told_the_same(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    struct said *said = said_make();
    struct request request = say("go on", 100);
    request.tenant = "a";
    engines_stall_at(&world, 50);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_tokens(said, 50);
    size_t dead = engine_live(&world, 0) > 0 ? 0 : 1;
    engine_kill(&world, dead);
    engines_stall_at(&world, UINT32_MAX);
    said_wait_end(said);
    assert_said(said, "go on", 100);
    assert_int_equal(said->result.n_handovers, 1);
    said_free(said);
    struct fake_asked first = fake_service_asked(world.engines[dead].fake),
                      next = fake_service_asked(world.engines[1 - dead].fake);
    assert_int_equal(strlen(first.cache_salt), LOCAL_SALT_BYTES);
    assert_string_equal(first.cache_salt, next.cache_salt);
    fleet_world_close(&world);
}

/* RFC 4231, test case 1. */
static void it_is_the_hmac(void **state)
{
    (void)state;
    unsigned char key[20];
    salt_text salt;
    memset(key, 0x0b, sizeof key);
    assert_int_equal(local_salt_make(key, sizeof key, "Hi There", salt).code, ERR_OK);
    assert_string_equal(salt, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

static void warmth_is_each_tenants_own(void **state)
{
    (void)state;
    struct prefix_memory *memory;
    uint16_t warm[PREFIX_REPLICAS_MAX];
    static char text[3 * PREFIX_CHUNK_BYTES + 1];
    struct prefix_chain chain, other;
    memset(text, 'x', sizeof text - 1);
    struct request request = say(text, 1);
    assert_int_equal(prefix_memory_open(64, &memory).code, ERR_OK);
    request.tenant = "a";
    prefix_chain_make(&request, &chain);
    prefix_memory_note(memory, &chain, 5);
    prefix_memory_find(memory, &chain, warm);
    assert_int_equal(warm[5], 3);
    static const char *const OTHERS[][2] = {{NULL, NULL}, {"b", NULL}, {"a", "group g"}};
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        request.tenant = OTHERS[i][0];
        request.cache_salt = OTHERS[i][1];
        prefix_chain_make(&request, &other);
        assert_int_equal(other.n, 3);
        prefix_memory_find(memory, &other, warm);
        assert_int_equal(warm[5], 0);
    }
    request.tenant = NULL; /* as a call keeps it */
    request.cache_salt = "a";
    prefix_chain_make(&request, &other);
    assert_memory_equal(chain.hash, other.hash, 3 * sizeof *chain.hash);
    prefix_memory_close(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_tenant_has_its_own),
        cmocka_unit_test(who_goes_on_is_told_the_same),
        cmocka_unit_test(it_is_the_hmac),
        cmocka_unit_test(warmth_is_each_tenants_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
