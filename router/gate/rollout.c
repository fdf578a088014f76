#include "router/gate/rollout.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "router/gate/eval_artefact.h"
#include "router/gate/rollout_state.h"

enum {
    WHY_BYTES = ERR_MESSAGE_MAX,
    SCORE_UNITS = 1000000 /* of a whole score: sums of integers do not drift */
};

#define NO_GATE                                                                                              \
    "the configuration has no gate; `bantam eval --artefact FILE` writes what one asks for, and `gate: "     \
    "off` "                                                                                                  \
    "follows the policy without"

const char *const ROLLOUT_STAGE_NAMES[5] = {"observe", "shadow", "canary", "promoted", NULL};

struct rollout {
    struct rollout_options options; /* without its strings */
    char policy_id[EVAL_ID_BYTES];
    bool has_artefact;
    struct eval_artefact artefact;
    uint64_t artefact_hash; /* of what it says; 0 = has none */
    char *state_path;       /* NULL = the stage is kept nowhere */
    _Atomic int stage;
    _Atomic uint64_t fingerprint_hash; /* that was looked at last; 0 = none */

    pthread_mutex_t lock;       /* of what follows */
    char why_not[WHY_BYTES];    /* the artefact does not let it; "" = it does */
    enum rollout_stage allowed; /* by live scores */
    uint32_t n_falls;
    uint32_t *scores; /* [options.window], in SCORE_UNITS, a ring */
    uint32_t n_scores, next;
    int64_t sum;
};

err_t rollout_options_read(const struct yaml_value *value, struct rollout_options *out)
{
    static const char *const KEYS[] = {"stage",        "artefact",    "share", "baseline", "margin", "window",
                                       "shadow_share", "false_cheap", "from",  "state",    NULL};
    const char *text;
    *out = (struct rollout_options){.is_set = true,
                                    .is_default = !yaml_is_there(value),
                                    .share = 0.1,
                                    .shadow_share = 0.02,
                                    .margin = 0.03,
                                    .false_cheap = 0.05,
                                    .window = 200,
                                    .from = ROLLOUT_SHADOW};
    if (out->is_default)
        return err_ok();
    if (yaml_text(value, &text).code == ERR_OK) {
        out->is_set = false;
        return strcmp(text, "off") == 0 ? err_ok() : yaml_wrong(value, "it must be off, or have a stage");
    }
    TRY(yaml_map(value, KEYS));
    int stage = ROLLOUT_OBSERVE, from = ROLLOUT_SHADOW;
    int64_t window = out->window;
    struct yaml_value at = yaml_at(value, "stage");
    TRY(yaml_choice(&at, ROLLOUT_STAGE_NAMES, &stage));
    at = yaml_at(value, "from");
    TRY(yaml_choice(&at, ROLLOUT_STAGE_NAMES, &from));
    if (from == ROLLOUT_OBSERVE || (yaml_is_there(&at) && from > stage))
        return yaml_wrong(&at, "it must be shadow, canary or promoted, and not beyond the stage");
    at = yaml_at(value, "state");
    TRY(yaml_text(&at, &out->state));
    at = yaml_at(value, "artefact");
    TRY(yaml_text(&at, &out->artefact));
    at = yaml_at(value, "baseline");
    TRY(yaml_text(&at, &out->baseline));
    at = yaml_at(value, "share");
    TRY(yaml_number(&at, 0, 1, &out->share));
    at = yaml_at(value, "shadow_share");
    TRY(yaml_number(&at, 0, 1, &out->shadow_share));
    at = yaml_at(value, "margin");
    TRY(yaml_number(&at, 0, 1, &out->margin));
    at = yaml_at(value, "false_cheap");
    TRY(yaml_number(&at, 0, 1, &out->false_cheap));
    at = yaml_at(value, "window");
    TRY(yaml_integer(&at, ROLLOUT_WINDOW_MIN, ROLLOUT_WINDOW_MAX, &window));
    out->stage = (enum rollout_stage)stage;
    out->from = (enum rollout_stage)from;
    out->window = (uint32_t)window;
    return err_ok();
}

static void set_stage(struct rollout *rollout)
{
    enum rollout_stage stage = rollout->why_not[0] ? ROLLOUT_OBSERVE : rollout->allowed;
    atomic_store_explicit(&rollout->stage, (int)stage, memory_order_release);
}

static void forget_scores(struct rollout *rollout)
{
    rollout->n_scores = rollout->next = 0;
    rollout->sum = 0;
}

