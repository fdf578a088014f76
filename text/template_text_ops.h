/* What filters and str methods share: stripping, case, replacing, splitting, joining. Marks go along.
 * Internal to text/. */
#pragma once

#include "text/template_run.h"

enum strip_sides { STRIP_LEFT = 1, STRIP_RIGHT = 2, STRIP_BOTH = 3 };
enum case_rule {
    CASE_LOWER,
    CASE_UPPER,
    CASE_CAPITALIZE,
    CASE_TITLE,         /* the filter: a word starts behind white space and -({[< */
    CASE_TITLE_LETTERS, /* str.title(): a word starts behind what is no letter */
};

/* characters: what to strip; NULL = white space. */
bool text_strip(struct run *run, const struct node *at, const struct text *text, unsigned sides,
                const struct text *characters, struct value *out);
bool text_change_case(struct run *run, const struct node *at, const struct text *text, enum case_rule rule,
                      struct value *out);
/* At most `most` times. What replaces text from a message counts as from a message. */
bool text_replace(struct run *run, const struct node *at, const struct text *text, const struct text *old,
                  const struct text *new_text, size_t most, struct value *out);
/* separator NULL: at runs of white space. At most `most` cuts, from the end when from_right. */
bool text_split(struct run *run, const struct node *at, const struct text *text, const struct text *separator,
                size_t most, bool from_right, struct value *out);
bool text_join_list(struct run *run, const struct node *at, const struct list *items,
                    const struct text *separator, struct value *out);
