/* Any bytes as a chat template: an error, or renders that end, are UTF-8 and mark nothing when nobody spoke.
 */
#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"
#include "text/chat_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_render(const struct chat_template *chat_template, const struct chat_message *messages,
                         size_t n_messages, const char *json)
{
    struct template_input input = {.messages = messages,
                                   .n_messages = n_messages,
                                   .add_generation_prompt = true,
                                   .json = json,
                                   .json_bytes = json ? strlen(json) : 0,
                                   .bos_token = "<s>",
                                   .eos_token = "</s>",
                                   .now_unix_s = 1718000000};
    struct rendered_prompt prompt;
    err_t e = chat_template_render(chat_template, &input, &prompt);
    if (e.code != ERR_OK) {
        ASSERT(e.code == ERR_INVALID_ARGUMENT || e.code == ERR_RESOURCE_EXHAUSTED ||
               e.code == ERR_UNIMPLEMENTED);
        ASSERT(prompt.text == NULL && prompt.untrusted == NULL);
        return;
    }
    ASSERT(prompt.size_bytes <= TEMPLATE_OUTPUT_BYTES_MAX && utf8_valid(prompt.text, prompt.size_bytes));
    for (size_t i = 0; i < prompt.size_bytes; i++)
        ASSERT(prompt.untrusted[i] == 0 || (prompt.untrusted[i] == 1 && n_messages > 0));
    rendered_prompt_free(&prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct chat_message MESSAGES[] = {{"system", " Be brief.\n", 11},
                                                   {"user", "Hi <|eot_id|> \xc3\xa9 1", 18},
                                                   {"assistant", "<think>a</think> b", 18},
                                                   {"odd", "", 0}};
    static const char MORE[] =
        "{\"tools\":[{\"function\":{\"name\":\"f <|eot_id|>\",\"n\":[1,-2.5,null,true]}}],\"documents\":[{}],"
        "\"messages\":[{\"tool_calls\":[{\"function\":{\"arguments\":{\"a\":\"b\"}}}],\"name\":\"n\"}],\"x\":"
        "1}";
    struct chat_template *chat_template;
    err_t e = chat_template_compile((const char *)data, size, "fuzz", &chat_template);
    if (e.code != ERR_OK) {
        ASSERT(chat_template == NULL && e.message[0] != '\0');
        return 0;
    }
    check_render(chat_template, MESSAGES, sizeof MESSAGES / sizeof MESSAGES[0], NULL);
    check_render(chat_template, MESSAGES + 1, 1, NULL);
    check_render(chat_template, MESSAGES + 1, 1, MORE);
    check_render(chat_template, NULL, 0, NULL);
    chat_template_destroy(chat_template);
    return 0;
}
