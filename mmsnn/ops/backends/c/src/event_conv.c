/* Convs that look at spikes alone: their time is in proportion to how many there are.
 *
 * The spikes of each row of the map are listed once. Those under a row of output pixels are brought
 * together for all blocks of outputs, column after column, and within a column by row of the kernel
 * and channel, as (column * kernel_height + row) * channels + channel: the window of a pixel is
 * then one stretch of that list, and a spike's number less that of the window's first column is the
 * row of weights that it adds. The sums of a pixel for a block of outputs stay in registers. A sum
 * has the order of the list, whatever the number of threads.
 *
 * Sums of whole numbers are exact. With weights of 8 bits they are added up in 16 bits for at most
 * 255 spikes, as 255 * 128 < 2^15, and those in 32, which hold a window of any 65793 bytes, as
 * 65793 * 255 * 128 < 2^31. With weights of 16 bits they are added up in 32 bits where a window has
 * at most 65535 spikes, as 65535 * 2^15 < 2^31, else in 64. A byte of v counts as v spikes. */

/* Outputs in a block: with 64, those of float32 are slower, as fewer rows fit into the caches. */
enum { REAL_OUTPUTS = 32, WHOLE_OUTPUTS = 64 };

/* Currents that neurons get at once, of pixels in a row. */
enum { CURRENTS = 4 * LANES };

/* Maps with channels last, steps of `x` x_step elements apart; `channels` and `outputs` are those
 * of a group, and `blocks` hold the outputs of one. */
struct event_conv {
    int64_t steps, images, height, width, channels, out_height, out_width, outputs, groups, blocks;
    int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int64_t dilation_height, dilation_width, x_step, parts;
    int32_t dtype, packed, threads;
    const uint8_t *x;   /* bytes; where packed, bits in memory order */
    const void *weight; /* [parts][groups][blocks][kernel_width][kernel_height][channels][of it] */
    const float *scale; /* [parts][groups][blocks][outputs of a block] */
    const float *shift; /* [groups][blocks][outputs of a block] */
    float *out;         /* currents, (steps, images, out_height, out_width, all outputs), or NULL */
};

INLINE int64_t block_of(const struct event_conv *c) {
    return c->dtype == FLOAT32 ? REAL_OUTPUTS : WHOLE_OUTPUTS;
}

/* ---- which spikes ---------------------------------------------------------------------------- */

/* positions[m] has the numbers of the bits that are set in m, lowest first, in four bits each. */
#define PLACE(M, I) \
    ((M) >> I & 1 ? (uint32_t)I << 4 * __builtin_popcount((M) & ((1 << I) - 1)) : 0)
#define BITS_1(M) \
    PLACE(M, 1) | PLACE(M, 2) | PLACE(M, 3) | PLACE(M, 4) | PLACE(M, 5) | PLACE(M, 6) | PLACE(M, 7)
#define BITS_4(M) BITS_1(M), BITS_1((M) + 1), BITS_1((M) + 2), BITS_1((M) + 3)
#define BITS_16(M) BITS_4(M), BITS_4((M) + 4), BITS_4((M) + 8), BITS_4((M) + 12)
#define BITS_64(M) BITS_16(M), BITS_16((M) + 16), BITS_16((M) + 32), BITS_16((M) + 48)
static const uint32_t positions[256] = {BITS_64(0), BITS_64(64), BITS_64(128), BITS_64(192)};

/* Bit i says whether byte i isn't 0. */
INLINE int which_of(uint64_t eight) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    eight = __builtin_bswap64(eight);
#endif
    const uint64_t low = 0x7f7f7f7f7f7f7f7fULL, ones = 0x0101010101010101ULL;
    eight = (((eight & low) + low) | eight) >> 7 & ones;
    return (int)(eight * 0x0102040810204080ULL >> 56);
}

