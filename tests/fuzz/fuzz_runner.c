/* main for fuzz targets where libFuzzer is not at hand: feeds every corpus file and then a bounded number of
 * seeded mutations to LLVMFuzzerTestOneInput. The same arguments give the same inputs. An input that crashes
 * the target, or keeps it busy for HANG_S, is left in ./fuzz-crash-<program>.bin; naming that file in place
 * of the corpus replays it. fuzz_x --runs N --seed S CORPUS_DIR fuzz_x FILE */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "base/philox.h"

enum { FUZZ_INPUT_MAX = 1 << 20 }; /* bytes: corpus files and mutations alike */

struct fuzz_input {
    uint8_t *data;
    size_t size;
};

enum { CORPUS_FILES_MAX = 4096, HANG_S = 60, PATH_BYTES = 4096, ALT_STACK_BYTES = 64 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* The input in flight, for the crash handler. */
static struct {
    const uint8_t *data;
    size_t size;
    uint64_t run; /* 0 while the corpus itself is fed */
    char path[PATH_BYTES];
} current;

static void write_text(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

static void write_number(uint64_t number)
{
    char digits[24];
    char *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    write_text(at);
}

/* Only calls that a signal handler may make. */
static void save_input(void)
{
    int file = open(current.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool saved = file >= 0 && write(file, current.data, current.size) == (ssize_t)current.size;
    write_text("\nfuzz: run ");
    write_number(current.run);
    write_text(saved ? " failed; its input is in " : " failed; cannot write ");
    write_text(current.path);
    write_text("\n");
    if (file >= 0)
        close(file);
}

static void on_signal(int number)
{
    if (number == SIGALRM)
        write_text("\nfuzz: the target hangs\n");
    save_input();
    signal(number, SIG_DFL);
    raise(number);
}

/* Sanitizers have handlers of their own, which say more, for all but SIGABRT; they tell us by their callback.
 */
static void catch_crashes(void)
{
    static char alternative_stack[ALT_STACK_BYTES]; /* a stack overflow leaves none of the other */
    const stack_t stack = {.ss_sp = alternative_stack, .ss_size = sizeof alternative_stack};
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(save_input);
        return;
    }
    sigaltstack(&stack, NULL);
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, NULL);
}

/* A block of exactly the input's size each time, so that AddressSanitizer sees a read past its end. */
static void feed(const void *data, size_t size, uint64_t run)
{
    uint8_t *copy = mem_alloc(size);
    if (copy == NULL) {
        fprintf(stderr, "fuzz: no memory for an input of %zu bytes\n", size);
        exit(2);
    }
    if (size > 0)
        memcpy(copy, data, size);
    current.data = copy;
    current.size = size;
    current.run = run;
    alarm(HANG_S);
    LLVMFuzzerTestOneInput(copy, size);
    mem_free(copy);
}

static bool load_file(const char *path, struct fuzz_input *out)
{
    char *data;
    size_t size;
    err_t e = file_read(path, FUZZ_INPUT_MAX, &data, &size);
    if (e.code != ERR_OK) {
        fprintf(stderr, "fuzz: %s\n", e.message);
        return false;
    }
    *out = (struct fuzz_input){(uint8_t *)data, size};
    return true;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* All files of the directory, by name; 0 when there is none or one cannot be read. */
static size_t load_corpus(const char *directory, struct fuzz_input corpus[CORPUS_FILES_MAX])
{
    struct dirent **entries;
    int n_entries = scandir(directory, &entries, is_visible, alphasort);
    if (n_entries < 0) {
        fprintf(stderr, "fuzz: %s: %s\n", directory, strerror(errno));
        return 0;
    }
    size_t count = 0;
    bool good = n_entries <= CORPUS_FILES_MAX;
    for (int i = 0; i < n_entries; i++) {
        char path[PATH_BYTES];
        struct stat status;
        good = good && path_join(directory, entries[i]->d_name, path, sizeof path).code == ERR_OK &&
               stat(path, &status) == 0;
        if (good && S_ISREG(status.st_mode)) {
            good = load_file(path, &corpus[count]);
            count += good;
        }
        free(entries[i]);
    }
    free(entries);
    if (!good || count == 0) {
        fprintf(stderr, "fuzz: %s: expected 1 to %d readable files of at most %d bytes\n", directory,
                CORPUS_FILES_MAX, FUZZ_INPUT_MAX);
        return 0;
    }
    return count;
}

enum { MUTATIONS_MAX = 8, INSERT_MAX = 64, COPIES_MAX = 512, WORDS_PER_RUN = 1 << 16 };

/* An input being mutated. */
struct draft {
    struct rng rng;
    uint8_t *data; /* FUZZ_INPUT_MAX bytes */
    size_t size;
    const struct fuzz_input *corpus;
    size_t n_inputs;
};

static size_t pick(struct draft *d, size_t bound)
{
    return bound > 0 ? rng_below(&d->rng, (uint32_t)bound) : 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Short pieces are the likelier ones. */
static size_t pick_length(struct draft *d, size_t most)
{
    return most > 0 ? 1 + pick(d, pick(d, 2) == 0 ? least(most, 16) : most) : 0;
}

static void insert_at(struct draft *d, size_t at, const void *piece, size_t size)
{
    size = least(size, FUZZ_INPUT_MAX - d->size);
    memmove(d->data + at + size, d->data + at, d->size - at);
    memcpy(d->data + at, piece, size);
    d->size += size;
}

static void flip_bit(struct draft *d)
{
    if (d->size > 0)
        d->data[pick(d, d->size)] ^= (uint8_t)(1u << pick(d, 8));
}

static void set_byte(struct draft *d)
{
    if (d->size > 0)
        d->data[pick(d, d->size)] = (uint8_t)rng_u32(&d->rng);
}

/* Near the end as often as anywhere: formats have trailers. */
static void cut_end(struct draft *d)
{
    d->size -= least(d->size, pick_length(d, d->size));
}

static void delete_piece(struct draft *d)
{
    size_t at = pick(d, d->size);
    size_t size = pick_length(d, d->size - at);
    memmove(d->data + at, d->data + at + size, d->size - at - size);
    d->size -= size;
}

/* The end of another input in place of this one's. */
static void splice_end(struct draft *d)
{
    const struct fuzz_input *other = &d->corpus[pick(d, d->n_inputs)];
    size_t from = pick(d, other->size);
    d->size = pick(d, d->size + 1);
    insert_at(d, d->size, other->data + from, other->size - from);
}

static void insert_random(struct draft *d)
{
    uint8_t piece[INSERT_MAX];
    size_t size = pick_length(d, sizeof piece);
    for (size_t i = 0; i < size; i++)
        piece[i] = (uint8_t)rng_u32(&d->rng);
    insert_at(d, pick(d, d->size + 1), piece, size);
}

/* Limits of the integer types, little-endian, over 1, 2, 4 or 8 bytes. */
static void set_magic_number(struct draft *d)
{
    static const uint64_t numbers[] = {
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x100000000,
        0x7fffffffffffffff,
        0x8000000000000000,
        0xffffffffffffffff,
        0xfffffffffffffff8,
    };
    uint64_t number = numbers[pick(d, sizeof numbers / sizeof numbers[0])];
    size_t width = (size_t)1 << pick(d, 4);
    if (d->size >= width)
        memcpy(d->data + pick(d, d->size - width + 1), &number, width);
}

/* What text formats stumble over. */
static void insert_magic_text(struct draft *d)
{
    static const char *const texts[] = {
        "-1",
        "0",
        "1e999",
        "99999999999999999999",
        "9223372036854775807",
        "0.1",
        "null",
        "true",
        "NaN",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        ",",
        ":",
        "{}",
        "[]",
        "\"\"",
        "\\u0000",
        "\\ud800",
        "\\udc00",
        "\n",
        "{{",
        "}}",
        "{%",
        "%}",
        "\xef\xbb\xbf",
        "\xc3",
        "\xf0\x9f\x90\x94",
        "../",
    };
    const char *text = texts[pick(d, sizeof texts / sizeof texts[0])];
    insert_at(d, pick(d, d->size + 1), text, strlen(text));
}

/* A piece again and again, which makes deep nesting and long lists. */
static void repeat_piece(struct draft *d)
{
    uint8_t piece[INSERT_MAX];
    size_t at = pick(d, d->size);
    size_t size = pick_length(d, least(d->size - at, sizeof piece));
    size_t n_copies = pick(d, 8) == 0 ? pick(d, COPIES_MAX) : 1;
    memcpy(piece, d->data + at, size);
    for (size_t i = 0; i < n_copies; i++)
        insert_at(d, at, piece, size);
}

static void move_piece(struct draft *d)
{
    uint8_t piece[INSERT_MAX];
    size_t from = pick(d, d->size);
    size_t size = pick_length(d, least(d->size - from, sizeof piece));
    memcpy(piece, d->data + from, size);
    memcpy(d->data + pick(d, d->size - size + 1), piece, size);
}

/* Picks one of the inputs and applies one to eight mutations; the same (corpus, seed, run) gives the same
 * bytes. Returns the size. */
static size_t fuzz_mutate(const struct fuzz_input *corpus, size_t n_inputs, uint64_t seed, uint64_t run,
                          uint8_t out[FUZZ_INPUT_MAX])
{
    static void (*const mutations[])(struct draft *) = {
        flip_bit,      set_byte,         cut_end,           delete_piece, splice_end,
        insert_random, set_magic_number, insert_magic_text, repeat_piece, move_piece,
    };
    struct draft d = {
        .rng = {.key = seed, .position = run * WORDS_PER_RUN},
        .data = out,
        .corpus = corpus,
        .n_inputs = n_inputs,
    };
    const struct fuzz_input *origin = &corpus[pick(&d, n_inputs)];
    d.size = origin->size;
    if (d.size > 0)
        memcpy(out, origin->data, d.size);
    size_t n_mutations = 1 + pick(&d, pick(&d, 2) == 0 ? 2 : MUTATIONS_MAX);
    for (size_t i = 0; i < n_mutations; i++)
        mutations[pick(&d, sizeof mutations / sizeof mutations[0])](&d);
    return d.size;
}

static int run_corpus(const char *directory, uint64_t n_runs, uint64_t seed)
{
    static struct fuzz_input corpus[CORPUS_FILES_MAX];
    size_t count = load_corpus(directory, corpus);
    if (count == 0)
        return 2;
    for (size_t i = 0; i < count; i++)
        feed(corpus[i].data, corpus[i].size, 0);
    static uint8_t mutated[FUZZ_INPUT_MAX];
    for (uint64_t run = 1; run <= n_runs; run++) {
        size_t size = fuzz_mutate(corpus, count, seed, run, mutated);
        feed(mutated, size, run);
    }
    alarm(0);
    for (size_t i = 0; i < count; i++)
        mem_free(corpus[i].data);
    printf("fuzz: %zu corpus files and %" PRIu64 " mutations passed\n", count, n_runs);
    return 0;
}

static int replay(const char *path)
{
    struct fuzz_input input;
    if (!load_file(path, &input))
        return 2;
    feed(input.data, input.size, 0);
    mem_free(input.data);
    printf("fuzz: %s passed\n", path);
    return 0;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}

int main(int argc, char **argv)
{
    uint64_t n_runs = 0, seed = 0;
    const char *path = NULL;
    bool good = true;
    for (int i = 1; i < argc && good; i++) {
        if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
            good = parse_number(argv[++i], &n_runs);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            good = parse_number(argv[++i], &seed);
        else if (argv[i][0] != '-' && path == NULL)
            path = argv[i];
        else
            good = false;
    }
    struct stat status;
    if (!good || path == NULL) {
        fprintf(stderr, "usage: %s [--runs N] [--seed S] CORPUS_DIR | FILE\n", argv[0]);
        return 2;
    }
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    snprintf(current.path, sizeof current.path, "fuzz-crash-%s.bin", program_invocation_short_name);
    catch_crashes();
    if (stat(path, &status) == 0 && S_ISREG(status.st_mode))
        return replay(path);
    return run_corpus(path, n_runs, seed);
}
