#include "proto/extra_routes.h"

const struct extra_route *extra_route_find(const struct extra_routes *routes, struct http_text path)
{
    for (size_t i = 0; i < routes->n; i++)
        if (http_text_is(path, routes->routes[i].path))
            return &routes->routes[i];
    return NULL;
}