/* The spikes under one row of output pixels, of one time step and one group. */
struct events {
    uint32_t *list;
    uint8_t *values; /* of those in the list, or NULL: all are 1 */
    int64_t *starts; /* [width + 1], where each column begins in the list */
};

/* Append those that eight bits say to `list`, with room for eight; returns how many. */
INLINE int list_eight(int bits, uint32_t first, uint32_t *list) {
    int_sums places = positions[bits] >> (int_sums){0, 4, 8, 12, 16, 20, 24, 28};
    places = (places & 15) + first;
    memcpy(list, &places, sizeof places);
    return __builtin_popcount(bits);
}

/* The spikes of a row of the map, of one time step and one group: channels, column by column. */
struct row_events {
    uint32_t *list;
    int64_t *starts; /* [width + 1] */
    uint64_t seen;   /* the bits that any byte has, in any of eight bytes */
    int64_t held;    /* which row this is, 0 for none */
};

/* List the spikes of a row of bytes, of the columns that are `used`. */
LOOP void mmsnn_list_row(const struct event_conv *c, const uint8_t *x, const uint8_t *used,
                         struct row_events *to) {
    int64_t channels = c->channels, n = 0;
    uint32_t *list = to->list;
    uint64_t any = 0;
    for (int64_t column = 0; column < c->width; column++, x += c->groups * channels) {
        int64_t i = 0;
        to->starts[column] = n;
        if (!used[column])
            continue;
        for (; i + 8 <= channels; i += 8) {
            uint64_t eight;
            memcpy(&eight, x + i, 8);
            n += list_eight(which_of(eight), (uint32_t)i, list + n);
            any |= eight;
        }
        if (i < channels) {
            uint64_t eight = 0;
            for (int j = 0; i + j < channels; j++)
                memcpy((uint8_t *)&eight + j, x + i + j, 1);
            n += list_eight(which_of(eight), (uint32_t)i, list + n);
            any |= eight;
        }
    }
    to->starts[c->width] = n;
    to->seen = any;
}

/* Up to eight bits from number `at` on. */
INLINE int bits_at(const uint8_t *bits, int64_t at, int count) {
    int shift = (int)(at & 7), both = bits[at >> 3];
    if (shift + count > 8)
        both |= bits[(at >> 3) + 1] << 8;
    return both >> shift & ((1 << count) - 1);
}

/* List the spikes of a row of bits, the first of them number `at`. */
LOOP void mmsnn_list_row_of_bits(const struct event_conv *c, int64_t at, const uint8_t *used,
                                 struct row_events *to) {
    int64_t channels = c->channels, n = 0;
    for (int64_t column = 0; column < c->width; column++, at += c->groups * channels) {
        to->starts[column] = n;
        if (used[column])
            for (int64_t i = 0; i < channels; i += 8) {
                int count = (int)at_most(8, channels - i);
                n += list_eight(bits_at(c->x, at + i, count), (uint32_t)i, to->list + n);
            }
    }
    to->starts[c->width] = n;
    to->seen = n > 0;
}

/* Bring the lists of the rows under one of output together, NULL where one is outside of the map.
 * Returns how many the list has then, after `n` before; writes up to 8 more. */
LOOP int64_t mmsnn_merge_rows(const struct event_conv *c, struct row_events *const *rows, int64_t n,
                              const struct events *to) {
    for (int64_t column = 0; column < c->width; column++) {
        to->starts[column] = n;
        for (int64_t k = 0; k < c->kernel_height; k++) {
            if (!rows[k])
                continue;
            uint32_t first = (uint32_t)((column * c->kernel_height + k) * c->channels);
            const uint32_t *from = rows[k]->list + rows[k]->starts[column];
            int64_t count = rows[k]->starts[column + 1] - rows[k]->starts[column];
            for (int64_t i = 0; i < count; i += SUMS) {
                int_sums eights;
                memcpy(&eights, from + i, sizeof eights);
                eights += first;
                memcpy(to->list + n + i, &eights, sizeof eights);
            }
            n += count;
        }
    }
    to->starts[c->width] = n;
    return n;
}

