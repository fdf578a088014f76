/* Files of packed weights that are wrong in one way, and what is left of a writer that fails. Where a test
 * changes what a hash is over, the hash is made right again: it is no check of what somebody means to break.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "base/mapped_file.h"
#include "model/packed_file.h"
#include "tests/model/broken_model.h"

enum {
    N_ENTRIES = 15, /* 2 layers of 4 matrices and 2 norms, embedding, head, final norm */
    FILE_BYTES_MAX = 4 << 20,
};

static struct broken_model source, target; /* the model; the directory of the packed one */
static uint8_t *good, *data;               /* the file as it was written; as a test breaks it */
static size_t good_bytes;

static void write_config(const json_t *config)
{
    static char text[1 << 14];
    size_t n = json_dumpb(config, text, sizeof text, 0);
    broken_model_write_file(&target, "config.json", text, n);
}

static err_t write_beside(void *context)
{
    (void)context;
    write_config(source.config);
    return err_ok();
}

static err_t pack(const struct model_options *options)
{
    struct model_packed packed;
    return model_pack(options, target.directory, write_beside, NULL, &packed);
}

static void packed_path(char path[512])
{
    snprintf(path, 512, "%s/" PACKED_FILE, target.directory);
}

static int set_up(void **state)
{
    (void)state;
    char path[512];
    broken_model_make(&source);
    broken_model_write(&source);
    broken_model_make(&target);
    struct model_options options = broken_model_options(&source);
    options.quantization = MODEL_QUANT_INT8;
    err_t e = pack(&options);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    packed_path(path);
    assert_int_equal(file_read(path, FILE_BYTES_MAX, (char **)&good, &good_bytes).code, ERR_OK);
    data = mem_alloc(good_bytes + 1);
    assert_non_null(data);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mem_free(good);
    mem_free(data);
    broken_model_remove(&source);
    broken_model_remove(&target);
    return 0;
}

