/* A packed model as a directory that serves: the weights (model.h, model_pack), and the files about its
 * configuration and its text, taken over from the model that it is made from. */
#pragma once

#include "base/error.h"
#include "model/model.h"

/* Writes to `directory`, which is made where it is not there, and must be empty or hold a packed model
 * otherwise, which is replaced. Errors as of model_pack. */
err_t packed_model_write(const struct model_options *options, const char *directory,
                         struct model_packed *out) ERR_MUST_CHECK;