/* The values of the spikes in a list. */
static void list_values(const struct event_conv *c, const uint8_t *const *rows,
                        const struct events *to) {
    int64_t apart = c->groups * c->channels, in_column = c->kernel_height * c->channels;
    for (int64_t e = to->starts[0]; e < to->starts[c->width]; e++) {
        int64_t column = to->list[e] / in_column, at = to->list[e] % in_column;
        to->values[e] = rows[at / c->channels][column * apart + at % c->channels];
    }
}

/* ---- what they add up to --------------------------------------------------------------------- */

/* Currents of `count` pixels from `first` on: y = scale * sums + from, where the rows of `from` are
 * from_step apart, 0 for one of all. */
struct event_tile {
    const struct events *events;
    const void *weight; /* of a block */
    const float *scale, *from;
    int64_t first, count, from_step, y_step;
    float *y; /* [count][outputs of a block], rows y_step apart */
};

/* The columns of a window follow each other in the list, unless the kernel is dilated. */
struct stretch {
    int64_t begin, end; /* in the list */
    int64_t base;       /* weight row of a spike: base + its number */
};

INLINE int64_t stretches_of(const struct event_conv *c) {
    return c->dilation_width == 1 ? 1 : c->kernel_width;
}

INLINE struct stretch stretch_of(const struct event_conv *c, const struct event_tile *t, int64_t i,
                                 int64_t k) {
    int64_t column = c->kernel_height * c->channels;
    int64_t left = (t->first + i) * c->stride_width - c->pad_width + k * c->dilation_width;
    int64_t right = left + (c->dilation_width == 1 ? c->kernel_width : 1);
    int64_t begin = at_most(at_least(left, 0), c->width), end = at_most(right, c->width);
    struct stretch s = {t->events->starts[begin], t->events->starts[at_least(begin, end)],
                        (k - left) * column};
    return s;
}

INLINE void to_floats(const int_pairs *sums, float_sums *real) {
#ifdef VECTORS
    *real = __builtin_convertvector(*sums, float_sums);
#else
    for (int i = 0; i < SUMS; i++)
        (*real)[i] = (float)(*sums)[i];
#endif
}

/* y = scale * sums + from. */
INLINE void give_currents(const struct event_tile *t, int64_t i, int j, const float_sums *sums) {
    float_sums scale, from;
    memcpy(&scale, t->scale + j, sizeof scale);
    memcpy(&from, t->from + i * t->from_step + j, sizeof from);
    from = *sums * scale + from;
    memcpy(t->y + i * t->y_step + j, &from, sizeof from);
}

#define ADD_FLOATS(NAME, WEIGHED) \
    LOOP void NAME(const struct event_conv *c, const struct event_tile *t) { \
        for (int64_t i = 0; i < t->count; i++) { \
            float_sums sums[REAL_OUTPUTS / SUMS] = {0}; \
            for (int64_t k = 0; k < stretches_of(c); k++) { \
                struct stretch s = stretch_of(c, t, i, k); \
                for (int64_t e = s.begin; e < s.end; e++) { \
                    const float *weight = (const float *)t->weight + \
                                          (s.base + t->events->list[e]) * REAL_OUTPUTS; \
                    float value = WEIGHED ? (float)t->events->values[e] : 1.0f; \
                    for (int j = 0; j < REAL_OUTPUTS / SUMS; j++) { \
                        float_sums w; \
                        memcpy(&w, weight + j * SUMS, sizeof w); \
                        sums[j] += WEIGHED ? w * value : w; \
                    } \
                } \
            } \
            for (int j = 0; j < REAL_OUTPUTS / SUMS; j++) \
                give_currents(t, i, j * SUMS, &sums[j]); \
        } \
    }
ADD_FLOATS(mmsnn_events_float32, 0)
ADD_FLOATS(mmsnn_events_float32_weighed, 1)

