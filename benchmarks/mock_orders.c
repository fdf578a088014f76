#include "benchmarks/mock_orders.h"

#include <string.h>

/* A value of the query; .data NULL when there is none. */
static struct http_text query_value(struct http_text query, const char *name)
{
    size_t n = strlen(name);
    for (size_t at = 0; at < query.size;) {
        const char *end = memchr(query.data + at, '&', query.size - at);
        size_t size = end ? (size_t)(end - query.data) - at : query.size - at;
        if (size > n && strncmp(query.data + at, name, n) == 0 && query.data[at + n] == '=')
            return (struct http_text){query.data + at + n + 1, size - n - 1};
        at += size + 1;
    }
    return (struct http_text){NULL, 0};
}

err_t mock_orders_take(struct mock_orders *orders, struct http_text query)
{
    struct http_text name = query_value(query, "name"), count = query_value(query, "count");
    struct mock_fault fault = {.course = COURSE_WHOLE};
    TRY(mock_fault_parse(name.data ? name.data : "", name.size, &fault));
    orders->n_next = 0;
    for (size_t i = 0; i < count.size && i < 9; i++)
        orders->n_next = orders->n_next * 10 +
                         (uint64_t)(count.data[i] >= '0' && count.data[i] <= '9' ? count.data[i] - '0' : 0);
    *(count.data ? &orders->next : &orders->always) = fault;
    return err_ok();
}

/* A second's worth may come at once, at least one. */
static bool may_ask(struct mock_orders *orders, int64_t now_ns)
{
    double a_minute = orders->per_minute, most = a_minute / 60 < 1 ? 1 : a_minute / 60;
    if (a_minute == 0)
        return true;
    orders->tokens += (double)(now_ns - orders->tokens_ns) / 60e9 * a_minute;
    orders->tokens = orders->tokens > most ? most : orders->tokens;
    orders->tokens_ns = now_ns;
    if (orders->tokens < 1)
        return false;
    orders->tokens -= 1;
    return true;
}

err_t mock_orders_choose(struct mock_orders *orders, struct http_text header, int64_t now_ns,
                         struct mock_fault *out)
{
    orders->n_answers++;
    *out = (struct mock_fault){.course = COURSE_WHOLE};
    if (!may_ask(orders, now_ns)) {
        *out = (struct mock_fault){.course = COURSE_STATUS, .status = 429};
    } else if (orders->n_next > 0) {
        orders->n_next--;
        *out = orders->next;
    } else if (orders->n_answers % (orders->every > 0 ? orders->every : 1) == 0) {
        *out = orders->always;
    }
    return header.data ? mock_fault_parse(header.data, header.size, out) : err_ok();
}
