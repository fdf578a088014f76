#include "text/unicode_class.h"

#include <utf8proc.h>

/* Letters, marks, digits, punctuation and symbols that Unicode 15.1 and 16.0 added and that the installed
 * utf8proc may not know yet. Source: DerivedGeneralCategory of the Unicode Character Database 16.0. */
struct supplement_range {
    uint32_t first, last;
    utf8proc_category_t category;
};
static const struct supplement_range SUPPLEMENT[] = {
    {0x897, 0x897, UTF8PROC_CATEGORY_MN},     {0x1b4e, 0x1b4f, UTF8PROC_CATEGORY_PO},
    {0x1b7f, 0x1b7f, UTF8PROC_CATEGORY_PO},   {0x1c89, 0x1c89, UTF8PROC_CATEGORY_LU},
    {0x1c8a, 0x1c8a, UTF8PROC_CATEGORY_LL},   {0x2427, 0x2429, UTF8PROC_CATEGORY_SO},
    {0x2ffc, 0x2fff, UTF8PROC_CATEGORY_SO},   {0x31e4, 0x31e5, UTF8PROC_CATEGORY_SO},
    {0x31ef, 0x31ef, UTF8PROC_CATEGORY_SO},   {0xa7cb, 0xa7cc, UTF8PROC_CATEGORY_LU},
    {0xa7cd, 0xa7cd, UTF8PROC_CATEGORY_LL},   {0xa7da, 0xa7da, UTF8PROC_CATEGORY_LU},
    {0xa7db, 0xa7db, UTF8PROC_CATEGORY_LL},   {0xa7dc, 0xa7dc, UTF8PROC_CATEGORY_LU},
    {0x105c0, 0x105f3, UTF8PROC_CATEGORY_LO}, {0x10d40, 0x10d49, UTF8PROC_CATEGORY_ND},
    {0x10d4a, 0x10d4d, UTF8PROC_CATEGORY_LO}, {0x10d4e, 0x10d4e, UTF8PROC_CATEGORY_LM},
    {0x10d4f, 0x10d4f, UTF8PROC_CATEGORY_LO}, {0x10d50, 0x10d65, UTF8PROC_CATEGORY_LU},
    {0x10d69, 0x10d6d, UTF8PROC_CATEGORY_MN}, {0x10d6e, 0x10d6e, UTF8PROC_CATEGORY_PO},
    {0x10d6f, 0x10d6f, UTF8PROC_CATEGORY_LM}, {0x10d70, 0x10d85, UTF8PROC_CATEGORY_LL},
    {0x10d8e, 0x10d8f, UTF8PROC_CATEGORY_SO}, {0x10ec2, 0x10ec4, UTF8PROC_CATEGORY_LO},
    {0x10efc, 0x10efc, UTF8PROC_CATEGORY_MN}, {0x11380, 0x11389, UTF8PROC_CATEGORY_LO},
    {0x1138b, 0x1138b, UTF8PROC_CATEGORY_LO}, {0x1138e, 0x1138e, UTF8PROC_CATEGORY_LO},
    {0x11390, 0x113b5, UTF8PROC_CATEGORY_LO}, {0x113b7, 0x113b7, UTF8PROC_CATEGORY_LO},
    {0x113b8, 0x113c0, UTF8PROC_CATEGORY_MN}, {0x113c2, 0x113c2, UTF8PROC_CATEGORY_MN},
    {0x113c5, 0x113c5, UTF8PROC_CATEGORY_MN}, {0x113c7, 0x113ca, UTF8PROC_CATEGORY_MN},
    {0x113cc, 0x113d0, UTF8PROC_CATEGORY_MN}, {0x113d1, 0x113d1, UTF8PROC_CATEGORY_LO},
    {0x113d2, 0x113d2, UTF8PROC_CATEGORY_MN}, {0x113d3, 0x113d3, UTF8PROC_CATEGORY_LO},
    {0x113d4, 0x113d5, UTF8PROC_CATEGORY_PO}, {0x113d7, 0x113d8, UTF8PROC_CATEGORY_PO},
    {0x113e1, 0x113e2, UTF8PROC_CATEGORY_MN}, {0x116d0, 0x116e3, UTF8PROC_CATEGORY_ND},
    {0x11bc0, 0x11be0, UTF8PROC_CATEGORY_LO}, {0x11be1, 0x11be1, UTF8PROC_CATEGORY_PO},
    {0x11bf0, 0x11bf9, UTF8PROC_CATEGORY_ND}, {0x11f5a, 0x11f5a, UTF8PROC_CATEGORY_MN},
    {0x13460, 0x143fa, UTF8PROC_CATEGORY_LO}, {0x16100, 0x1611d, UTF8PROC_CATEGORY_LO},
    {0x1611e, 0x1612f, UTF8PROC_CATEGORY_MN}, {0x16130, 0x16139, UTF8PROC_CATEGORY_ND},
    {0x16d40, 0x16d42, UTF8PROC_CATEGORY_LM}, {0x16d43, 0x16d6a, UTF8PROC_CATEGORY_LO},
    {0x16d6b, 0x16d6c, UTF8PROC_CATEGORY_LM}, {0x16d6d, 0x16d6f, UTF8PROC_CATEGORY_PO},
    {0x16d70, 0x16d79, UTF8PROC_CATEGORY_ND}, {0x18cff, 0x18cff, UTF8PROC_CATEGORY_LO},
    {0x1cc00, 0x1ccef, UTF8PROC_CATEGORY_SO}, {0x1ccf0, 0x1ccf9, UTF8PROC_CATEGORY_ND},
    {0x1cd00, 0x1ceb3, UTF8PROC_CATEGORY_SO}, {0x1e5d0, 0x1e5ed, UTF8PROC_CATEGORY_LO},
    {0x1e5ee, 0x1e5ef, UTF8PROC_CATEGORY_MN}, {0x1e5f0, 0x1e5f0, UTF8PROC_CATEGORY_LO},
    {0x1e5f1, 0x1e5fa, UTF8PROC_CATEGORY_ND}, {0x1e5ff, 0x1e5ff, UTF8PROC_CATEGORY_PO},
    {0x1f8b2, 0x1f8bb, UTF8PROC_CATEGORY_SO}, {0x1f8c0, 0x1f8c1, UTF8PROC_CATEGORY_SO},
    {0x1fa89, 0x1fa89, UTF8PROC_CATEGORY_SO}, {0x1fa8f, 0x1fa8f, UTF8PROC_CATEGORY_SO},
    {0x1fabe, 0x1fabe, UTF8PROC_CATEGORY_SO}, {0x1fac6, 0x1fac6, UTF8PROC_CATEGORY_SO},
    {0x1fadc, 0x1fadc, UTF8PROC_CATEGORY_SO}, {0x1fadf, 0x1fadf, UTF8PROC_CATEGORY_SO},
    {0x1fae9, 0x1fae9, UTF8PROC_CATEGORY_SO}, {0x1fbcb, 0x1fbef, UTF8PROC_CATEGORY_SO},
    {0x2ebf0, 0x2ee5d, UTF8PROC_CATEGORY_LO},
};

