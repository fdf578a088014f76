#include "router/policy/text_script.h"

#include <stdbool.h>
#include <stddef.h>

const char *const SCRIPT_NAMES[SCRIPTS + 1] = {"none",   "latin", "greek", "cyrillic", "hebrew",
                                               "arabic", "indic", "thai",  "hangul",   "kana",
                                               "han",    "other", NULL};

/* Ranges of letters, ascending. Source: Unicode's Blocks.txt. */
static const struct {
    uint32_t first, last;
    enum script script;
} RANGES[] = {
    {0x0041, 0x005a, SCRIPT_LATIN},   {0x0061, 0x007a, SCRIPT_LATIN},    {0x00c0, 0x024f, SCRIPT_LATIN},
    {0x0370, 0x03ff, SCRIPT_GREEK},   {0x0400, 0x052f, SCRIPT_CYRILLIC}, {0x0530, 0x058f, SCRIPT_OTHER},
    {0x0590, 0x05ff, SCRIPT_HEBREW},  {0x0600, 0x077f, SCRIPT_ARABIC},   {0x0900, 0x0dff, SCRIPT_INDIC},
    {0x0e00, 0x0eff, SCRIPT_THAI},    {0x0f00, 0x10ff, SCRIPT_OTHER},    {0x1100, 0x11ff, SCRIPT_HANGUL},
    {0x1200, 0x1dff, SCRIPT_OTHER},   {0x1e00, 0x1eff, SCRIPT_LATIN},    {0x1f00, 0x1fff, SCRIPT_GREEK},
    {0x3040, 0x30ff, SCRIPT_KANA},    {0x3130, 0x318f, SCRIPT_HANGUL},   {0x31f0, 0x31ff, SCRIPT_KANA},
    {0x3400, 0x4dbf, SCRIPT_HAN},     {0x4e00, 0x9fff, SCRIPT_HAN},      {0xac00, 0xd7af, SCRIPT_HANGUL},
    {0xf900, 0xfaff, SCRIPT_HAN},     {0xfb50, 0xfdff, SCRIPT_ARABIC},   {0xfe70, 0xfefc, SCRIPT_ARABIC},
    {0x10000, 0x1cfff, SCRIPT_OTHER}, {0x20000, 0x3ffff, SCRIPT_HAN},
};

enum script script_of_letter(uint32_t code_point)
{
    size_t low = 0, high = sizeof RANGES / sizeof *RANGES;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code_point > RANGES[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_in = low < sizeof RANGES / sizeof *RANGES && code_point >= RANGES[low].first;
    return is_in ? RANGES[low].script : SCRIPT_NONE;
}

enum script script_of_counts(const uint64_t letters[SCRIPTS])
{
    enum script best = SCRIPT_NONE;
    uint64_t most = 0;
    for (int script = SCRIPT_NONE + 1; script < SCRIPTS; script++) {
        if (letters[script] > most) {
            most = letters[script];
            best = (enum script)script;
        }
    }
    /* Japanese is written with both; Chinese never with Kana. */
    return best == SCRIPT_HAN && letters[SCRIPT_KANA] * 10 > most ? SCRIPT_KANA : best;
}