/* The same by windows of three columns next to each other, which three pixels in a row share: each
 * spike is looked at once for all three. Additions of floats wait for each other, and those of three
 * pixels don't. */
LOOP void mmsnn_events_float32_threes(const struct event_conv *c, const struct event_tile *t) {
    enum { N = REAL_OUTPUTS / SUMS };
    int64_t in_column = c->kernel_height * c->channels, apart = in_column * REAL_OUTPUTS;
    float_sums sum[3][N] = {{{0}}}; /* of the pixels whose column 0, 1 and 2 it is */
    for (int64_t i = 0; i < t->count + 2; i++) {
        int64_t column = t->first + i - c->pad_width;
        int64_t end = column >= 0 && column < c->width ? t->events->starts[column + 1] : 0;
        for (int64_t e = end ? t->events->starts[column] : 0; e < end; e++) {
            const float *weight = (const float *)t->weight +
                                  (t->events->list[e] - column * in_column) * REAL_OUTPUTS;
            for (int k = 0; k < 3; k++)
                for (int j = 0; j < N; j++) {
                    float_sums w;
                    memcpy(&w, weight + k * apart + j * SUMS, sizeof w);
                    sum[k][j] += w;
                }
        }
        if (i >= 2)
            for (int j = 0; j < N; j++)
                give_currents(t, i - 2, j * SUMS, &sum[2][j]);
        for (int j = 0; j < N; j++) {
            sum[2][j] = sum[1][j];
            sum[1][j] = sum[0][j];
            sum[0][j] = (float_sums){0};
        }
    }
}

/* Whole numbers of BITS bits lie in pairs, as 2^BITS * second + first + 2^(BITS - 1) in a lane of
 * twice the bits: they are added up as one, and the second once more by itself, which takes no
 * instruction that only some processors have. What the lane then has without the second is the sum
 * of the first, as all is modulo 2^(2 BITS), and at most LIMIT = 2^BITS - 1 of them can't be more.
 * What a vector adds up to goes `TO` sums of 32 bits. */
#define ADD_PAIRS(NAME, LANE, PAIRS, WHOLE, BITS, LIMIT, TO, WEIGHED) \
    LOOP void NAME(const struct event_conv *c, const struct event_tile *t) { \
        enum { N = sizeof(WHOLE) / sizeof(LANE), COUNT = WHOLE_OUTPUTS / 2 / N }; \
        for (int64_t i = 0; i < t->count; i++) { \
            int_pairs sums[WHOLE_OUTPUTS / SUMS] = {0}; \
            for (int64_t k = 0; k < stretches_of(c); k++) { \
                struct stretch s = stretch_of(c, t, i, k); \
                for (int64_t e = s.begin; e < s.end;) { \
                    WHOLE all[COUNT] = {0}, second[COUNT] = {0}; \
                    int64_t start = e, stop = at_most(s.end, e + LIMIT), count = 0; \
                    for (; e < stop; e++) { \
                        const LANE *weight = (const LANE *)t->weight + \
                                             (s.base + t->events->list[e]) * (WHOLE_OUTPUTS / 2); \
                        u##LANE value = WEIGHED ? t->events->values[e] : 1; \
                        if (WEIGHED && count + value > LIMIT) \
                            break; \
                        count += WEIGHED ? value : 0; \
                        for (int j = 0; j < COUNT; j++) { \
                            PAIRS w; \
                            memcpy(&w, weight + j * N, sizeof w); \
                            all[j] += WEIGHED ? (WHOLE)w * value : (WHOLE)w; \
                            WHOLE high = (WHOLE)(w >> BITS); \
                            second[j] += WEIGHED ? high * value : high; \
                        } \
                    } \
                    u##LANE extra = (u##LANE)((WEIGHED ? count : e - start) << (BITS - 1)); \
                    for (int j = 0; j < COUNT; j++) { \
                        WHOLE first = all[j] - (second[j] << BITS) - extra; \
                        TO(sums + WHOLE_OUTPUTS / SUMS / COUNT * j, &first, &second[j]); \
                    } \
                } \
            } \
            for (int j = 0; j < WHOLE_OUTPUTS / SUMS; j++) { \
                float_sums real; \
                to_floats(&sums[j], &real); \
                give_currents(t, i, j * SUMS, &real); \
            } \
        } \
    }

