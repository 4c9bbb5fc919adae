/* The library: all families of kernels as one unit, so that small loops are inlined across them. */
#include "mmsnn.h"

#include "lanes.h"

#include "lif.c"
#include "lif_backward.c"
#include "ilif.c"

#include "bits.c"
#include "decode.c"
#include "event_conv.c"
#include "event_grad.c"
#include "pool.c"
#include "winograd.c"

#include "arch/x86_vnni.c"

/* The number that stands for a name in the structs, or a size of the layout of weights, or -1:
 * calls.py compares its own with these when it opens the library, so that both mean the same. */
EXPORT int mmsnn_code(const char *name) {
    static const struct { const char *name; int code; } codes[] = {
        {"float32", FLOAT32}, {"bfloat16", BFLOAT16}, {"uint8", UINT8},
        {"int8", INT8}, {"int16", INT16},
        {"hard", HARD}, {"soft", SOFT},
        {"rectangle", RECTANGLE}, {"triangle", TRIANGLE}, {"arctan", ARCTAN}, {"sigmoid", SIGMOID},
        {"outputs of a block", OUTPUTS}, {"numbers in a row", REAL_OUTPUTS},
        {"outputs of a tile", TILE_OUT},
        {"no gate", NO_GATE}, {"or", OR}, {"add", ADD}, {"and", AND}, {"iand", IAND},
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (!strcmp(codes[i].name, name))
            return codes[i].code;
    return -1;
}

/* Which source this was built from: a library beside another source is not used. */
#ifndef MMSNN_SOURCE
#define MMSNN_SOURCE ""
#endif
EXPORT const char *mmsnn_source(void) { return MMSNN_SOURCE; }