/* Where it begins: by the artefact alone, or where it had come to before this start. */
static void find_stage(struct rollout *rollout)
{
    const struct rollout_options *options = &rollout->options;
    struct rollout_state state;
    rollout->allowed = options->from < options->stage ? options->from : options->stage;
    if (rollout->state_path == NULL || !rollout->has_artefact)
        return;
    err_t e = rollout_state_read(rollout->state_path, &state);
    if (e.code != ERR_OK && e.code != ERR_NOT_FOUND)
        log_warn("gate", "the stage that policy %s had come to is not known: %s", rollout->policy_id,
                 e.message);
    if (e.code != ERR_OK || strcmp(state.policy_id, rollout->policy_id) != 0 ||
        state.artefact_hash != rollout->artefact_hash || state.from != (int)options->from)
        return;
    rollout->allowed = state.stage < (int)options->stage ? (enum rollout_stage)state.stage : options->stage;
    rollout->n_falls = state.n_falls;
}

/* Locked. */
static void keep_stage(const struct rollout *rollout)
{
    struct rollout_state state = {.artefact_hash = rollout->artefact_hash,
                                  .from = (int)rollout->options.from,
                                  .stage = (int)rollout->allowed,
                                  .n_falls = rollout->n_falls};
    if (rollout->state_path == NULL)
        return;
    memcpy(state.policy_id, rollout->policy_id, sizeof state.policy_id);
    err_t e = rollout_state_write(rollout->state_path, &state);
    if (e.code != ERR_OK)
        log_warn("gate", "another start of policy %s will not know that it stands at %s: %s",
                 rollout->policy_id, ROLLOUT_STAGE_NAMES[rollout->allowed], e.message);
}

/* Locked. */
static void check_artefact(struct rollout *rollout, const char *local_fingerprint)
{
    if (!rollout->has_artefact)
        return;
    err_t e = eval_artefact_check(&rollout->artefact, rollout->policy_id, local_fingerprint,
                                  rollout->options.margin, rollout->options.false_cheap);
    if (e.code == ERR_OK)
        rollout->why_not[0] = '\0';
    else
        (void)snprintf(rollout->why_not, sizeof rollout->why_not, "%s", e.message);
    set_stage(rollout);
}

static void load_artefact(struct rollout *rollout, const char *path)
{
    if (path == NULL) {
        (void)snprintf(rollout->why_not, sizeof rollout->why_not,
                       "there is no artefact: `bantam eval --artefact FILE` writes one");
        return;
    }
    struct buffer text = {.limit_bytes = EVAL_ARTEFACT_BYTES_MAX};
    err_t e = eval_artefact_read(path, &rollout->artefact);
    if (e.code == ERR_OK)
        e = eval_artefact_write(&rollout->artefact, &text);
    rollout->has_artefact = e.code == ERR_OK;
    rollout->artefact_hash = rollout->has_artefact ? hash64(text.data, text.size, 0) | 1 : 0;
    buffer_free(&text);
    if (!rollout->has_artefact)
        (void)snprintf(rollout->why_not, sizeof rollout->why_not, "%s", e.message);
}

/* `state`, or beside the artefact. */
static bool name_state(struct rollout *rollout, const struct rollout_options *options)
{
    struct buffer path = {.limit_bytes = 1 << 16};
    if (options->artefact == NULL)
        return true;
    bool fits = options->state ? buffer_append_text(&path, options->state)
                               : buffer_append_format(&path, "%s.stage", options->artefact);
    rollout->state_path = fits ? mem_strdup(path.data) : NULL;
    buffer_free(&path);
    return rollout->state_path != NULL;
}

static void open_gate(struct rollout *rollout, const struct rollout_options *options,
                      const char *local_fingerprint)
{
    load_artefact(rollout, options->artefact);
    find_stage(rollout);
    check_artefact(rollout, local_fingerprint);
    if (rollout->why_not[0])
        log_warn("gate", "policy %s only observes: %s", rollout->policy_id, rollout->why_not);
    else if (rollout->allowed != options->stage)
        log_info("gate", "policy %s stands at %s, and may go as far as %s by its live scores",
                 rollout->policy_id, ROLLOUT_STAGE_NAMES[rollout->allowed],
                 ROLLOUT_STAGE_NAMES[options->stage]);
}

