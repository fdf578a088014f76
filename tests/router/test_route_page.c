/* The router's page over the operator's listener: its files and headers, and what a browser makes of it. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "proto/admin_door.h"
#include "router/page/route_page.h"
#include "tests/proto/web_client.h"

static const char STATE[] =
    "{\"policy\": \"0123abcd\", \"offline\": false, \"requests\": {\"running\": 3},"
    "\"decisions\": {\"default\": 1234, \"rule\": 66, \"overflow\": 0},"
    "\"answers\": {\"local\": 800, \"frontier\": 150, \"cache\": 50},"
    "\"money\": {\"spent_dollars\": 0.0213, \"saved_dollars\": 12.5}, \"slo\": {\"ttft_ms\": 500, "
    "\"within\": 97, \"over\": 3},"
    "\"local\": [{\"model\": \"local/<b>demo</b>\", \"replicas\": 2, \"up\": 1, \"waiting\": 4, \"running\": "
    "2,"
    " \"kv_used\": 0.25, \"predicted_ttft_ms\": 12.5}],"
    "\"providers\": [{\"model\": \"openai/mock\", \"breaker\": \"open\", \"calls\": 160, \"answers\": 150,"
    " \"first_token_ms\": 400, \"spent_dollars\": 0.0213}],"
    "\"cache\": {\"hit\": 45, \"shared\": 5, \"miss\": 150}, \"rollout\": {\"stage\": \"canary\", \"why\": "
    "\"it passed\"}}";

struct world {
    struct fake_service *fake;
    struct admin_door *door;
    struct route_page page;
    struct extra_route routes[ROUTE_PAGE_ROUTES];
    _Atomic bool is_broken; /* the door's thread reads it */
};

static err_t give_state(void *context, struct buffer *out)
{
    struct world *world = context;
    if (world->is_broken)
        return err_new(ERR_UNAVAILABLE, "not now");
    assert_true(buffer_append_text(out, STATE));
    return err_ok();
}

static void world_open(struct world *world)
{
    struct fake_options fake = {0};
    *world = (struct world){.page = {.state = give_state, .context = world}};
    route_page_fill(&world->page, world->routes);
    assert_int_equal(fake_service_open(&fake, &world->fake).code, ERR_OK);
    struct admin_door_options options = admin_door_options_default();
    options.port = 0;
    options.extra = (struct extra_routes){world->routes, ROUTE_PAGE_ROUTES};
    assert_int_equal(admin_door_open(fake_service_of(world->fake), &options, &world->door).code, ERR_OK);
}

static void world_close(struct world *world)
{
    admin_door_close(world->door);
    fake_service_close(world->fake);
}

static void ask(struct web_connection *connection, const char *path, int status, const char *type,
                const char *part)
{
    struct web_answer answer;
    web_get(connection, path);
    web_read(connection, &answer);
    assert_int_equal(answer.status, status);
    assert_non_null(strstr(answer.body.data, part));
    assert_non_null(strstr(web_header(&answer, "content-type"), type));
    if (status == 200) {
        assert_non_null(
            strstr(web_header(&answer, "content-security-policy"),
                   "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"));
        assert_non_null(strstr(web_header(&answer, "x-content-type-options"), "nosniff"));
        assert_non_null(strstr(web_header(&answer, "cache-control"), "no-store"));
    }
    web_answer_free(&answer);
}

static void its_files_are_served(void **state)
{
    (void)state;
    struct world world;
    world_open(&world);
    struct web_connection connection = web_connect_port(admin_door_port(world.door));
    ask(&connection, "/", 200, "text/html; charset=utf-8", "<script src=\"page.js\" defer></script>");
    ask(&connection, "/page.js", 200, "text/javascript", "\"use strict\"");
    ask(&connection, "/page.css", 200, "text/css", "prefers-color-scheme");
    ask(&connection, "/router/state", 200, "application/json", "\"policy\": \"0123abcd\"");
    world.is_broken = true;
    ask(&connection, "/router/state", 503, "text/plain", "not now");
    struct web_answer answer;
    web_post(&connection, "/", "", "{}");
    web_read(&connection, &answer);
    assert_int_equal(answer.status, 405);
    web_answer_free(&answer);
    web_disconnect(&connection);
    world_close(&world);
}

