/* + - * / // % ** ~ of template values, with Python's rules. Internal to text/. */
#pragma once

#include "text/template_run.h"

/* op: as in NODE_CHAIN. */
bool value_arithmetic(struct run *run, const struct node *at, int op, const struct value *a,
                      const struct value *b, struct value *out);
bool value_negate(struct run *run, const struct node *at, const struct value *a, struct value *out);
