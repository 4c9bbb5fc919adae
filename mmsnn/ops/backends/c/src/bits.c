/* Spikes as bits, and real values as bytes. */

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

/* out = clip(round(x * inverse + zero), 0, 255). */
EXPORT int mmsnn_to_bytes(const float *x, uint8_t *out, int64_t n, float inverse, float zero,
                          int threads) {
    struct to_bytes task = {x, out, n, inverse, zero};
    return in_parallel(to_bytes_share, &task, threads);
}
