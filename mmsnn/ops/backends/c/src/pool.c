/* Max pooling, forward and backward, and backward through the neuron in front of it. */

/* (images, height, width, inner): inner is the number of channels where they come last, else 1, and
 * every plane is an image. */
struct pool {
    int64_t images, height, width, inner, out_height, out_width;
    int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int64_t out_start; /* element that `out` begins with; backward only */
    int32_t dtype, packed, threads;
    const void *x;    /* backward: bits where packed */
    const void *grad; /* dL/d out */
    void *out;        /* backward: dL/dx */
};

/* bfloat16 as unsigned numbers of the same order, with every NaN above all others, and back. */
INLINE uint16_t to_ordered(uint16_t x) {
    return (uint16_t)((x ^ ((int16_t)x >> 15 & 0x7fff)) - 0x807f);
}

INLINE uint16_t from_ordered(uint16_t x) {
    uint16_t y = (uint16_t)(x + 0x807f);
    return (uint16_t)(y ^ ((int16_t)y >> 15 & 0x7fff));
}

/* Maxima over 3 x 3 positions of `count` runs of windows, `step` columns apart and `n` elements
 * each, from column `start` on, into `to`, or into what `to` holds where there is `more`. Positions
 * outside are replaced by the nearest inside, which belongs to the same window: a maximum does not
 * mind. As in PyTorch, NaN wins over all, and the first of equals; zeros of two signs are equal,
 * except in bfloat16. */
