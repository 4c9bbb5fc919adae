/* The gradient of a conv's weights by way of the spikes alone, and weights in the order of convs by
 * events.
 *
 * The gradient of the weight from channel c by tap (i, j) is the sum, over the spikes of c, of the
 * currents' gradients at the pixel whose window has the spike at (i, j). Spikes are listed by
 * channel. The gradients of a block of outputs lie in a map with zeros around, so that those of a
 * tap are a fixed distance before a spike's place, whatever the edges. With a stride, spikes fall
 * into phases, by where they lie between the strides, which different taps see.
 *
 * The maps are taken in bands, so small that a band's gradients stay in a second-level cache. Each
 * weight belongs to one thread, and its sum has the order of bands, and in them of the spikes in
 * memory, whatever the number of threads. */

/* Pixels of gradients in a band, channels whose spikes are listed at once, taps added at once. */
enum { GRAD_PIXELS = 1280, CHUNK = 64, TAPS = 3 };

/* `conv` with bits, its weight, scale, shift and out unused. */
struct event_grad {
    struct event_conv conv;
    const float *grad;  /* (images, out_height, out_width, all outputs) */
    float *weight_grad; /* (all outputs, channels, kernel_height, kernel_width) */
};

/* Spikes with (row + pad) % stride and (column + pad) % stride alike, and the taps that see them. */
struct phase {
    int64_t count;
    int64_t *taps, *distances; /* [count], to the gradient, in pixels of a band's map */
};

/* What a thread works with. */
struct grad_work {
    int64_t first, last;          /* channels, of those of all groups */
    int64_t images, rows;         /* of a band, at most */
    int64_t map_height, map_width, back_height, back_width; /* maps, and how far taps reach back */
    int64_t phases, room;         /* kinds of spikes, and how many of a channel a list holds */
    struct phase *phase;          /* [stride_height * stride_width] */
    int64_t *places;              /* [kernel_height * kernel_width * 2], of all phases */
    int64_t *columns;             /* [width], of the map */
    float *map;                   /* [images][map_height][map_width][REAL_OUTPUTS] */
    uint32_t *lists;              /* [phases][CHUNK][room] */
    int64_t *counts;              /* [phases][CHUNK] */
    float *sums;                  /* [channels][blocks][taps][REAL_OUTPUTS] */
    int64_t held;                 /* which band and block the map has */
};

/* A band: rows of an image, or whole images. */
struct band {
    int64_t image, images, row, rows, map_row, map_rows; /* map_row: of an image's outputs */
};

INLINE int64_t taps_of(const struct event_conv *c) { return c->kernel_height * c->kernel_width; }

/* ---- spikes by channel ----------------------------------------------------------------------- */

LOOP void mmsnn_list_channels(const struct event_conv *c, const struct grad_work *w,
                              const struct band *b, int64_t channel, int64_t channels) {
    int64_t all = c->groups * c->channels;
    memset(w->counts, 0, w->phases * CHUNK * sizeof *w->counts);
    for (int64_t i = 0; i < b->images * b->rows; i++) {
        int64_t image = i / b->rows, row = b->row + i % b->rows + c->pad_height;
        int64_t line = row / c->stride_height - b->map_row + image * b->map_rows;
        int64_t at = ((b->image + image) * c->height + row - c->pad_height) * c->width * all;
        const struct phase *phase = w->phase + row % c->stride_height * c->stride_width;
        for (int64_t column = 0; column < c->width; column++, at += all) {
            int64_t kind = (column + c->pad_width) % c->stride_width;
            if (!phase[kind].count)
                continue;
            int64_t list = (row % c->stride_height * c->stride_width + kind) * CHUNK;
            uint32_t place = (uint32_t)(line * w->map_width + w->columns[column]);
            for (int64_t first = 0; first < channels; first += 8) {
                int count = (int)at_most(8, channels - first);
                int bits = bits_at(c->x, at + channel + first, count);
                for (; bits; bits &= bits - 1) {
                    int64_t to = list + first + __builtin_ctz(bits);
                    w->lists[to * w->room + w->counts[to]++] = place;
                }
            }
        }
    }
}

/* ---- what they add up to --------------------------------------------------------------------- */

