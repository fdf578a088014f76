/* Entries and balances are in memory while they change; a promise is made by the journal, and a thread folds
 * what has come together into the database, many entries in a transaction. */
#include "router/money/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "base/hash.h"
#include "base/log.h"
#include "router/money/ledger_balances.h"
#include "router/money/ledger_database.h"
#include "router/money/ledger_journal.h"

enum {
    ENTRY_BUCKETS = 4096,           /* a power of 2 */
    UNFOLDED_MAX = 1 << 18,         /* entries, before more are refused: the database cannot be written */
    JOURNAL_BYTES_ENOUGH = 4 << 20, /* then it is emptied, though calls wait for that */
    BALANCE_SUMS = 32,              /* that are added up before they are written */
    LAST_DAY = 2932896,             /* 9999-12-31 */
    DELETED_AT_ONCE = 10000,        /* entries, before the folder goes on with others */
    BALANCE_DAYS = 62,              /* that are in memory: this month's and those of a clock that goes back */
};
#define FOLD_PAUSE_NS INT64_C(100000000) /* entries come together meanwhile */
#define RETRY_NS      INT64_C(1000000000)
#define TIDY_NS       INT64_C(3600000000000)
#define MS_PER_DAY    INT64_C(86400000)

/* One that is open, or that the database does not have as it is. */
struct entry {
    struct entry *next_by_id, *next_by_name;
    struct entry *next_changed[2]; /* in the list of those that are folded now, and in the other one */
    struct database_entry row;
    bool is_changed, folds_end; /* folds_end: is_over when folding began */
    bool is_in_database;
    char texts[];
};

struct entry_list {
    struct entry *first, *last;
    uint32_t n;
};

struct ledger {
    struct ledger_options options;
    int lock_file;           /* the file again, locked: one writer; -1 = none */
    struct event_count wake; /* the folder */
    _Atomic bool is_closing;
    _Atomic int32_t keep_days;
    int32_t tidied_keep_days; /* the folder's, as what follows */
    int64_t tidied_ns;        /* 0 = never */
    bool has_folder;
    pthread_t folder;

    pthread_mutex_t database_lock; /* before the other one */
    struct ledger_database *database;

    pthread_mutex_t lock;           /* of what follows */
    struct ledger_journal *journal; /* NULL: in memory */
    uint64_t last_number;           /* of the journal's records */
    int64_t last_id;
    _Atomic int32_t first_day; /* balances are known from then on */
    struct ledger_balances balances;
    struct entry *by_id[ENTRY_BUCKETS], *by_name[ENTRY_BUCKETS]; /* by_id: those that are open */
    struct entry_list changed;
    int side; /* of next_changed */
    uint32_t n_folding;
};

const char *ledger_outcome_name(enum ledger_outcome outcome)
{
    static const char *const NAMES[LEDGER_OUTCOMES] = {"settled", "unknown", "released", "lost"};
    return NAMES[outcome];
}

static int64_t now_ms(const struct ledger *ledger)
{
    return ledger->options.unix_ms(ledger->options.clock);
}

static int32_t day_of(int64_t unix_ms)
{
    return (int32_t)(unix_ms / MS_PER_DAY);
}

static int32_t first_of_month(int32_t day)
{
    time_t seconds = (time_t)day * (time_t)(MS_PER_DAY / 1000);
    struct tm date;
    gmtime_r(&seconds, &date);
    return day - (date.tm_mday - 1);
}

/* --- entries in memory */

static struct entry **place_by_id(struct ledger *ledger, int64_t id)
{
    struct entry **place = &ledger->by_id[(uint64_t)id & (ENTRY_BUCKETS - 1)];
    while (*place && (*place)->row.id != id)
        place = &(*place)->next_by_id;
    return place;
}

static struct entry **place_by_name(struct ledger *ledger, const char *request_id, uint32_t attempt)
{
    uint64_t hash = hash64(request_id, strlen(request_id), attempt);
    struct entry **place = &ledger->by_name[hash & (ENTRY_BUCKETS - 1)];
    while (*place &&
           ((*place)->row.call.attempt != attempt || strcmp((*place)->row.call.request_id, request_id) != 0))
        place = &(*place)->next_by_name;
    return place;
}

