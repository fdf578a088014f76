#include "api/event.h"

const char *finish_reason_name(enum finish_reason reason)
{
    switch (reason) {
    case FINISH_NONE:
        return "";
    case FINISH_STOP:
        return "stop";
    case FINISH_LENGTH:
        return "length";
    case FINISH_ABORT:
        return "abort";
    case FINISH_ERROR:
        return "error";
    case FINISH_TOOL_CALLS:
        return "tool_calls";
    case FINISH_CONTENT_FILTER:
        return "content_filter";
    }
    return "";
}
