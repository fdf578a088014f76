#include "tests/cuda/fake_state.h"

#include <stdlib.h>
#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/fake_break.h"

struct fake_state fake_state;

bool fake_must_fail(void)
{
    fake_state.counts.calls++;
    if (!fake_state.fails || fake_state.fail_nth-- > 0)
        return false;
    fake_state.fails = false;
    return true;
}

uint64_t fake_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL || *text == '\0' ? otherwise : strtoull(text, NULL, 10);
}

static void fail_nth(int64_t nth)
{
    fake_state.fails = nth >= 0;
    fake_state.fail_nth = nth;
}

static void counts(struct fake_device_counts *out)
{
    *out = fake_state.counts;
}

static void set_memory(uint64_t bytes)
{
    fake_state.memory_bytes = bytes;
}

static void set_seed(uint64_t seed)
{
    fake_state.has_seed = true;
    fake_state.seed = seed;
}

static void set_target(uint32_t capability)
{
    struct emu_options options = emu_get_options();
    options.target = capability;
    emu_set_options(&options);
}

static void lack_memory(enum fake_graph_call call, uint32_t n)
{
    fake_state.n_short[call] = n;
}

static void break_at(const char *spec)
{
    fake_state.has_break = spec != NULL;
    fake_break_set(spec);
}

extern const struct fake_device_control bantam_fake_device_control;
__attribute__((visibility("default"))) const struct fake_device_control bantam_fake_device_control = {
    .fail_nth = fail_nth,
    .counts = counts,
    .set_memory = set_memory,
    .set_seed = set_seed,
    .set_target = set_target,
    .lack_memory = lack_memory,
    .break_at = break_at,
};
