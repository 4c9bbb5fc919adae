/* Convs on bytes with the neurons behind them, for x86 with VNNI; elsewhere there is nothing of it. */

/* A tile is some output pixels, by as many outputs as there are in a block of weights: so many that
 * the sums fill the registers, and each weight that is loaded meets several pixels. */
enum { PIXELS = 6, OUTPUTS = 64, TILE = PIXELS * OUTPUTS };

/* Maps with channels last, steps of `x` x_step elements apart. */
struct conv {
    int64_t images, height, width, channels, out_height, out_width, out_channels;
    int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
    int64_t dilation_height, dilation_width, x_step;
    int64_t parts;        /* of a weight, which is the sum of scale[part] * weight[part] */
    const uint8_t *x;
    const int8_t *weight; /* [parts][blocks][taps][channels / 4][OUTPUTS][4] */
    const float *scale;   /* [parts][blocks][OUTPUTS] */
    const float *shift;   /* [blocks][OUTPUTS] */
};

#if defined(VECTORS) && defined(__x86_64__) && !defined(MMSNN_NO_AVX512)
#include <immintrin.h>
#define DOTS __attribute__((target("avx512f,avx512bw,avx512vnni")))

/* In assembly: with intrinsics, compilers spill the sums. */
#define DOT(SUM, BYTES, WEIGHTS) \
    __asm__("vpdpbusd %2, %1, %0" : "+v"(SUM) : "v"(BYTES), "v"(WEIGHTS));
#define PIXEL_BY_PIXEL(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

/* The sums of a tile: pixel i has its bytes for a tap at x + offsets[tap][i], or, where that is
 * negative, outside of the map. */
