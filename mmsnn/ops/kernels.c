/* Spiking kernels for CPUs: one pass over the data for all time steps, forward and backward.
 *
 * Plain C on raw pointers: no torch header, no Python, so that any compiler builds it in seconds
 * and no version of either pins it. cpu.py is the only caller and keeps the structs in step. Convs on
 * bytes alone are of one kind of processor, x86 with VNNI; elsewhere they are left out.
 *
 * Data is walked in chunks of LANES elements that stay in the first-level cache for all T steps;
 * every small loop below is one the compiler turns into vector code. The order of operations is
 * that of reference.py, and the build forbids contraction (-ffp-contract=off): spikes are equal to
 * the reference's bit for bit.
 */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define INLINE static inline __attribute__((always_inline))

/* A loop over the lanes of a chunk: one copy per instruction set, chosen when the library is loaded.
 * They are never inlined: a call in 256 elements costs nothing, and the build stays seconds. */
#if !defined(MMSNN_NO_CLONES) && defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#ifdef MMSNN_NO_AVX512
#define CLONES target_clones("avx2", "default")
#else
#define CLONES target_clones("avx512f", "avx2", "default")
#endif
#ifdef __clang__ /* refuses noinline here, and inlines no clone */
#define LOOP __attribute__((CLONES))
#else
#define LOOP __attribute__((noinline, CLONES))
#endif
#endif
#endif
#ifndef LOOP
#define LOOP static __attribute__((noinline))
#endif

enum { LANES = 256 };
enum { FLOAT32, BFLOAT16, UINT8 };
enum { HARD, SOFT };
enum { RECTANGLE, TRIANGLE, ARCTAN, SIGMOID };
enum { NO_GATE, OR, ADD, AND, IAND };

/* Element i of a time step, in memory order, belongs to channel (i / inner) % channels. A `step` is
 * the distance between time steps in elements; 0 repeats one tensor at every step. */
struct lif {
    int64_t steps, n, channels, inner;
    int64_t x_step, shortcut_step, out_step, grad_step;
    int64_t grad_start; /* element of a step that `grad` begins with */
    int32_t dtype, spike_dtype, grad_x_dtype, reset, detach, surrogate, gate, packed, shared;
    int32_t threads;
    float decay, gain, v_threshold, width;
    const void *x;
    const float *scale, *shift;  /* [channels]: current = scale * x + shift */
    const void *shortcut;        /* spike_dtype, or bits (packed) in rows of (n + 7) / 8 bytes */
    void *out;                   /* spike_dtype */
    const void *grad;            /* dL/d out */
    const float *by_grad, *by_x, *by_one; /* dL/dx = by_grad * dL/dcurrent + by_x * x + by_one */
    const float *y_grad;         /* dL/dcurrent, laid out as grad_x */
    void *grad_x;                /* grad_x_dtype; (n) where shared, else (steps, n) */
    void *grad_shortcut;         /* (steps, n) */
    double *channel_sums;        /* [2][channels]: sums of dL/dcurrent and of dL/dcurrent * x */
    double *leak_sums;           /* [2]: dL/ddecay and dL/dgain */
};

/* ---- loading and storing ---------------------------------------------------------------------- */

INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t item_size(int dtype) { return dtype == FLOAT32 ? 4 : dtype == BFLOAT16 ? 2 : 1; }

LOOP void mmsnn_widen(const uint16_t *from, uint32_t *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = (uint32_t)from[i] << 16;
}

LOOP void mmsnn_narrow(const uint32_t *from, uint16_t *to, int n) {
    for (int i = 0; i < n; i++) { /* to nearest, ties to even; a NaN stays one */
        uint32_t w = from[i], rounded = w + 0x7fff + (w >> 16 & 1);
        uint32_t kept = (int32_t)(w & 0x7fffffff) > 0x7f800000 ? w | 0x400000 : rounded;
        to[i] = (uint16_t)(kept >> 16);
    }
}

LOOP void mmsnn_truncate(const uint32_t *from, uint16_t *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = (uint16_t)(from[i] >> 16);
}

LOOP void mmsnn_widen_bytes(const uint8_t *from, float *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = (float)(int32_t)from[i];
}

LOOP void mmsnn_narrow_to_bytes(const float *from, uint8_t *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = (uint8_t)(int32_t)from[i];
}

static const float *load(const void *base, int64_t start, int n, int dtype, float *buffer) {
    if (dtype == FLOAT32)
        return (const float *)base + start;
    if (dtype == BFLOAT16)
        mmsnn_widen((const uint16_t *)base + start, (uint32_t *)buffer, n);
    else
        mmsnn_widen_bytes((const uint8_t *)base + start, buffer, n);
    return buffer;
}

/* Where to compute values that `store` then brings to memory. */
INLINE float *destination(void *base, int64_t start, int dtype, float *buffer) {
    return dtype == FLOAT32 ? (float *)base + start : buffer;
}

static void store(void *base, int64_t start, int n, int dtype, const float *values) {
    if (dtype != FLOAT32) /* for float32, `destination` was memory itself */
        mmsnn_narrow((const uint32_t *)values, (uint16_t *)base + start, n);
}

/* As `store`, for small whole numbers, which every type has exactly: spikes, and what gates make. */
static void store_exact(void *base, int64_t start, int n, int dtype, const float *values) {
    if (dtype == BFLOAT16)
        mmsnn_truncate((const uint32_t *)values, (uint16_t *)base + start, n);
    else if (dtype == UINT8)
        mmsnn_narrow_to_bytes(values, (uint8_t *)base + start, n);
}

LOOP void mmsnn_load_bits(const uint8_t *bits, int n, float *buffer) {
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        uint32_t word = bits[i / 8] | (uint32_t)bits[i / 8 + 1] << 8 |
                        (uint32_t)bits[i / 8 + 2] << 16 | (uint32_t)bits[i / 8 + 3] << 24;
        for (int j = 0; j < 32; j++)
            buffer[i + j] = (float)(int32_t)(word >> j & 1);
    }
    for (; i < n; i++)
        buffer[i] = (float)(bits[i / 8] >> i % 8 & 1);
}

/* ---- per-channel values and sums -------------------------------------------------------------- */