#define MAX_POOL(NAME, TYPE, READ, WRITE) \
    LOOP void NAME(const struct pool *p, const TYPE *const *rows, int64_t column, int64_t start, \
                   int64_t step, int64_t count, int64_t n, int more, TYPE *restrict to) { \
        int64_t last = p->width - 1, second = at_most(1, p->kernel_width - 1 - column), \
                third = at_most(2, p->kernel_width - 1 - column); \
        for (int64_t k = 0; k < count; k++, to += n) { \
            int64_t at = start + k * step + column; \
            int64_t a = at_most(at_least(at, 0), last) * p->inner, \
                    b = at_most(at_least(at + second, 0), last) * p->inner, \
                    c = at_most(at_least(at + third, 0), last) * p->inner; \
            const TYPE *a0 = rows[0] + a, *b0 = rows[0] + b, *c0 = rows[0] + c, \
                       *a1 = rows[1] + a, *b1 = rows[1] + b, *c1 = rows[1] + c, \
                       *a2 = rows[2] + a, *b2 = rows[2] + b, *c2 = rows[2] + c; \
            for (int64_t i = 0; i < n; i++) { \
                TYPE x, m = more ? READ(to[i]) : READ(a0[i]); \
                x = READ(a0[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(b0[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(c0[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(a1[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(b1[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(c1[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(a2[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(b2[i]), m = x > m ? x : m, m = x == x ? m : x; \
                x = READ(c2[i]), m = x > m ? x : m, m = x == x ? m : x; \
                to[i] = WRITE(m); \
            } \
        } \
    }

MAX_POOL(mmsnn_max_float, float, , )
MAX_POOL(mmsnn_max_bfloat16, uint16_t, to_ordered, from_ordered)
MAX_POOL(mmsnn_max_bytes, uint8_t, , )

/* Every `step`th element. */
LOOP void mmsnn_pick(const void *from, int64_t step, void *to, int64_t n, int dtype) {
    if (dtype == FLOAT32)
        for (int64_t i = 0; i < n; i++)
            ((float *)to)[i] = ((const float *)from)[i * step];
    else if (dtype == BFLOAT16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)to)[i] = ((const uint16_t *)from)[i * step];
    else
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)to)[i] = ((const uint8_t *)from)[i * step];
}

/* Elements so many apart. */
LOOP void mmsnn_copy_steps(const float *restrict from, int64_t from_step, float *restrict to,
                           int64_t to_step, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        to[i * to_step] = from[i * from_step];
}

/* Real values above the -INFINITY of padding, so that no gradient goes there. */
LOOP void mmsnn_above_padding(const float *from, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] < -FLT_MAX ? -FLT_MAX : from[i];
}

/* The gradients `g` of windows go to their first maximum: place k of all windows is one stretch, from
 * x[k] + at on, and so is its gradient. Stretches overlap; from the last place to the first, windows
 * further left add up first, as in PyTorch. */
LOOP void mmsnn_give_to_maximum(const float *const *x, float *const *grad, int places, int64_t at,
                                const float *g, int n) {
    int i = 0;
#ifdef VECTORS
    for (; i + WIDTH <= n; i += WIDTH) {
        floats m, value;
        ints place = {0}, found;
        memcpy(&m, x[0] + at + i, sizeof m);
        for (int k = 1; k < places; k++) {
            memcpy(&value, x[k] + at + i, sizeof value);
            found = (value > m) | (value != value); /* as in PyTorch, the last NaN */
            place = (k & found) | (place & ~found);
            m = (floats)(((ints)value & found) | ((ints)m & ~found));
        }
        for (int k = places; k-- > 0;) {
            floats to;
            memcpy(&to, grad[k] + at + i, sizeof to);
            memcpy(&value, g + i, sizeof value);
            to += (floats)((ints)value & (place == k));
            memcpy(grad[k] + at + i, &to, sizeof to);
        }
    }
#endif
    for (; i < n; i++) {
        float m = x[0][at + i];
        int place = 0;
        for (int k = 1; k < places; k++)
            if (x[k][at + i] > m || x[k][at + i] != x[k][at + i]) {
                m = x[k][at + i];
                place = k;
            }
        grad[place][at + i] += g[i];
    }
}

/* One row of windows, in tiles of 3 x 3 positions. */
static void pool_row(const struct pool *p, int64_t image, int64_t out_row, char *starts) {
    int64_t size = item_size(p->dtype), row_size = p->width * p->inner * size;
    int64_t y = out_row * p->stride_height - p->pad_height;
    int64_t end = at_most(y + p->kernel_height, p->height);
    /* Tiles of a wider kernel would leave the order that PyTorch looks in. */
    int64_t tall = p->kernel_width > 3 ? 1 : 3;
    char *out = (char *)p->out + (image * p->out_height + out_row) * p->out_width * p->inner * size;
    int more = 0;
    for (y = at_least(y, 0); y < end; y += tall)
        for (int64_t column = 0; column < p->kernel_width; column += 3, more = 1) {
            const void *rows[3];
            for (int64_t i = 0; i < 3; i++)
                rows[i] = (const char *)p->x +
                          (image * p->height + at_most(y + at_most(i, tall - 1), end - 1)) * row_size;
#define POOL_TILE(START, STEP, COUNT, N, TO) \
    if (p->dtype == FLOAT32) \
        mmsnn_max_float(p, (const float *const *)rows, column, START, STEP, COUNT, N, more, \
                        (float *)(TO)); \
    else if (p->dtype == BFLOAT16) \
        mmsnn_max_bfloat16(p, (const uint16_t *const *)rows, column, START, STEP, COUNT, N, more, \
                           (uint16_t *)(TO)); \
    else \
        mmsnn_max_bytes(p, (const uint8_t *const *)rows, column, START, STEP, COUNT, N, more, \
                        (uint8_t *)(TO))
            if (p->inner > 1) {
                POOL_TILE(-p->pad_width, p->stride_width, p->out_width, p->inner, out);
                continue;
            }
            /* Along a row, windows that begin at every column make one vector loop of those that
             * lie inside; the strided ones are picked from them. */
            int64_t inside = at_least(0, p->width - p->kernel_width + 1);
            int64_t all = p->width + 2 * p->pad_width - p->kernel_width + 1;
            int64_t before = inside ? p->pad_width : all;
            POOL_TILE(-p->pad_width, 1, before, 1, starts);
            POOL_TILE(0, 0, inside > 0, inside, starts + before * size);
            POOL_TILE(inside, 1, all - before - inside, 1, starts + (before + inside) * size);
        }
    if (p->inner == 1)
        mmsnn_pick(starts, p->stride_width, out, p->out_width, p->dtype);
}

static int pool_forward_share(const void *task, int thread, int threads) {
    const struct pool *p = task;
    int64_t rows = p->images * p->out_height, end = rows * (thread + 1) / threads;
    char *starts = malloc((p->width + 2 * p->pad_width) * item_size(p->dtype));
    if (!starts)
        return 0;
    for (int64_t row = rows * thread / threads; row < end; row++)
        pool_row(p, row / p->out_height, row % p->out_height, starts);
    free(starts);
    return 1;
}

/* Rows of x and of its gradient that a row of windows touches, as float32. A row is kept in
 * stride_width phases: columns that lie a stride apart are neighbours, so that column k of all
 * windows of a row is one stretch, whatever the layout. Padding is part of it. */
struct phases {
    int64_t phase, row; /* elements of a phase and of a row of phases */
    float *x, *grad;    /* [kernel_height][row]; row y is at y % kernel_height */
    float *line;        /* a row in its natural order */
    float **places;     /* [2][places of a window]: of a row's first window, in x and in grad */
};

/* Between a natural row and its phases. A phase at a time where its elements lie apart; else column
 * by column, as writes in the order of memory are faster. */
static void change_phases(const struct pool *p, const struct phases *ring, const float *from,
                          float *to, int spread) {
    int64_t stride = p->stride_width, inner = p->inner;
    for (int64_t column = 0; column < (inner > 1 ? p->width : at_most(stride, p->width)); column++) {
        int64_t padded = column + p->pad_width, natural = column * inner;
        int64_t phased = padded % stride * ring->phase + padded / stride * inner;
        int64_t count = (p->width - column + stride - 1) / stride;
        if (inner > 1)
            memcpy(to + (spread ? phased : natural), from + (spread ? natural : phased),
                   inner * sizeof(float));
        else if (spread)
            mmsnn_copy_steps(from + natural, stride, to + phased, 1, count);
        else
            mmsnn_copy_steps(from + phased, 1, to + natural, stride, count);
    }
}

static void take_row(const struct pool *p, const struct phases *ring, int64_t image, int64_t y) {
    int64_t n = p->width * p->inner, start = (image * p->height + y) * n;
    const float *row;
    if (p->packed) {
        mmsnn_load_bits((const uint8_t *)p->x + start / 8, (int)(start % 8 + n), ring->line);
        row = ring->line + start % 8;
    } else {
        mmsnn_above_padding(load(p->x, start, (int)n, p->dtype, ring->line), ring->line, n);
        row = ring->line;
    }
    change_phases(p, ring, row, ring->x + y % p->kernel_height * ring->row, 1);
    memset(ring->grad + y % p->kernel_height * ring->row, 0, ring->row * sizeof(float));
}

static void give_row(const struct pool *p, const struct phases *ring, int64_t image, int64_t y,
                     int64_t taken) {
    int64_t n = p->width * p->inner, start = (image * p->height + y) * n;
    float *row;
    start -= p->out_start;
    row = destination(p->out, start, p->dtype, ring->line);
    if (y >= taken) { /* no window touches it */
        int64_t size = item_size(p->dtype);
        memset((char *)p->out + start * size, 0, n * size);
        return;
    }
    change_phases(p, ring, ring->grad + y % p->kernel_height * ring->row, row, 0);
    store(p->out, start, (int)n, p->dtype, row);
}

/* Where in the ring column k of a row's first window is. */
INLINE int64_t place_of(const struct pool *p, const struct phases *ring, int64_t y, int64_t k) {
    return y % p->kernel_height * ring->row + k % p->stride_width * ring->phase +
           k / p->stride_width * p->inner;
}

/* Rows [top, bottom) of one image's gradient: windows in their order, whoever computes them. */
static void pool_back(const struct pool *p, const struct phases *ring, int64_t image, int64_t top,
                      int64_t bottom) {
    float buffer[LANES], **places = ring->places + p->kernel_height * p->kernel_width;
    int64_t n = p->out_width * p->inner, stride = p->stride_height, taken = 0, given = top;
    int64_t row = at_least(0, top + p->pad_height - p->kernel_height + stride) / stride;
    for (; row < p->out_height && row * stride - p->pad_height < bottom; row++) {
        int64_t begin = row * stride - p->pad_height;
        int64_t end = at_most(begin + p->kernel_height, p->height);
        int count = 0;
        begin = at_least(begin, 0);
        for (; given < begin; given++)
            give_row(p, ring, image, given, taken);
        for (taken = at_least(taken, begin); taken < end; taken++)
            take_row(p, ring, image, taken);
        for (int64_t y = begin; y < end; y++)
            for (int64_t k = 0; k < p->kernel_width; k++, count++) {
                ring->places[count] = ring->x + place_of(p, ring, y, k);
                places[count] = ring->grad + place_of(p, ring, y, k);
            }
        for (int64_t i = 0; i < n; i += LANES) {
            int lanes = (int)at_most(LANES, n - i);
            int64_t at = (image * p->out_height + row) * n + i;
            const float *g = load(p->grad, at, lanes, p->dtype, buffer);
            mmsnn_give_to_maximum((const float *const *)ring->places, places, count, i, g, lanes);
        }
    }
    for (; given < bottom; given++)
        give_row(p, ring, image, given, taken);
}

static void phases_end(struct phases *ring) {
    free(ring->x);
    free(ring->places);
}

static int phases_start(struct phases *ring, const struct pool *p) {
    int64_t n;
    ring->phase = (p->width + 2 * p->pad_width + p->stride_width - 1) / p->stride_width * p->inner;
    ring->row = p->stride_width * ring->phase;
    n = p->kernel_height * ring->row;
    ring->x = malloc((2 * n + p->width * p->inner + 8) * sizeof(float));
    ring->places = malloc(2 * p->kernel_height * p->kernel_width * sizeof(float *));
    if (!ring->x || !ring->places)
        return 0;
    ring->grad = ring->x + n;
    ring->line = ring->grad + n;
    for (int64_t i = 0; i < n; i++) /* padding stays so */
        ring->x[i] = -INFINITY;
    return 1;
}

static int pool_backward_share(const void *task, int thread, int threads) {
    const struct pool *p = task;
    int64_t rows = p->images * p->height, end = rows * (thread + 1) / threads;
    struct phases ring;
    int fine = phases_start(&ring, p);
    for (int64_t row = rows * thread / threads, count; fine && row < end; row += count) {
        int64_t image = row / p->height, top = row % p->height;
        count = at_most(p->height - top, end - row);
        pool_back(p, &ring, image, top, top + count);
    }
    phases_end(&ring);
    return fine;
}

/* Bytes of the spikes' gradient that a thread holds: within the second-level cache. */
enum { BAND = 1 << 20 };

/* Through the pool and the neuron in front of it, some rows of all time steps at once: the gradient
 * of the spikes, the largest of all maps, is never in memory as a whole. */
static int pooled_backward_share(const void *task, int thread, int threads) {
    const struct reduction *reduction = task;
    struct lif p = *reduction->p;
    struct pool pool = *reduction->pool;
    int64_t row = pool.width * pool.inner, planes = pool.images / p.steps;
    int64_t height = BAND / (p.steps * row * item_size(pool.dtype));
    int64_t bands, end;
    struct phases ring;
    struct backward w;
    char *grad;
    int fine;
    height = at_most(at_least(height, 1), pool.height);
    bands = (pool.height + height - 1) / height;
    grad = malloc(p.steps * height * row * item_size(pool.dtype));
    fine = backward_start(&w, &p, reduction->sums + thread * reduction->width) &
           (grad != NULL) & phases_start(&ring, &pool);
    end = planes * bands * (thread + 1) / threads;
    for (int64_t i = planes * bands * thread / threads; fine && i < end; i++) {
        int64_t plane = i / bands, top = i % bands * height;
        int64_t bottom = at_most(top + height, pool.height);
        p.grad_start = (plane * pool.height + top) * row;
        p.grad_step = (bottom - top) * row;
        p.grad = grad;
        for (int64_t t = 0; t < p.steps; t++) {
            pool.out = grad + t * p.grad_step * item_size(pool.dtype);
            pool.out_start = t * p.n + p.grad_start;
            pool_back(&pool, &ring, t * planes + plane, top, bottom);
        }
        backward_range(&p, &w, p.grad_start, p.grad_start + p.grad_step);
    }
    phases_end(&ring);
    free(grad);
    backward_end(&w);
    return fine;
}

EXPORT int mmsnn_max_pool(const struct pool *p) {
    return in_parallel(pool_forward_share, p, p->threads);
}

EXPORT int mmsnn_max_pool_backward(const struct pool *p) {
    return in_parallel(pool_backward_share, p, p->threads);
}

/* Spikes that went through a max pool: the gradient comes from `pool`, whose `x` is their bits. */
EXPORT int mmsnn_pooled_lif_backward(const struct lif *p, const struct pool *pool) {
    return reduce(pooled_backward_share, p, pool);
}