static const char *keep_text(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *kept = memcpy(*at, text, size);
    *at += size;
    return kept;
}

/* The strings are copied. NULL without memory. */
static struct entry *make_entry(const struct database_entry *row)
{
    const struct ledger_call *call = &row->call;
    struct entry *entry = mem_alloc(sizeof *entry + strlen(call->request_id) + strlen(call->tenant) +
                                    strlen(call->provider) + strlen(call->model) + strlen(call->reason) + 5);
    if (entry == NULL)
        return NULL;
    char *at = entry->texts;
    entry->row = *row;
    entry->row.call.request_id = keep_text(&at, call->request_id);
    entry->row.call.tenant = keep_text(&at, call->tenant);
    entry->row.call.provider = keep_text(&at, call->provider);
    entry->row.call.model = keep_text(&at, call->model);
    entry->row.call.reason = keep_text(&at, call->reason);
    return entry;
}

static void append(struct entry_list *list, struct entry *entry, int side)
{
    entry->next_changed[side] = NULL;
    if (list->last)
        list->last->next_changed[side] = entry;
    else
        list->first = entry;
    list->last = entry;
    list->n++;
}

static void mark_changed(struct ledger *ledger, struct entry *entry)
{
    if (entry->is_changed)
        return;
    entry->is_changed = true;
    append(&ledger->changed, entry, ledger->side);
    if (ledger->changed.n == 1)
        event_count_bump(&ledger->wake);
}

static void enter(struct ledger *ledger, struct entry *entry)
{
    struct entry **place = place_by_id(ledger, entry->row.id);
    *place = entry;
    place = place_by_name(ledger, entry->row.call.request_id, entry->row.call.attempt);
    entry->next_by_name = NULL;
    *place = entry;
    mark_changed(ledger, entry);
}

/* The database has it as it is. */
static void forget(struct ledger *ledger, struct entry *entry)
{
    struct entry **place = place_by_name(ledger, entry->row.call.request_id, entry->row.call.attempt);
    ASSERT(*place == entry);
    *place = entry->next_by_name;
    mem_free(entry);
}

static nanodollars charge_of(const struct database_entry *row, enum ledger_outcome outcome, nanodollars cost)
{
    return outcome == LEDGER_SETTLED ? cost : outcome == LEDGER_RELEASED ? 0 : row->estimate;
}

/* It stays in the list of names until it is folded. */
static void end_entry(struct ledger *ledger, struct entry *entry, const struct journal_record *end)
{
    struct entry **place = place_by_id(ledger, entry->row.id);
    ASSERT(*place == entry && !entry->row.is_over);
    *place = entry->next_by_id;
    entry->row.is_over = true;
    entry->row.outcome = end->outcome;
    entry->row.charged = end->charged;
    entry->row.ended_ms = end->ended_ms;
    entry->row.input_tokens = end->input_tokens;
    entry->row.cached_tokens = end->cached_tokens;
    entry->row.output_tokens = end->output_tokens;
    mark_changed(ledger, entry);
}

/* --- folding */

/* A batch has many entries of few tenants. */
struct balance_sums {
    struct {
        const char *tenant;
        int32_t day;
        nanodollars spent, reserved;
    } rows[BALANCE_SUMS];
    size_t n;
};

static err_t write_sums(struct ledger *ledger, struct balance_sums *sums)
{
    for (size_t i = 0; i < sums->n; i++)
        TRY(database_add_balance(ledger->database, sums->rows[i].tenant, sums->rows[i].day,
                                 sums->rows[i].spent, sums->rows[i].reserved));
    sums->n = 0;
    return err_ok();
}

static err_t add_to_sums(struct ledger *ledger, struct balance_sums *sums, const struct database_entry *row,
                         nanodollars spent, nanodollars reserved)
{
    size_t i = 0;
    while (i < sums->n &&
           (sums->rows[i].day != row->day || strcmp(sums->rows[i].tenant, row->call.tenant) != 0))
        i++;
    if (i == BALANCE_SUMS) {
        TRY(write_sums(ledger, sums));
        i = 0;
    }
    if (i == sums->n) {
        sums->rows[i].tenant = row->call.tenant;
        sums->rows[i].day = row->day;
        sums->rows[i].spent = sums->rows[i].reserved = 0;
        sums->n++;
    }
    sums->rows[i].spent += spent;
    sums->rows[i].reserved += reserved;
    return err_ok();
}

