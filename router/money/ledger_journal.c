#include "router/money/ledger_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"

enum {
    PATH_BYTES_MAX = 4096,
    NUMBERS = 8, /* of a record */
    TEXTS = 5,   /* of an entry */
    RECORD_BYTES_MAX = 16 + NUMBERS * 8 + TEXTS * (LEDGER_NAME_BYTES_MAX + 1),
    RECORDS_AT_ONCE_MAX = 2,
    WAITING_BYTES_MAX = 32 << 10,
    JOURNAL_BYTES_MAX = 1 << 30, /* of one that is read */
};

/* Before each record: how long it is with this, and the low half of the hash of what follows. */
struct record_head {
    uint32_t size_bytes, check;
};

struct ledger_journal {
    char path[PATH_BYTES_MAX];
    int file;
    bool is_durable, is_broken; /* broken: a piece of a record could not be taken away again */
    size_t size;
    size_t waiting_bytes;
    char waiting[WAITING_BYTES_MAX];
};

static err_t journal_path(const char *ledger_path, char out[PATH_BYTES_MAX])
{
    int length = snprintf(out, PATH_BYTES_MAX, "%s-promises", ledger_path);
    return length > 0 && length < PATH_BYTES_MAX
               ? err_ok()
               : err_new(ERR_INVALID_ARGUMENT, "the ledger's path is too long");
}

static err_t failed(const struct ledger_journal *journal, const char *what)
{
    return err_new(ERR_IO, "the ledger's journal %s cannot be %s: %s", journal->path, what, strerror(errno));
}

/* A piece of an entry at the end would hide what is written behind it from the next start. Who reads does not
 * take it for an entry, so that it can go under a reader's eyes. */
static err_t cut_to(struct ledger_journal *journal, size_t size)
{
    if (journal->size > size) {
        if (ftruncate(journal->file, (off_t)size) != 0)
            return failed(journal, "cut to its last entry");
        journal->size = size;
    }
    return err_ok();
}

