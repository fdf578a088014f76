#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cpu_count.h"
#include "base/error.h"
#include "tests/base/cmocka_base.h"

enum { PATH_BYTES = 512, CPUS = 64 };

static char root[] = "bantam-test-cgroup-XXXXXX";

/* A file under the fake root, with the directories above it. */
static void write_control(const char *name, const char *text)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int count_with(const char *groups)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/groups", root);
    write_control("groups", groups);
    return cpu_count_within_quota(path, root, CPUS);
}

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) == NULL ? -1 : 0;
}

static void remove_control(const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", root, name);
    (void)remove(path);
}

static int remove_root(void **state)
{
    (void)state;
    static const char *const names[] = {
        "groups",
        "cpu.max",
        "a/b/cpu.max",
        "a/cpu.max",
        "a/b",
        "a",
        "cpu/x/cpu.cfs_quota_us",
        "cpu/x/cpu.cfs_period_us",
        "cpu/x",
        "cpu",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        remove_control(names[i]);
    return rmdir(root);
}

static void test_version_2(void **state)
{
    (void)state;
    assert_int_equal(count_with("0::/a/b\n"), CPUS);
    write_control("a/b/cpu.max", "250000 100000\n");
    assert_int_equal(count_with("0::/a/b\n"), 3); /* 2.5 */
    write_control("a/cpu.max", "50000 100000\n");
    assert_int_equal(count_with("0::/a/b\n"), 1);
    write_control("a/cpu.max", "max 100000\n");
    assert_int_equal(count_with("0::/a/b\n"), 3);
    assert_int_equal(count_with("0::/a\n"), CPUS);
    write_control("cpu.max", "700000 100000\n");
    assert_int_equal(count_with("0::/\n"), 7);
    assert_int_equal(count_with("0::/not/visible/here"), 7);
    assert_int_equal(count_with("0::/a/b\n"), 3);
    remove_control("cpu.max");
}

static void test_version_1(void **state)
{
    (void)state;
    write_control("cpu/x/cpu.cfs_quota_us", "400000\n");
    write_control("cpu/x/cpu.cfs_period_us", "100000\n");
    assert_int_equal(count_with("5:memory:/x\n4:cpu,cpuacct:/x\n"), 4);
    assert_int_equal(count_with("4:cpuset,cpuacct:/x\n"), CPUS);
    write_control("cpu/x/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(count_with("4:cpuacct,cpu:/x\n"), CPUS);
}

static void test_nonsense_is_no_limit(void **state)
{
    (void)state;
    static const char *const groups[] = {"", "\n\n", "::", "x", "0:", "0::", ":::::\n", "0::a/b"};
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        assert_in_range(count_with(groups[i]), 1, CPUS);
    static const char *const limits[] = {"",         "nan nan", "-5 100000", "100000",
                                         "100000 0", "1e300 1", "max max",   "0 0"};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        write_control("a/b/cpu.max", limits[i]);
        assert_int_equal(count_with("0::/a/b\n"), CPUS);
    }
    char long_path[4000] = "0::/";
    memset(long_path + 4, 'p', sizeof long_path - 5);
    assert_int_equal(count_with(long_path), CPUS);
    assert_int_equal(cpu_count_within_quota("no-such-file", root, CPUS), CPUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_nonsense_is_no_limit),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
