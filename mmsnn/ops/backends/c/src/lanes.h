/* Values of a chunk: loading, storing, by channel, and their sums. */

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

/* ---- sums and maxima of two chunks -------------------------------------------------------------- */

LOOP void mmsnn_add_scaled(const float *restrict from, float factor, float *restrict to, int n) {
    for (int i = 0; i < n; i++)
        to[i] += factor * from[i];
}

LOOP void mmsnn_scale(const float *from, float factor, float *to, int n) {
    for (int i = 0; i < n; i++)
        to[i] = factor * from[i];
}

LOOP void mmsnn_maximum(const float *restrict x, float *restrict m, int n) {
    for (int i = 0; i < n; i++)
        m[i] = x[i] > m[i] || x[i] != x[i] ? x[i] : m[i]; /* NaN wins, as in PyTorch */
}
