/* The neuron backward, and the statistics of a norm in front of it. */

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

/* A lif and the sums of each thread: [2][channels], [2], and room so that no line is shared. */
struct reduction {
    const struct lif *p;
    const struct pool *pool; /* that the spikes went through, or NULL */
    double *sums;
    int64_t width;
};

/* What a thread needs for the backward pass besides a chunk's buffers. */
struct backward {
    struct lanes scale, shift, grad_coef, x_coef, bias_coef;
    float *h;     /* [steps][LANES] */
    double *sums; /* [2][channels], [2] */
};

static int backward_start(struct backward *w, const struct lif *p, double *sums) {
    w->sums = sums;
    w->h = malloc(p->steps * LANES * sizeof(float));
    return (w->h != NULL) & lanes_start(&w->scale, p->scale, p) &
           lanes_start(&w->shift, p->shift, p) & lanes_start(&w->grad_coef, p->grad_coef, p) &
           lanes_start(&w->x_coef, p->x_coef, p) & lanes_start(&w->bias_coef, p->bias_coef, p);
}

static void backward_end(struct backward *w) {
    free(w->h);
    free(w->scale.tiled);
    free(w->shift.tiled);
    free(w->grad_coef.tiled);
    free(w->x_coef.tiled);
    free(w->bias_coef.tiled);
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
        const float *a = lanes_at(&w->grad_coef, p, start, n);
        const float *b = lanes_at(&w->x_coef, p, start, n);
        const float *c = lanes_at(&w->bias_coef, p, start, n);
        const float *x = NULL, *y = NULL;
        /* h again, from x: a pass over the data costs less than keeping T potentials a value */
        memset(v, 0, sizeof v);
        for (int64_t t = 0; t < p->steps; t++) {
            if (t == 0 || p->x_step) {
                x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
                y = mmsnn_current(x, scales, shifts, p->input_scale, n, y_buffer);
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
                mmsnn_add_scaled(v_grad, p->input_scale, y_grad, n);
            } else {
                mmsnn_scale(v_grad, p->input_scale, y_grad, n);
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
    struct lanes grad_coef, x_coef, bias_coef;
    int64_t start, end;
    int fine = lanes_start(&grad_coef, p->grad_coef, p) & lanes_start(&x_coef, p->x_coef, p) &
               lanes_start(&bias_coef, p->bias_coef, p);
    share_of(p->n, thread, threads, &start, &end);
    for (; fine && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        const float *a = lanes_at(&grad_coef, p, start, n);
        const float *b = lanes_at(&x_coef, p, start, n);
        const float *c = lanes_at(&bias_coef, p, start, n);
        for (int64_t t = 0; t < (p->shared ? 1 : p->steps); t++) {
            int64_t at = t * p->n + start;
            const float *x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
            float *to = destination(p->grad_x, at, p->grad_x_dtype, out_buffer);
            mmsnn_input_grad(p->y_grad + at, a, b, c, x, to, n);
            store(p->grad_x, at, n, p->grad_x_dtype, to);
        }
    }
    free(grad_coef.tiled);
    free(x_coef.tiled);
    free(bias_coef.tiled);
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

EXPORT int mmsnn_lif_backward(const struct lif *p) { return reduce(backward_share, p, NULL); }

/* dL/dx = grad_coef * dL/dcurrent + x_coef * x + bias_coef; grad_x may be y_grad itself. */
EXPORT int mmsnn_input_grad_of(const struct lif *p) {
    return in_parallel(input_grad_share, p, p->threads);
}

/* Into channel_sums; `shift` is the origin of the sums. */
EXPORT int mmsnn_channel_stats(const struct lif *p) { return reduce(stats_share, p, NULL); }