err_t rollout_open(const struct rollout_options *options, const char *policy_id,
                   const char *local_fingerprint, struct rollout **out)
{
    *out = NULL;
    if (strlen(policy_id) >= EVAL_ID_BYTES)
        return err_new(ERR_INVALID_ARGUMENT, "a policy's id has at most %d bytes", EVAL_ID_BYTES - 1);
    struct rollout *rollout = mem_alloc(sizeof *rollout);
    uint32_t *scores = options->is_set ? mem_alloc_array(options->window, sizeof *scores) : NULL;
    if (rollout == NULL || (options->is_set && scores == NULL)) {
        mem_free(rollout);
        mem_free(scores);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the gate");
    }
    ASSERT(!options->is_set || options->window >= 1);
    rollout->options = *options;
    rollout->options.artefact = rollout->options.baseline = rollout->options.state = NULL;
    rollout->scores = scores;
    rollout->allowed = options->is_set ? options->stage : ROLLOUT_PROMOTED;
    memcpy(rollout->policy_id, policy_id, strlen(policy_id) + 1);
    (void)pthread_mutex_init(&rollout->lock, NULL);
    if (!options->is_set)
        log_warn("gate", "policy %s is followed untested: gate: off", policy_id);
    if (options->is_set && options->is_default)
        log_warn("gate", "policy %s only observes: " NO_GATE, policy_id);
    if (options->is_set && options->stage != ROLLOUT_OBSERVE) {
        if (!name_state(rollout, options)) {
            rollout_close(rollout);
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the gate");
        }
        open_gate(rollout, options, local_fingerprint);
    }
    set_stage(rollout);
    *out = rollout;
    return err_ok();
}

void rollout_close(struct rollout *rollout)
{
    if (rollout == NULL)
        return;
    (void)pthread_mutex_destroy(&rollout->lock);
    mem_free(rollout->scores);
    mem_free(rollout->state_path);
    mem_free(rollout);
}

