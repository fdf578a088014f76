/* GGUF directories: what is read of a good file, and the error of a file that is wrong in one way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/gguf.h"
#include "tests/base/gguf_builder.h"

enum { TYPE_F32 = 0, TYPE_Q4_0 = 2 };

static const uint64_t MATRIX[] = {64, 2}; /* of Q4_0: 72 bytes */
static const uint64_t VECTOR[] = {5};     /* of F32: 20 bytes */
static const uint8_t ZEROS[256];

/* Keys of every kind, a matrix of Q4_0, a vector of F32. */
static void fill(struct gguf_builder *b)
{
    static const char *const texts[] = {"one", "", "three"};
    builder_text(b, "general.architecture", "llama");
    builder_u32(b, "a.count", 7);
    builder_f32(b, "a.number", 0.5f);
    builder_bool(b, "a.flag", 1);
    builder_texts(b, "a.texts", texts, 3);
    builder_array(b, "a.integers", GGUF_I32, (int32_t[]){-1, 2, 3}, 4, 3);
    builder_array(b, "a.numbers", GGUF_F32, (float[]){0.25f, -8.0f}, 4, 2);
    builder_tensor(b, "w", TYPE_Q4_0, MATRIX, 2, ZEROS, 72);
    builder_tensor(b, "v", TYPE_F32, VECTOR, 1, ZEROS, 20);
}

/* Parses a copy of exactly these bytes, so that a sanitizer sees a read past them. */
static err_t parse(const struct buffer *file, size_t size_bytes, struct gguf *out, uint8_t **copy)
{
    *copy = mem_alloc(size_bytes + 1);
    assert_non_null(*copy);
    uint8_t *data = *copy + 1; /* and at an odd address */
    memcpy(data, file->data, size_bytes);
    return gguf_parse("m.gguf", data, size_bytes, out);
}

static void expect(struct buffer file, enum err_code code, const char *text)
{
    struct gguf gguf;
    uint8_t *copy;
    err_t e = parse(&file, file.size, &gguf, &copy);
    if (e.code != code || !strstr(e.message, text) || !strstr(e.message, "m.gguf"))
        fail_msg("expected %s with \"%s\" and the file's name, got %s: %s", err_code_name(code), text,
                 err_code_name(e.code), e.code == ERR_OK ? "" : e.message);
    mem_free(copy);
    buffer_free(&file);
}

static void expect_ok(err_t e)
{
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

static void read_all(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_builder b = {.version = version};
        fill(&b);
        struct buffer file = builder_finish(&b);
        struct gguf gguf;
        uint8_t *copy;
        expect_ok(parse(&file, file.size, &gguf, &copy));
        uint32_t count = 0;
        double number = 0;
        bool flag = false;
        struct gguf_text text;
        const struct gguf_value *array;
        expect_ok(gguf_get_u32(&gguf, "a.count", 1, 10, &count));
        expect_ok(gguf_get_number(&gguf, "a.number", 0, 1, &number));
        expect_ok(gguf_opt_bool(&gguf, "a.flag", &flag));
        expect_ok(gguf_get_text(&gguf, "general.architecture", &text));
        assert_int_equal(count, 7);
        assert_true(number == 0.5 && flag && gguf_text_is(text, "llama"));
        size_t at = 0;
        expect_ok(gguf_get_array(&gguf, "a.texts", GGUF_TEXT, 3, &array));
        assert_true(gguf_text_is(gguf_next_text(array, &at), "one"));
        assert_true(gguf_text_is(gguf_next_text(array, &at), ""));
        assert_true(gguf_text_is(gguf_next_text(array, &at), "three"));
        expect_ok(gguf_get_array(&gguf, "a.integers", GGUF_I32, 3, &array));
        assert_int_equal(gguf_i32_at(array, 0), -1);
        expect_ok(gguf_get_array(&gguf, "a.numbers", GGUF_F32, 2, &array));
        assert_true(gguf_f32_at(array, 1) == -8.0f);
        const struct gguf_tensor *v = gguf_find_tensor(&gguf, "v");
        assert_int_equal(gguf.n_tensors, 2);
        assert_non_null(v);
        assert_int_equal(v->begin, 96);
        assert_int_equal(v->end, 116);
        assert_int_equal(gguf.data_offset + v->end, file.size);
        assert_null(gguf_find_tensor(&gguf, "x"));
        assert_null(gguf_find(&gguf, "a.coun"));
        gguf_close(&gguf);
        mem_free(copy);
        buffer_free(&file);
    }
}

