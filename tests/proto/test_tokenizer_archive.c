/* The tokenizer's files as an archive; that a ZIP reader takes it is seen in tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "proto/tokenizer_archive.h"

static char folder[64];

static void write_file(const char *name, const char *content)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/tokenizer_archive_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    const char *names[] = {"tokenizer.json", "a.jinja", "model.safetensors", "empty.model", ".model"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)unlink(path);
    }
    return rmdir(folder);
}

static void write_files(void)
{
    write_file("tokenizer.json", "{\"a\":1}");
    write_file("a.jinja", "{{ x }}");
    write_file("empty.model", "");
    write_file("model.safetensors", "weights");
    write_file(".model", "hidden");
}

static bool holds(const struct tokenizer_archive *archive, const char *text)
{
    return memmem(archive->data, archive->size_bytes, text, strlen(text)) != NULL;
}

/* Two readers share one; the next one after them finds what changed. */
static void one_for_all_readers(void **state)
{
    (void)state;
    struct tokenizer_store store;
    const struct tokenizer_archive *first, *second;
    write_files();
    tokenizer_store_init(&store);
    assert_int_equal(tokenizer_archive_acquire(&store, folder, &first).code, ERR_OK);
    assert_true(holds(first, "{\"a\":1}") && holds(first, "{{ x }}") && holds(first, "empty.model"));
    assert_false(holds(first, "weights") || holds(first, "hidden"));
    char sha256[TOKENIZER_SHA256_BYTES];
    (void)snprintf(sha256, sizeof sha256, "%s", first->sha256);
    write_file("tokenizer.json", "{\"a\":2}");
    assert_int_equal(tokenizer_archive_acquire(&store, folder, &second).code, ERR_OK);
    assert_ptr_equal(first->data, second->data);
    tokenizer_archive_release(&store);
    assert_string_equal(first->sha256, sha256);
    tokenizer_archive_release(&store);
    assert_int_equal(tokenizer_archive_acquire(&store, folder, &first).code, ERR_OK);
    assert_string_not_equal(first->sha256, sha256);
    write_file("tokenizer.json", "{\"a\":1}");
    tokenizer_archive_release(&store);
    assert_int_equal(tokenizer_archive_acquire(&store, folder, &first).code, ERR_OK);
    assert_string_equal(first->sha256, sha256);
    tokenizer_archive_release(&store);
    tokenizer_store_destroy(&store);
}

static void nothing_to_send(void **state)
{
    (void)state;
    struct tokenizer_store store;
    const struct tokenizer_archive *archive;
    char path[256];
    tokenizer_store_init(&store);
    assert_int_equal(tokenizer_archive_acquire(&store, NULL, &archive).code, ERR_FAILED_PRECONDITION);
    err_t e = tokenizer_archive_acquire(&store, folder, &archive);
    assert_int_equal(e.code, ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(e.message, "no files of a tokenizer"));
    write_files();
    (void)snprintf(path, sizeof path, "%s/model.safetensors", folder);
    e = tokenizer_archive_acquire(&store, path, &archive);
    assert_int_equal(e.code, ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(e.message, "GGUF"));
    (void)snprintf(path, sizeof path, "%s/none", folder);
    assert_int_equal(tokenizer_archive_acquire(&store, path, &archive).code, ERR_IO);
    tokenizer_store_destroy(&store);
}

static void memory_may_be_short(void **state)
{
    (void)state;
    struct tokenizer_store store;
    const struct tokenizer_archive *archive;
    write_files();
    tokenizer_store_init(&store);
    err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "not yet");
    int n_failed = 0;
    for (int nth = 0; e.code != ERR_OK; nth++) {
        mem_fail_nth(nth);
        e = tokenizer_archive_acquire(&store, folder, &archive);
        mem_fail_nth(-1);
        assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
        n_failed += e.code != ERR_OK;
    }
    assert_true(n_failed >= 3);
    tokenizer_archive_release(&store);
    tokenizer_store_destroy(&store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_for_all_readers, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_to_send, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_may_be_short, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