/* A per-channel array as one value per lane. Where neighbours differ in channel (channels_last) the
 * array is tiled once and a chunk is a window of it; else the lanes are filled when they change. */
struct lanes {
    const float *values; /* [channels], or NULL */
    float *tiled;
    int64_t filled;
    float buffer[LANES];
};

static int lanes_start(struct lanes *lanes, const float *values, const struct lif *p) {
    int64_t channels = p->channels;
    lanes->values = values;
    lanes->tiled = NULL;
    lanes->filled = -1;
    if (!values || p->inner > 1)
        return 1;
    lanes->tiled = malloc((channels + LANES) * sizeof(float));
    if (!lanes->tiled)
        return 0;
    for (int64_t i = 0; i < channels + LANES; i++)
        lanes->tiled[i] = values[i % channels];
    return 1;
}

static const float *lanes_at(struct lanes *lanes, const struct lif *p, int64_t start, int n) {
    if (!lanes->values)
        return NULL;
    if (lanes->tiled)
        return lanes->tiled + start % p->channels;
    int64_t plane = start / p->inner, left = (plane + 1) * p->inner - start;
    if (left >= n && plane == lanes->filled)
        return lanes->buffer;
    lanes->filled = left >= n && n == LANES ? plane : -1;
    for (int i = 0; i < n; plane++, left = p->inner) {
        float value = lanes->values[plane % p->channels];
        for (int end = (int)at_most(n, i + left); i < end; i++)
            lanes->buffer[i] = value;
    }
    return lanes->buffer;
}

/* sums[channel of lane] += values[lane]: in float within a chunk, in double beyond. */
LOOP void mmsnn_add(double *restrict sums, const float *restrict values, int64_t start, int n,
                    int64_t channels, int64_t inner) {
    if (inner == 1) {
        int64_t channel = start % channels;
        for (int i = 0; i < n; channel = 0) {
            int count = (int)at_most(n - i, channels - channel);
            for (int j = 0; j < count; j++)
                sums[channel + j] += values[i + j];
            i += count;
        }
        return;
    }
    int64_t plane = start / inner, left = (plane + 1) * inner - start;
    for (int i = 0; i < n; plane++, left = inner) {
        double partial[8] = {0};
        int end = (int)at_most(n, i + left);
        for (; i + 8 <= end; i += 8)
            for (int j = 0; j < 8; j++)
                partial[j] += values[i + j];
        for (; i < end; i++)
            partial[0] += values[i];
        for (int j = 1; j < 8; j++)
            partial[0] += partial[j];
        sums[plane % channels] += partial[0];
    }
}

/* ---- the neuron, on the lanes of one chunk ---------------------------------------------------- */

/* The current of one time step; `x` itself where there is nothing to do. */
LOOP const float *mmsnn_current(const float *x, const float *scale, const float *shift, float gain,
                                int n, float *buffer) {
    if (scale) {
        for (int i = 0; i < n; i++)
            buffer[i] = x[i] * scale[i];
        x = buffer;
    }
    if (shift) {
        for (int i = 0; i < n; i++)
            buffer[i] = x[i] + shift[i];
        x = buffer;
    }
    if (gain != 1.0f) {
        for (int i = 0; i < n; i++)
            buffer[i] = gain * x[i];
        x = buffer;
    }
    return x;
}

INLINE float distance(float h, float v_threshold) {
    return h < v_threshold ? v_threshold - h : h - v_threshold;
}

INLINE float fires(float h, float v_threshold) { return h - v_threshold >= 0.0f ? 1.0f : 0.0f; }

INLINE float reset_of(float h, float spike, int reset, float v_threshold) {
    return reset == HARD ? h * (1.0f - spike) : h - v_threshold * spike;
}

/* v[t - 1] to v[t], in place; keeps h[t] where `h` is given, else the spikes. */
LOOP void mmsnn_integrate(const struct lif *p, const float *current, float *restrict v,
                          float *restrict h, float *restrict spikes, int n) {
    float decay = p->decay, v_threshold = p->v_threshold;
#define INTEGRATE(RESET, KEEP) \
    for (int i = 0; i < n; i++) { \
        float potential = decay * v[i] + current[i], spike = fires(potential, v_threshold); \
        KEEP; \
        v[i] = reset_of(potential, spike, RESET, v_threshold); \
    }
    if (h && p->reset == HARD)
        INTEGRATE(HARD, h[i] = potential)
    else if (h)
        INTEGRATE(SOFT, h[i] = potential)
    else if (p->reset == HARD)
        INTEGRATE(HARD, spikes[i] = spike)
    else
        INTEGRATE(SOFT, spikes[i] = spike)
}

/* As mmsnn_integrate, with the spikes in a smaller type. Compilers don't turn a loop over values of
 * two sizes into vector code by themselves; where they have generic vectors, these say how. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_convertvector)
#define VECTORS
#endif
#endif
enum { WIDTH = 16 };
#ifdef VECTORS
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t bytes __attribute__((vector_size(WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));
#define INTEGRATE_VECTORS(RESET, SMALL, ONE) \
    for (; i + WIDTH <= n; i += WIDTH) { \
        floats potential, y; \
        memcpy(&potential, v + i, sizeof potential); \
        memcpy(&y, current + i, sizeof y); \
        potential = decay * potential + y; \
        ints fired = potential - v_threshold >= 0.0f; \
        floats spike = __builtin_convertvector(-fired, floats); \
        SMALL out = __builtin_convertvector(fired & ONE, SMALL); \
        memcpy(spikes + i, &out, sizeof out); \
        y = RESET == HARD ? potential * (1.0f - spike) : potential - v_threshold * spike; \
        memcpy(v + i, &y, sizeof y); \
    }
#else
#define INTEGRATE_VECTORS(RESET, SMALL, ONE)
#endif
#define INTEGRATE_TO(NAME, TYPE, SMALL, ONE) \
    LOOP void NAME(const struct lif *p, const float *current, float *v, TYPE *spikes, int n) { \
        float decay = p->decay, v_threshold = p->v_threshold; \
        int i = 0; \
        if (p->reset == HARD) { \
            INTEGRATE_VECTORS(HARD, SMALL, ONE) \
        } else { \
            INTEGRATE_VECTORS(SOFT, SMALL, ONE) \
        } \
        for (; i < n; i++) { \
            float potential = decay * v[i] + current[i], spike = fires(potential, v_threshold); \
            spikes[i] = (TYPE)(spike > 0.0f ? ONE : 0); \
            v[i] = reset_of(potential, spike, p->reset, v_threshold); \
        } \
    }
INTEGRATE_TO(mmsnn_integrate_to_bytes, uint8_t, bytes, 1)
INTEGRATE_TO(mmsnn_integrate_to_bfloat16, uint16_t, halves, 0x3f80)

/* What a factor of 0 makes of a bfloat16: 0, or NaN where it is no finite number. */
INLINE uint16_t nothing_of(uint16_t x) { return (x & 0x7f80) == 0x7f80 ? 0x7fc0 : 0; }
#define NOTHING_OF_BYTE(X) 0