static void wrong_values(void **state)
{
    (void)state;
    struct gguf_builder b = {0};
    fill(&b);
    struct buffer file = builder_finish(&b);
    struct gguf gguf;
    uint8_t *copy;
    uint32_t count;
    double number;
    bool flag;
    struct gguf_text text;
    const struct gguf_value *array;
    expect_ok(parse(&file, file.size, &gguf, &copy));
    const struct {
        err_t e;
        const char *text;
    } cases[] = {
        {gguf_get_u32(&gguf, "a.none", 0, 1, &count), "\"a.none\" is missing"},
        {gguf_get_u32(&gguf, "a.count", 8, 9, &count), "\"a.count\" is 7, it must be from 8 to 9"},
        {gguf_get_u32(&gguf, "a.flag", 0, 1, &count), "\"a.flag\" must be an integer, it is a boolean"},
        {gguf_get_number(&gguf, "a.number", 1, 2, &number), "\"a.number\" is 0.5"},
        {gguf_get_number(&gguf, "a.texts", 1, 2, &number), "\"a.texts\" must be a number, it is an array"},
        {gguf_opt_bool(&gguf, "a.count", &flag), "\"a.count\" must be a boolean"},
        {gguf_get_text(&gguf, "a.count", &text), "\"a.count\" must be a string"},
        {gguf_get_array(&gguf, "a.count", GGUF_I32, 9, &array), "\"a.count\" must be an array"},
        {gguf_get_array(&gguf, "a.texts", GGUF_I32, 9, &array), "\"a.texts\" has items of type"},
        {gguf_get_array(&gguf, "a.texts", GGUF_TEXT, 2, &array), "\"a.texts\" has 3 items, at most 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(cases[i].e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(cases[i].e.message, cases[i].text));
        assert_non_null(strstr(cases[i].e.message, "m.gguf"));
    }
    gguf_close(&gguf);
    mem_free(copy);
    buffer_free(&file);
}

/* Every shorter file is an error. */
static void truncated(void **state)
{
    (void)state;
    struct gguf_builder b = {0};
    fill(&b);
    struct buffer file = builder_finish(&b);
    for (size_t size = 0; size < file.size; size++) {
        struct gguf gguf;
        uint8_t *copy;
        err_t e = parse(&file, size, &gguf, &copy);
        assert_int_equal(e.code, ERR_DATA_LOSS);
        assert_non_null(strstr(e.message, "m.gguf"));
        mem_free(copy);
    }
    buffer_free(&file);
}

static struct buffer patched(size_t at, uint64_t value, size_t size_bytes)
{
    struct gguf_builder b = {0};
    fill(&b);
    struct buffer file = builder_finish(&b);
    for (size_t i = 0; i < size_bytes; i++)
        file.data[at + i] = (char)(value >> (8 * i));
    return file;
}

static void wrong_heads(void **state)
{
    (void)state;
    expect(patched(0, 'X', 1), ERR_DATA_LOSS, "not a GGUF file");
    expect(patched(4, 1, 4), ERR_UNIMPLEMENTED, "version 1");
    expect(patched(4, 3u << 24, 4), ERR_UNIMPLEMENTED, "big-endian");
    expect(patched(8, UINT64_MAX, 8), ERR_DATA_LOSS, "tensors, more than a file");
    expect(patched(16, UINT64_MAX, 8), ERR_DATA_LOSS, "keys, more than a file");
    expect(patched(24, UINT64_MAX, 8), ERR_DATA_LOSS, "truncated");
    expect(patched(24, 0, 8), ERR_DATA_LOSS, "the key at byte 24");
    expect(patched(52, 13, 4), ERR_DATA_LOSS, "a value of type 13");
}

static void wrong_keys(void **state)
{
    (void)state;
    struct gguf_builder b = {0};
    builder_u32(&b, "twice", 1);
    builder_u32(&b, "twice", 1);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"twice\" is there twice");
    builder_array(&b, "nested", GGUF_ARRAY, NULL, 0, 0);
    expect(builder_finish(&b), ERR_UNIMPLEMENTED, "array of arrays");
    builder_array(&b, "odd", (enum gguf_type)40, NULL, 0, 0);
    expect(builder_finish(&b), ERR_DATA_LOSS, "an array of type 40");
    builder_array(&b, "long", GGUF_F64, NULL, 0, SIZE_MAX / 4);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"long\"");
    builder_array(&b, "texts", GGUF_TEXT, NULL, 0, SIZE_MAX / 4);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"texts\"");
    builder_u32(&b, "\xff", 1);
    expect(builder_finish(&b), ERR_DATA_LOSS, "must be text");
    b.alignment = 48;
    expect(builder_finish(&b), ERR_DATA_LOSS, "must be a power of two");
    b.alignment = 2 * GGUF_ALIGNMENT_MAX;
    expect(builder_finish(&b), ERR_INVALID_ARGUMENT, "general.alignment");
    builder_bool(&b, "flag", 2);
    struct buffer file = builder_finish(&b);
    struct gguf gguf;
    bool flag;
    expect_ok(gguf_parse("m.gguf", (const uint8_t *)file.data, file.size, &gguf));
    assert_int_equal(gguf_opt_bool(&gguf, "flag", &flag).code, ERR_INVALID_ARGUMENT);
    gguf_close(&gguf);
    buffer_free(&file);
}