/* Of an entry that may be ended meanwhile nothing is read that this would change. */
static err_t fold_entry(struct ledger *ledger, const struct entry *entry, struct balance_sums *sums)
{
    const struct database_entry *row = &entry->row;
    nanodollars spent = entry->folds_end ? row->charged : 0, reserved = entry->folds_end ? 0 : row->estimate;
    if (entry->is_in_database) {
        ASSERT(entry->folds_end);
        TRY(database_end(ledger->database, row));
        reserved = -row->estimate;
    } else {
        struct database_entry open = {.id = row->id,
                                      .call = row->call,
                                      .day = row->day,
                                      .at_ms = row->at_ms,
                                      .estimate = row->estimate};
        TRY(database_insert(ledger->database, entry->folds_end ? row : &open));
    }
    return add_to_sums(ledger, sums, row, spent, reserved);
}

static bool is_in_memory(const struct ledger *ledger)
{
    return strcmp(ledger->options.path, ":memory:") == 0;
}

static err_t write_batch(struct ledger *ledger, const struct entry_list *batch, int side, uint64_t number)
{
    struct balance_sums sums = {.n = 0};
    TRY(database_begin(ledger->database));
    err_t e = err_ok();
    for (const struct entry *entry = batch->first; entry && e.code == ERR_OK;
         entry = entry->next_changed[side])
        e = fold_entry(ledger, entry, &sums);
    if (e.code == ERR_OK)
        e = write_sums(ledger, &sums);
    if (e.code == ERR_OK)
        e = database_set_folded(ledger->database, number);
    if (e.code == ERR_OK && is_in_memory(ledger)) /* nobody reads there what is over */
        e = database_forget_ended(ledger->database);
    return database_finish(ledger->database, e);
}

/* Under the lock: what has changed is taken, to be written. */
static void take_batch(struct ledger *ledger, struct entry_list *batch, int *side, uint64_t *number)
{
    *batch = ledger->changed;
    *side = ledger->side;
    *number = ledger->last_number;
    ledger->changed = (struct entry_list){0};
    ledger->side = 1 - ledger->side;
    ledger->n_folding = batch->n;
    for (struct entry *entry = batch->first; entry; entry = entry->next_changed[*side]) {
        entry->is_changed = false;
        entry->folds_end = entry->row.is_over;
    }
}

/* Under the lock: the batch is in the database, or is still to be. */
static void leave_batch(struct ledger *ledger, struct entry_list *batch, int side, bool is_written)
{
    for (struct entry *entry = batch->first, *next; entry; entry = next) {
        next = entry->next_changed[side];
        if (!is_written)
            mark_changed(ledger, entry);
        else if (entry->folds_end)
            forget(ledger, entry);
        else
            entry->is_in_database = true;
    }
    ledger->n_folding = 0;
}

/* Under the database's lock. */
static err_t fold(struct ledger *ledger)
{
    struct entry_list batch;
    int side;
    uint64_t number;
    err_t e = err_ok();
    pthread_mutex_lock(&ledger->lock);
    take_batch(ledger, &batch, &side, &number);
    pthread_mutex_unlock(&ledger->lock);
    if (batch.n > 0)
        e = write_batch(ledger, &batch, side, number);
    pthread_mutex_lock(&ledger->lock);
    leave_batch(ledger, &batch, side, e.code == ERR_OK);
    bool is_long = ledger->journal && journal_bytes(ledger->journal) >= JOURNAL_BYTES_ENOUGH;
    if (e.code == ERR_OK && is_long && ledger->changed.n > 0) { /* the little that came meanwhile, too */
        take_batch(ledger, &batch, &side, &number);
        e = write_batch(ledger, &batch, side, number);
        leave_batch(ledger, &batch, side, e.code == ERR_OK);
    }
    if (ledger->journal && e.code == ERR_OK && ledger->changed.n == 0 && journal_bytes(ledger->journal) > 0)
        journal_clear(ledger->journal);
    pthread_mutex_unlock(&ledger->lock);
    database_tidy(ledger->database); /* waits for the disk, and nobody waits for it */
    return e;
}

