#include "router/policy/privacy.h"

bool privacy_release(const struct policy_decision *decision, bool is_offline, const json_t *request,
                     struct shareable *out)
{
    *out = (struct shareable){0};
    if (is_offline || decision->local_only || decision->is_refused || request == NULL)
        return false;
    out->request_ = json_incref((json_t *)request); /* whose counter alone changes */
    return true;
}

const json_t *shareable_request(const struct shareable *shareable)
{
    return shareable->request_;
}

void shareable_derive(const struct shareable *from, const json_t *request, struct shareable *out)
{
    out->request_ = from->request_ ? json_incref((json_t *)request) : NULL;
}

void shareable_free(struct shareable *shareable)
{
    json_decref(shareable->request_);
    *shareable = (struct shareable){0};
}
