/* mapped_file, new_file and progress. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "base/new_file.h"
#include "base/progress.h"
#include "tests/base/cmocka_base.h"

enum { PATH_BYTES = 256 };

static char directory[PATH_BYTES];

static int make_directory(void **state)
{
    (void)state;
    snprintf(directory, sizeof directory, "bantam-test-files-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

static void write_file(const char *name, const void *data, size_t size, char path[PATH_BYTES])
{
    assert_error(ERR_OK, path_join(directory, name, path, PATH_BYTES));
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void test_map(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    char data[10000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)i;
    write_file("data", data, sizeof data, path);
    struct mapped_file file;
    assert_error(ERR_OK, mapped_file_open(path, &file));
    assert_int_equal(file.size_bytes, sizeof data);
    assert_memory_equal(file.data, data, sizeof data);
    mapped_file_close(&file);
    mapped_file_close(&file);
    assert_null(file.data);
    unlink(path);
}

static void test_map_empty(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    write_file("empty", "", 0, path);
    struct mapped_file file;
    assert_error(ERR_OK, mapped_file_open(path, &file));
    assert_null(file.data);
    assert_int_equal(file.size_bytes, 0);
    mapped_file_close(&file);
    unlink(path);
}

static void test_map_refusals(void **state)
{
    (void)state;
    struct mapped_file file;
    char path[PATH_BYTES];
    assert_error(ERR_NOT_FOUND, mapped_file_open("no-such-directory/file", &file));
    assert_error(ERR_INVALID_ARGUMENT, mapped_file_open(directory, &file));
    assert_error(ERR_INVALID_ARGUMENT, mapped_file_open("/dev/null", &file));
    assert_error(ERR_OK, path_join(directory, "pipe", path, sizeof path));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_error(ERR_INVALID_ARGUMENT, mapped_file_open(path, &file)); /* and does not wait for a writer */
    unlink(path);
    assert_null(file.data);
}

static void test_read(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 4094, 4095, 4096, 4097, 20000};
    static char data[20000];
    memset(data, 'q', sizeof data);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char path[PATH_BYTES];
        write_file("text", data, sizes[i], path);
        char *text;
        size_t size;
        assert_error(ERR_OK, file_read(path, sizes[i], &text, &size));
        assert_int_equal(size, sizes[i]);
        assert_int_equal(strlen(text), sizes[i]);
        mem_free(text);
        if (sizes[i] > 0)
            assert_error(ERR_RESOURCE_EXHAUSTED, file_read(path, sizes[i] - 1, &text, &size));
        unlink(path);
    }
}

static void test_read_of_a_file_without_size(void **state)
{
    (void)state;
    char *text;
    size_t size;
    assert_error(ERR_OK, file_read("/proc/self/status", 1 << 20, &text, &size));
    assert_non_null(strstr(text, "Name:"));
    assert_int_equal(strlen(text), size);
    mem_free(text);
    assert_error(ERR_RESOURCE_EXHAUSTED, file_read("/dev/zero", 100000, &text, &size));
    assert_null(text);
}

/* Of a socket there is no name to open. */
static void test_read_of_a_socket(void **state)
{
    (void)state;
    int ends[2];
    char *text;
    size_t size;
    for (size_t limit = 2; limit <= 3; limit++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        assert_int_equal(write(ends[0], "abc", 3), 3);
        assert_int_equal(close(ends[0]), 0);
        err_t e = descriptor_read(ends[1], "a socket", limit, &text, &size);
        assert_int_equal(e.code, limit == 2 ? ERR_RESOURCE_EXHAUSTED : ERR_OK);
        assert_string_equal(e.code == ERR_OK ? text : e.message,
                            e.code == ERR_OK ? "abc" : "a socket: larger than the limit of 2 bytes");
        mem_free(text);
        assert_int_equal(close(ends[1]), 0);
    }
    assert_error(ERR_IO, descriptor_read(ends[1], "closed", 9, &text, &size));
    assert_null(text);
}

static void test_read_refusals(void **state)
{
    (void)state;
    char *text;
    size_t size;
    assert_error(ERR_NOT_FOUND, file_read("no-such-file", 100, &text, &size));
    assert_null(text);
    assert_error(ERR_INVALID_ARGUMENT, file_read(directory, 100, &text, &size));
    for (int nth = 0; nth < 4; nth++) { /* 4 KiB, 8, 16, 32 */
        char path[PATH_BYTES];
        static char data[20000];
        write_file("large", data, sizeof data, path);
        mem_fail_nth(nth);
        assert_error(ERR_RESOURCE_EXHAUSTED, file_read(path, 1 << 20, &text, &size));
        assert_null(text);
        unlink(path);
    }
    mem_fail_nth(-1);
}

static void test_path_join(void **state)
{
    (void)state;
    char path[16];
    assert_error(ERR_OK, path_join("dir", "file.json", path, sizeof path));
    assert_string_equal(path, "dir/file.json");
    static const char *const bad[] = {"", ".", "..", "a/b", "/etc", "../x", "a/.."};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_error(ERR_INVALID_ARGUMENT, path_join("dir", bad[i], path, sizeof path));
    assert_error(ERR_OK, path_join("dir", "a..b", path, sizeof path));
    assert_error(ERR_OK, path_join("123456", "12345678", path, sizeof path)); /* 15 and the NUL */
    assert_error(ERR_INVALID_ARGUMENT, path_join("123456", "123456789", path, sizeof path));
}

