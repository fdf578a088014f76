#include "router/cache/answer_record.h"

#include <string.h>

/* Numbers are little-endian of 8 bytes, or one byte; a text is its length and bytes, and a NUL behind them.
 *
 *   'B' 'A' 'R' version
 *   RECORD_PIECE kind finish choice tool_index text tool_id tool_name     any number of these
 *   RECORD_END model id fingerprint, five counts                          one */
enum { RECORD_PIECE = 1, RECORD_END = 2, NO_TEXT = -1 };
static const char MAGIC[4] = {'B', 'A', 'R', ANSWER_RECORD_VERSION};

static void put(struct answer_record *record, const void *bytes, size_t size)
{
    record->is_broken = record->is_broken || !buffer_append(&record->bytes, bytes, size);
}

static void put_byte(struct answer_record *record, int value)
{
    uint8_t byte = (uint8_t)value;
    put(record, &byte, 1);
}

static void put_number(struct answer_record *record, int64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)value >> (8 * i));
    put(record, bytes, sizeof bytes);
}

static void put_text(struct answer_record *record, const char *text, size_t size)
{
    put_number(record, text ? (int64_t)size : NO_TEXT);
    if (text == NULL)
        return;
    put(record, text, size);
    put_byte(record, 0);
}

static void begin(struct answer_record *record)
{
    if (record->bytes.size == 0)
        put(record, MAGIC, sizeof MAGIC);
}

void answer_record_piece(struct answer_record *record, const struct answer_piece *piece)
{
    begin(record);
    put_byte(record, RECORD_PIECE);
    put_byte(record, piece->kind);
    put_byte(record, piece->finish);
    put_number(record, piece->choice_index);
    put_number(record, piece->tool_index);
    put_text(record, piece->text, piece->text_bytes);
    put_text(record, piece->tool_id, piece->tool_id ? strlen(piece->tool_id) : 0);
    put_text(record, piece->tool_name, piece->tool_name ? strlen(piece->tool_name) : 0);
}

bool answer_record_end(struct answer_record *record, const struct answer_facts *facts)
{
    begin(record);
    put_byte(record, RECORD_END);
    put_text(record, facts->model, strlen(facts->model));
    put_text(record, facts->id, strlen(facts->id));
    put_text(record, facts->fingerprint, strlen(facts->fingerprint));
    put_number(record, facts->usage.input_tokens);
    put_number(record, facts->usage.cached_tokens);
    put_number(record, facts->usage.cache_write_tokens);
    put_number(record, facts->usage.output_tokens);
    put_number(record, facts->usage.reasoning_tokens);
    return !record->is_broken;
}

void answer_record_free(struct answer_record *record)
{
    buffer_free(&record->bytes);
}

/* What is left to be read; is_bad: it was not there. */
struct cursor {
    const char *at, *end;
    bool is_bad;
};

static uint8_t get_byte(struct cursor *cursor)
{
    if (cursor->is_bad || cursor->at == cursor->end) {
        cursor->is_bad = true;
        return 0;
    }
    return (uint8_t)*cursor->at++;
}

static int64_t get_number(struct cursor *cursor)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)get_byte(cursor) << (8 * i);
    return (int64_t)value;
}

/* NULL where none was put; it ends with a NUL. */
static const char *get_text(struct cursor *cursor, size_t *size)
{
    int64_t bytes = get_number(cursor);
    *size = 0;
    if (bytes == NO_TEXT)
        return NULL;
    size_t left = (size_t)(cursor->end - cursor->at);
    if (cursor->is_bad || bytes < 0 || (uint64_t)bytes >= left || cursor->at[bytes] != '\0') {
        cursor->is_bad = true;
        return "";
    }
    const char *text = cursor->at;
    cursor->at += bytes + 1;
    *size = (size_t)bytes;
    return text;
}

/* A text that must be there, and be one of C's. */
static const char *get_name(struct cursor *cursor)
{
    size_t size;
    const char *name = get_text(cursor, &size);
    cursor->is_bad = cursor->is_bad || name == NULL || strlen(name) != size;
    return cursor->is_bad ? "" : name;
}

static void get_piece(struct cursor *cursor, struct answer_piece *out)
{
    size_t id_bytes, name_bytes;
    uint8_t kind = get_byte(cursor), finish = get_byte(cursor);
    int64_t choice = get_number(cursor), tool = get_number(cursor);
    *out = (struct answer_piece){.kind = (enum answer_piece_kind)kind, .finish = (enum answer_finish)finish};
    out->text = get_text(cursor, &out->text_bytes);
    out->tool_id = get_text(cursor, &id_bytes);
    out->tool_name = get_text(cursor, &name_bytes);
    bool is_in_range = kind <= ANSWER_FINISH && finish <= ANSWER_CONTENT_FILTER && choice >= 0 &&
                       choice < ANSWER_CHOICES_MAX && tool >= 0 && tool < ANSWER_TOOL_CALLS_MAX &&
                       out->text != NULL;
    cursor->is_bad = cursor->is_bad || !is_in_range;
    if (cursor->is_bad)
        return;
    out->choice_index = (uint32_t)choice;
    out->tool_index = (uint32_t)tool;
}

static void get_facts(struct cursor *cursor, struct answer_facts *out)
{
    out->model = get_name(cursor);
    out->id = get_name(cursor);
    out->fingerprint = get_name(cursor);
    out->usage.input_tokens = get_number(cursor);
    out->usage.cached_tokens = get_number(cursor);
    out->usage.cache_write_tokens = get_number(cursor);
    out->usage.output_tokens = get_number(cursor);
    out->usage.reasoning_tokens = get_number(cursor);
}

err_t answer_record_replay(const char *bytes, size_t size, const struct answer_sink *sink,
                           struct answer_facts *facts)
{
    struct cursor cursor = {.at = bytes, .end = bytes + size};
    cursor.is_bad = size < sizeof MAGIC || memcmp(bytes, MAGIC, sizeof MAGIC) != 0;
    if (!cursor.is_bad)
        cursor.at += sizeof MAGIC;
    uint8_t kind;
    while ((kind = get_byte(&cursor)) == RECORD_PIECE) {
        struct answer_piece piece;
        get_piece(&cursor, &piece);
        if (cursor.is_bad)
            break;
        TRY(sink->take(sink->context, &piece));
    }
    if (!cursor.is_bad && kind == RECORD_END)
        get_facts(&cursor, facts);
    if (cursor.is_bad || kind != RECORD_END || cursor.at != cursor.end)
        return err_new(ERR_DATA_LOSS, "what was kept of an answer is damaged, or of another version");
    return err_ok();
}

static err_t ignore(void *context, const struct answer_piece *piece)
{
    (void)context;
    (void)piece;
    return err_ok();
}

err_t answer_record_check(const char *bytes, size_t size)
{
    struct answer_sink sink = {.take = ignore};
    struct answer_facts facts;
    return answer_record_replay(bytes, size, &sink, &facts);
}
