/* The neuron forward, and its gate. */

/* The current of one time step; `x` itself where there is nothing to do. */
LOOP const float *mmsnn_current(const float *x, const float *scale, const float *shift,
                                float input_scale, int n, float *buffer) {
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
    if (input_scale != 1.0f) {
        for (int i = 0; i < n; i++)
            buffer[i] = input_scale * x[i];
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
 * two sizes into vector code by themselves; generic vectors say how: to bytes, four vectors of
 * potentials to one. */
#define FOUR_FROM(I) I, I + 4, I + 8, I + 12, I + 16, I + 20, I + 24, I + 28
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define IN_TURN FOUR_FROM(3), FOUR_FROM(2), FOUR_FROM(1), FOUR_FROM(0)
#else
#define IN_TURN FOUR_FROM(0), FOUR_FROM(1), FOUR_FROM(2), FOUR_FROM(3)
#endif
#ifdef __clang__
#define TAKE_IN_TURN(X) __builtin_shufflevector(X, X, IN_TURN)
#else
#define TAKE_IN_TURN(X) __builtin_shuffle(X, (byte_values){IN_TURN})
#endif
#define TO_BYTES(RESET) \
    for (; i + 4 * SUMS <= n; i += 4 * SUMS) { \
        int_pairs all = {0}; \
        for (int k = 0; k < 4; k++) { \
            float_sums potential, y; \
            memcpy(&potential, v + i + k * SUMS, sizeof potential); \
            memcpy(&y, current + i + k * SUMS, sizeof y); \
            potential = decay * potential + y; \
            int_pairs fired = potential - v_threshold >= 0.0f; \
            float_sums spike = (float_sums)(fired & (int_pairs)one); \
            y = RESET == HARD ? potential * (1.0f - spike) : potential - v_threshold * spike; \
            memcpy(v + i + k * SUMS, &y, sizeof y); \
            all |= fired & 1 << 8 * k; \
        } \
        byte_values out = (byte_values)all; \
        out = TAKE_IN_TURN(out); \
        memcpy(spikes + i, &out, sizeof out); \
    }
#ifdef VECTORS
#define TO_BFLOAT16(RESET) \
    for (; i + WIDTH <= n; i += WIDTH) { \
        floats potential, y; \
        memcpy(&potential, v + i, sizeof potential); \
        memcpy(&y, current + i, sizeof y); \
        potential = decay * potential + y; \
        ints fired = potential - v_threshold >= 0.0f; \
        floats spike = __builtin_convertvector(-fired, floats); \
        halves out = __builtin_convertvector(fired & 0x3f80, halves); \
        memcpy(spikes + i, &out, sizeof out); \
        y = RESET == HARD ? potential * (1.0f - spike) : potential - v_threshold * spike; \
        memcpy(v + i, &y, sizeof y); \
    }
#else
#define TO_BFLOAT16(RESET)
#endif
#define INTEGRATE_TO(NAME, TYPE, BY_VECTORS, ONE) \
    LOOP void NAME(const struct lif *p, const float *current, float *v, TYPE *spikes, int n) { \
        float decay = p->decay, v_threshold = p->v_threshold; \
        float_sums one = {1, 1, 1, 1, 1, 1, 1, 1}; \
        int i = 0; \
        if (p->reset == HARD) { \
            BY_VECTORS(HARD) \
        } else { \
            BY_VECTORS(SOFT) \
        } \
        for (; i < n; i++) { \
            float potential = decay * v[i] + current[i], spike = fires(potential, v_threshold); \
            spikes[i] = (TYPE)(spike > 0.0f ? ONE : 0); \
            v[i] = reset_of(potential, spike, p->reset, v_threshold); \
        } \
        (void)one; \
    }
INTEGRATE_TO(mmsnn_integrate_to_bytes, uint8_t, TO_BYTES, 1)
INTEGRATE_TO(mmsnn_integrate_to_bfloat16, uint16_t, TO_BFLOAT16, 0x3f80)

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

static const float *shortcut_at(const struct lif *p, int64_t t, int64_t start, int n,
                                float *buffer) {
    if (!p->packed)
        return load(p->shortcut, t * p->shortcut_step + start, n, p->spike_dtype, buffer);
    mmsnn_load_bits((const uint8_t *)p->shortcut + t * ((p->n + 7) / 8) + start / 8, n, buffer);
    return buffer;
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
        if (p->v)
            memcpy(v, p->v + start, n * sizeof(float));
        for (int64_t t = 0; t < p->steps; t++) {
            int64_t at = t * p->out_step + start;
            float *out;
            fetch_next(p, t, start, n);
            if (t == 0 || p->x_step)
                y = mmsnn_current(load(p->x, t * p->x_step + start, n, p->dtype, x_buffer), scales,
                                  shifts, p->input_scale, n, y_buffer);
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
        if (p->v)
            memcpy(p->v + start, v, n * sizeof(float));
    }
    free(scale.tiled);
    free(shift.tiled);
    return fine;
}

EXPORT int mmsnn_lif_forward(const struct lif *p) {
    return in_parallel(forward_share, p, p->threads);
}