/* Runs a program to its end; what it says goes to the two files, where they are named. */
static int run(const char *const arguments[], const char *out, const char *log)
{
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = -1;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    if (out)
        assert_int_equal(posix_spawn_file_actions_addopen(&actions, 1, out, O_CREAT | O_WRONLY, 0600), 0);
    if (log)
        assert_int_equal(posix_spawn_file_actions_addopen(&actions, 2, log, O_CREAT | O_WRONLY, 0600), 0);
    assert_int_equal(posix_spawnp(&child, arguments[0], &actions, NULL, (char *const *)arguments, environ),
                     0);
    assert_int_equal(waitpid(child, &status, 0), child);
    (void)posix_spawn_file_actions_destroy(&actions);
    return status;
}

/* The page's document as a browser has it after two and a half seconds of its own time. scripts/setup test
 * installs the browser. */
static char *browse(uint16_t port)
{
    char folder[] = "/tmp/bantam-page-XXXXXX", url[64], profile[100], out[100], log[100], *page, *words;
    size_t size_bytes;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/", port);
    (void)snprintf(profile, sizeof profile, "--user-data-dir=%s/profile", folder);
    (void)snprintf(out, sizeof out, "%s/page", folder);
    (void)snprintf(log, sizeof log, "%s/log", folder);
    const char *const browser[] = {"timeout",
                                   "600",
                                   "chromium-headless-shell",
                                   "--headless",
                                   "--no-sandbox",
                                   "--disable-gpu",
                                   profile,
                                   "--virtual-time-budget=2500",
                                   "--enable-logging=stderr",
                                   "--dump-dom",
                                   url,
                                   NULL};
    const char *const remove[] = {"rm", "-rf", folder, NULL};
    int status = run(browser, out, log);
    assert_int_equal(file_read(log, 1 << 20, &words, &size_bytes).code, ERR_OK);
    if (status != 0)
        print_error("%s\n", words);
    assert_int_equal(status, 0);
    assert_null(strstr(words, "CONSOLE")); /* nothing was refused, nothing was thrown */
    mem_free(words);
    assert_int_equal(file_read(out, 1 << 20, &page, &size_bytes).code, ERR_OK);
    assert_int_equal(run(remove, NULL, NULL), 0);
    return page;
}

static void a_browser_shows_it(void **state)
{
    (void)state;
    static const char *const PARTS[] = {
        "<body data-state=\"live\">",
        "<b id=\"share-local\">85.0 %</b>",
        "<b id=\"running\">3</b>",
        "<b id=\"spent\">$0.0213</b>",
        "<b id=\"saved\">$12.50</b>",
        "<b id=\"ttft\">13 ms of 500 ms</b>",
        "<b id=\"slo\">97.0 %</b>",
        "<tr><td>default</td><td>1,234</td><td><meter max=\"1\" value=\"0.94",
        "<tr><td>rule</td><td>66</td>",
        "<td>local/&lt;b&gt;demo&lt;/b&gt;</td><td>1 of 2</td><td>4</td><td>2</td><td>25.0 %</td>",
        "<td>openai/mock</td><td class=\"bad\">open</td><td>160</td><td>150</td><td>400 "
        "ms</td><td>$0.0213</td>",
        "<tr><td>share</td><td>25.0 %</td></tr>",
        "<tr><td>stage</td><td>canary</td></tr>",
    };
    struct world world;
    world_open(&world);
    char *page = browse(admin_door_port(world.door));
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        if (!strstr(page, PARTS[i]))
            fail_msg("%s is not in %s", PARTS[i], page);
    assert_null(strstr(page, "<td>overflow</td>")); /* nothing was decided by it */
    assert_non_null(strstr(page, "id=\"line-local\" points=\""));
    assert_null(strstr(page, "id=\"line-local\" points=\"\"")); /* it has asked more than once */
    mem_free(page);
    world.is_broken = true;
    page = browse(admin_door_port(world.door));
    assert_non_null(strstr(page, "<body data-state=\"lost\">"));
    assert_non_null(strstr(page, "the router does not answer: it answers 503"));
    mem_free(page);
    world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_files_are_served),
        cmocka_unit_test(a_browser_shows_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