/* Gates that select, in place, on whatever bits the shortcut has; bit SHIFT tells a spike. To add
 * is for bytes alone. */
#define SELECT_IN(NAME, TYPE, SHIFT, NOTHING) \
    LOOP void NAME(TYPE *restrict r, const TYPE *restrict s, int gate, int n) { \
        if (gate == OR) \
            for (int i = 0; i < n; i++) \
                r[i] = (TYPE)(r[i] | (r[i] >> SHIFT & 1 ? NOTHING(s[i]) : s[i])); \
        else if (gate == AND) \
            for (int i = 0; i < n; i++) \
                r[i] = (TYPE)(r[i] >> SHIFT & 1 ? s[i] : NOTHING(s[i])); \
        else if (gate == ADD) \
            for (int i = 0; i < n; i++) \
                r[i] = (TYPE)(r[i] + s[i]); \
        else if (gate == IAND) \
            for (int i = 0; i < n; i++) \
                r[i] = (TYPE)(r[i] >> SHIFT & 1 ? NOTHING(s[i]) : s[i]); \
    }
SELECT_IN(mmsnn_select_bytes, uint8_t, 0, NOTHING_OF_BYTE)
SELECT_IN(mmsnn_select_bfloat16, uint16_t, 7, nothing_of)

LOOP void mmsnn_join(float *restrict r, const float *restrict s, int gate, int n) {
    switch (gate) {
    case OR:
        for (int i = 0; i < n; i++)
            r[i] = r[i] + (1.0f - r[i]) * s[i];
        break;
    case ADD:
        for (int i = 0; i < n; i++)
            r[i] = r[i] + s[i];
        break;
    case AND:
        for (int i = 0; i < n; i++)
            r[i] = r[i] * s[i];
        break;
    case IAND:
        for (int i = 0; i < n; i++)
            r[i] = (1.0f - r[i]) * s[i];
        break;
    }
}

/* e^z for z <= 0, to two units in the last place: Cody and Waite's reduction, Taylor beyond. */
INLINE float exp_negative(float z) {
    z = z < -87.0f ? -87.0f : z;
    float k = (z * 1.44269504f + 12582912.0f) - 12582912.0f; /* round to nearest */
    float r = (z - k * 0.693359375f) + k * 2.12194440e-4f;
    float e = 1.0f + r * (1.0f + r * (0.5f + r * (1.6666667e-1f + r * (4.1666667e-2f +
              r * (8.3333333e-3f + r * 1.3888889e-3f)))));
    union { int32_t i; float f; } power = {((k == k ? (int32_t)k : 0) + 127) << 23}; /* NaN: by e */
    return e * power.f;
}

LOOP void mmsnn_surrogate(const struct lif *p, const float *restrict h, float *restrict to, int n) {
    float v_threshold = p->v_threshold, width = p->width;
    switch (p->surrogate) {
    case RECTANGLE:
        for (int i = 0; i < n; i++)
            to[i] = distance(h[i], v_threshold) < width / 2 ? 1.0f / width : 0.0f;
        break;
    case TRIANGLE:
        for (int i = 0; i < n; i++) {
            float height = 1.0f - distance(h[i], v_threshold) / width;
            to[i] = (height < 0.0f ? 0.0f : height) / width; /* a NaN stays one */
        }
        break;
    case ARCTAN:
        for (int i = 0; i < n; i++) {
            float z = 3.14159265358979f / width * (h[i] - v_threshold);
            to[i] = 1.0f / (width * (1.0f + z * z));
        }
        break;
    case SIGMOID: /* p (1 - p) without the cancellation far from the threshold */
        for (int i = 0; i < n; i++) {
            float e = exp_negative(-4.0f / width * distance(h[i], v_threshold));
            to[i] = 4.0f / width * (e / ((1.0f + e) * (1.0f + e)));
        }
    }
}

/* dL/d residual from dL/d out. */
LOOP void mmsnn_residual_grad(const float *restrict g, const float *restrict s, int gate,
                              float *restrict to, int n) {
    switch (gate) {
    case OR:
        for (int i = 0; i < n; i++)
            to[i] = g[i] * (1.0f - s[i]);
        break;
    case AND:
        for (int i = 0; i < n; i++)
            to[i] = g[i] * s[i];
        break;
    case IAND:
        for (int i = 0; i < n; i++)
            to[i] = -g[i] * s[i];
        break;
    }
}

/* dL/d shortcut from dL/d out. */
LOOP void mmsnn_shortcut_grad(const struct lif *p, const float *restrict g, const float *restrict h,
                              float *restrict to, int n) {
    float v_threshold = p->v_threshold;
    if (p->gate == ADD)
        for (int i = 0; i < n; i++)
            to[i] = g[i];
    else if (p->gate == AND)
        for (int i = 0; i < n; i++)
            to[i] = g[i] * fires(h[i], v_threshold);
    else /* OR, IAND */
        for (int i = 0; i < n; i++)
            to[i] = g[i] * (1.0f - fires(h[i], v_threshold));
}