/* The gradients of a block of outputs that a band's spikes reach, zeros where there are none. */
static void map_grads(const struct event_grad *g, struct grad_work *w, const struct band *b,
                      int64_t block) {
    const struct event_conv *c = &g->conv;
    int64_t all = c->groups * c->outputs, line = w->map_width * REAL_OUTPUTS;
    int64_t first = block / c->blocks * c->outputs + block % c->blocks * REAL_OUTPUTS;
    int64_t outputs = at_most(REAL_OUTPUTS, c->outputs - block % c->blocks * REAL_OUTPUTS);
    /* Where column 0 of the outputs lies; windows of padding alone, before the map, have no spike. */
    int64_t zero = w->back_width - c->pad_width / c->stride_width, start = at_least(0, -zero);
    int64_t columns = at_least(0, at_most(c->out_width, w->map_width - zero) - start);
    memset(w->map, 0, b->images * b->map_rows * line * sizeof *w->map);
    for (int64_t i = 0; i < b->images * b->map_rows; i++) {
        int64_t row = b->map_row + i % b->map_rows, image = b->image + i / b->map_rows;
        if (row < 0 || row >= c->out_height)
            continue;
        int64_t from = ((image * c->out_height + row) * c->out_width + start) * all + first;
        copy_rows(w->map + i * line + (zero + start) * REAL_OUTPUTS, REAL_OUTPUTS * 4,
                  g->grad + from, all * 4, outputs * 4, columns);
    }
}

/* Add up to the sums of `count` channels and some taps, `apart` and `taps` of them apart. */
#define ADD_GRADS(NAME, COUNT) \
    LOOP void NAME(const float *map, const uint32_t *lists, int64_t room, const int64_t *counts, \
                   int64_t channels, const int64_t *distances, const int64_t *taps, float *sums, \
                   int64_t apart) { \
        enum { N = REAL_OUTPUTS / SUMS }; \
        for (int64_t i = 0; i < channels; i++, lists += room, sums += apart) { \
            float_sums sum[COUNT][N] = {{{0}}}; \
            for (int64_t e = 0; e < counts[i]; e++) \
                for (int k = 0; k < COUNT; k++) { \
                    const float *grad = map + (lists[e] - distances[k]) * REAL_OUTPUTS; \
                    for (int j = 0; j < N; j++) { \
                        float_sums value; \
                        memcpy(&value, grad + j * SUMS, sizeof value); \
                        sum[k][j] += value; \
                    } \
                } \
            for (int k = 0; k < COUNT; k++) \
                for (int j = 0; j < N; j++) { \
                    float_sums value; \
                    float *to = sums + taps[k] * REAL_OUTPUTS + j * SUMS; \
                    memcpy(&value, to, sizeof value); \
                    value += sum[k][j]; \
                    memcpy(to, &value, sizeof value); \
                } \
        } \
    }
ADD_GRADS(mmsnn_add_grads_1, 1)
ADD_GRADS(mmsnn_add_grads_2, 2)
ADD_GRADS(mmsnn_add_grads_3, 3)

static void add_grads(const struct event_grad *g, const struct grad_work *w, int64_t block,
                      int64_t channel, int64_t channels) {
    const struct event_conv *c = &g->conv;
    int64_t apart = c->blocks * taps_of(c) * REAL_OUTPUTS;
    float *sums = w->sums + (channel - w->first) * apart +
                  block % c->blocks * taps_of(c) * REAL_OUTPUTS;
    for (int64_t i = 0; i < w->phases; i++) {
        const struct phase *phase = w->phase + i;
        const uint32_t *lists = w->lists + i * CHUNK * w->room;
        for (int64_t k = 0; k < phase->count; k += TAPS) {
            int64_t count = at_most(TAPS, phase->count - k);
            (count == 1   ? mmsnn_add_grads_1
             : count == 2 ? mmsnn_add_grads_2
                          : mmsnn_add_grads_3)(w->map, lists, w->room, w->counts + i * CHUNK,
                                               channels, phase->distances + k, phase->taps + k,
                                               sums, apart);
        }
    }
}

/* ---- band by band ---------------------------------------------------------------------------- */