static void wrong_tensors(void **state)
{
    (void)state;
    struct gguf_builder b = {0};
    builder_tensor(&b, "w", TYPE_F32, VECTOR, 1, ZEROS, 20);
    builder_tensor(&b, "w", TYPE_F32, VECTOR, 1, ZEROS, 20);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"w\" is there twice");
    builder_tensor(&b, "w", 4, VECTOR, 1, ZEROS, 20); /* a type that was given up */
    expect(builder_finish(&b), ERR_UNIMPLEMENTED, "\"w\" is of type 4");
    builder_tensor(&b, "w", UINT32_MAX, VECTOR, 1, ZEROS, 20);
    expect(builder_finish(&b), ERR_UNIMPLEMENTED, "\"w\" is of type 4294967295");
    builder_tensor(&b, "w", TYPE_Q4_0, (uint64_t[]){48}, 1, ZEROS, 27);
    expect(builder_finish(&b), ERR_DATA_LOSS, "Q4_0 needs a multiple of 32");
    builder_tensor(&b, "w", TYPE_F32, (uint64_t[]){0}, 1, ZEROS, 0);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"w\" has a dimension of 0");
    builder_tensor(&b, "w", TYPE_F32, (uint64_t[]){1, 1, 1, 1, 1}, 5, ZEROS, 4);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"w\" must have 1 to 4 dimensions");
    builder_tensor(&b, "w", TYPE_F32, (uint64_t[]){4194305, 4194305, 211106198978564}, 3, ZEROS, 4);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"w\" is larger than the file");
    builder_tensor(&b, "w", TYPE_F32, VECTOR, 1, ZEROS, 16);
    expect(builder_finish(&b), ERR_DATA_LOSS, "\"w\" ends past the file");
    builder_tensor(&b, "", TYPE_F32, VECTOR, 1, ZEROS, 20);
    expect(builder_finish(&b), ERR_DATA_LOSS, "name of a tensor");
}

/* offset: of the second of two vectors, which should be 32. */
static struct buffer with_offset(uint64_t offset)
{
    struct gguf_builder b = {0};
    builder_tensor(&b, "u", TYPE_F32, VECTOR, 1, ZEROS, 20);
    builder_tensor(&b, "v", TYPE_F32, VECTOR, 1, ZEROS, 20);
    for (size_t i = 0; i < 8; i++)
        b.infos.data[b.infos.size - 8 + i] = (char)(offset >> (8 * i));
    return builder_finish(&b);
}

static void wrong_places(void **state)
{
    (void)state;
    expect(with_offset(0), ERR_DATA_LOSS, "overlaps another one");
    expect(with_offset(33), ERR_DATA_LOSS, "multiple of the alignment");
    expect(with_offset(64), ERR_DATA_LOSS, "hole before it");
    expect(with_offset(UINT64_MAX - 31), ERR_DATA_LOSS, "hole before it");
    struct gguf gguf;
    struct buffer file = with_offset(32);
    expect_ok(gguf_parse("m.gguf", (const uint8_t *)file.data, file.size, &gguf));
    gguf_close(&gguf);
    buffer_free(&file);
}

static void paths(void **state)
{
    (void)state;
    struct gguf gguf;
    assert_true(gguf_is_path("/nonexistent/m.gguf"));
    assert_false(gguf_is_path("/nonexistent/model"));
    assert_false(gguf_is_path("/tmp"));
    assert_int_equal(gguf_open("/nonexistent/m.gguf", &gguf).code, ERR_NOT_FOUND);
    char path[] = "/tmp/bantam-test-gguf-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    assert_true(gguf_is_path(path));
    assert_int_equal(gguf_open(path, &gguf).code, ERR_DATA_LOSS); /* empty */
    (void)remove(path);
    (void)fclose(fdopen(descriptor, "r"));
}

/* ---- Heads ---- */

static struct buffer head_of(const struct gguf *gguf, const char *kept)
{
    struct buffer head = {.limit_bytes = 1 << 20};
    expect_ok(gguf_head_write(gguf, kept, &head));
    return head;
}

static void expect_same_keys(const struct gguf *a, const struct gguf *b)
{
    for (size_t i = 0; i < a->n_keys; i++) {
        char name[64] = "";
        memcpy(name, a->keys[i].name.data, a->keys[i].name.size_bytes);
        const struct gguf_value *x = &a->keys[i].value, *y = gguf_find(b, name);
        assert_non_null(y);
        assert_true(x->type == y->type && x->item_type == y->item_type && x->n_items == y->n_items);
        assert_int_equal(x->size_bytes, y->size_bytes);
        assert_memory_equal(x->data, y->data, x->size_bytes);
    }
}