/* One step back in time: v_grad comes in as dL/dv[t] and leaves as dL/dh[t]. */
LOOP void mmsnn_step_back(const struct lif *p, const float *restrict r_grad,
                          const float *restrict h, const float *restrict slope,
                          float *restrict v_grad, int n) {
    float v_threshold = p->v_threshold;
    /* Detached, the reset's part is left out: a factor of 0 would make NaN of an infinite h. */
#define STEP_BACK(KEPT, BY_RESET) \
    if (p->detach) \
        for (int i = 0; i < n; i++) \
            v_grad[i] = KEPT + slope[i] * r_grad[i]; \
    else \
        for (int i = 0; i < n; i++) \
            v_grad[i] = KEPT + slope[i] * (r_grad[i] - BY_RESET * v_grad[i]);
    if (p->reset == HARD) {
        STEP_BACK((1.0f - fires(h[i], v_threshold)) * v_grad[i], h[i])
    } else {
        STEP_BACK(v_grad[i], v_threshold)
    }
}

LOOP void mmsnn_add_scaled(const float *restrict from, float factor, float *restrict to, int n) {
    for (int i = 0; i < n; i++)
        to[i] += factor * from[i];
}

LOOP void mmsnn_scale(const float *from, float factor, float *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = factor * from[i];
}

LOOP void mmsnn_add_product(const float *restrict a, const float *restrict b, float *restrict to,
                            int n) {
    for (int i = 0; i < n; i++)
        to[i] += a[i] * b[i];
}

/* v of the step before, times dL/dh: what the decay's gradient adds up. */
LOOP void mmsnn_decay_grad(const struct lif *p, const float *restrict h_grad,
                           const float *restrict h_before, float *restrict to, int n) {
    float v_threshold = p->v_threshold;
    for (int i = 0; i < n; i++) {
        float h = h_before[i];
        to[i] += h_grad[i] * reset_of(h, fires(h, v_threshold), p->reset, v_threshold);
    }
}

/* dL/dx = a * dL/dcurrent + b * x + c, without the parts that are NULL. */
LOOP void mmsnn_input_grad(const float *y_grad, const float *a, const float *b, const float *c,
                           const float *x, float *to, int n) {
    if (b)
        for (int i = 0; i < n; i++)
            to[i] = a[i] * y_grad[i] + (b[i] * x[i] + c[i]);
    else if (a)
        for (int i = 0; i < n; i++)
            to[i] = a[i] * y_grad[i];
    else
        memcpy(to, y_grad, n * sizeof(float));
}

LOOP void mmsnn_add_moments(const float *restrict x, const float *restrict origin,
                            float *restrict once, float *restrict twice, int n) {
    for (int i = 0; i < n; i++) {
        float d = x[i] - origin[i];
        once[i] += d;
        twice[i] += d * d;
    }
}

/* ---- max pooling ------------------------------------------------------------------------------- */

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

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

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

LOOP void mmsnn_maximum(const float *restrict x, float *restrict m, int n) {
    for (int i = 0; i < n; i++)
        m[i] = x[i] > m[i] || x[i] != x[i] ? x[i] : m[i]; /* NaN wins, as in PyTorch */
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

/* ---- decoding --------------------------------------------------------------------------------- */

/* Spikes (steps, images, rows, columns), the steps x_step apart. Rows are channels and columns are
 * positions, or with `last` (channels_last) the other way round. */
struct decode {
    int64_t steps, images, rows, columns, x_step;
    int32_t dtype, out_dtype, last, threads;
    const void *x;
    const float *by_row, *by_column; /* [steps][images][rows], [steps][images][columns] */
    void *out;                       /* (images, rows, columns) */
    float *row_mean, *column_mean;   /* statistics, laid out as the weights */
    float *max;                      /* over channels */
};

LOOP void mmsnn_weigh(const float *restrict x, float by_row, const float *restrict by_column,
                      float *restrict to, int n) {
    for (int i = 0; i < n; i++)
        to[i] += by_column[i] * (by_row * x[i]);
}

LOOP void mmsnn_divide(float *x, float by, int n) {
    for (int i = 0; i < n; i++)
        x[i] /= by;
}

/* Adds x to sums and returns its own sum, of 16 that run side by side. */
LOOP float mmsnn_sum_both(const float *restrict x, float *restrict sums, int n) {
    float partial[16] = {0}, total = 0;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) {
            partial[j] += x[i + j];
            sums[i + j] += x[i + j];
        }
    for (; i < n; i++) {
        total += x[i];
        sums[i] += x[i];
    }
    for (int half = 8; half; half /= 2)
        for (int j = 0; j < half; j++)
            partial[j] += partial[j + half];
    return total + partial[0];
}

/* Compared as integers of the same order, with every NaN above all others. */
LOOP float mmsnn_max_of(const float *x, int n) {
    union { float f; int32_t i; } value;
    int32_t m = INT32_MIN;
    for (int i = 0; i < n; i++) {
        value.f = x[i];
        int32_t ordered = value.i ^ (value.i >> 31 & INT32_MAX);
        ordered = (value.i & INT32_MAX) > 0x7f800000 ? INT32_MAX : ordered;
        m = ordered > m ? ordered : m;
    }
    value.i = m ^ (m >> 31 & INT32_MAX);
    return value.f;
}

/* ---- convs on bytes ---------------------------------------------------------------------------- */

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