INLINE void to_sums(int_pairs *sums, const int_sums *first, const int_sums *second) {
    sums[0] += (int_pairs)*first;
    sums[1] += (int_pairs)*second;
}

/* Every other lane of 16 bits, and then those in between. */
INLINE void widen_to_sums(int_pairs *sums, const short_sums *lanes) {
    int_sums even = (int_sums)*lanes << 16, odd = (int_sums)*lanes;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    even = (int_sums)*lanes, odd = (int_sums)*lanes << 16;
#endif
    sums[0] += (int_pairs)even >> 16;
    sums[1] += (int_pairs)odd >> 16;
}

INLINE void to_wide_sums(int_pairs *sums, const short_sums *first, const short_sums *second) {
    widen_to_sums(sums, first);
    widen_to_sums(sums + 2, second);
}

ADD_PAIRS(mmsnn_events_int8, int16_t, short_pairs, short_sums, 8, 255, to_wide_sums, 0)
ADD_PAIRS(mmsnn_events_int8_weighed, int16_t, short_pairs, short_sums, 8, 255, to_wide_sums, 1)
ADD_PAIRS(mmsnn_events_int16, int32_t, int_pairs, int_sums, 16, 65535, to_sums, 0)
ADD_PAIRS(mmsnn_events_int16_weighed, int32_t, int_pairs, int_sums, 16, 65535, to_sums, 1)

/* Of windows with so many spikes that 32 bits may not hold what 16 add up to. */
static void events_int16_long(const struct event_conv *c, const struct event_tile *t) {
    for (int64_t i = 0; i < t->count; i++) {
        int64_t sums[WHOLE_OUTPUTS] = {0};
        for (int64_t k = 0; k < stretches_of(c); k++) {
            struct stretch s = stretch_of(c, t, i, k);
            for (int64_t e = s.begin; e < s.end; e++) {
                const int32_t *weight = (const int32_t *)t->weight +
                                        (s.base + t->events->list[e]) * (WHOLE_OUTPUTS / 2);
                int64_t value = t->events->values ? t->events->values[e] : 1;
                for (int j = 0; j < WHOLE_OUTPUTS / 2; j++) {
                    int at = j + j / SUMS * SUMS;
                    sums[at] += value * ((weight[j] & 0xffff) - 0x8000);
                    sums[at + SUMS] += value * (weight[j] >> 16);
                }
            }
        }
        for (int j = 0; j < WHOLE_OUTPUTS; j += SUMS) {
            float_sums real;
            for (int l = 0; l < SUMS; l++)
                real[l] = (float)sums[j + l];
            give_currents(t, i, j, &real);
        }
    }
}

typedef void add_up(const struct event_conv *, const struct event_tile *);

/* The function that adds up windows whose bytes have, together, these bits. */
static add_up *adder_of(const struct event_conv *c, uint64_t seen) {
    int64_t most = 0, window = c->kernel_height * c->kernel_width * c->channels;
    for (; seen; seen >>= 8)
        most |= seen & 255;
    if (c->dtype == INT8)
        return most > 1 ? mmsnn_events_int8_weighed : mmsnn_events_int8;
    if (c->dtype == FLOAT32 && most > 1)
        return mmsnn_events_float32_weighed;
    if (c->dtype == FLOAT32)
        return c->kernel_width == 3 && c->stride_width == 1 && c->dilation_width == 1
                   ? mmsnn_events_float32_threes
                   : mmsnn_events_float32;
    if (most * window > 65535)
        return events_int16_long;
    return most > 1 ? mmsnn_events_int16_weighed : mmsnn_events_int16;
}