/* Runs fn with stderr going to `descriptor`. */
static void with_stderr(int descriptor, void (*fn)(void))
{
    fflush(stderr);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(descriptor, STDERR_FILENO) >= 0);
    fn();
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
}

static void show_progress(void)
{
    struct progress progress;
    progress_begin(&progress, "loading", 100);
    progress_update(&progress, 50);
    progress.drawn_ns = 0; /* as if the last drawing were long ago */
    progress_update(&progress, 50);
    progress_end(&progress);
    progress_end(&progress);
}

static void test_progress_is_silent_without_a_terminal(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    write_file("stderr", "", 0, path);
    int descriptor = open(path, O_WRONLY);
    with_stderr(descriptor, show_progress);
    struct stat status;
    assert_int_equal(fstat(descriptor, &status), 0);
    assert_int_equal(status.st_size, 0);
    close(descriptor);
    unlink(path);
}

static void test_progress_on_a_terminal(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
        skip();
    int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0);
    with_stderr(terminal, show_progress);
    char seen[1000] = "";
    size_t size = 0;
    while (size < sizeof seen - 1 && strchr(seen, '\n') == NULL) {
        ssize_t got = read(master, seen + size, sizeof seen - 1 - size);
        assert_true(got > 0);
        size += (size_t)got;
    }
    assert_non_null(strstr(seen, "loading"));
    assert_non_null(strstr(seen, " 50 %"));
    assert_non_null(strstr(seen, "100 %"));
    close(terminal);
    close(master);
}

static void expect_content(const char *path, const char *content)
{
    char *data;
    size_t size_bytes;
    assert_error(ERR_OK, file_read(path, 1 << 20, &data, &size_bytes));
    assert_string_equal(data, content);
    mem_free(data);
}

/* Under its name it is there whole or not at all; what was there before stays until then. */
static void test_new_file(void **state)
{
    (void)state;
    char path[PATH_BYTES], beside[PATH_BYTES + 16];
    struct new_file file, second;
    write_file("new", "before", 6, path);
    snprintf(beside, sizeof beside, "%s.partial", path);
    assert_error(ERR_OK, new_file_open(path, &file));
    assert_error(ERR_OK, new_file_reserve(&file, 11));
    assert_error(ERR_OK, new_file_write(&file, 6, "world", 5));
    expect_content(path, "before");
    assert_error(ERR_FAILED_PRECONDITION, new_file_open(path, &second)); /* one writer at a time */
    new_file_close(&second);
    assert_int_equal(access(beside, F_OK), 0); /* and the one that was refused removes nothing */
    assert_error(ERR_OK, new_file_write(&file, 0, "hello ", 6));
    assert_error(ERR_OK, new_file_finish(&file));
    new_file_close(&file);
    expect_content(path, "hello world");
    assert_int_not_equal(access(beside, F_OK), 0);

    /* Not finished: nothing is left of it. */
    assert_error(ERR_OK, new_file_open(path, &file));
    assert_error(ERR_OK, new_file_write(&file, 0, "other", 5));
    new_file_close(&file);
    new_file_close(&file);
    expect_content(path, "hello world");
    assert_int_not_equal(access(beside, F_OK), 0);

    /* What a writer that was killed left does not show through. */
    write_file("new.partial", "a long rest of another file", 27, beside);
    assert_error(ERR_OK, new_file_open(path, &file));
    assert_error(ERR_OK, new_file_write(&file, 0, "new", 3));
    assert_error(ERR_OK, new_file_finish(&file));
    expect_content(path, "new");
    unlink(path);
}

static void test_new_file_refusals(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    static char long_path[NEW_FILE_PATH_MAX + 1];
    struct new_file file;
    assert_error(ERR_IO, new_file_open("/nonexistent/folder/file", &file));
    new_file_close(&file);
    memset(long_path, 'a', sizeof long_path - 1);
    assert_error(ERR_INVALID_ARGUMENT, new_file_open(long_path, &file));
    new_file_close(&file);
    assert_error(ERR_OK, path_join(directory, "full", path, sizeof path));
    pid_t child = fork(); /* the limit is the process's */
    if (child == 0) {
        const struct rlimit limit = {4096, 4096};
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)setrlimit(RLIMIT_FSIZE, &limit);
        static const char data[8192];
        err_t opened = new_file_open(path, &file), reserved = new_file_reserve(&file, sizeof data);
        err_t written = new_file_write(&file, 0, data, sizeof data);
        new_file_close(&file);
        _exit(opened.code == ERR_OK && reserved.code == ERR_RESOURCE_EXHAUSTED &&
                      written.code == ERR_RESOURCE_EXHAUSTED && strstr(written.message, path) != NULL
                  ? 0
                  : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_map_empty),
        cmocka_unit_test(test_map_refusals),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_of_a_file_without_size),
        cmocka_unit_test(test_read_of_a_socket),
        cmocka_unit_test(test_read_refusals),
        cmocka_unit_test(test_path_join),
        cmocka_unit_test(test_new_file),
        cmocka_unit_test(test_new_file_refusals),
        cmocka_unit_test(test_progress_is_silent_without_a_terminal),
        cmocka_unit_test(test_progress_on_a_terminal),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