err_t journal_open(const char *ledger_path, bool durable, size_t good_bytes, struct ledger_journal **out)
{
    struct ledger_journal *journal = mem_alloc(sizeof *journal);
    if (journal == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    journal->is_durable = durable;
    journal->file = -1;
    err_t e = journal_path(ledger_path, journal->path);
    struct stat status;
    if (e.code == ERR_OK) {
        journal->file = open(journal->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (journal->file < 0 || fstat(journal->file, &status) != 0)
            e = failed(journal, "opened");
        else
            journal->size = (size_t)status.st_size;
    }
    if (e.code == ERR_OK)
        e = cut_to(journal, good_bytes);
    if (e.code != ERR_OK)
        journal_close(journal, false);
    else
        *out = journal;
    return e;
}

void journal_close(struct ledger_journal *journal, bool removes)
{
    if (journal == NULL)
        return;
    if (removes)
        (void)unlink(journal->path);
    if (journal->file >= 0)
        close(journal->file);
    mem_free(journal);
}

/* --- bytes */

static void put(char **at, const void *bytes, size_t size)
{
    memcpy(*at, bytes, size);
    *at += size;
}

static void put_numbers(char **at, const int64_t numbers[NUMBERS])
{
    put(at, numbers, NUMBERS * sizeof *numbers);
}

/* Returns its size. */
static size_t write_record(const struct journal_record *record, char out[RECORD_BYTES_MAX])
{
    struct record_head head;
    char *at = out + sizeof head;
    put(&at, &(uint64_t){record->number << 8 | record->kind}, sizeof(uint64_t));
    if (record->kind == JOURNAL_ENTRY) {
        const struct ledger_call *call = &record->call;
        const char *const texts[TEXTS] = {call->request_id, call->tenant, call->provider, call->model,
                                          call->reason};
        put_numbers(&at, (int64_t[NUMBERS]){record->entry, call->attempt, record->at_ms, record->estimate});
        for (size_t i = 0; i < TEXTS; i++)
            put(&at, texts[i], strlen(texts[i]) + 1);
    } else {
        put_numbers(&at, (int64_t[NUMBERS]){record->entry, (int64_t)record->outcome, record->charged,
                                            record->ended_ms, record->input_tokens, record->cached_tokens,
                                            record->output_tokens});
    }
    size_t size = (size_t)(at - out);
    head.size_bytes = (uint32_t)size;
    head.check = (uint32_t)hash64(out + sizeof head, size - sizeof head, 0);
    memcpy(out, &head, sizeof head);
    return size;
}

/* What waits and what is given, by one write: either is there or nothing is. */
static err_t write_all(struct ledger_journal *journal, const char *more, size_t more_bytes)
{
    const struct iovec parts[] = {{journal->waiting, journal->waiting_bytes}, {(char *)more, more_bytes}};
    size_t size = journal->waiting_bytes + more_bytes;
    if (size == 0)
        return err_ok();
    if (journal->is_broken)
        return err_new(ERR_IO, "the ledger's journal %s ends in a piece of an entry", journal->path);
    ssize_t written;
    do
        written = writev(journal->file, parts, 2);
    while (written < 0 && errno == EINTR);
    if (written == (ssize_t)size && (!journal->is_durable || fdatasync(journal->file) == 0)) {
        journal->size += size;
        journal->waiting_bytes = 0;
        return err_ok();
    }
    if (written >= 0 && written < (ssize_t)size)
        errno = ENOSPC;
    err_t e = failed(journal, "written");
    journal->is_broken = written > 0 && ftruncate(journal->file, (off_t)journal->size) != 0;
    return e;
}

err_t journal_append(struct ledger_journal *journal, const struct journal_record *records, size_t n)
{
    char bytes[RECORDS_AT_ONCE_MAX * RECORD_BYTES_MAX];
    size_t size = 0;
    ASSERT(n <= RECORDS_AT_ONCE_MAX);
    for (size_t i = 0; i < n; i++)
        size += write_record(&records[i], bytes + size);
    return write_all(journal, bytes, size);
}

err_t journal_append_later(struct ledger_journal *journal, const struct journal_record *record)
{
    if (journal->waiting_bytes + RECORD_BYTES_MAX > sizeof journal->waiting)
        TRY(write_all(journal, NULL, 0));
    journal->waiting_bytes += write_record(record, journal->waiting + journal->waiting_bytes);
    return err_ok();
}

err_t journal_flush(struct ledger_journal *journal)
{
    return write_all(journal, NULL, 0);
}

size_t journal_bytes(const struct ledger_journal *journal)
{
    return journal->size + journal->waiting_bytes;
}

void journal_clear(struct ledger_journal *journal)
{
    if (flock(journal->file, LOCK_EX | LOCK_NB) != 0)
        return;
    if (ftruncate(journal->file, 0) == 0) {
        journal->size = journal->waiting_bytes = 0;
        journal->is_broken = false;
    }
    (void)flock(journal->file, LOCK_UN);
}

/* --- reading */

static err_t read_all(struct journal_view *view, const char *path)
{
    struct stat status;
    if (flock(view->file, LOCK_SH) != 0 || fstat(view->file, &status) != 0)
        return err_new(ERR_IO, "%s: %s", path, strerror(errno));
    if (status.st_size > JOURNAL_BYTES_MAX)
        return err_new(ERR_IO, "%s: it has more than %d bytes", path, JOURNAL_BYTES_MAX);
    view->bytes = mem_alloc((size_t)status.st_size + 1);
    if (view->bytes == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", path);
    while (view->size < (size_t)status.st_size) {
        ssize_t n = pread(view->file, view->bytes + view->size, (size_t)status.st_size - view->size,
                          (off_t)view->size);
        if (n < 0 && errno != EINTR)
            return err_new(ERR_IO, "%s: %s", path, strerror(errno));
        if (n == 0)
            break;
        view->size += n > 0 ? (size_t)n : 0;
    }
    return err_ok();
}

err_t journal_view_open(const char *ledger_path, struct journal_view *out)
{
    char path[PATH_BYTES_MAX];
    TRY(journal_path(ledger_path, path));
    *out = (struct journal_view){.file = open(path, O_RDONLY | O_CLOEXEC)};
    if (out->file < 0)
        return err_new(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", path, strerror(errno));
    err_t e = read_all(out, path);
    if (e.code != ERR_OK)
        journal_view_close(out);
    return e;
}

void journal_view_close(struct journal_view *view)
{
    mem_free(view->bytes);
    if (view->file >= 0)
        close(view->file);
    *view = (struct journal_view){.file = -1};
}

/* TEXTS strings behind each other, each with its NUL, and nothing else. */
static bool read_texts(const char *at, const char *end, const char *texts[TEXTS])
{
    for (size_t i = 0; i < TEXTS; i++) {
        const char *nul = memchr(at, '\0', (size_t)(end - at));
        if (nul == NULL)
            return false;
        texts[i] = at;
        at = nul + 1;
    }
    return at == end;
}

static bool read_record(const char *at, size_t size, struct journal_record *out)
{
    const char *end = at + size;
    uint64_t word;
    int64_t numbers[NUMBERS];
    const char *texts[TEXTS];
    if (size < sizeof word + sizeof numbers)
        return false;
    memcpy(&word, at, sizeof word);
    memcpy(numbers, at + sizeof word, sizeof numbers);
    at += sizeof word + sizeof numbers;
    *out = (struct journal_record){
        .kind = (enum journal_kind)(word & 0xff), .number = word >> 8, .entry = numbers[0]};
    if (out->kind == JOURNAL_ENTRY) {
        if (!read_texts(at, end, texts))
            return false;
        out->call =
            (struct ledger_call){texts[0], (uint32_t)numbers[1], texts[1], texts[2], texts[3], texts[4]};
        out->at_ms = numbers[2];
        out->estimate = numbers[3];
        return true;
    }
    out->outcome = (enum ledger_outcome)numbers[1];
    out->charged = numbers[2];
    out->ended_ms = numbers[3];
    out->input_tokens = numbers[4];
    out->cached_tokens = numbers[5];
    out->output_tokens = numbers[6];
    return out->kind == JOURNAL_END && numbers[1] >= 0 && numbers[1] < LEDGER_OUTCOMES && at == end;
}

bool journal_view_next(const struct journal_view *view, size_t *at, struct journal_record *out)
{
    struct record_head head;
    if (*at + sizeof head > view->size)
        return false;
    const char *bytes = view->bytes + *at;
    memcpy(&head, bytes, sizeof head);
    if (head.size_bytes <= sizeof head || head.size_bytes > view->size - *at ||
        head.check != (uint32_t)hash64(bytes + sizeof head, head.size_bytes - sizeof head, 0) ||
        !read_record(bytes + sizeof head, head.size_bytes - sizeof head, out))
        return false;
    *at += head.size_bytes;
    return true;
}