/* In assembly, for compilers copy the sums to and fro where it is an intrinsic. */
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
    __m512 decay = _mm512_set1_ps(p->decay), gain = _mm512_set1_ps(p->gain);
    __m512 v_threshold = _mm512_set1_ps(p->v_threshold);
    for (int row = 0; row < PIXELS; row++) {
        __mmask64 all = 0;
        for (int j = 0; j < OUTPUTS; j += 16, v += 16) {
            __m512 y = current_at(c, row, j);
            y = scaled ? _mm512_mul_ps(gain, y) : y;
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
    if (p->reset == HARD && p->gain == 1.0f)
        fire_as(p, HARD, 0, c, v, spikes);
    else if (p->reset == HARD)
        fire_as(p, HARD, 1, c, v, spikes);
    else
        fire_as(p, SOFT, 1, c, v, spikes);
}
#endif

/* ---- the work of one of `threads` threads ------------------------------------------------------ */

static const float *shortcut_at(const struct lif *p, int64_t t, int64_t start, int n,
                                float *buffer) {
    if (!p->packed)
        return load(p->shortcut, t * p->shortcut_step + start, n, p->spike_dtype, buffer);
    mmsnn_load_bits((const uint8_t *)p->shortcut + t * ((p->n + 7) / 8) + start / 8, n, buffer);
    return buffer;
}

static void share_of(int64_t n, int thread, int threads, int64_t *start, int64_t *end) {
    int64_t chunks = (n + LANES - 1) / LANES;
    *start = chunks * thread / threads * LANES;
    *end = at_most(n, chunks * (thread + 1) / threads * LANES);
}

/* One time step in bytes or bfloat16, without a detour over float. */
static void spikes_of_step(const struct lif *p, const float *current, float *v, int64_t t,
                           int64_t start, int n) {
    int64_t at = t * p->out_step + start, other = t * p->shortcut_step + start;
    if (p->spike_dtype == UINT8) {
        uint8_t *spikes = (uint8_t *)p->out + at;
        mmsnn_integrate_to_bytes(p, current, v, spikes, n);
        if (p->gate != NO_GATE)
            mmsnn_select_bytes(spikes, (const uint8_t *)p->shortcut + other, p->gate, n);
    } else {
        uint16_t *spikes = (uint16_t *)p->out + at;
        mmsnn_integrate_to_bfloat16(p, current, v, spikes, n);
        if (p->gate != NO_GATE)
            mmsnn_select_bfloat16(spikes, (const uint16_t *)p->shortcut + other, p->gate, n);
    }
}

/* What the next chunk reads and writes: a chunk of a time step is too short for the processor to
 * see by itself that the next one follows. Beyond the end of a tensor it does nothing. */
INLINE void fetch(const void *base, int64_t index, int n, int dtype) {
    const char *from = (const char *)base + index * item_size(dtype);
    for (int64_t i = 0; i < n * item_size(dtype); i += 64)
        __builtin_prefetch(from + i);
}

INLINE void fetch_next(const struct lif *p, int64_t t, int64_t start, int n) {
    if (t == 0 || p->x_step)
        fetch(p->x, t * p->x_step + start + n, n, p->dtype);
    if (p->gate != NO_GATE && !p->packed)
        fetch(p->shortcut, t * p->shortcut_step + start + n, n, p->spike_dtype);
    fetch(p->out, t * p->out_step + start + n, n, p->spike_dtype);
}

static int forward_share(const void *task, int thread, int threads) {
    const struct lif *p = task;
    float x_buffer[LANES], y_buffer[LANES], s_buffer[LANES], out_buffer[LANES], v[LANES];
    struct lanes scale, shift;
    int64_t start, end;
    int fine = lanes_start(&scale, p->scale, p) & lanes_start(&shift, p->shift, p);
    share_of(p->n, thread, threads, &start, &end);
    for (; fine && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        const float *scales = lanes_at(&scale, p, start, n);
        const float *shifts = lanes_at(&shift, p, start, n);
        const float *y = NULL;
        memset(v, 0, sizeof v);
        for (int64_t t = 0; t < p->steps; t++) {
            int64_t at = t * p->out_step + start;
            float *out;
            fetch_next(p, t, start, n);
            if (t == 0 || p->x_step)
                y = mmsnn_current(load(p->x, t * p->x_step + start, n, p->dtype, x_buffer), scales,
                                  shifts, p->gain, n, y_buffer);
            if (p->spike_dtype == UINT8 || (p->spike_dtype == BFLOAT16 && p->gate != ADD)) {
                spikes_of_step(p, y, v, t, start, n);
                continue;
            }
            out = destination(p->out, at, p->spike_dtype, out_buffer);
            mmsnn_integrate(p, y, v, NULL, out, n);
            if (p->gate != NO_GATE)
                mmsnn_join(out, shortcut_at(p, t, start, n, s_buffer), p->gate, n);
            if (p->gate == ADD && p->spike_dtype == BFLOAT16) /* the shortcut may be any number */
                store(p->out, at, n, p->spike_dtype, out);
            else
                store_exact(p->out, at, n, p->spike_dtype, out);
        }
    }
    free(scale.tiled);
    free(shift.tiled);
    return fine;
}

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
    }
    free(offsets);
    free(ways);
    free(outside);
    return fine;
}
#endif

/* A lif and the sums of each thread: [2][channels], [2], and room so that no line is shared. */
struct reduction {
    const struct lif *p;
    const struct pool *pool; /* that the spikes went through, or NULL */
    double *sums;
    int64_t width;
};

/* What a thread needs for the backward pass besides a chunk's buffers. */
struct backward {
    struct lanes scale, shift, by_grad, by_x, by_one;
    float *h;     /* [steps][LANES] */
    double *sums; /* [2][channels], [2] */
};

static int backward_start(struct backward *w, const struct lif *p, double *sums) {
    w->sums = sums;
    w->h = malloc(p->steps * LANES * sizeof(float));
    return (w->h != NULL) & lanes_start(&w->scale, p->scale, p) &
           lanes_start(&w->shift, p->shift, p) & lanes_start(&w->by_grad, p->by_grad, p) &
           lanes_start(&w->by_x, p->by_x, p) & lanes_start(&w->by_one, p->by_one, p);
}

static void backward_end(struct backward *w) {
    free(w->h);
    free(w->scale.tiled);
    free(w->shift.tiled);
    free(w->by_grad.tiled);
    free(w->by_x.tiled);
    free(w->by_one.tiled);
}