/* ---- row by row ------------------------------------------------------------------------------ */

struct event_task {
    const struct lif *p; /* the neurons, or NULL */
    const struct event_conv *c;
    int64_t rows; /* of output in a unit of work */
};

/* What a thread works with. */
struct event_work {
    uint8_t *used;             /* [width], which columns any window has */
    const uint8_t **inputs;    /* [kernel_height] */
    struct row_events **under; /* [kernel_height] */
    struct row_events *rows;   /* [slots][steps], rows that the next outputs may need again */
    struct row_events row;     /* where they lie */
    struct events *events;     /* [rows][steps] */
    struct events all;         /* where they lie */
    int64_t slots;
    uint64_t seen;
};

/* Rows of a unit: so many that each weight which is loaded meets some hundred pixels. */
static int64_t rows_of_unit(const struct event_conv *c, int threads) {
    int64_t enough = (256 + c->steps * c->out_width - 1) / (c->steps * c->out_width);
    int64_t fair = (c->images * c->out_height + threads - 1) / threads;
    return at_least(1, at_most(at_most(enough, fair), c->out_height));
}

static void free_event_work(struct event_work *w) {
    free(w->used);
    free(w->inputs);
    free(w->under);
    free(w->rows);
    free(w->row.list);
    free(w->row.starts);
    free(w->events);
    free(w->all.list);
    free(w->all.values);
    free(w->all.starts);
}

static int start_event_work(struct event_work *w, const struct event_task *task) {
    const struct event_conv *c = task->c;
    int64_t lists = task->rows * c->steps, size = c->width * c->channels + 8;
    memset(w, 0, sizeof *w);
    w->slots = at_most(c->height, (task->rows - 1) * c->stride_height +
                                      (c->kernel_height - 1) * c->dilation_height + 1);
    w->used = calloc(c->width, 1);
    w->inputs = malloc(c->kernel_height * sizeof *w->inputs);
    w->under = malloc(c->kernel_height * sizeof *w->under);
    w->rows = calloc(w->slots * c->steps, sizeof *w->rows);
    w->row.list = malloc(w->slots * c->steps * size * 4);
    w->row.starts = malloc(w->slots * c->steps * (c->width + 1) * sizeof(int64_t));
    w->events = malloc(lists * sizeof *w->events);
    w->all.list = malloc((lists * c->width * c->kernel_height * c->channels + 8) * 4);
    w->all.starts = malloc(lists * (c->width + 1) * sizeof(int64_t));
    if (!w->used || !w->inputs || !w->under || !w->rows || !w->row.list || !w->row.starts ||
        !w->events || !w->all.list || !w->all.starts)
        return 0;
    for (int64_t i = 0; i < w->slots * c->steps; i++) {
        w->rows[i].list = w->row.list + i * size;
        w->rows[i].starts = w->row.starts + i * (c->width + 1);
    }
    for (int64_t i = 0; i < c->out_width; i++)
        for (int64_t k = 0; k < c->kernel_width; k++) {
            int64_t column = i * c->stride_width - c->pad_width + k * c->dilation_width;
            if (column >= 0 && column < c->width)
                w->used[column] = 1;
        }
    return 1;
}

/* The element of `x` that a row of the map begins with. */
INLINE int64_t row_start(const struct event_conv *c, int64_t t, int64_t image, int64_t row,
                         int64_t group) {
    int64_t apart = c->width * c->groups * c->channels;
    return t * c->x_step + (image * c->height + row) * apart + group * c->channels;
}

/* The row of the map under row k of the kernel, or -1 outside of it. */
INLINE int64_t row_under(const struct event_conv *c, int64_t row, int64_t k) {
    int64_t at = row * c->stride_height - c->pad_height + k * c->dilation_height;
    return at < c->height ? at : -1;
}

