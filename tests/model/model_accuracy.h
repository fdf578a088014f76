/* How far a model's arithmetic is from that of the same weights, quantised as they are, in f32. CPU only. */
#pragma once

#include "tests/model/model_driver.h"

enum { ACCURACY_PROMPT_MAX = 60, ACCURACY_VOCAB_MAX = 2048 }; /* tokens */

/* Every linear layer's weights become f32, of the values that their codes stand for, and attention computes
 * in f32; nothing else changes. */
void model_widen(struct model *model);

/* The norm of the logits' difference by the norm of the right ones, over prompts of 5 to 60 tokens. wide: the
 * same model, widened. Fails the test where the shorter prompts give other bits token by token. */
double accuracy_of_logits(struct driver *driver, struct driver *wide);

/* Sum of the negative log-probabilities of ids [1, n), nats; n at most the driver's room. */
double accuracy_of_text(struct driver *driver, const uint32_t *ids, uint32_t n);
