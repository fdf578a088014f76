/* The files of the page, embedded at build. */
#pragma once

#include <stddef.h>
#include <stdint.h>

extern const uint8_t page_html[], page_css[], page_js[];
extern const size_t page_html_bytes, page_css_bytes, page_js_bytes;