/* What is under way is in the database, too. */
static err_t fold_all(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->database_lock);
    err_t e = fold(ledger);
    pthread_mutex_unlock(&ledger->database_lock);
    return e;
}

/* Until the time is over, or the ledger closes. */
static void pause_for(struct ledger *ledger, int64_t ns)
{
    int64_t until_ns = clock_now_ns(clock_monotonic()) + ns, left_ns;
    while (!atomic_load(&ledger->is_closing) && (left_ns = until_ns - clock_now_ns(clock_monotonic())) > 0) {
        uint32_t seen = event_count_read(&ledger->wake);
        if (!atomic_load(&ledger->is_closing))
            event_count_wait(&ledger->wake, seen, left_ns);
    }
}

/* Promises wait for one bucket at most; know_balances for them all. */
static void forget_balances(struct ledger *ledger, int32_t first_day)
{
    pthread_mutex_lock(&ledger->database_lock);
    for (size_t i = 0; i < BALANCE_BUCKETS; i++) {
        pthread_mutex_lock(&ledger->lock);
        if (first_day > atomic_load(&ledger->first_day))
            atomic_store(&ledger->first_day, first_day);
        balances_forget(&ledger->balances, i, first_day);
        pthread_mutex_unlock(&ledger->lock);
    }
    pthread_mutex_unlock(&ledger->database_lock);
}

static void delete_entries(struct ledger *ledger, int32_t first_day)
{
    bool is_all = false;
    err_t e = err_ok();
    do {
        pthread_mutex_lock(&ledger->database_lock);
        e = database_delete_before(ledger->database, first_day, DELETED_AT_ONCE, &is_all);
        database_tidy(ledger->database);
        pthread_mutex_unlock(&ledger->database_lock);
        if (e.code == ERR_OK && !is_all)
            e = fold_all(ledger);
    } while (e.code == ERR_OK && !is_all && !atomic_load(&ledger->is_closing));
    if (e.code != ERR_OK)
        log_warn("money", "%s; entries that are too old stay for now", e.message);
}

/* At the start, once an hour, and when others are to be kept. */
static void tidy(struct ledger *ledger)
{
    int64_t now_ns = clock_now_ns(clock_monotonic());
    int32_t keep_days = atomic_load(&ledger->keep_days), today = day_of(now_ms(ledger));
    if (ledger->tidied_ns != 0 && now_ns - ledger->tidied_ns < TIDY_NS &&
        keep_days == ledger->tidied_keep_days)
        return;
    ledger->tidied_ns = now_ns;
    ledger->tidied_keep_days = keep_days;
    forget_balances(ledger, today - BALANCE_DAYS);
    if (keep_days > 0)
        delete_entries(ledger, today - keep_days);
}

static void *fold_for_ever(void *context)
{
    struct ledger *ledger = context;
    tidy(ledger);
    while (!atomic_load(&ledger->is_closing)) {
        tidy(ledger);
        uint32_t seen = event_count_read(&ledger->wake);
        pthread_mutex_lock(&ledger->lock);
        bool is_idle = ledger->changed.n == 0;
        pthread_mutex_unlock(&ledger->lock);
        if (is_idle) {
            if (!atomic_load(&ledger->is_closing))
                event_count_wait(&ledger->wake, seen, TIDY_NS);
            continue;
        }
        pause_for(ledger, FOLD_PAUSE_NS);
        err_t e = fold_all(ledger);
        if (e.code == ERR_OK)
            continue;
        log_warn("money", "%s; what it lacks is in the journal", e.message);
        pause_for(ledger, RETRY_NS);
    }
    return NULL;
}

static err_t start_folder(struct ledger *ledger)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ledger->has_folder = pthread_create(&ledger->folder, NULL, fold_for_ever, ledger) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ledger->has_folder)
        (void)pthread_setname_np(ledger->folder, "bantam-ledger");
    return ledger->has_folder ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no thread for the ledger");
}

/* --- opening */

/* SQLite's own locks are another kind, which are lost when any descriptor of the file is closed: this one
 * stays open for as long as the database. */