static utf8proc_category_t supplement_category(uint32_t code_point)
{
    size_t low = 0, high = sizeof SUPPLEMENT / sizeof SUPPLEMENT[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (SUPPLEMENT[middle].last < code_point)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < sizeof SUPPLEMENT / sizeof SUPPLEMENT[0] && SUPPLEMENT[low].first <= code_point)
        return SUPPLEMENT[low].category;
    return UTF8PROC_CATEGORY_CN;
}

static utf8proc_category_t category_of(uint32_t code_point)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code_point);
    return category == UTF8PROC_CATEGORY_CN ? supplement_category(code_point) : category;
}

static unsigned classes_of_category(utf8proc_category_t category)
{
    switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT:
        return CHAR_LETTER | CHAR_UPPER | CHAR_WORD;
    case UTF8PROC_CATEGORY_LL:
        return CHAR_LETTER | CHAR_LOWER | CHAR_WORD;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CHAR_LETTER | CHAR_UPPER | CHAR_LOWER | CHAR_WORD;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return CHAR_MARK | CHAR_UPPER | CHAR_LOWER | CHAR_WORD;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
        return CHAR_NUMBER | CHAR_WORD;
    case UTF8PROC_CATEGORY_NO:
        return CHAR_NUMBER;
    case UTF8PROC_CATEGORY_PC:
        return CHAR_PUNCTUATION | CHAR_WORD;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return CHAR_PUNCTUATION;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
        return CHAR_SYMBOL;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return CHAR_SPACE;
    default:
        return 0;
    }
}

unsigned unicode_classes(uint32_t code_point)
{
    if (code_point < 0x80) { /* the common case, without a table walk */
        if ((code_point | 0x20) - 'a' < 26)
            return CHAR_LETTER | CHAR_WORD | (code_point & 0x20 ? CHAR_LOWER : CHAR_UPPER);
        if (code_point - '0' < 10)
            return CHAR_NUMBER | CHAR_WORD;
        if (code_point == ' ' || code_point - '\t' < 5)
            return CHAR_SPACE;
    }
    if (code_point == 0x85)
        return CHAR_SPACE;
    unsigned classes = classes_of_category(category_of(code_point));
    /* Other_Alphabetic outside the marks (circled and squared letters), and the two joiners. */
    if ((code_point >= 0x24b6 && code_point <= 0x24e9) || (code_point >= 0x1f130 && code_point <= 0x1f149) ||
        (code_point >= 0x1f150 && code_point <= 0x1f169) ||
        (code_point >= 0x1f170 && code_point <= 0x1f189) || code_point == 0x200c || code_point == 0x200d)
        classes |= CHAR_WORD;
    return classes;
}