static void free_grad_work(struct grad_work *w) {
    free(w->phase);
    free(w->places);
    free(w->columns);
    free(w->map);
    free(w->lists);
    free(w->counts);
    free(w->sums);
}

/* Sizes of bands, whatever the number of threads. */
static void choose_band(struct grad_work *w, const struct event_conv *c) {
    int64_t reach_height = (c->kernel_height - 1) * c->dilation_height;
    int64_t reach_width = (c->kernel_width - 1) * c->dilation_width;
    w->back_height = reach_height / c->stride_height;
    w->back_width = reach_width / c->stride_width;
    w->map_width = (c->width - 1 + c->pad_width) / c->stride_width -
                   c->pad_width / c->stride_width + 1 + w->back_width;
    int64_t whole = (c->height - 1 + c->pad_height) / c->stride_height -
                    c->pad_height / c->stride_height + 1 + w->back_height;
    int64_t lines = GRAD_PIXELS / w->map_width; /* that a band may have */
    w->images = at_most(c->images, at_least(1, lines / whole));
    w->rows = c->height;
    w->map_height = whole;
    if (lines >= whole)
        return;
    w->rows = at_least(1, lines - w->back_height - 1) * c->stride_height;
    /* Rows that begin between strides reach one line more. */
    w->map_height = at_most(whole, w->rows / c->stride_height + 1 + w->back_height);
}

static int start_grad_work(struct grad_work *w, const struct event_conv *c, int64_t first,
                           int64_t last) {
    int64_t taps = taps_of(c);
    memset(w, 0, sizeof *w);
    w->first = first;
    w->last = last;
    w->held = -1;
    choose_band(w, c);
    w->phases = c->stride_height * c->stride_width;
    w->room = w->images * (w->rows / c->stride_height + 1) * (c->width / c->stride_width + 1);
    w->phase = calloc(w->phases, sizeof *w->phase);
    w->places = malloc(w->phases * taps * 2 * sizeof *w->places);
    w->columns = malloc(c->width * sizeof *w->columns);
    w->map = malloc(w->images * w->map_height * w->map_width * REAL_OUTPUTS * sizeof *w->map);
    w->lists = malloc(w->phases * CHUNK * w->room * sizeof *w->lists);
    w->counts = malloc(w->phases * CHUNK * sizeof *w->counts);
    w->sums = calloc((last - first) * c->blocks * taps * REAL_OUTPUTS, sizeof *w->sums);
    if (!w->phase || !w->places || !w->columns || !w->map || !w->lists || !w->counts || !w->sums)
        return 0;
    for (int64_t i = 0; i < w->phases; i++) {
        w->phase[i].taps = w->places + i * taps * 2;
        w->phase[i].distances = w->phase[i].taps + taps;
    }
    for (int64_t tap = 0; tap < taps; tap++) {
        int64_t row = tap / c->kernel_width * c->dilation_height;
        int64_t column = tap % c->kernel_width * c->dilation_width;
        struct phase *phase =
            w->phase + row % c->stride_height * c->stride_width + column % c->stride_width;
        phase->taps[phase->count] = tap;
        phase->distances[phase->count++] =
            row / c->stride_height * w->map_width + column / c->stride_width;
    }
    for (int64_t i = 0; i < c->width; i++)
        w->columns[i] = (i + c->pad_width) / c->stride_width - c->pad_width / c->stride_width +
                        w->back_width;
    return 1;
}

static void do_band(const struct event_grad *g, struct grad_work *w, const struct band *b) {
    const struct event_conv *c = &g->conv;
    for (int64_t channel = w->first; channel < w->last;) {
        int64_t group = channel / c->channels;
        int64_t end = at_most(at_most(channel + CHUNK, w->last), (group + 1) * c->channels);
        mmsnn_list_channels(c, w, b, channel, end - channel);
        for (int64_t i = 0; i < c->blocks; i++) {
            int64_t block = group * c->blocks + i;
            int64_t wanted =
                (b->image * c->height + b->row) * c->groups * c->blocks + block;
            if (w->held != wanted)
                map_grads(g, w, b, block);
            w->held = wanted;
            add_grads(g, w, block, channel, end - channel);
        }
        channel = end;
    }
}