/* The lists of these rows; those that are not there yet are made now. */
static void list_under(struct event_work *w, const struct event_conv *c, int64_t t, int64_t image,
                       int64_t row, int64_t group) {
    for (int64_t k = 0; k < c->kernel_height; k++) {
        int64_t at = row_under(c, row, k), start = row_start(c, t, image, at, group);
        w->under[k] = NULL;
        if (at < 0)
            continue;
        struct row_events *slot = w->under[k] = &w->rows[at % w->slots * c->steps + t];
        int64_t wanted = (image * c->groups + group) * c->height + at + 1;
        if (slot->held != wanted && c->packed)
            mmsnn_list_row_of_bits(c, start, w->used, slot);
        else if (slot->held != wanted)
            mmsnn_list_row(c, c->x + start, w->used, slot);
        slot->held = wanted;
        w->seen |= slot->seen;
    }
}

/* List the spikes under `rows` output rows of an image, with their values where any isn't 1; 0
 * where memory runs out. */
static int list_rows(struct event_work *w, const struct event_conv *c, int64_t image,
                     int64_t first, int64_t rows, int64_t group) {
    int64_t n = 0;
    w->seen = 0;
    for (int64_t i = 0; i < rows * c->steps; i++) {
        list_under(w, c, i % c->steps, image, first + i / c->steps, group);
        w->events[i] = w->all;
        w->events[i].values = NULL;
        w->events[i].starts += i * (c->width + 1);
        n = mmsnn_merge_rows(c, w->under, n, &w->events[i]);
    }
    if (!(w->seen & 0xfefefefefefefefeULL))
        return 1;
    free(w->all.values);
    w->all.values = malloc(at_least(n, 1));
    for (int64_t i = 0; w->all.values && i < rows * c->steps; i++) {
        for (int64_t k = 0; k < c->kernel_height; k++) {
            int64_t at = row_under(c, first + i / c->steps, k);
            w->inputs[k] = at < 0 ? NULL : c->x + row_start(c, i % c->steps, image, at, group);
        }
        w->events[i].values = w->all.values;
        list_values(c, w->inputs, &w->events[i]);
    }
    return w->all.values != NULL;
}

/* `count` rows of `size` bytes; a known size is copied without a call. */
INLINE void copy_rows(void *to, int64_t to_step, const void *from, int64_t from_step, int64_t size,
                      int64_t count) {
    for (int64_t i = 0; i < count; i++, to = (char *)to + to_step, from = (char *)from + from_step)
        if (size == WHOLE_OUTPUTS)
            memcpy(to, from, WHOLE_OUTPUTS);
        else if (size == REAL_OUTPUTS)
            memcpy(to, from, REAL_OUTPUTS);
        else
            memcpy(to, from, size);
}

/* A tile of currents of one time step through the neurons. `here` is its first output in a step. */
static void fire_tile(const struct event_task *task, const struct event_tile *tile, int64_t t,
                      int64_t here, int64_t outputs, float *v) {
    const struct lif *p = task->p;
    int64_t apart = task->c->groups * task->c->outputs, block = block_of(task->c);
    uint8_t spikes[CURRENTS], others[CURRENTS];
    int n = (int)(tile->count * block);
    const float *current = mmsnn_current(tile->y, NULL, NULL, p->input_scale, n, tile->y);
    mmsnn_integrate_to_bytes(p, current, v, spikes, n);
    if (p->gate != NO_GATE) {
        const uint8_t *from = (const uint8_t *)p->shortcut + t * p->shortcut_step + here;
        copy_rows(others, block, from, apart, outputs, tile->count);
        mmsnn_select_bytes(spikes, others, p->gate, n);
    }
    copy_rows((uint8_t *)p->out + t * p->out_step + here, apart, spikes, block, outputs,
              tile->count);
}

