#include "router/gate/confidence_map.h"

#include <jansson.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/gate/eval_stats.h"
#include "router/providers/json_text.h"

double confidence_map_wrong(const struct confidence_map *map, double doubt)
{
    if (map->n_points == 0)
        return doubt;
    uint32_t i = 0;
    while (i < map->n_points && map->points[i].doubt < doubt)
        i++;
    if (i == 0)
        return map->points[0].wrong;
    if (i == map->n_points)
        return map->points[i - 1].wrong;
    const struct confidence_point *from = &map->points[i - 1], *to = &map->points[i];
    return from->wrong + (doubt - from->doubt) / (to->doubt - from->doubt) * (to->wrong - from->wrong);
}

static err_t read_point(const json_t *value, size_t i, struct confidence_map *out)
{
    double doubt = json_number_value(json_array_get(value, 0)),
           wrong = json_number_value(json_array_get(value, 1));
    bool is_pair = json_array_size(value) == 2 && json_is_number(json_array_get(value, 0)) &&
                   json_is_number(json_array_get(value, 1));
    if (!is_pair || !(doubt >= 0 && doubt <= 1 && wrong >= 0 && wrong <= 1))
        return err_new(ERR_INVALID_ARGUMENT, "points[%zu] must be two numbers, 0 to 1", i);
    if (i > 0 && (doubt <= out->points[i - 1].doubt || wrong < out->points[i - 1].wrong))
        return err_new(ERR_INVALID_ARGUMENT, "points[%zu]: doubt must rise and wrong must not fall", i);
    out->points[i] = (struct confidence_point){doubt, wrong};
    return err_ok();
}

static err_t read_map(const json_t *root, struct confidence_map *out)
{
    const json_t *version = json_object_get(root, "bantam_calibration"),
                 *tokens = json_object_get(root, "tokens");
    const json_t *points = json_object_get(root, "points");
    if (!json_is_integer(version) || json_integer_value(version) != CONFIDENCE_MAP_VERSION)
        return err_new(ERR_INVALID_ARGUMENT, "bantam_calibration must be %d", CONFIDENCE_MAP_VERSION);
    if (!json_is_integer(tokens) || json_integer_value(tokens) < 1 || json_integer_value(tokens) > 1024)
        return err_new(ERR_INVALID_ARGUMENT, "tokens must be 1 to 1024");
    if (json_array_size(points) < 1 || json_array_size(points) > CONFIDENCE_POINTS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "points must be a list of 1 to %d", CONFIDENCE_POINTS_MAX);
    out->tokens = (uint32_t)json_integer_value(tokens);
    for (size_t i = 0; i < json_array_size(points); i++)
        TRY(read_point(json_array_get(points, i), i, out));
    out->n_points = (uint32_t)json_array_size(points);
    return err_ok();
}

err_t confidence_map_parse(const char *text, size_t text_bytes, struct confidence_map *out)
{
    json_error_t error;
    *out = (struct confidence_map){0};
    json_t *root = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "not JSON: %s at byte %d", error.text, error.position);
    err_t e = read_map(root, out);
    if (e.code != ERR_OK)
        *out = (struct confidence_map){0};
    json_decref(root);
    return e;
}

static int by_doubt(const void *left, const void *right)
{
    const struct confidence_point *a = left, *b = right;
    return (a->doubt > b->doubt) - (a->doubt < b->doubt);
}

/* Answers of equal doubt become one point of their mean, which is then repeated for the fit to weigh it. */
static void level_ties(const struct confidence_point *points, size_t n, double *wrong)
{
    for (size_t from = 0, to; from < n; from = to) {
        double sum = 0;
        for (to = from; to < n && points[to].doubt == points[from].doubt; to++)
            sum += points[to].wrong;
        for (size_t i = from; i < to; i++)
            wrong[i] = sum / (double)(to - from);
    }
}

err_t confidence_map_fit(const double *doubts, const double *scores, size_t n, uint32_t tokens,
                         struct confidence_map *out)
{
    ASSERT(n >= 1);
    *out = (struct confidence_map){.tokens = tokens};
    struct confidence_point *points = mem_alloc_array(n, sizeof *points);
    double *wrong = mem_alloc_array(n, sizeof *wrong);
    if (points == NULL || wrong == NULL) {
        mem_free(points);
        mem_free(wrong);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to fit %zu answers", n);
    }
    for (size_t i = 0; i < n; i++)
        points[i] = (struct confidence_point){doubts[i] < 0 ? 0 : doubts[i], 1 - scores[i]};
    qsort(points, n, sizeof *points, by_doubt);
    level_ties(points, n, wrong);
    stat_isotonic(wrong, n);
    for (size_t k = 0; k < CONFIDENCE_POINTS_MAX; k++) {
        size_t i = k * (n - 1) / (CONFIDENCE_POINTS_MAX - 1);
        uint32_t last = out->n_points;
        if (last > 0 && out->points[last - 1].doubt >= points[i].doubt)
            continue;
        out->points[out->n_points++] =
            (struct confidence_point){points[i].doubt, wrong[i] > 1 ? 1 : wrong[i]};
    }
    mem_free(points);
    mem_free(wrong);
    return err_ok();
}

err_t confidence_map_write(const struct confidence_map *map, struct buffer *out)
{
    json_t *points = json_array();
    for (uint32_t i = 0; i < map->n_points; i++)
        (void)json_array_append_new(points, json_pack("[f, f]", map->points[i].doubt, map->points[i].wrong));
    json_t *root = json_pack("{s:i, s:i, s:o}", "bantam_calibration", CONFIDENCE_MAP_VERSION, "tokens",
                             (int)map->tokens, "points", points);
    if (root == NULL || json_array_size(points) != map->n_points) {
        json_decref(root);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the calibration");
    }
    err_t e = json_text_append(out, root);
    json_decref(root);
    if (e.code == ERR_OK && !buffer_append_text(out, "\n"))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the calibration");
    return e;
}
