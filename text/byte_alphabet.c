#include "text/byte_alphabet.h"

/* Bytes without a printable character of their own, in order: 00-20 (33), 7f-a0 (34), ad (1). */
uint32_t byte_alphabet_encode(uint8_t byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x121u + (byte - 0x7fu);
    if (byte == 0xad)
        return 0x143;
    return byte;
}

int byte_alphabet_decode(uint32_t code_point)
{
    if (code_point >= 0x100 && code_point <= 0x120)
        return (int)(code_point - 0x100);
    if (code_point >= 0x121 && code_point <= 0x142)
        return (int)(code_point - 0x121 + 0x7f);
    if (code_point == 0x143)
        return 0xad;
    if (code_point > 0xff || code_point <= 0x20 || (code_point >= 0x7f && code_point <= 0xa0) ||
        code_point == 0xad)
        return -1;
    return (int)code_point;
}
