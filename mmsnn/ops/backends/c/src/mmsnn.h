/* What all kernels have in common: how they are compiled, the numbers in their structs, the problem
 * of a neuron, and threads.
 *
 * Plain C on raw pointers: no torch header, no Python, so that any compiler builds it in seconds
 * and no version of either pins it. calls.py is the only caller and keeps the structs in step.
 *
 * Data is walked in chunks of LANES elements that stay in the first-level cache for all T steps;
 * every small loop is one the compiler turns into vector code. The order of operations is that of
 * reference.py, and the build forbids contraction (-ffp-contract=off): spikes are equal to the
 * reference's bit for bit.
 */
#ifndef MMSNN_H
#define MMSNN_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Returns 1, or 0 where memory ran out (pack: where a value isn't 0 or 1), or -1 where the CPU lacks
 * what it needs. */
#define EXPORT __attribute__((visibility("default")))
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
enum { FLOAT32, BFLOAT16, UINT8, INT8, INT16 };
enum { HARD, SOFT };
enum { RECTANGLE, TRIANGLE, ARCTAN, SIGMOID };
enum { NO_GATE, OR, ADD, AND, IAND };

/* Compilers don't turn every loop into vector code by themselves; where they have generic vectors,
 * these say how. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_convertvector)
#define VECTORS
#endif
#endif
enum { WIDTH = 8 }; /* of AVX2's registers: of wider ones gcc makes poor code there */
#ifdef VECTORS
typedef float floats __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ints __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t halves __attribute__((vector_size(2 * WIDTH)));
#endif

/* Vectors that any compiler and processor has, in one register or in several. */
#define VECTOR_OF(TYPE, NAME) typedef TYPE NAME __attribute__((vector_size(32)));
VECTOR_OF(float, float_sums)
VECTOR_OF(int32_t, int_pairs)
VECTOR_OF(uint32_t, int_sums)
VECTOR_OF(int16_t, short_pairs)
VECTOR_OF(uint16_t, short_sums)
VECTOR_OF(uint8_t, byte_values)
enum { SUMS = sizeof(float_sums) / sizeof(float) };

/* Element i of a time step, in memory order, belongs to channel (i / inner) % channels. A `step` is
 * the distance between time steps in elements; 0 repeats one tensor at every step. */
struct lif {
    int64_t steps, n, channels, inner;
    int64_t x_step, shortcut_step, out_step, grad_step;
    int64_t grad_start; /* element of a step that `grad` begins with */
    int32_t dtype, spike_dtype, grad_x_dtype, reset, detach, surrogate, gate, packed, shared;
    int32_t threads;
    float decay, input_scale, v_threshold, width;
    const void *x;
    const float *scale, *shift;  /* [channels]: current = scale * x + shift */
    const void *shortcut;        /* spike_dtype, or bits (packed) in rows of (n + 7) / 8 bytes */
    void *out;                   /* spike_dtype */
    const void *grad;            /* dL/d out */
    /* dL/dx = grad_coef * dL/dcurrent + x_coef * x + bias_coef */
    const float *grad_coef, *x_coef, *bias_coef;
    const float *y_grad;         /* dL/dcurrent, laid out as grad_x */
    void *grad_x;                /* grad_x_dtype; (n) where shared, else (steps, n) */
    void *grad_shortcut;         /* (steps, n) */
    double *channel_sums;        /* [2][channels]: sums of dL/dcurrent and of dL/dcurrent * x */
    double *leak_sums;           /* [2]: dL/ddecay and dL/dinput_scale */
    float *v; /* (n), potentials to start from, and those at the end in their place; NULL: from 0 */
};

INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE int64_t item_size(int dtype) { return dtype == FLOAT32 ? 4 : dtype == BFLOAT16 ? 2 : 1; }

/* The elements of one of `threads` threads, in whole chunks. */
static void share_of(int64_t n, int thread, int threads, int64_t *start, int64_t *end) {
    int64_t chunks = (n + LANES - 1) / LANES;
    *start = chunks * thread / threads * LANES;
    *end = at_most(n, chunks * (thread + 1) / threads * LANES);
}

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

#endif