static err_t lock_file(struct ledger *ledger)
{
    const char *path = ledger->options.path;
    if (is_in_memory(ledger) || ledger->options.read_only)
        return err_ok();
    ledger->lock_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (ledger->lock_file < 0)
        return err_new(ERR_IO, "the ledger %s cannot be opened: %s", path, strerror(errno));
    if (flock(ledger->lock_file, LOCK_EX | LOCK_NB) != 0)
        return err_new(ERR_FAILED_PRECONDITION, "another process writes the ledger %s: one router a ledger",
                       path);
    return err_ok();
}

/* The end of an entry that the database has. */
static err_t find_in_database(struct ledger *ledger, int64_t id, struct entry **out)
{
    char tenant[LEDGER_NAME_BYTES_MAX + 1];
    struct database_entry row = {.id = id, .call = {"", (uint32_t)id, tenant, "", "", ""}};
    *out = NULL;
    err_t e = database_find_open(ledger->database, id, tenant, &row.day, &row.estimate);
    if (e.code == ERR_NOT_FOUND)
        return err_ok(); /* it has ended there, too */
    TRY(e);
    *out = make_entry(&row);
    if (*out == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    (*out)->is_in_database = true;
    enter(ledger, *out);
    return err_ok();
}

static err_t replay_record(struct ledger *ledger, const struct journal_record *record)
{
    ledger->last_number = record->number;
    struct entry *entry = *place_by_id(ledger, record->entry);
    if (record->kind == JOURNAL_ENTRY) {
        struct database_entry row = {.id = record->entry,
                                     .call = record->call,
                                     .day = day_of(record->at_ms),
                                     .at_ms = record->at_ms,
                                     .estimate = record->estimate};
        ASSERT(entry == NULL);
        entry = make_entry(&row);
        if (entry == NULL)
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
        enter(ledger, entry);
        return err_ok();
    }
    if (entry == NULL)
        TRY(find_in_database(ledger, record->entry, &entry));
    if (entry)
        end_entry(ledger, entry, record);
    return err_ok();
}

static void forget_all(struct ledger *ledger)
{
    for (size_t i = 0; i < ENTRY_BUCKETS; i++) {
        for (struct entry *entry = ledger->by_name[i], *next; entry; entry = next) {
            next = entry->next_by_name;
            mem_free(entry);
        }
        ledger->by_name[i] = ledger->by_id[i] = NULL;
    }
    ledger->changed = (struct entry_list){0};
}

/* What a process that is gone has promised and not folded. *good_bytes: of the journal, entries that are
 * whole. */
static err_t replay(struct ledger *ledger, size_t *good_bytes)
{
    struct journal_view view;
    struct journal_record record;
    *good_bytes = 0;
    TRY(database_folded(ledger->database, &ledger->last_number));
    uint64_t folded = ledger->last_number;
    err_t e = journal_view_open(ledger->options.path, &view);
    if (e.code == ERR_NOT_FOUND)
        return err_ok();
    TRY(e);
    size_t at = 0;
    while (e.code == ERR_OK && journal_view_next(&view, &at, &record)) {
        if (record.number > folded)
            e = replay_record(ledger, &record);
    }
    if (at < view.size)
        log_warn("money", "the last %zu bytes of the ledger's journal are no entry: they were not promised",
                 view.size - at);
    journal_view_close(&view);
    *good_bytes = at;
    if (e.code == ERR_OK)
        e = fold_all(ledger);
    forget_all(ledger);
    return e;
}

static err_t take_balance(void *context, const char *tenant, int32_t day,
                          const struct ledger_balance *balance)
{
    struct ledger *ledger = context;
    TRY(balances_reserve_day(&ledger->balances, tenant, day));
    balances_add(&ledger->balances, tenant, day, balance->spent, balance->reserved);
    return err_ok();
}

/* Balances of the month of that day and of those that follow are in memory: a clock may go back. */
static err_t know_balances(struct ledger *ledger, int32_t day)
{
    int32_t first = first_of_month(day), before = atomic_load(&ledger->first_day);
    if (first >= before)
        return err_ok();
    pthread_mutex_lock(&ledger->database_lock);
    pthread_mutex_lock(&ledger->lock);
    before = atomic_load(&ledger->first_day);
    err_t e = err_ok();
    if (first < before)
        e = database_balances(ledger->database, first, before - 1, take_balance, ledger);
    if (first < before && e.code == ERR_OK)
        atomic_store(&ledger->first_day, first);
    pthread_mutex_unlock(&ledger->lock);
    pthread_mutex_unlock(&ledger->database_lock);
    return e;
}

static err_t open_for_writing(struct ledger *ledger, uint64_t *n_lost)
{
    const struct ledger_options *options = &ledger->options;
    uint64_t n = 0;
    atomic_store(&ledger->first_day, LAST_DAY);
    if (database_is_file(ledger->database)) {
        size_t good_bytes;
        TRY(replay(ledger, &good_bytes));
        TRY(journal_open(options->path, options->durable, good_bytes, &ledger->journal));
        journal_clear(ledger->journal);
    }
    TRY(database_charge_lost(ledger->database, now_ms(ledger), &n));
    TRY(database_last_id(ledger->database, &ledger->last_id));
    TRY(know_balances(ledger, day_of(now_ms(ledger))));
    TRY(start_folder(ledger));
    if (n_lost)
        *n_lost = n;
    return err_ok();
}

err_t ledger_open(const struct ledger_options *options, uint64_t *n_lost, struct ledger **out)
{
    struct ledger *ledger = mem_alloc(sizeof *ledger);
    if (ledger == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    ledger->options = *options;
    ledger->keep_days = options->keep_days;
    ledger->lock_file = -1;
    ASSERT(pthread_mutex_init(&ledger->lock, NULL) == 0);
    ASSERT(pthread_mutex_init(&ledger->database_lock, NULL) == 0);
    ledger->options.path = mem_strdup(options->path);
    err_t e =
        ledger->options.path ? lock_file(ledger) : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a ledger");
    if (e.code == ERR_OK)
        e = database_open(&ledger->options, &ledger->database);
    if (e.code == ERR_OK && !options->read_only)
        e = open_for_writing(ledger, n_lost);
    if (e.code != ERR_OK)
        ledger_close(ledger);
    else
        *out = ledger;
    return e;
}

void ledger_keep(struct ledger *ledger, int32_t days)
{
    atomic_store(&ledger->keep_days, days);
    event_count_bump(&ledger->wake);
}

void ledger_close(struct ledger *ledger)
{
    if (ledger == NULL)
        return;
    bool is_folded = false;
    atomic_store(&ledger->is_closing, true);
    event_count_bump(&ledger->wake);
    if (ledger->has_folder) {
        pthread_join(ledger->folder, NULL);
        err_t e = fold_all(ledger);
        is_folded = e.code == ERR_OK;
        if (!is_folded) {
            log_warn("money", "%s; what it lacks is in the journal", e.message);
            e = ledger_flush(ledger);
            if (e.code != ERR_OK)
                log_warn("money", "%s", e.message);
        }
    }
    forget_all(ledger);
    balances_free(&ledger->balances);
    journal_close(ledger->journal, is_folded);
    database_close(ledger->database);
    if (ledger->lock_file >= 0)
        close(ledger->lock_file);
    pthread_mutex_destroy(&ledger->lock);
    pthread_mutex_destroy(&ledger->database_lock);
    mem_free((char *)ledger->options.path);
    mem_free(ledger);
}

/* --- promises */

static err_t check_limit(const char *tenant, const struct ledger_balance *balance, nanodollars estimate,
                         nanodollars limit, const char *span)
{
    nanodollars used = money_add(balance->spent, balance->reserved);
    if (limit == 0 || (estimate <= limit && used <= limit - estimate))
        return err_ok();
    char of[MONEY_TEXT_BYTES], spent[MONEY_TEXT_BYTES], reserved[MONEY_TEXT_BYTES], more[MONEY_TEXT_BYTES];
    money_format(limit, of);
    money_format(balance->spent, spent);
    money_format(balance->reserved, reserved);
    money_format(estimate, more);
    return err_new(ERR_QUOTA_EXCEEDED,
                   "tenant \"%s\" has spent %s of its %s for the %s and reserved %s; this call may cost %s",
                   tenant, spent, of, span, reserved, more);
}

static err_t check_budget(struct ledger *ledger, const char *tenant, int32_t day, nanodollars estimate,
                          const struct ledger_budget *budget)
{
    if (budget == NULL || (budget->per_day == 0 && budget->per_month == 0))
        return err_ok();
    struct ledger_balance today = balances_sum(&ledger->balances, tenant, day, day),
                          this_month = balances_sum(&ledger->balances, tenant, first_of_month(day), day);
    TRY(check_limit(tenant, &today, estimate, budget->per_day, "day"));
    return check_limit(tenant, &this_month, estimate, budget->per_month, "month");
}

static err_t check_call(const struct ledger *ledger, const struct ledger_call *call)
{
    const char *TEXTS[] = {call->request_id, call->tenant, call->provider, call->model, call->reason};
    if (ledger->options.read_only)
        return err_new(ERR_IO, "the ledger %s is only read here", ledger->options.path);
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        ASSERT(TEXTS[i]);
        if (strlen(TEXTS[i]) > LEDGER_NAME_BYTES_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "\"%.40s...\" has more than %d bytes", TEXTS[i],
                           LEDGER_NAME_BYTES_MAX);
    }
    return err_ok();
}

/* Under the lock, before anything is promised: may it be, and is there room for it? */
static err_t prepare(struct ledger *ledger, const struct database_entry *row,
                     const struct ledger_budget *budget, struct entry **out)
{
    const struct ledger_call *call = &row->call;
    if (*place_by_name(ledger, call->request_id, call->attempt))
        return err_new(ERR_INVALID_ARGUMENT, "attempt %u of request %s is in the ledger already",
                       call->attempt, call->request_id);
    if (ledger->changed.n + ledger->n_folding >= UNFOLDED_MAX)
        return err_new(ERR_IO, "the ledger %s cannot be written: %d entries wait for it",
                       ledger->options.path, UNFOLDED_MAX);
    TRY(check_budget(ledger, call->tenant, row->day, row->estimate, budget));
    TRY(balances_reserve_day(&ledger->balances, call->tenant, row->day));
    *out = make_entry(row);
    return *out ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an entry of the ledger");
}

static err_t promise(struct ledger *ledger, struct journal_record *records, size_t n)
{
    for (size_t i = 0; i < n; i++)
        records[i].number = ledger->last_number + 1 + i;
    if (ledger->journal)
        TRY(journal_append(ledger->journal, records, n));
    ledger->last_number += n;
    return err_ok();
}

static struct journal_record end_of(const struct ledger *ledger, int64_t entry, enum ledger_outcome outcome,
                                    nanodollars charged, const struct answer_usage *usage)
{
    return (struct journal_record){
        .kind = JOURNAL_END,
        .entry = entry,
        .outcome = outcome,
        .charged = charged,
        .ended_ms = now_ms(ledger),
        .input_tokens = usage ? usage->input_tokens : -1,
        .cached_tokens = usage ? usage->cached_tokens : -1,
        .output_tokens = usage ? usage->output_tokens : -1,
    };
}

/* Under the lock: the entry is entered, and ended at once where outcome is not NULL. */
static err_t enter_call(struct ledger *ledger, struct database_entry *row, const struct ledger_budget *budget,
                        bool is_over, const struct answer_usage *usage)
{
    struct entry *entry;
    TRY(prepare(ledger, row, budget, &entry));
    entry->row.id = row->id = ledger->last_id + 1;
    struct journal_record records[2] = {
        {.kind = JOURNAL_ENTRY,
         .entry = row->id,
         .call = row->call,
         .at_ms = row->at_ms,
         .estimate = row->estimate},
        end_of(ledger, row->id, LEDGER_SETTLED, row->estimate, usage),
    };
    err_t e = promise(ledger, records, is_over ? 2 : 1);
    if (e.code != ERR_OK) {
        mem_free(entry);
        return e;
    }
    ledger->last_id = row->id;
    balances_add(&ledger->balances, row->call.tenant, row->day, is_over ? row->estimate : 0,
                 is_over ? 0 : row->estimate);
    enter(ledger, entry);
    if (is_over)
        end_entry(ledger, entry, &records[1]);
    return e;
}

static err_t enter_now(struct ledger *ledger, const struct ledger_call *call, nanodollars amount,
                       const struct ledger_budget *budget, bool is_over, const struct answer_usage *usage,
                       int64_t *id)
{
    struct database_entry row = {.call = *call, .at_ms = now_ms(ledger), .estimate = amount};
    ASSERT(amount >= 0 && amount <= MONEY_MAX);
    TRY(check_call(ledger, call));
    row.day = day_of(row.at_ms);
    TRY(know_balances(ledger, row.day));
    pthread_mutex_lock(&ledger->lock);
    err_t e = enter_call(ledger, &row, budget, is_over, usage);
    pthread_mutex_unlock(&ledger->lock);
    *id = row.id;
    return e;
}

err_t ledger_reserve(struct ledger *ledger, const struct ledger_call *call, nanodollars estimate,
                     const struct ledger_budget *budget, int64_t *entry)
{
    return enter_now(ledger, call, estimate, budget, false, NULL, entry);
}

err_t ledger_record(struct ledger *ledger, const struct ledger_call *call, nanodollars cost,
                    const struct answer_usage *usage)
{
    int64_t id;
    return enter_now(ledger, call, cost, NULL, true, usage, &id);
}

/* Under the lock. */
static err_t promise_end(struct ledger *ledger, struct journal_record *end, bool is_soon)
{
    if (!is_soon || ledger->journal == NULL)
        return promise(ledger, end, 1);
    end->number = ledger->last_number + 1;
    TRY(journal_append_later(ledger->journal, end));
    ledger->last_number++;
    return err_ok();
}

static err_t settle(struct ledger *ledger, int64_t id, enum ledger_outcome outcome, nanodollars cost,
                    const struct answer_usage *usage, bool is_soon)
{
    struct entry *entry = *place_by_id(ledger, id);
    if (entry == NULL)
        return err_new(ERR_FAILED_PRECONDITION, "entry %lld of the ledger is not open", (long long)id);
    nanodollars charged = charge_of(&entry->row, outcome, cost);
    struct journal_record end = end_of(ledger, id, outcome, charged, usage);
    TRY(promise_end(ledger, &end, is_soon));
    balances_add(&ledger->balances, entry->row.call.tenant, entry->row.day, charged, -entry->row.estimate);
    end_entry(ledger, entry, &end);
    return err_ok();
}

static err_t settle_now(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                        const struct answer_usage *usage, bool is_soon)
{
    ASSERT(outcome < LEDGER_OUTCOMES && cost >= 0 && cost <= MONEY_MAX);
    pthread_mutex_lock(&ledger->lock);
    err_t e = settle(ledger, entry, outcome, cost, usage, is_soon);
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

err_t ledger_settle(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                    const struct answer_usage *usage)
{
    return settle_now(ledger, entry, outcome, cost, usage, false);
}

err_t ledger_settle_soon(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                         const struct answer_usage *usage)
{
    return settle_now(ledger, entry, outcome, cost, usage, true);
}

err_t ledger_flush(struct ledger *ledger)
{
    pthread_mutex_lock(&ledger->lock);
    err_t e = ledger->journal ? journal_flush(ledger->journal) : err_ok();
    pthread_mutex_unlock(&ledger->lock);
    return e;
}

/* --- questions */

err_t ledger_balance(struct ledger *ledger, const char *tenant, struct ledger_balance *today,
                     struct ledger_balance *this_month)
{
    int32_t day = day_of(now_ms(ledger));
    if (ledger->options.read_only)
        return err_new(ERR_FAILED_PRECONDITION, "the ledger %s is only read here", ledger->options.path);
    TRY(know_balances(ledger, day));
    pthread_mutex_lock(&ledger->lock);
    *today = balances_sum(&ledger->balances, tenant, day, day);
    *this_month = balances_sum(&ledger->balances, tenant, first_of_month(day), day);
    pthread_mutex_unlock(&ledger->lock);
    return err_ok();
}

err_t ledger_report(struct ledger *ledger, const char *first_day, const char *last_day,
                    void (*line)(void *context, const struct ledger_line *line), void *context)
{
    err_t e = err_ok();
    pthread_mutex_lock(&ledger->database_lock);
    if (!ledger->options.read_only)
        e = fold(ledger);
    if (e.code == ERR_OK)
        e = database_report(ledger->database, first_day, last_day, line, context);
    pthread_mutex_unlock(&ledger->database_lock);
    return e;
}

err_t ledger_kept_from(struct ledger *ledger, char day[LEDGER_DAY_BYTES])
{
    pthread_mutex_lock(&ledger->database_lock);
    err_t e = database_kept_from(ledger->database, day);
    pthread_mutex_unlock(&ledger->database_lock);
    return e;
}