/* Elements [start, end) of every time step. */
static void backward_range(const struct lif *p, struct backward *w, int64_t start, int64_t end) {
    double *leak_sums = w->sums + 2 * p->channels;
    float x_buffer[LANES], y_buffer[LANES], s_buffer[LANES], g_buffer[LANES], out_buffer[LANES];
    float v[LANES], r_buffer[LANES], slope[LANES], v_grad[LANES], y_grad[LANES];
    float sum_one[LANES], sum_x[LANES], sum_decay[LANES], sum_gain[LANES];
    float *h = w->h;
    for (; start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        const float *scales = lanes_at(&w->scale, p, start, n);
        const float *shifts = lanes_at(&w->shift, p, start, n);
        const float *a = lanes_at(&w->by_grad, p, start, n);
        const float *b = lanes_at(&w->by_x, p, start, n);
        const float *c = lanes_at(&w->by_one, p, start, n);
        const float *x = NULL, *y = NULL;
        /* h again, from x: a pass over the data costs less than keeping T potentials a value */
        memset(v, 0, sizeof v);
        for (int64_t t = 0; t < p->steps; t++) {
            if (t == 0 || p->x_step) {
                x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
                y = mmsnn_current(x, scales, shifts, p->gain, n, y_buffer);
            }
            mmsnn_integrate(p, y, v, h + t * LANES, NULL, n);
        }
        memset(v_grad, 0, sizeof v_grad);
        memset(y_grad, 0, sizeof y_grad);
        memset(sum_one, 0, sizeof sum_one);
        memset(sum_x, 0, sizeof sum_x);
        memset(sum_decay, 0, sizeof sum_decay);
        memset(sum_gain, 0, sizeof sum_gain);
        for (int64_t t = p->steps - 1; t >= 0; t--) {
            const float *ht = h + t * LANES;
            const float *grad = load(p->grad, t * p->grad_step + start - p->grad_start, n,
                                     p->dtype, g_buffer);
            const float *r_grad = grad;
            int64_t at = t * p->n + start;
            if (p->grad_shortcut) {
                float *to = destination(p->grad_shortcut, at, p->dtype, out_buffer);
                mmsnn_shortcut_grad(p, grad, ht, to, n);
                store(p->grad_shortcut, at, n, p->dtype, to);
            }
            if (p->gate != NO_GATE && p->gate != ADD) {
                mmsnn_residual_grad(grad, shortcut_at(p, t, start, n, s_buffer), p->gate, r_buffer,
                                    n);
                r_grad = r_buffer;
            }
            mmsnn_surrogate(p, ht, slope, n);
            mmsnn_step_back(p, r_grad, ht, slope, v_grad, n); /* now dL/dh[t] */
            if (p->x_step)
                x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
            if (p->leak_sums) {
                y = mmsnn_current(x, scales, shifts, 1.0f, n, y_buffer);
                mmsnn_add_product(v_grad, y, sum_gain, n);
                if (t > 0)
                    mmsnn_decay_grad(p, v_grad, ht - LANES, sum_decay, n);
            }
            if (p->shared) {
                mmsnn_add_scaled(v_grad, p->gain, y_grad, n);
            } else {
                mmsnn_scale(v_grad, p->gain, y_grad, n);
                if (p->channel_sums) {
                    mmsnn_add_scaled(y_grad, 1.0f, sum_one, n);
                    mmsnn_add_product(y_grad, x, sum_x, n);
                }
                if (p->grad_x) {
                    float *to = destination(p->grad_x, at, p->grad_x_dtype, out_buffer);
                    mmsnn_input_grad(y_grad, a, b, c, x, to, n);
                    store(p->grad_x, at, n, p->grad_x_dtype, to);
                }
            }
            mmsnn_scale(v_grad, p->decay, v_grad, n); /* now dL/dv[t - 1] */
        }
        if (p->shared && p->channel_sums) {
            mmsnn_add_scaled(y_grad, 1.0f, sum_one, n);
            mmsnn_add_product(y_grad, x, sum_x, n);
        }
        if (p->shared && p->grad_x) {
            float *to = destination(p->grad_x, start, p->grad_x_dtype, out_buffer);
            mmsnn_input_grad(y_grad, a, b, c, x, to, n);
            store(p->grad_x, start, n, p->grad_x_dtype, to);
        }
        if (p->channel_sums) {
            mmsnn_add(w->sums, sum_one, start, n, p->channels, p->inner);
            mmsnn_add(w->sums + p->channels, sum_x, start, n, p->channels, p->inner);
        }
        if (p->leak_sums) {
            mmsnn_add(leak_sums, sum_decay, start, n, 1, p->n);
            mmsnn_add(leak_sums + 1, sum_gain, start, n, 1, p->n);
        }
    }
}

static int backward_share(const void *task, int thread, int threads) {
    const struct reduction *reduction = task;
    const struct lif *p = reduction->p;
    struct backward w;
    int64_t start, end;
    int fine = backward_start(&w, p, reduction->sums + thread * reduction->width);
    share_of(p->n, thread, threads, &start, &end);
    if (fine)
        backward_range(p, &w, start, end);
    backward_end(&w);
    return fine;
}

static int input_grad_share(const void *task, int thread, int threads) {
    const struct lif *p = task;
    float x_buffer[LANES], out_buffer[LANES];
    struct lanes by_grad, by_x, by_one;
    int64_t start, end;
    int fine = lanes_start(&by_grad, p->by_grad, p) & lanes_start(&by_x, p->by_x, p) &
               lanes_start(&by_one, p->by_one, p);
    share_of(p->n, thread, threads, &start, &end);
    for (; fine && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        const float *a = lanes_at(&by_grad, p, start, n);
        const float *b = lanes_at(&by_x, p, start, n);
        const float *c = lanes_at(&by_one, p, start, n);
        for (int64_t t = 0; t < (p->shared ? 1 : p->steps); t++) {
            int64_t at = t * p->n + start;
            const float *x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
            float *to = destination(p->grad_x, at, p->grad_x_dtype, out_buffer);
            mmsnn_input_grad(p->y_grad + at, a, b, c, x, to, n);
            store(p->grad_x, at, n, p->grad_x_dtype, to);
        }
    }
    free(by_grad.tiled);
    free(by_x.tiled);
    free(by_one.tiled);
    return fine;
}

/* Sums over time, batch and space of (x - origin) and of its square, by channel. */
static int stats_share(const void *task, int thread, int threads) {
    const struct reduction *reduction = task;
    const struct lif *p = reduction->p;
    double *sums = reduction->sums + thread * reduction->width;
    float x_buffer[LANES], once[LANES], twice[LANES];
    struct lanes origin;
    int64_t start, end;
    int fine = lanes_start(&origin, p->shift, p);
    share_of(p->n, thread, threads, &start, &end);
    for (; fine && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        const float *origins = lanes_at(&origin, p, start, n);
        memset(once, 0, sizeof once);
        memset(twice, 0, sizeof twice);
        for (int64_t t = 0; t < p->steps; t++)
            mmsnn_add_moments(load(p->x, t * p->x_step + start, n, p->dtype, x_buffer), origins,
                              once, twice, n);
        mmsnn_add(sums, once, start, n, p->channels, p->inner);
        mmsnn_add(sums + p->channels, twice, start, n, p->channels, p->inner);
    }
    free(origin.tiled);
    return fine;
}

