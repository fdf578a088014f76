/* Which modules a quantization_config names: whole components, or a simple regular expression. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

enum { NAME_PATTERN_ATOMS_MAX = 63 }; /* the states of a match fit in 64 bits */

enum name_atom_kind { NAME_ATOM_CHARACTER, NAME_ATOM_ANY, NAME_ATOM_DIGIT };

struct name_pattern {
    struct name_atom {
        enum name_atom_kind kind;
        char character;
        bool may_repeat, may_miss;
    } atoms[NAME_PATTERN_ATOMS_MAX];
    uint32_t n_atoms;
    bool to_end; /* ends in $ */
};

/* Python's syntax: characters, ".", "\." and other escaped marks, "\d", each with "*", "+" or "?" behind it,
 * "^" in front, "$" at the end. UNIMPLEMENTED for what else a regular expression can hold, RESOURCE_EXHAUSTED
 * past NAME_PATTERN_ATOMS_MAX; the message has the pattern, without the file. */
err_t name_pattern_parse(const char *text, struct name_pattern *out) ERR_MUST_CHECK;
/* As re.match: from the beginning of the name, not necessarily to its end. */
bool name_pattern_matches(const struct name_pattern *pattern, const char *name);

/* Whether the name's components (separated by dots) hold those of `part`, side by side: "mlp.gate" is in
 * "layers.0.mlp.gate" and not in "layers.0.mlp.gate_proj". */
bool name_has_components(const char *name, const char *part);