/* Keys and shapes are those of the file, data there are of the kept tensor alone. */
static void heads(void **state)
{
    (void)state;
    struct gguf_builder b = {.alignment = 64};
    static const uint8_t values[20] = {1, 2, 3, [19] = 9};
    fill(&b);
    builder_tensor(&b, "kept", TYPE_F32, VECTOR, 1, values, 20);
    struct buffer file = builder_finish(&b);
    struct gguf gguf, again;
    expect_ok(gguf_parse("m.gguf", (const uint8_t *)file.data, file.size, &gguf));
    assert_false(gguf.is_head);
    struct buffer head = head_of(&gguf, "kept");
    expect_ok(gguf_parse("h.gguf", (const uint8_t *)head.data, head.size, &again));
    assert_true(again.is_head);
    assert_int_equal(again.n_keys, gguf.n_keys + 1);
    assert_int_equal(again.n_tensors, 3);
    expect_same_keys(&gguf, &again);
    const struct gguf_tensor *w = gguf_find_tensor(&again, "w"), *kept = gguf_find_tensor(&again, "kept");
    assert_true(w->n_dims == 2 && w->dims[0] == 64 && w->dims[1] == 2 && w->type == TYPE_Q4_0);
    assert_null(gguf_tensor_data(&again, w));
    assert_memory_equal(gguf_tensor_data(&again, kept), values, 20);
    assert_memory_equal(gguf_tensor_data(&gguf, gguf_find_tensor(&gguf, "kept")), values, 20);

    /* A head of a head is the same. */
    struct buffer second = head_of(&again, "kept");
    assert_int_equal(second.size, head.size);
    buffer_free(&second);
    second = head_of(&again, "w"); /* whose data are not there */
    assert_true(second.size < head.size);
    buffer_free(&second);
    struct buffer tight = {.limit_bytes = 100};
    assert_int_equal(gguf_head_write(&gguf, "kept", &tight).code, ERR_RESOURCE_EXHAUSTED);
    buffer_free(&tight);
    gguf_close(&again);
    gguf_close(&gguf);

    /* Every length of it is an error or a head that tells what it lacks. */
    for (size_t size = 0; size < head.size; size++) {
        uint8_t *copy;
        err_t e = parse(&head, size, &again, &copy);
        if (e.code == ERR_OK) {
            assert_null(gguf_tensor_data(&again, gguf_find_tensor(&again, "kept")));
            gguf_close(&again);
        }
        mem_free(copy);
    }
    buffer_free(&head);
    buffer_free(&file);
}

/* A file's data must be there where it does not say that it is a head. */
static void a_head_says_so(void **state)
{
    (void)state;
    struct gguf_builder b = {0};
    builder_bool(&b, GGUF_HEAD_KEY, 0);
    builder_tensor(&b, "w", TYPE_Q4_0, MATRIX, 2, ZEROS, 72);
    struct buffer file = builder_finish(&b);
    file.size -= 72;
    expect(file, ERR_DATA_LOSS, "ends past the file");
    b = (struct gguf_builder){0};
    builder_u32(&b, GGUF_HEAD_KEY, 1);
    expect(builder_finish(&b), ERR_INVALID_ARGUMENT, GGUF_HEAD_KEY);
}

static void files_of_models(void **state)
{
    (void)state;
    char found[GGUF_PATH_MAX], folder[] = "/tmp/bantam-test-head-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    assert_true(gguf_of_model("/nonexistent/m.gguf", found));
    assert_string_equal(found, "/nonexistent/m.gguf");
    assert_false(gguf_of_model(folder, found));
    snprintf(path, sizeof path, "%s/" GGUF_HEAD_FILE, folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_true(gguf_of_model(folder, found));
    assert_string_equal(found, path);
    assert_int_equal(remove(path), 0);
    assert_int_equal(remove(folder), 0);
    static char longest[GGUF_PATH_MAX + 8];
    memset(longest, 'a', sizeof longest - 6);
    memcpy(longest + sizeof longest - 6, ".gguf", 6);
    assert_false(gguf_of_model(longest, found));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(read_all),       cmocka_unit_test(wrong_values),    cmocka_unit_test(truncated),
        cmocka_unit_test(wrong_heads),    cmocka_unit_test(wrong_keys),      cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(wrong_places),   cmocka_unit_test(paths),           cmocka_unit_test(heads),
        cmocka_unit_test(a_head_says_so), cmocka_unit_test(files_of_models),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