/* A block of outputs of a row of pixels: tile by tile, and in each over all time steps. */
static void do_row(const struct event_task *task, const struct events *events, add_up *add,
                   int64_t block, int64_t row) {
    const struct event_conv *c = task->c;
    int64_t most = block_of(c), group = block / c->blocks, first = block % c->blocks * most;
    int64_t outputs = at_most(most, c->outputs - first), all = c->groups * c->blocks;
    int64_t apart = c->groups * c->outputs, step = c->images * c->out_height * c->out_width * apart;
    int64_t size = c->kernel_height * c->kernel_width * c->channels * most *
                   (c->dtype == FLOAT32 ? 4 : c->dtype == INT16 ? 2 : 1);
    int direct = !task->p && outputs == most;
    int64_t pixels = direct ? c->out_width : CURRENTS / most;
    for (int64_t pixel = 0; pixel < c->out_width; pixel += pixels) {
        _Alignas(64) float buffer[CURRENTS], v[CURRENTS];
        memset(v, 0, sizeof v);
        int64_t here = ((row * c->out_width + pixel) * c->groups + group) * c->outputs + first;
        float *kept = task->p && task->p->v ? task->p->v + here : NULL;
        if (kept)
            copy_rows(v, most * 4, kept, apart * 4, outputs * 4,
                      at_most(pixels, c->out_width - pixel));
        for (int64_t t = 0; t < c->steps; t++) {
            float *out = task->p ? NULL : c->out + t * step + here;
            struct event_tile tile = {
                .events = events + t, .from = c->shift + block * most, .first = pixel,
                .count = at_most(pixels, c->out_width - pixel),
                .y = direct ? out : buffer, .y_step = direct ? apart : most};
            for (int64_t part = 0, at = block; part < c->parts; part++, at += all) {
                tile.weight = (const char *)c->weight + at * size;
                tile.scale = c->scale + at * most;
                add(c, &tile);
                tile.from = tile.y;
                tile.from_step = tile.y_step;
            }
            if (task->p)
                fire_tile(task, &tile, t, here, outputs, v);
            else if (!direct)
                copy_rows(out, apart * 4, buffer, most * 4, outputs * 4, tile.count);
        }
        if (kept)
            copy_rows(kept, apart * 4, v, most * 4, outputs * 4,
                      at_most(pixels, c->out_width - pixel));
    }
}

static int event_conv_share(const void *data, int thread, int threads) {
    const struct event_task *task = data;
    const struct event_conv *c = task->c;
    int64_t units = (c->out_height + task->rows - 1) / task->rows, all = c->images * units;
    struct event_work work;
    int fine = start_event_work(&work, task);
    for (int64_t i = all * thread / threads; fine && i < all * (thread + 1) / threads; i++) {
        int64_t image = i / units, first = i % units * task->rows;
        int64_t rows = at_most(task->rows, c->out_height - first);
        for (int64_t group = 0; fine && group < c->groups; group++) {
            fine = list_rows(&work, c, image, first, rows, group);
            add_up *add = adder_of(c, work.seen);
            for (int64_t block = 0; fine && block < c->blocks; block++)
                for (int64_t row = 0; row < rows; row++)
                    do_row(task, work.events + row * c->steps, add, group * c->blocks + block,
                           image * c->out_height + first + row);
        }
    }
    free_event_work(&work);
    return fine;
}

/* Bytes to currents. */
EXPORT int mmsnn_event_conv(const struct event_conv *c) {
    struct event_task task = {NULL, c, rows_of_unit(c, c->threads)};
    return in_parallel(event_conv_share, &task, c->threads);
}

/* Bytes to the bytes of the neurons behind the conv: `p` without `x`. */
EXPORT int mmsnn_event_conv_lif(const struct lif *p, const struct event_conv *c) {
    struct event_task task = {p, c, rows_of_unit(c, c->threads)};
    return in_parallel(event_conv_share, &task, c->threads);
}