static bool same_path(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool rollout_is_same(const struct rollout *a, const struct rollout *b)
{
    const struct rollout_options *left = &a->options, *right = &b->options;
    const double of_left[] = {left->share, left->shadow_share, left->margin, left->false_cheap},
                 of_right[] = {right->share, right->shadow_share, right->margin, right->false_cheap};
    return left->is_set == right->is_set && left->is_default == right->is_default &&
           left->stage == right->stage && left->from == right->from && left->window == right->window &&
           memcmp(of_left, of_right, sizeof of_left) == 0 && strcmp(a->policy_id, b->policy_id) == 0 &&
           a->artefact_hash == b->artefact_hash && same_path(a->state_path, b->state_path);
}

void rollout_local_changed(struct rollout *rollout, const char *local_fingerprint)
{
    uint64_t hash = hash64(local_fingerprint, strlen(local_fingerprint), 0) | 1;
    if (!rollout->has_artefact ||
        atomic_load_explicit(&rollout->fingerprint_hash, memory_order_relaxed) == hash)
        return;
    (void)pthread_mutex_lock(&rollout->lock);
    atomic_store_explicit(&rollout->fingerprint_hash, hash, memory_order_relaxed);
    bool let = rollout->why_not[0] == '\0';
    check_artefact(rollout, local_fingerprint);
    if (let != (rollout->why_not[0] == '\0')) {
        forget_scores(rollout);
        if (let)
            log_warn("gate", "policy %s only observes: %s", rollout->policy_id, rollout->why_not);
        else
            log_info("gate", "policy %s: its artefact passes, stage %s", rollout->policy_id,
                     ROLLOUT_STAGE_NAMES[rollout->allowed]);
    }
    (void)pthread_mutex_unlock(&rollout->lock);
}

/* A number in [0, 1) of the key, another one for each purpose. */
static double draw(uint64_t key, uint64_t purpose)
{
    return (double)(hash64(&key, sizeof key, purpose) >> 11) * 0x1p-53;
}

struct rollout_choice rollout_choose(struct rollout *rollout, uint64_t key)
{
    enum { FOLLOW = 0x67617465, SHADOW };
    const struct rollout_options *options = &rollout->options;
    enum rollout_stage stage = rollout_stage_now(rollout);
    struct rollout_choice choice = {.follows_policy = stage == ROLLOUT_PROMOTED};
    if (!options->is_set || stage == ROLLOUT_OBSERVE)
        return choice;
    if (stage == ROLLOUT_CANARY)
        choice.follows_policy = draw(key, FOLLOW) < options->share;
    choice.is_shadowed = draw(key, SHADOW) < (choice.follows_policy ? options->shadow_share : options->share);
    return choice;
}

/* Locked. What the sum must reach for a mean over a whole window. */
static int64_t needed(const struct rollout *rollout, double mean)
{
    return (int64_t)ceil(mean * SCORE_UNITS * rollout->options.window - 0.5);
}

/* Locked. */
static void go_back(struct rollout *rollout)
{
    const char *from = ROLLOUT_STAGE_NAMES[rollout->allowed];
    rollout->allowed--;
    rollout->n_falls++;
    log_warn("gate",
             "policy %s goes back from %s to %s: the mean of its last %u scores is %.4f, and %.4f of %u is "
             "out of reach",
             rollout->policy_id, from, ROLLOUT_STAGE_NAMES[rollout->allowed], rollout->n_scores,
             (double)rollout->sum / SCORE_UNITS / rollout->n_scores, 1 - rollout->options.margin,
             rollout->options.window);
    forget_scores(rollout);
    set_stage(rollout);
    keep_stage(rollout);
}

/* Locked. */
static void go_forward(struct rollout *rollout)
{
    const char *from = ROLLOUT_STAGE_NAMES[rollout->allowed];
    rollout->allowed++;
    log_info("gate", "policy %s comes forward from %s to %s: the mean of its last %u scores is %.4f",
             rollout->policy_id, from, ROLLOUT_STAGE_NAMES[rollout->allowed], rollout->n_scores,
             (double)rollout->sum / SCORE_UNITS / rollout->n_scores);
    forget_scores(rollout);
    set_stage(rollout);
    keep_stage(rollout);
}

/* Locked. */
static void add_score(struct rollout *rollout, uint32_t units)
{
    uint32_t window = rollout->options.window;
    if (rollout->n_scores == window)
        rollout->sum -= rollout->scores[rollout->next];
    else
        rollout->n_scores++;
    rollout->scores[rollout->next] = units;
    rollout->sum += units;
    rollout->next = (rollout->next + 1) % window;
}

void rollout_score(struct rollout *rollout, double score)
{
    if (!rollout->options.is_set || isnan(score))
        return;
    (void)pthread_mutex_lock(&rollout->lock);
    if (rollout_stage_now(rollout) != ROLLOUT_OBSERVE) {
        double margin = rollout->options.margin, forward = rollout->n_falls > 0 ? margin / 2 : margin;
        add_score(rollout, (uint32_t)lround(fmin(1, fmax(0, score)) * SCORE_UNITS));
        int64_t best = rollout->sum + (int64_t)(rollout->options.window - rollout->n_scores) * SCORE_UNITS;
        if (best < needed(rollout, 1 - margin))
            go_back(rollout);
        else if (rollout->n_scores == rollout->options.window && rollout->allowed < rollout->options.stage &&
                 rollout->n_falls <= ROLLOUT_FALLS_MAX && rollout->sum >= needed(rollout, 1 - forward))
            go_forward(rollout);
    }
    (void)pthread_mutex_unlock(&rollout->lock);
}

enum rollout_stage rollout_stage_now(const struct rollout *rollout)
{
    return (enum rollout_stage)atomic_load_explicit(&rollout->stage, memory_order_acquire);
}

void rollout_why(struct rollout *rollout, struct buffer *out)
{
    (void)pthread_mutex_lock(&rollout->lock);
    const struct rollout_options *options = &rollout->options;
    const char *stage = ROLLOUT_STAGE_NAMES[rollout_stage_now(rollout)];
    if (!options->is_set)
        (void)buffer_append_text(out, "promoted: gate: off, so that nobody has tested it");
    else if (options->is_default)
        (void)buffer_append_text(out, "observe: " NO_GATE);
    else if (rollout->why_not[0])
        (void)buffer_append_format(out, "observe: %s", rollout->why_not);
    else if (options->stage == ROLLOUT_OBSERVE)
        (void)buffer_append_text(out, "observe: as the configuration says");
    else if (rollout->allowed < options->stage && rollout->n_falls > 0)
        (void)buffer_append_format(out,
                                   "%s: live scores took it back, %u times so far; it may go as far as %s",
                                   stage, rollout->n_falls, ROLLOUT_STAGE_NAMES[options->stage]);
    else if (rollout->allowed < options->stage)
        (void)buffer_append_format(out, "%s: its artefact passes; live scores take it on, as far as %s",
                                   stage, ROLLOUT_STAGE_NAMES[options->stage]);
    else
        (void)buffer_append_format(out, "%s: as the configuration says, and its artefact passes", stage);
    if (rollout->n_scores > 0)
        (void)buffer_append_format(out, "; the mean of the last %u scores is %.4f, and %.4f is the least",
                                   rollout->n_scores, (double)rollout->sum / SCORE_UNITS / rollout->n_scores,
                                   1 - options->margin);
    (void)pthread_mutex_unlock(&rollout->lock);
}
