/* The stores of answers: one contract for memory, SQLite and Redis, and what can befall each. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/cache/response_cache.h"
#include "router/cache/store_of_config.h"

#define SECOND_NS INT64_C(1000000000)
#define HOUR_NS   (3600 * SECOND_NS)
enum { ENTRY_MAX = 1000 };

enum kind { MEMORY, SQLITE, REDIS };
enum { PATIENT_MS = 60000 }; /* that a Redis answers soon is not what a test is about */

static char folder[] = "/tmp/stores-XXXXXX";
static char sqlite_path[96], redis_path[96];
static pid_t redis = -1;
static struct virtual_clock virtual_time;

static int64_t virtual_unix_ms(void *clock)
{
    return ((struct virtual_clock *)clock)->now_ns / 1000000;
}

static struct response_store *open_store(enum kind kind, size_t max_bytes)
{
    struct response_store *store;
    err_t e = err_ok();
    switch (kind) {
    case MEMORY:
        e = memory_store_open(&(struct memory_store_options){max_bytes, ENTRY_MAX, &virtual_time.clock},
                              &store);
        break;
    case SQLITE:
        e = sqlite_store_open(
            &(struct sqlite_store_options){sqlite_path, max_bytes, ENTRY_MAX, virtual_unix_ms, &virtual_time},
            &store);
        break;
    case REDIS:
        e = redis_store_open(&(struct redis_store_options){redis_path, NULL, ENTRY_MAX, PATIENT_MS}, &store);
        break;
    }
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return store;
}

static struct response_key key_of(int number)
{
    struct response_key key = {{0}};
    snprintf((char *)key.bytes, sizeof key.bytes, "%d", number);
    return key;
}

static err_t try_get(struct response_store *store, int number, const char *expected, size_t size, bool *found)
{
    struct buffer out = {.limit_bytes = 4096};
    struct response_key key = key_of(number);
    assert_true(buffer_append_text(&out, "before"));
    err_t e = store->vtable->get(store, &key, &out, found);
    assert_memory_equal(out.data, "before", 6);
    assert_int_equal(out.size, *found ? 6 + size : 6);
    if (*found && size > 0)
        assert_memory_equal(out.data + 6, expected, size);
    buffer_free(&out);
    return e;
}

static bool has(struct response_store *store, int number, const char *expected)
{
    bool found;
    err_t e = try_get(store, number, expected, strlen(expected), &found);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return found;
}

static err_t try_put(struct response_store *store, int number, const char *bytes, size_t size, int64_t ttl_ns)
{
    struct response_key key = key_of(number);
    return store->vtable->put(store, &key, bytes, size, ttl_ns);
}

