#include "router/config/key_field.h"

#include <ctype.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

/* A header's value may hold no control characters. */
static bool is_plain(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (iscntrl((unsigned char)text[i]))
            return false;
    }
    return true;
}

static err_t copy_key(const struct yaml_value *at, const char *text, const char **out)
{
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t\r\n", text[size - 1])) /* a file ends with a line's end */
        size--;
    if (size == 0 || size > KEY_FIELD_BYTES_MAX)
        return yaml_wrong(at, "the key must have 1 to %d bytes", KEY_FIELD_BYTES_MAX);
    if (!is_plain(text, size))
        return yaml_wrong(at, "the key has control characters in it");
    *out = mem_strndup(text, size);
    return *out ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the keys of the configuration");
}

err_t key_field_read(const struct yaml_value *map, const char *what, char *(*environment)(const char *name),
                     const char **out)
{
    struct yaml_value of_environment = yaml_at(map, "key_env"), of_file = yaml_at(map, "key_file");
    const char *name = NULL, *path = NULL;
    *out = NULL;
    TRY(yaml_text(&of_environment, &name));
    TRY(yaml_text(&of_file, &path));
    if (name && path)
        return yaml_wrong(&of_file, "key_env and key_file are both there: which?");
    if (name) {
        const char *key = environment(name);
        return key ? copy_key(&of_environment, key, out)
                   : yaml_wrong(&of_environment, "the environment has no variable %.60s", name);
    }
    if (path == NULL)
        return err_ok();
    char *data;
    size_t size;
    err_t e = file_read(path, KEY_FIELD_BYTES_MAX + 2, &data, &size);
    if (e.code != ERR_OK)
        return err_prefix(e, "the key of %s", what);
    e = strlen(data) == size ? copy_key(&of_file, data, out)
                             : yaml_wrong(&of_file, "the key has a NUL character in it");
    explicit_bzero(data, size);
    mem_free(data);
    return e;
}

void key_field_free(const char *key)
{
    if (key)
        explicit_bzero((char *)key, strlen(key));
    mem_free((char *)key);
}