static void store(size_t at, uint64_t value, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        data[at + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t load(size_t at)
{
    uint64_t value;
    memcpy(&value, data + at, sizeof value);
    return value;
}

static size_t entry_at(size_t index)
{
    return PACKED_ENTRIES_AT + index * PACKED_ENTRY_BYTES;
}

static void begin(void)
{
    memcpy(data, good, good_bytes);
}

static void mend_hashes(void)
{
    store(128, hash64(data + PACKED_ENTRIES_AT, (size_t)N_ENTRIES * PACKED_ENTRY_BYTES, 0), 8);
    store(136, hash64(data, 136, 0), 8);
}

/* Parses exactly these bytes, so that a sanitizer sees a read past them. */
static err_t parse(size_t size_bytes)
{
    struct packed_file file;
    uint8_t *copy = mem_alloc(size_bytes ? size_bytes : 1);
    assert_non_null(copy);
    memcpy(copy, data, size_bytes);
    err_t e = packed_file_parse("m.bantam", copy, size_bytes, &file);
    if (e.code == ERR_OK)
        packed_file_close(&file);
    mem_free(copy);
    return e;
}

static void expect_parse(enum err_code code, const char *text)
{
    mend_hashes();
    expect_error(parse(good_bytes), code, "m.bantam", text, NULL);
}

static err_t load_model(void)
{
    broken_model_write_file(&target, PACKED_FILE, data, good_bytes);
    struct model_options options = broken_model_options(&target);
    return broken_model_load(&target, &options);
}

static void expect_load(enum err_code code, const char *text)
{
    mend_hashes();
    expect_error(load_model(), code, PACKED_FILE, text, NULL);
}

/* ---- The file ---- */

static void the_good_file_is_read(void **state)
{
    (void)state;
    struct packed_file file;
    begin();
    assert_int_equal(packed_file_parse("m.bantam", data, good_bytes, &file).code, ERR_OK);
    assert_int_equal(file.n_entries, N_ENTRIES);
    assert_string_equal(file.layout, "cpu-panels-1");
    assert_true(file.dtype == MODEL_DTYPE_BF16 && file.quantization == MODEL_QUANT_INT8 && file.group == 32);
    assert_string_equal(file.entries[0].name, "model.layers.0.self_attn.q_proj.weight");
    assert_true(file.entries[0].n_in == 64 && file.entries[0].n_sections == 1);
    assert_true(file.entries[0].offset % PACKED_MATRIX_ALIGN == 0);
    assert_true(file.entries[N_ENTRIES - 1].is_vector);
    for (uint32_t i = 0; i < file.n_entries; i++)
        assert_int_equal(packed_file_verify(&file, &file.entries[i], NULL).code, ERR_OK);
    packed_file_close(&file);
    packed_file_close(&file);
    assert_int_equal(load_model().code, ERR_OK);
}

static void every_other_length_is_refused(void **state)
{
    (void)state;
    begin();
    for (size_t size = 0; size < good_bytes; size += size < 5000 ? 1 : 997) {
        err_t e = parse(size);
        if (e.code != ERR_DATA_LOSS || !strstr(e.message, "truncated"))
            fail_msg("%zu bytes: %s", size, e.code == ERR_OK ? "read" : e.message);
    }
    data[good_bytes] = 0;
    expect_error(parse(good_bytes + 1), ERR_DATA_LOSS, "too long", NULL);
}

static void every_changed_byte_is_noticed(void **state)
{
    (void)state;
    begin();
    for (size_t at = 0; at < PACKED_ENTRIES_AT + N_ENTRIES * PACKED_ENTRY_BYTES; at++) {
        bool is_unused = at >= PACKED_HEADER_BYTES && at < PACKED_ENTRIES_AT;
        data[at] ^= 0x40;
        if ((parse(good_bytes).code == ERR_OK) != is_unused)
            fail_msg("byte %zu", at);
        data[at] ^= 0x40;
    }
    /* Of a matrix, and of the last vector. */
    const size_t places[] = {load(entry_at(3) + 200) + 77, good_bytes - 1};
    for (int i = 0; i < 2; i++) {
        data[places[i]] ^= 1;
        expect_load(ERR_DATA_LOSS, "is not what was written (the hash differs)");
        data[places[i]] ^= 1;
    }
    assert_int_equal(load_model().code, ERR_OK);
}

static void wrong_headers(void **state)
{
    (void)state;
    begin();
    data[0] = 'b';
    expect_parse(ERR_DATA_LOSS, "not a packed model");
    begin();
    store(8, 2, 4);
    expect_parse(ERR_UNIMPLEMENTED, "version 2, this program reads 1: run bantam quantize");
    begin();
    store(16, good_bytes - 64, 8);
    expect_parse(ERR_DATA_LOSS, "too long");
    begin();
    store(12, PACKED_ENTRIES_MAX + 1, 4);
    expect_parse(ERR_DATA_LOSS, "more than it can hold");
    begin();
    store(12, UINT32_MAX, 4);
    expect_parse(ERR_DATA_LOSS, "more than it can hold");
    static const size_t names[] = {64, 96, 112}; /* layout, dtype, quantization */
    for (int i = 0; i < 3; i++) {
        begin();
        memset(data + names[i], 'x', 16);
        memset(data + names[i] + 16, i == 0 ? 'x' : 0, i == 0 ? 16 : 0); /* a layout without an end */
        expect_parse(ERR_DATA_LOSS, "layout, dtype or quantization");
    }
    begin();
    store(128, 5, 8);
    store(136, hash64(data, 136, 0), 8);
    expect_error(parse(good_bytes), ERR_DATA_LOSS, "its entries are not what was written", NULL);
}

static void wrong_entries(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint64_t value;
        const char *text;
    } cases[] = {
        {0, 0, "no text of"},
        {0, 0x0a64656d616e2020, "no text of"},
        {96, 0, "has no shape"},
        {96, 1, "sections that are not its outputs"},
        {104, 0, "has no shape"},
        {104, 65, "sections that are not its outputs"},
        {112, 0, "neither a matrix nor a vector"},
        {112, 3, "neither a matrix nor a vector"},
        {112, 2, "has no shape"}, /* a vector of several outputs */
        {112, 1 | 2ull << 32, "neither a matrix nor a vector"},
        {120, 0, "has no shape"},
        {120, 4, "has no shape"},
        {128, 0, "sections that are not its outputs"},
        {128, UINT64_MAX, "sections that are not its outputs"},
        {136, 0, "sections that are not its outputs"}, /* group */
        {136, 48, "sections that are not its outputs"},
        {136, 128, "sections that are not its outputs"}, /* more than the inputs */
        {136, 32 | 2ull << 32, "a format that is not known"},
        {144, 0x3374616f6c66, "a format that is not known"},
        {144, 0x34746e6975, "sections that are not its outputs"}, /* uint4 without codes */
        {144, 0x387066, "sections that are not its outputs"},     /* fp8 with a scale of a group */
        {200, 4096, "does not lie behind"},
        {200, UINT64_MAX, "does not lie behind"},
        {208, 0, "ends past the file"},
        {208, UINT64_MAX, "ends past the file"},
        {208, UINT64_MAX - 8192, "ends past the file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        begin();
        store(entry_at(0) + cases[i].at, cases[i].value, 8);
        mend_hashes();
        err_t e = parse(good_bytes);
        if (e.code != ERR_DATA_LOSS || !strstr(e.message, cases[i].text))
            fail_msg("case %zu: expected \"%s\", got %s", i, cases[i].text,
                     e.code == ERR_OK ? "a file" : e.message);
    }
    begin();
    size_t last = entry_at(N_ENTRIES - 1);
    store(last + 104, 63, 8);
    expect_parse(ERR_DATA_LOSS, "is not as long as its values");
    begin();
    store(last + 104, UINT64_MAX / 4 + 17, 8); /* times 4 is 64 again */
    expect_parse(ERR_DATA_LOSS, "is not as long as its values");
    begin();
    store(last + 104, 48, 8);
    store(last + 208, 192, 8);
    expect_parse(ERR_DATA_LOSS, "64 bytes behind its weights");
}

/* ---- Against the model beside it ---- */

static void weights_of_another_model(void **state)
{
    (void)state;
    begin();
    store(104 + entry_at(0), 128, 8);
    expect_load(ERR_DATA_LOSS, "another name or shape than \"model.layers.0.self_attn.q_proj.weight\"");
    begin();
    data[entry_at(2)] = 'M';
    expect_load(ERR_DATA_LOSS, "another name or shape than \"model.layers.0.mlp.gate_proj.weight\"");
    begin();
    store(entry_at(0) + 116, 1, 4);
    expect_load(ERR_DATA_LOSS, "another name or shape");
    begin();
    store(entry_at(0) + 136, 64, 4);
    expect_load(ERR_DATA_LOSS, "another size than that of \"model.layers.0.self_attn.q_proj.weight\"");
    begin();
    memcpy(data + 64, "cpu-panels-7", 12);
    expect_load(ERR_UNIMPLEMENTED, "in the layout cpu-panels-7, this program computes with cpu-panels-1");
    begin();
    store(32, 1, 8);
    expect_load(ERR_DATA_LOSS, "made with another configuration than the one beside it");
    begin();
    assert_int_equal(load_model().code, ERR_OK);
    json_t *other = json_copy(source.config);
    assert_int_equal(json_object_set_new(other, "rope_theta", json_real(77.0)), 0);
    write_config(other);
    expect_error(broken_model_load(&target, NULL), ERR_DATA_LOSS, "another configuration", NULL);
    json_decref(other);
    write_config(source.config);
}

static void options_that_ask_for_something_else(void **state)
{
    (void)state;
    begin();
    assert_int_equal(load_model().code, ERR_OK);
    struct model_options options = broken_model_options(&target);
    options.quantization = MODEL_QUANT_INT8; /* as it is */
    options.dtype = MODEL_DTYPE_BF16;
    options.device = "auto";
    assert_int_equal(broken_model_load(&target, &options).code, ERR_OK);
    options.quantization_group = 64;
    expect_error(broken_model_load(&target, &options), ERR_INVALID_ARGUMENT,
                 "packed with --quantization int8 --quantization-group 32", NULL);
    options.quantization = MODEL_QUANT_INT4;
    expect_error(broken_model_load(&target, &options), ERR_INVALID_ARGUMENT, "--quantization int8", NULL);
    options = broken_model_options(&target);
    options.dtype = MODEL_DTYPE_F32;
    expect_error(broken_model_load(&target, &options), ERR_INVALID_ARGUMENT, "packed with --dtype bfloat16",
                 "with --dtype float32", NULL);
    options = broken_model_options(&target);
    options.n_ranks = 2;
    expect_error(broken_model_load(&target, &options), ERR_INVALID_ARGUMENT, "--tensor-parallel-size 2",
                 NULL);
    options = broken_model_options(&target);
    options.device = "cuda:1";
    expect_error(broken_model_load(&target, &options), ERR_INVALID_ARGUMENT, "packed for the CPU", "cuda:1",
                 NULL);
    options = broken_model_options(&target);
    options.dummy_weights = true; /* looks at no weights at all */
    assert_int_equal(broken_model_load(&target, &options).code, ERR_OK);
}

/* ---- Writing ---- */

static err_t fail_beside(void *context)
{
    (void)context;
    return err_new(ERR_IO, "no tokenizer");
}

/* What was there before stays until all of the new one is there. */
static void a_failed_write_changes_nothing(void **state)
{
    (void)state;
    char path[512];
    struct stat before, after;
    struct model_packed packed;
    struct model_options options = broken_model_options(&source);
    begin();
    broken_model_write_file(&target, PACKED_FILE, data, good_bytes);
    packed_path(path);
    assert_int_equal(stat(path, &before), 0);
    expect_error(model_pack(&options, target.directory, fail_beside, NULL, &packed), ERR_IO, "no tokenizer",
                 NULL);
    options.device = "cuda";
    expect_error(pack(&options), ERR_INVALID_ARGUMENT, "--device cuda", NULL);
    options = broken_model_options(&target);
    expect_error(pack(&options), ERR_INVALID_ARGUMENT, "packed already", NULL);
    options = broken_model_options(&source);
    memset(source.data, 0xff, 64); /* NaN */
    broken_model_write(&source);
    expect_error(pack(&options), ERR_DATA_LOSS, "NaN", NULL);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_mtime == after.st_mtime);
    snprintf(path, sizeof path, "%s/" PACKED_FILE ".partial", target.directory);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void without_memory(void **state)
{
    (void)state;
    struct broken_model fresh;
    broken_model_make(&fresh);
    broken_model_write(&fresh);
    struct model_options options = broken_model_options(&fresh);
    begin();
    for (int64_t nth = 0;; nth++) {
        assert_true(nth < 4096);
        mem_fail_nth(nth);
        struct model_packed packed;
        err_t e = model_pack(&options, target.directory, fail_beside, NULL, &packed);
        mem_fail_nth(-1);
        if (e.code == ERR_IO)
            break; /* it had all that it asked for */
        expect_error(e, ERR_RESOURCE_EXHAUSTED, NULL);
    }
    broken_model_remove(&fresh);
    assert_int_equal(load_model().code, ERR_OK);
    for (int64_t nth = 0;; nth++) {
        assert_true(nth < 4096);
        mem_fail_nth(nth);
        err_t e = broken_model_load(&target, NULL);
        mem_fail_nth(-1);
        if (e.code == ERR_OK)
            break;
        expect_error(e, ERR_RESOURCE_EXHAUSTED, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_good_file_is_read),
        cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(every_changed_byte_is_noticed),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(wrong_entries),
        cmocka_unit_test(weights_of_another_model),
        cmocka_unit_test(options_that_ask_for_something_else),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(a_failed_write_changes_nothing),
    };
    return cmocka_run_group_tests_name("packed_file", tests, set_up, tear_down);
}