static void put(struct response_store *store, int number, const char *text, int64_t ttl_ns)
{
    err_t e = try_put(store, number, text, strlen(text), ttl_ns);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

/* ---- The contract ---- */

static void what_was_put_is_found(struct response_store *store)
{
    bool found;
    assert_false(has(store, 1, ""));
    put(store, 1, "one", HOUR_NS);
    put(store, 2, "two", HOUR_NS);
    assert_int_equal(try_put(store, 3, "a\0\n\xff", 4, HOUR_NS).code, ERR_OK);
    assert_int_equal(try_put(store, 4, "", 0, HOUR_NS).code, ERR_OK);
    assert_true(has(store, 1, "one") && has(store, 2, "two"));
    assert_int_equal(try_get(store, 3, "a\0\n\xff", 4, &found).code, ERR_OK);
    assert_true(found);
    assert_int_equal(try_get(store, 4, "", 0, &found).code, ERR_OK);
    assert_true(found);
    put(store, 1, "another", HOUR_NS);
    assert_true(has(store, 1, "another"));
}

static void what_is_too_large_is_not_kept(struct response_store *store)
{
    char large[ENTRY_MAX + 1];
    memset(large, 'x', sizeof large);
    assert_int_equal(try_put(store, 5, large, ENTRY_MAX + 1, HOUR_NS).code, ERR_OK);
    assert_false(has(store, 5, ""));
    bool found;
    assert_int_equal(try_put(store, 5, large, ENTRY_MAX, HOUR_NS).code, ERR_OK);
    assert_int_equal(try_get(store, 5, large, ENTRY_MAX, &found).code, ERR_OK);
    assert_true(found);
}

/* The virtual clock moves for those who read it; Redis has its own. */
static void entries_end_with_their_time(struct response_store *store)
{
    put(store, 6, "short", 1000000);
    put(store, 7, "long", HOUR_NS);
    put(store, 8, "for ever", INT64_MAX);
    put(store, 9, "never", 0);
    virtual_time.now_ns += 1000000;
    while (has(store, 6, "short"))
        usleep(500);
    assert_true(has(store, 7, "long") && has(store, 8, "for ever") && !has(store, 9, ""));
}

static void a_small_buffer_is_left_as_it_was(struct response_store *store)
{
    struct buffer out = {.limit_bytes = 8};
    struct response_key key = key_of(10);
    bool found = true;
    put(store, 10, "0123456789", HOUR_NS);
    assert_true(buffer_append_text(&out, "x"));
    assert_int_equal(store->vtable->get(store, &key, &out, &found).code, ERR_RESOURCE_EXHAUSTED);
    assert_true(!found && out.size == 1);
    buffer_free(&out);
}

static void all_of_it_is_forgotten(struct response_store *store)
{
    for (int i = 0; i < 600; i++) /* more than Redis is asked for at once */
        put(store, i, "x", HOUR_NS);
    assert_int_equal(store->vtable->clear(store).code, ERR_OK);
    for (int i = 0; i < 600; i++)
        assert_false(has(store, i, ""));
    put(store, 1, "again", HOUR_NS);
    assert_true(has(store, 1, "again"));
    assert_int_equal(store->vtable->clear(store).code, ERR_OK);
}

static void check_contract(enum kind kind)
{
    struct response_store *store = open_store(kind, 1 << 20);
    assert_int_equal(store->vtable->is_outside, kind != MEMORY);
    what_was_put_is_found(store);
    what_is_too_large_is_not_kept(store);
    entries_end_with_their_time(store);
    a_small_buffer_is_left_as_it_was(store);
    all_of_it_is_forgotten(store);
    store->vtable->close(store);
}

static void memory_keeps_the_contract(void **state)
{
    (void)state;
    check_contract(MEMORY);
}

static void sqlite_keeps_the_contract(void **state)
{
    (void)state;
    check_contract(SQLITE);
}

static void redis_keeps_the_contract(void **state)
{
    (void)state;
    check_contract(REDIS);
}

static void what_must_stay_is_kept_in_memory_alone(void **state)
{
    (void)state;
    for (int kind = MEMORY; kind <= REDIS; kind++) {
        struct response_cache *cache;
        struct response_cache_options options = {.store = open_store((enum kind)kind, 1 << 20),
                                                 .ttl_ns = HOUR_NS};
        assert_int_equal(response_cache_open(&options, &cache).code, ERR_OK);
        json_t *request = json_pack("{s:i}", "temperature", 0);
        struct response_question question = {
            .request = request, .tenant = "", .model = "m", .fingerprint = ""};
        struct response_key key;
        bool is_kept;
        assert_int_equal(response_cache_key(cache, &question, &key, &is_kept).code, ERR_OK);
        assert_true(is_kept);
        question.local_only = true;
        assert_int_equal(response_cache_key(cache, &question, &key, &is_kept).code, ERR_OK);
        assert_int_equal(is_kept, kind == MEMORY);
        json_decref(request);
        response_cache_close(cache);
    }
}

/* ---- SQLite ---- */

static void remove_file(void)
{
    static const char *const ENDINGS[] = {"", "-wal", "-shm", ".damaged", ".damaged-wal", ".damaged-shm"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", sqlite_path, ENDINGS[i]);
        unlink(path);
    }
}

static void a_file_is_there_again(void **state)
{
    (void)state;
    struct response_store *store = open_store(SQLITE, 1 << 20), *beside = open_store(SQLITE, 1 << 20);
    put(store, 1, "one", HOUR_NS);
    assert_true(has(beside, 1, "one")); /* another router's */
    store->vtable->close(store);
    beside->vtable->close(beside);
    store = open_store(SQLITE, 1 << 20);
    assert_true(has(store, 1, "one"));
    store->vtable->close(store);
}

static void what_was_not_asked_for_longest_goes_first(void **state)
{
    (void)state;
    remove_file();
    struct response_store *store = open_store(SQLITE, 40);
    for (int i = 0; i < 4; i++) {
        put(store, i, "0123456789", HOUR_NS);
        virtual_time.now_ns += 61 * SECOND_NS;
    }
    assert_true(has(store, 0, "0123456789"));
    put(store, 4, "0123456789", HOUR_NS);
    assert_false(has(store, 1, ""));
    assert_true(has(store, 0, "0123456789") && has(store, 2, "0123456789") && has(store, 4, "0123456789"));
    put(store, 5, "0123456789012345678901234567890123456789", SECOND_NS);
    assert_true(!has(store, 0, "") && !has(store, 4, ""));
    virtual_time.now_ns += SECOND_NS;
    put(store, 6, "0123456789", HOUR_NS); /* what has ended goes before others */
    put(store, 7, "012345678901234567890123456789", HOUR_NS);
    assert_true(has(store, 6, "0123456789") && has(store, 7, "012345678901234567890123456789"));
    char large[42] = {0};
    memset(large, 'x', 41);
    put(store, 8, large, HOUR_NS); /* larger than all may be */
    assert_true(!has(store, 8, "") && has(store, 6, "0123456789"));
    store->vtable->close(store);
}

static void write_at(const char *path, off_t at, const char *bytes, size_t size)
{
    int file = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(file >= 0);
    assert_int_equal(pwrite(file, bytes, size, at), size);
    close(file);
}

static void damage_loses_answers_alone(void **state)
{
    (void)state;
    char nonsense[4096], damaged[128];
    memset(nonsense, 0x5a, sizeof nonsense);
    snprintf(damaged, sizeof damaged, "%s.damaged", sqlite_path);
    for (int page = 0; page < 8; page++) { /* whichever page it is */
        remove_file();
        struct response_store *store = open_store(SQLITE, 1 << 20);
        put(store, 1, "one", HOUR_NS);
        store->vtable->close(store);
        write_at(sqlite_path, page * 4096, nonsense, sizeof nonsense);
        store = open_store(SQLITE, 1 << 20);
        bool found;
        err_t e = try_get(store, 1, "one", 3, &found); /* may be the first to see it */
        if (e.code == ERR_OK)
            e = try_put(store, 2, "two", 3, HOUR_NS);
        if (e.code != ERR_OK)
            e = try_put(store, 2, "two", 3, HOUR_NS);
        assert_int_equal(e.code, ERR_OK);
        assert_true(has(store, 2, "two"));
        assert_true(page > 0 || access(damaged, F_OK) == 0);
        store->vtable->close(store);
    }
}

/* Damage that is of an answer's own bytes, which SQLite does not look at. */
static void a_spoilt_answer_is_not_given(void **state)
{
    (void)state;
    remove_file();
    struct response_store *store = open_store(SQLITE, 1 << 20);
    put(store, 1, "the words of an answer", HOUR_NS);
    put(store, 2, "another", HOUR_NS);
    store->vtable->close(store);
    FILE *file = fopen(sqlite_path, "rb");
    assert_non_null(file);
    static char bytes[1 << 20];
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    char *at = memmem(bytes, size, "the words", 9);
    assert_non_null(at);
    write_at(sqlite_path, at - bytes, "THE", 3);
    store = open_store(SQLITE, 1 << 20);
    assert_true(!has(store, 1, "") && has(store, 2, "another"));
    store->vtable->close(store);
}

static void nothing_is_left_of_what_was_forgotten(void **state)
{
    (void)state;
    remove_file();
    struct response_store *store = open_store(SQLITE, 1 << 20);
    put(store, 1, "the words of an answer", HOUR_NS);
    assert_int_equal(store->vtable->clear(store).code, ERR_OK);
    for (int i = 0; i < 2; i++) {
        char path[128];
        static char bytes[1 << 20];
        snprintf(path, sizeof path, "%s%s", sqlite_path, i == 0 ? "" : "-wal");
        FILE *file = fopen(path, "rb");
        size_t size = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        assert_null(memmem(bytes, size, "the words", 9));
        if (file)
            fclose(file);
    }
    store->vtable->close(store);
}

static void what_is_no_cache_is_refused(void **state)
{
    (void)state;
    struct response_store *store;
    struct ledger *ledger;
    char path[128];
    snprintf(path, sizeof path, "%s/book", folder);
    assert_int_equal(
        ledger_open(
            &(struct ledger_options){.path = path, .unix_ms = virtual_unix_ms, .clock = &virtual_time}, NULL,
            &ledger)
            .code,
        ERR_OK);
    ledger_close(ledger);
    struct sqlite_store_options options = {path, 1000, 1000, virtual_unix_ms, &virtual_time};
    assert_int_equal(sqlite_store_open(&options, &store).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(unlink(path), 0);
    options.path = "/nowhere/at/all";
    assert_int_equal(sqlite_store_open(&options, &store).code, ERR_IO);
}

/* ---- Redis ---- */

static bool can_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", redis_path);
    int connection = socket(AF_UNIX, SOCK_STREAM, 0);
    bool is = connect(connection, (struct sockaddr *)&address, sizeof address) == 0;
    close(connection);
    return is;
}

/* Debian's package redis-tools has the server under the name of a tool: what it is, it sees by its name. */
static void start_redis(void)
{
    redis = fork();
    if (redis == 0) {
        int nothing = open("/dev/null", O_WRONLY);
        dup2(nothing, 1);
        execl("/usr/bin/redis-check-rdb", "redis-server", "--port", "0", "--unixsocket", redis_path, "--save",
              "", "--appendonly", "no", "--dir", folder, (char *)NULL);
        _exit(127);
    }
    assert_true(redis > 0);
    while (!can_connect()) {
        int status;
        if (waitpid(redis, &status, WNOHANG) == redis)
            fail_msg("there is no redis-server: scripts/setup test");
        usleep(5000);
    }
}

static void stop_redis(void)
{
    kill(redis, SIGKILL);
    waitpid(redis, NULL, 0);
    unlink(redis_path);
}

/* Until the store has found its server again. */
static void wait_until_kept(struct response_store *store)
{
    bool found = false;
    while (!found) {
        err_t e = try_put(store, 1, "one", 3, HOUR_NS);
        if (e.code == ERR_OK)
            e = try_get(store, 1, "one", 3, &found);
        assert_true(e.code == ERR_OK || e.code == ERR_UNAVAILABLE);
        usleep(5000);
    }
}

static void a_redis_that_goes_is_missed_and_found_again(void **state)
{
    (void)state;
    struct response_store *store = open_store(REDIS, 0);
    bool found;
    put(store, 1, "one", HOUR_NS);
    stop_redis();
    assert_int_equal(try_get(store, 1, "", 0, &found).code, ERR_UNAVAILABLE); /* once */
    assert_false(has(store, 1, ""));
    put(store, 1, "one", HOUR_NS); /* no error, and not kept */
    assert_int_equal(store->vtable->clear(store).code, ERR_UNAVAILABLE);
    start_redis();
    wait_until_kept(store);
    store->vtable->close(store);
}

static void a_redis_that_hangs_holds_up_one_request(void **state)
{
    (void)state;
    struct redis_store_options options = {.address = redis_path, .max_entry_bytes = ENTRY_MAX};
    struct response_store *store;
    bool found;
    assert_int_equal(redis_store_open(&options, &store).code, ERR_OK);
    wait_until_kept(store);
    kill(redis, SIGSTOP);
    assert_int_equal(try_get(store, 1, "", 0, &found).code, ERR_UNAVAILABLE);
    for (int i = 0; i < 1000; i++)
        assert_false(has(store, 1, ""));
    kill(redis, SIGCONT);
    wait_until_kept(store);
    store->vtable->close(store);
}

static void a_redis_that_is_not_there_yet_is_no_error(void **state)
{
    (void)state;
    stop_redis();
    struct response_store *store = open_store(REDIS, 0);
    assert_false(has(store, 1, ""));
    start_redis();
    wait_until_kept(store);
    store->vtable->close(store);
}

static void addresses_are_read(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",        "localhost", "localhost:", "localhost:0", "localhost:65536", ":6379",
        "[]:6379", "::1:6379",  "a:6379x",    "a:-1",        "[::1]6379",       "redis://a:1/0"};
    struct response_store *store;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        err_t e = redis_store_open(&(struct redis_store_options){BAD[i], NULL, 1000, 0}, &store);
        if (e.code != ERR_INVALID_ARGUMENT)
            fail_msg("%s", BAD[i]);
    }
    static const char *const GOOD[] = {"127.0.0.1:1", "[::1]:1", "/nowhere/at/all"};
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        assert_int_equal(
            redis_store_open(&(struct redis_store_options){GOOD[i], "secret", 1000, 0}, &store).code, ERR_OK);
        assert_false(has(store, 1, ""));
        store->vtable->close(store);
    }
}