DOTS __attribute__((noinline))
static void sum_up(const struct conv *c, const uint8_t *x, const int64_t (*offsets)[PIXELS],
                   const uint8_t *outside, const int8_t *weight, int32_t *sums) {
    int64_t taps = c->kernel_height * c->kernel_width;
#define START(I) __m512i a##I = {0}, b##I = {0}, c##I = {0}, d##I = {0};
    PIXEL_BY_PIXEL(START)
    for (int64_t tap = 0; tap < taps; tap++) {
#define FIND(I) const uint8_t *x##I = offsets[tap][I] < 0 ? outside : x + offsets[tap][I];
        PIXEL_BY_PIXEL(FIND)
        for (int64_t k = 0; k < c->channels; k += 4, weight += 4 * OUTPUTS) {
            __m512i wa = _mm512_loadu_si512(weight), wb = _mm512_loadu_si512(weight + OUTPUTS),
                    wc = _mm512_loadu_si512(weight + 2 * OUTPUTS),
                    wd = _mm512_loadu_si512(weight + 3 * OUTPUTS), bytes;
            int32_t four;
#define ADD_UP(I) \
    memcpy(&four, x##I + k, sizeof four); \
    bytes = _mm512_set1_epi32(four); \
    DOT(a##I, bytes, wa) DOT(b##I, bytes, wb) DOT(c##I, bytes, wc) DOT(d##I, bytes, wd)
            PIXEL_BY_PIXEL(ADD_UP)
        }
    }
#define KEEP_SUMS(I) \
    _mm512_store_si512(sums + I * OUTPUTS, a##I); \
    _mm512_store_si512(sums + I * OUTPUTS + 16, b##I); \
    _mm512_store_si512(sums + I * OUTPUTS + 32, c##I); \
    _mm512_store_si512(sums + I * OUTPUTS + 48, d##I);
    PIXEL_BY_PIXEL(KEEP_SUMS)
}

/* What becomes of a tile's sums: y = scale * sums + from, where the rows of `from` are from_step
 * apart, 0 for one of all. */
struct currents {
    const int32_t *sums;
    const float *scale, *from;
    int from_step;
};

DOTS INLINE __m512 current_at(const struct currents *c, int row, int j) {
    __m512 sums = _mm512_cvtepi32_ps(_mm512_load_si512(c->sums + row * OUTPUTS + j));
    return _mm512_add_ps(_mm512_mul_ps(sums, _mm512_loadu_ps(c->scale + j)),
                         _mm512_loadu_ps(c->from + row * c->from_step + j));
}

DOTS static void keep_currents(const struct currents *c, float *y) {
    for (int row = 0; row < PIXELS; row++)
        for (int j = 0; j < OUTPUTS; j += 16)
            _mm512_store_ps(y + row * OUTPUTS + j, current_at(c, row, j));
}

/* As mmsnn_integrate_to_bytes, of a tile. */
DOTS INLINE void fire_as(const struct lif *p, int reset, int scaled, const struct currents *c,
                         float *v, uint8_t *spikes) {
    __m512 decay = _mm512_set1_ps(p->decay), input_scale = _mm512_set1_ps(p->input_scale);
    __m512 v_threshold = _mm512_set1_ps(p->v_threshold);
    for (int row = 0; row < PIXELS; row++) {
        __mmask64 all = 0;
        for (int j = 0; j < OUTPUTS; j += 16, v += 16) {
            __m512 y = current_at(c, row, j);
            y = scaled ? _mm512_mul_ps(input_scale, y) : y;
            __m512 h = _mm512_add_ps(_mm512_mul_ps(decay, _mm512_load_ps(v)), y);
            __mmask16 silent = _mm512_cmp_ps_mask(h, v_threshold, _CMP_NGE_UQ);
            h = reset == HARD ? _mm512_maskz_mov_ps(silent, h)
                              : _mm512_mask_mov_ps(_mm512_sub_ps(h, v_threshold), silent, h);
            _mm512_store_ps(v, h);
            all |= (__mmask64)silent << j;
        }
        _mm512_storeu_si512(spikes + row * OUTPUTS, _mm512_maskz_set1_epi8(~all, 1));
    }
}

DOTS static void fire(const struct lif *p, const struct currents *c, float *v, uint8_t *spikes) {
    if (p->reset == HARD && p->input_scale == 1.0f)
        fire_as(p, HARD, 0, c, v, spikes);
    else if (p->reset == HARD)
        fire_as(p, HARD, 1, c, v, spikes);
    else
        fire_as(p, SOFT, 1, c, v, spikes);
}
#endif

#ifdef DOTS
/* Where the bytes of a tile are, for each tap; beyond the last pixel, it is repeated. `ways` is how
 * far each tap is from the first. */
static void find_bytes(const struct conv *c, const int64_t *ways, int64_t first,
                       int64_t (*offsets)[PIXELS]) {
    int64_t pixels = c->images * c->out_height * c->out_width;
    int64_t column = first % c->out_width, row = first / c->out_width;
    int64_t image = row / c->out_height;
    row %= c->out_height;
    for (int i = 0; i < PIXELS; i++) {
        int64_t top = row * c->stride_height - c->pad_height;
        int64_t left = column * c->stride_width - c->pad_width;
        int64_t bottom = top + (c->kernel_height - 1) * c->dilation_height;
        int64_t right = left + (c->kernel_width - 1) * c->dilation_width;
        int64_t at = ((image * c->height + top) * c->width + left) * c->channels;
        int64_t taps = c->kernel_height * c->kernel_width;
        for (int64_t tap = 0; tap < taps; tap++)
            offsets[tap][i] = at + ways[tap];
        if (top < 0 || left < 0 || bottom >= c->height || right >= c->width)
            for (int64_t tap = 0; tap < taps; tap++) {
                int64_t y = top + tap / c->kernel_width * c->dilation_height;
                int64_t x = left + tap % c->kernel_width * c->dilation_width;
                if (y < 0 || y >= c->height || x < 0 || x >= c->width)
                    offsets[tap][i] = -1;
            }
        if (first + i + 1 >= pixels)
            continue;
        column = column + 1 == c->out_width ? 0 : column + 1;
        row += column == 0;
        image += row == c->out_height;
        row = row == c->out_height ? 0 : row;
    }
}

/* A row of a block; a known size is copied without a call. */
INLINE void copy_outputs(uint8_t *to, const uint8_t *from, int n) {
    if (n == OUTPUTS)
        memcpy(to, from, OUTPUTS);
    else
        memcpy(to, from, n);
}

struct conv_lif {
    const struct lif *p;
    const struct conv *c;
};

/* A conv and the neurons behind it, tile by tile: no current ever leaves the cache. */
static int conv_lif_share(const void *task, int thread, int threads) {
    const struct lif *p = ((const struct conv_lif *)task)->p;
    const struct conv *c = ((const struct conv_lif *)task)->c;
    int64_t taps = c->kernel_height * c->kernel_width, count = taps * c->channels * OUTPUTS;
    int64_t pixels = c->images * c->out_height * c->out_width;
    int64_t tiles = (pixels + PIXELS - 1) / PIXELS;
    int64_t blocks = (c->out_channels + OUTPUTS - 1) / OUTPUTS;
    int64_t end = blocks * tiles * (thread + 1) / threads;
    int64_t(*offsets)[PIXELS] = malloc(taps * sizeof *offsets);
    int64_t *ways = malloc(taps * sizeof *ways);
    uint8_t *outside = calloc(c->channels, 1);
    int fine = offsets && ways && outside;
    for (int64_t tap = 0; fine && tap < taps; tap++)
        ways[tap] = (tap / c->kernel_width * c->dilation_height * c->width +
                     tap % c->kernel_width * c->dilation_width) * c->channels;
    for (int64_t i = blocks * tiles * thread / threads; fine && i < end; i++) {
        int64_t block = i / tiles, first = i % tiles * PIXELS;
        int64_t here = first * c->out_channels + block * OUTPUTS;
        int rows = (int)at_most(PIXELS, pixels - first);
        int n = (int)at_most(OUTPUTS, c->out_channels - block * OUTPUTS);
        _Alignas(64) int32_t sums[TILE];
        _Alignas(64) float y[TILE], v[TILE] = {0};
        uint8_t spikes[TILE], others[TILE];
        find_bytes(c, ways, first, offsets);
        for (int row = 0; p->v && row < rows; row++)
            memcpy(v + row * OUTPUTS, p->v + here + row * c->out_channels, n * sizeof(float));
        for (int64_t t = 0; t < p->steps; t++) {
            struct currents currents = {sums, NULL, c->shift + block * OUTPUTS, 0};
            for (int64_t part = 0, at = block; part < c->parts; part++, at += blocks) {
                if (part) {
                    keep_currents(&currents, y);
                    currents.from = y;
                    currents.from_step = OUTPUTS;
                }
                sum_up(c, c->x + t * c->x_step, offsets, outside, c->weight + at * count, sums);
                currents.scale = c->scale + at * OUTPUTS;
            }
            fire(p, &currents, v, spikes);
            if (p->gate != NO_GATE) {
                const uint8_t *from = (const uint8_t *)p->shortcut + t * p->shortcut_step + here;
                for (int row = 0; row < rows; row++)
                    copy_outputs(others + row * OUTPUTS, from + row * c->out_channels, n);
                mmsnn_select_bytes(spikes, others, p->gate, rows * OUTPUTS);
            }
            for (int row = 0; row < rows; row++)
                copy_outputs((uint8_t *)p->out + t * p->out_step + here + row * c->out_channels,
                             spikes + row * OUTPUTS, n);
        }
        for (int row = 0; p->v && row < rows; row++)
            memcpy(p->v + here + row * c->out_channels, v + row * OUTPUTS, n * sizeof(float));
    }
    free(offsets);
    free(ways);
    free(outside);
    return fine;
}
#endif

EXPORT int mmsnn_has_dot_products(void) {
#ifdef DOTS
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
#else
    return 0;
#endif
}

/* Bytes to the bytes of neurons behind a conv: `p` without `x`. */
EXPORT int mmsnn_conv_lif(const struct lif *p, const struct conv *c) {
#ifdef DOTS
    struct conv_lif task = {p, c};
    if (mmsnn_has_dot_products())
        return in_parallel(conv_lif_share, &task, p->threads);
#endif
    (void)p, (void)c;
    return -1;
}