/* From the order of the sums to that of the weights. */
static void give_grads(const struct event_grad *g, const struct grad_work *w) {
    const struct event_conv *c = &g->conv;
    int64_t taps = taps_of(c), apart = c->blocks * taps * REAL_OUTPUTS;
    for (int64_t channel = w->first; channel < w->last;) {
        int64_t group = channel / c->channels;
        int64_t end = at_most(w->last, (group + 1) * c->channels);
        for (int64_t o = 0; o < c->outputs; o++) {
            const float *from = w->sums + (channel - w->first) * apart +
                                o / REAL_OUTPUTS * taps * REAL_OUTPUTS + o % REAL_OUTPUTS;
            float *to = g->weight_grad +
                        ((group * c->outputs + o) * c->channels + channel % c->channels) * taps;
            for (int64_t i = channel; i < end; i++, from += apart, to += taps)
                for (int64_t k = 0; k < taps; k++)
                    to[k] = from[k * REAL_OUTPUTS];
        }
        channel = end;
    }
}

static int event_grad_share(const void *task, int thread, int threads) {
    const struct event_grad *g = task;
    const struct event_conv *c = &g->conv;
    int64_t all = c->groups * c->channels;
    struct grad_work w;
    if (all * thread / threads == all * (thread + 1) / threads) /* more threads than channels */
        return 1;
    int fine = start_grad_work(&w, c, all * thread / threads, all * (thread + 1) / threads);
    for (int64_t image = 0; fine && w.first < w.last && image < c->images; image += w.images)
        for (int64_t row = 0; row < c->height; row += w.rows) {
            struct band b = {image, at_most(w.images, c->images - image), row,
                             at_most(w.rows, c->height - row), 0, 0};
            b.map_row = (row + c->pad_height) / c->stride_height - w.back_height;
            b.map_rows =
                (row + b.rows - 1 + c->pad_height) / c->stride_height - b.map_row + 1;
            do_band(g, &w, &b);
        }
    if (fine)
        give_grads(g, &w);
    free_grad_work(&w);
    return fine;
}

/* The weights' gradient of a conv on bits. */
EXPORT int mmsnn_event_weight_grad(const struct event_grad *g) {
    return in_parallel(event_grad_share, g, g->conv.threads);
}

/* ---- weights --------------------------------------------------------------------------------- */

/* Weights of float32, apart as `steps` says: output, channel, row and column. */
struct real_weights {
    const struct event_conv *conv;
    const float *from;
    float *to; /* as `weight` of it */
    int64_t steps[4];
};

static int real_weights_share(const void *task, int thread, int threads) {
    const struct real_weights *p = task;
    const struct event_conv *c = p->conv;
    int64_t all = c->groups * c->blocks, size = taps_of(c) * c->channels * REAL_OUTPUTS;
    for (int64_t block = all * thread / threads; block < all * (thread + 1) / threads; block++) {
        int64_t first = block % c->blocks * REAL_OUTPUTS, group = block / c->blocks;
        int64_t outputs = at_most(REAL_OUTPUTS, c->outputs - first);
        const float *of_block = p->from + (group * c->outputs + first) * p->steps[0];
        for (int64_t channel = 0; channel < c->channels; channel++)
            for (int64_t tap = 0; tap < taps_of(c); tap++) {
                int64_t row = tap / c->kernel_width, column = tap % c->kernel_width;
                const float *from = of_block + channel * p->steps[1] + row * p->steps[2] +
                                    column * p->steps[3];
                float *to = p->to + block * size +
                            ((column * c->kernel_height + row) * c->channels + channel) *
                                REAL_OUTPUTS;
                for (int64_t o = 0; o < outputs; o++)
                    to[o] = from[o * p->steps[0]];
                for (int64_t o = outputs; o < REAL_OUTPUTS; o++)
                    to[o] = 0.0f;
            }
    }
    return 1;
}

/* Weights to the order in which `conv` reads them. */
EXPORT int mmsnn_event_weights(const struct event_conv *conv, const float *from,
                               const int64_t *steps, float *to) {
    struct real_weights task = {conv, from, to, {steps[0], steps[1], steps[2], steps[3]}};
    return in_parallel(real_weights_share, &task, conv->threads);
}
