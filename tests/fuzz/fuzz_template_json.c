/* Any bytes as what a request gives its chat template: an error, or a render in which all of it is marked. */
#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"
#include "text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Goes through everything that may come, in every way that templates do. */
static const char SOURCE[] =
    "{{ tools | tojson }}{{ documents | tojson(indent=2) }}{{ x }}{% for tool in tools or [] %}{{ tool.name "
    "}}"
    "{% if tool.function is mapping %}{{ tool.function.name ~ tool.function['description'] }}{% for k, v in "
    "tool.function | items %}{{ k }}={{ v }}{% endfor %}{% endif %}{% endfor %}{% for message in messages %}"
    "{{ message.role }}{{ message.name }}{% for call in message.tool_calls or [] %}{{ "
    "call.function.arguments | "
    "tojson }}{% endfor %}{{ message | tojson }}{% endfor %}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct chat_message MESSAGES[] = {{"user", "Hi", 2}, {"assistant", "", 0}};
    static struct chat_template *chat_template;
    if (!chat_template) {
        err_t e = chat_template_compile(SOURCE, sizeof SOURCE - 1, "fuzz", &chat_template);
        ASSERT(e.code == ERR_OK);
    }
    struct template_input input = {
        .messages = MESSAGES, .n_messages = 2, .json = (const char *)data, .json_bytes = size};
    struct rendered_prompt prompt;
    err_t e = chat_template_render(chat_template, &input, &prompt);
    if (e.code != ERR_OK) {
        ASSERT(e.code == ERR_INVALID_ARGUMENT || e.code == ERR_RESOURCE_EXHAUSTED);
        ASSERT(prompt.text == NULL && e.message[0] != '\0' && utf8_valid(e.message, strlen(e.message)));
        return 0;
    }
    ASSERT(utf8_valid(prompt.text, prompt.size_bytes));
    for (size_t i = 0; i < prompt.size_bytes; i++) /* the template writes none of these */
        ASSERT(!strchr("<>|\\$%&;!?*#@~^`", prompt.text[i]) || prompt.text[i] == '\0' || prompt.untrusted[i]);
    rendered_prompt_free(&prompt);
    return 0;
}