struct bits {
    void *values;
    uint8_t *bits;
    int64_t n;
    int dtype;
};

/* Returns whether every value is 0 or 1. */
LOOP int mmsnn_store_bits(const float *x, uint8_t *bits, int n) {
    uint32_t binary = 1;
    for (int i = 0; i < n; i++)
        binary &= (x[i] == 0.0f) | (x[i] == 1.0f);
    for (int i = 0; i < n; i += 32) {
        uint32_t word = 0;
        int count = (int)at_most(32, n - i);
        if (count == 32)
            for (int j = 0; j < 32; j++)
                word |= (uint32_t)(x[i + j] != 0.0f) << j;
        else
            for (int j = 0; j < count; j++)
                word |= (uint32_t)(x[i + j] != 0.0f) << j;
        for (int j = 0; j < (count + 7) / 8; j++)
            bits[i / 8 + j] = (uint8_t)(word >> 8 * j);
    }
    return (int)binary;
}

static int pack_share(const void *task, int thread, int threads) {
    const struct bits *p = task;
    float buffer[LANES];
    int64_t start, end;
    int binary = 1;
    share_of(p->n, thread, threads, &start, &end);
    for (; binary && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        binary = mmsnn_store_bits(load(p->values, start, n, p->dtype, buffer), p->bits + start / 8,
                                  n);
    }
    return binary;
}

static int unpack_share(const void *task, int thread, int threads) {
    const struct bits *p = task;
    float buffer[LANES];
    int64_t start, end;
    share_of(p->n, thread, threads, &start, &end);
    for (; start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        float *values = destination(p->values, start, p->dtype, buffer);
        mmsnn_load_bits(p->bits + start / 8, n, values);
        store_exact(p->values, start, n, p->dtype, values);
    }
    return 1;
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
#define TILE(START, STEP, COUNT, N, TO) \
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
                TILE(-p->pad_width, p->stride_width, p->out_width, p->inner, out);
                continue;
            }
            /* Along a row, windows that begin at every column make one vector loop of those that
             * lie inside; the strided ones are picked from them. */
            int64_t inside = at_least(0, p->width - p->kernel_width + 1);
            int64_t all = p->width + 2 * p->pad_width - p->kernel_width + 1;
            int64_t before = inside ? p->pad_width : all;
            TILE(-p->pad_width, 1, before, 1, starts);
            TILE(0, 0, inside > 0, inside, starts + before * size);
            TILE(inside, 1, all - before - inside, 1, starts + (before + inside) * size);
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
 * by column, for memory likes to be written in its order. */
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

static int decode_share(const void *task, int thread, int threads) {
    const struct decode *p = task;
    float x_buffer[LANES], out_buffer[LANES];
    int64_t all = p->images * p->rows, end = all * (thread + 1) / threads;
    for (int64_t row = all * thread / threads; row < end; row++) {
        const float *by_column = p->by_column + row / p->rows * p->columns;
        for (int64_t i = 0; i < p->columns; i += LANES) {
            int n = (int)at_most(LANES, p->columns - i);
            int64_t at = row * p->columns + i;
            float *out = destination(p->out, at, p->out_dtype, out_buffer);
            memset(out, 0, n * sizeof(float));
            for (int64_t t = 0; t < p->steps; t++)
                mmsnn_weigh(load(p->x, t * p->x_step + at, n, p->dtype, x_buffer),
                            p->by_row[t * all + row],
                            by_column + t * p->images * p->columns + i, out, n);
            store(p->out, at, n, p->out_dtype, out);
        }
    }
    return 1;
}

static int rate_share(const void *task, int thread, int threads) {
    const struct decode *p = task;
    float x_buffer[LANES], out_buffer[LANES];
    int64_t start, end;
    share_of(p->columns, thread, threads, &start, &end);
    for (; start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        float *out = destination(p->out, start, p->out_dtype, out_buffer);
        memset(out, 0, n * sizeof(float));
        for (int64_t t = 0; t < p->steps; t++)
            mmsnn_add_scaled(load(p->x, t * p->x_step + start, n, p->dtype, x_buffer), 1.0f, out, n);
        mmsnn_divide(out, (float)p->steps, n);
        store(p->out, start, n, p->out_dtype, out);
    }
    return 1;
}

/* Images are not divided: no sum is then made of two threads' parts. */
static int decode_stats_share(const void *task, int thread, int threads) {
    const struct decode *p = task;
    float x_buffer[LANES], sums[LANES];
    double totals[LANES];
    int64_t all = p->steps * p->images, end = all * (thread + 1) / threads;
    for (int64_t image = all * thread / threads; image < end; image++) {
        int64_t at = image / p->images * p->x_step + image % p->images * p->rows * p->columns;
        float *row_sums = p->row_mean + image * p->rows;
        float *max = p->max + image * (p->last ? p->rows : p->columns);
        for (int64_t i = 0; i < p->columns; i += LANES) {
            int n = (int)at_most(LANES, p->columns - i);
            memset(totals, 0, sizeof totals);
            memset(sums, 0, sizeof sums);
            for (int64_t row = 0; row < p->rows; row++) {
                const float *x = load(p->x, at + row * p->columns + i, n, p->dtype, x_buffer);
                float sum = mmsnn_sum_both(x, sums, n);
                row_sums[row] = i ? row_sums[row] + sum : sum;
                if (p->last) {
                    float m = mmsnn_max_of(x, n);
                    max[row] = i && !(m > max[row] || m != m) ? max[row] : m;
                } else if (row == 0) {
                    memcpy(max + i, x, n * sizeof(float));
                } else {
                    mmsnn_maximum(x, max + i, n);
                }
                if (row % 64 == 63 || row + 1 == p->rows) { /* in double beyond, against rounding */
                    mmsnn_add(totals, sums, 0, n, n, 1);
                    memset(sums, 0, sizeof sums);
                }
            }
            for (int j = 0; j < n; j++)
                p->column_mean[image * p->columns + i + j] = (float)(totals[j] / p->rows);
        }
        for (int64_t row = 0; row < p->rows; row++)
            row_sums[row] /= (float)p->columns;
    }
    return 1;
}

