#include "router/page/route_page.h"

#include <string.h>
#include "proto/http_server.h"
#include "router/page/page_files.h"

/* Nothing but the page's own files, and nobody may put it in a frame. */
static const char POLICY[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static bool check_method(struct http_exchange *exchange)
{
    static const char WHY[] = "this path takes GET\n";
    struct http_text method = http_exchange_head(exchange)->method;
    if (http_text_is(method, "GET") || http_text_is(method, "HEAD"))
        return true;
    http_exchange_header(exchange, "allow", "GET, HEAD");
    http_exchange_respond(exchange, 405, "text/plain", WHY, sizeof WHY - 1);
    return false;
}

static void answer(struct http_exchange *exchange, const char *type, const void *bytes, size_t size)
{
    if (!check_method(exchange))
        return;
    http_exchange_header(exchange, "content-security-policy", POLICY);
    http_exchange_header(exchange, "x-content-type-options", "nosniff");
    http_exchange_header(exchange, "referrer-policy", "no-referrer");
    http_exchange_header(exchange, "cache-control", "no-store");
    http_exchange_respond(exchange, 200, type, bytes, size);
}

static void get_html(void *context, struct http_exchange *exchange)
{
    (void)context;
    answer(exchange, "text/html; charset=utf-8", page_html, page_html_bytes);
}

static void get_css(void *context, struct http_exchange *exchange)
{
    (void)context;
    answer(exchange, "text/css; charset=utf-8", page_css, page_css_bytes);
}

static void get_js(void *context, struct http_exchange *exchange)
{
    (void)context;
    answer(exchange, "text/javascript; charset=utf-8", page_js, page_js_bytes);
}

static void get_state(void *context, struct http_exchange *exchange)
{
    const struct route_page *page = context;
    struct buffer state = {.limit_bytes = ROUTE_STATE_BYTES_MAX};
    err_t e = page->state(page->context, &state);
    if (e.code == ERR_OK)
        answer(exchange, "application/json", state.data, state.size);
    else
        http_exchange_respond(exchange, 503, "text/plain", e.message, strlen(e.message));
    buffer_free(&state);
}

void route_page_fill(const struct route_page *page, struct extra_route out[ROUTE_PAGE_ROUTES])
{
    static const struct {
        const char *path;
        void (*handle)(void *context, struct http_exchange *exchange);
    } ROWS[ROUTE_PAGE_ROUTES] = {
        {"/", get_html}, {"/page.css", get_css}, {"/page.js", get_js}, {"/router/state", get_state}};
    for (size_t i = 0; i < ROUTE_PAGE_ROUTES; i++)
        out[i] =
            (struct extra_route){.path = ROWS[i].path, .context = (void *)page, .handle = ROWS[i].handle};
}
