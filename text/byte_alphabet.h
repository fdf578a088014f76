/* The byte-level alphabet of GPT-2: each byte as one printable character, so that a vocabulary file holds
 * text. Bytes 21-7e, a1-ac and ae-ff stand for themselves, the other 68 for U+0100 and up in order. Pure
 * functions. Source: the GPT-2 encoder, as tokenizers' ByteLevel has it. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/utf8.h"

/* U+0021..U+0143. */
uint32_t byte_alphabet_encode(uint8_t byte);
/* The byte that a character stands for, -1 when it is not of the alphabet. */
int byte_alphabet_decode(uint32_t code_point);