/* Real values to bytes. */
struct to_bytes {
    const float *x;
    uint8_t *out;
    int64_t n;
    float inverse, zero;
};

LOOP void mmsnn_round_to_bytes(const float *restrict x, float inverse, float zero,
                               float *restrict to, int n) {
    for (int i = 0; i < n; i++) {
        float value = x[i] * inverse + zero;
        value = value > 0.0f ? value : 0.0f;
        value = value < 255.0f ? value : 255.0f;
        to[i] = (value + 8388608.0f) - 8388608.0f; /* to nearest, ties to even */
    }
}

static int to_bytes_share(const void *task, int thread, int threads) {
    const struct to_bytes *p = task;
    float buffer[LANES];
    int64_t start, end;
    share_of(p->n, thread, threads, &start, &end);
    for (; start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        mmsnn_round_to_bytes(p->x + start, p->inverse, p->zero, buffer, n);
        mmsnn_narrow_to_bytes(buffer, p->out + start, n);
    }
    return 1;
}

/* ---- entry points ----------------------------------------------------------------------------- */

/* One thread calls directly: libgomp's pool doesn't survive a fork, and a child must not touch it. */
static int in_parallel(int (*work)(const void *, int, int), const void *task, int threads) {
#ifdef _OPENMP
    if (threads > 1) {
        int fine = 1;
#pragma omp parallel num_threads(threads) reduction(&& : fine)
        fine = work(task, omp_get_thread_num(), omp_get_num_threads());
        return fine;
    }
#endif
    (void)threads;
    return work(task, 0, 1);
}

/* Adds up the threads' sums in their order, so that a result is the same run after run. */
static int reduce(int (*work)(const void *, int, int), const struct lif *p,
                  const struct pool *pool) {
    int64_t channels = 2 * p->channels, width = channels + 2 + 8;
    double *sums = calloc(width * p->threads, sizeof(double));
    struct reduction task = {p, pool, sums, width};
    int fine = sums != NULL && in_parallel(work, &task, p->threads);
    for (int64_t i = 0; fine && i < channels + 2; i++) {
        double *to = i < channels ? p->channel_sums : p->leak_sums;
        double sum = 0;
        for (int thread = 0; thread < p->threads; thread++)
            sum += sums[thread * width + i];
        if (to)
            to[i < channels ? i : i - channels] = sum;
    }
    free(sums);
    return fine;
}

/* Every function returns 1, or 0 where memory ran out (pack: where a value isn't 0 or 1). */

EXPORT int mmsnn_lif_forward(const struct lif *p) {
    return in_parallel(forward_share, p, p->threads);
}

EXPORT int mmsnn_lif_backward(const struct lif *p) { return reduce(backward_share, p, NULL); }

/* Spikes that went through a max pool: the gradient comes from `pool`, whose `x` is their bits. */
EXPORT int mmsnn_pooled_lif_backward(const struct lif *p, const struct pool *pool) {
    return reduce(pooled_backward_share, p, pool);
}

/* Bytes to the bytes of neurons behind a conv: `p` without `x`. Only where `mmsnn_has_dot_products`. */
EXPORT int mmsnn_conv_lif(const struct lif *p, const struct conv *c) {
#ifdef DOTS
    struct conv_lif task = {p, c};
    return in_parallel(conv_lif_share, &task, p->threads);
#else
    (void)p, (void)c;
    return 0;
#endif
}

EXPORT int mmsnn_has_dot_products(void) {
#ifdef DOTS
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw");
#else
    return 0;
#endif
}

/* dL/dx = by_grad * dL/dcurrent + by_x * x + by_one; grad_x may be y_grad itself. */
EXPORT int mmsnn_input_grad_of(const struct lif *p) {
    return in_parallel(input_grad_share, p, p->threads);
}

/* Into channel_sums; `shift` is the origin of the sums. */
EXPORT int mmsnn_channel_stats(const struct lif *p) { return reduce(stats_share, p, NULL); }

EXPORT int mmsnn_pack(void *from, uint8_t *bits, int64_t rows, int64_t n, int dtype, int threads) {
    int binary = 1;
    for (int64_t row = 0; row < rows && binary; row++) {
        struct bits task = {(char *)from + row * n * item_size(dtype), bits + row * ((n + 7) / 8),
                            n, dtype};
        binary = in_parallel(pack_share, &task, threads);
    }
    return binary;
}

EXPORT int mmsnn_unpack(uint8_t *bits, void *to, int64_t n, int dtype, int threads) {
    struct bits task = {to, bits, n, dtype};
    return in_parallel(unpack_share, &task, threads);
}

EXPORT int mmsnn_max_pool(const struct pool *p) {
    return in_parallel(pool_forward_share, p, p->threads);
}

EXPORT int mmsnn_max_pool_backward(const struct pool *p) {
    return in_parallel(pool_backward_share, p, p->threads);
}

EXPORT int mmsnn_attention_decode(const struct decode *p) {
    return in_parallel(decode_share, p, p->threads);
}

/* Any layout: (steps, columns). */
EXPORT int mmsnn_rate_decode(const struct decode *p) {
    return in_parallel(rate_share, p, p->threads);
}

EXPORT int mmsnn_attention_statistics(const struct decode *p) {
    return in_parallel(decode_stats_share, p, p->threads);
}

/* out = clip(round(x * inverse + zero), 0, 255). */
EXPORT int mmsnn_to_bytes(const float *x, uint8_t *out, int64_t n, float inverse, float zero,
                          int threads) {
    struct to_bytes task = {x, out, n, inverse, zero};
    return in_parallel(to_bytes_share, &task, threads);
}

/* The number that stands for a name in the structs, or -1: cpu.py compares its own with these when
 * it opens the library, so that neither can mean another by the same number. */
EXPORT int mmsnn_code(const char *name) {
    static const struct { const char *name; int code; } codes[] = {
        {"float32", FLOAT32}, {"bfloat16", BFLOAT16}, {"uint8", UINT8},
        {"hard", HARD}, {"soft", SOFT},
        {"rectangle", RECTANGLE}, {"triangle", TRIANGLE}, {"arctan", ARCTAN}, {"sigmoid", SIGMOID},
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