/* ---- The configuration ---- */

static void a_configuration_names_its_store(void **state)
{
    (void)state;
    struct response_store *store;
    struct cache_config config = {.kind = CACHE_OFF};
    assert_int_equal(response_store_of_config(&config, &store).code, ERR_OK);
    assert_null(store);
    config = (struct cache_config){.max_bytes = 1000, .max_entry_bytes = 100};
    config.path = sqlite_path;
    config.address = redis_path;
    static const int KINDS[] = {CACHE_MEMORY, CACHE_SQLITE, CACHE_REDIS};
    for (size_t i = 0; i < 3; i++) {
        config.kind = KINDS[i];
        remove_file();
        assert_int_equal(response_store_of_config(&config, &store).code, ERR_OK);
        wait_until_kept(store); /* a Redis on a busy machine may miss its time */
        assert_int_equal(store->vtable->is_outside, i > 0);
        store->vtable->close(store);
    }
    config.password_env = "BANTAM_NO_SUCH_VARIABLE";
    assert_int_equal(response_store_of_config(&config, &store).code, ERR_INVALID_ARGUMENT);
}

static int set_up(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN); /* as the program does */
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(sqlite_path, sizeof sqlite_path, "%s/answers", folder);
    snprintf(redis_path, sizeof redis_path, "%s/redis", folder);
    virtual_clock_init(&virtual_time, 1795780800000 * INT64_C(1000000));
    start_redis();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stop_redis();
    remove_file();
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_keeps_the_contract),
        cmocka_unit_test(sqlite_keeps_the_contract),
        cmocka_unit_test(redis_keeps_the_contract),
        cmocka_unit_test(what_must_stay_is_kept_in_memory_alone),
        cmocka_unit_test(a_file_is_there_again),
        cmocka_unit_test(what_was_not_asked_for_longest_goes_first),
        cmocka_unit_test(damage_loses_answers_alone),
        cmocka_unit_test(a_spoilt_answer_is_not_given),
        cmocka_unit_test(nothing_is_left_of_what_was_forgotten),
        cmocka_unit_test(what_is_no_cache_is_refused),
        cmocka_unit_test(a_redis_that_goes_is_missed_and_found_again),
        cmocka_unit_test(a_redis_that_hangs_holds_up_one_request),
        cmocka_unit_test(a_redis_that_is_not_there_yet_is_no_error),
        cmocka_unit_test(addresses_are_read),
        cmocka_unit_test(a_configuration_names_its_store),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
