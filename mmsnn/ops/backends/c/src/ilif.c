/* The neuron that gives whole numbers of spikes, and its gradient. */

/* Steps of n elements, those of x and of the gradient a distance apart, results one behind another. */
struct ilif {
    int64_t steps, n, x_step, grad_step;
    int32_t levels, detach, dtype, spike_dtype, threads;
    float decay, v_threshold;
    const void *x, *grad;
    void *out, *grad_x;
    float *u; /* (n), potentials to start from, and those at the end in their place; NULL: from 0 */
};

/* u[t - 1] to u[t], in place, in units of the threshold; keeps h[t] and, where given, the spikes. */
LOOP void mmsnn_integrate_whole(const struct ilif *p, const float *x, float *restrict u,
                                float *restrict h, float *restrict spikes, int n) {
    float decay = p->decay, v_threshold = p->v_threshold, most = (float)p->levels;
    for (int i = 0; i < n; i++) {
        float potential = decay * u[i] + x[i] / v_threshold;
        /* From 1/4 on, h - 1/2 is exact, and h + 1/2 is not; below it is negative. */
        float whole = floorf(potential - 0.5f) + 1.0f;
        whole = whole > 0.0f ? whole : 0.0f; /* also of what is no number */
        whole = whole < most ? whole : most;
        h[i] = potential;
        spikes[i] = whole;
        u[i] = potential - whole;
    }
}

/* h' = u' + [0 <= h <= D] (s' - u'), u' without the part in the bracket where the reset is
 * detached; x' = h' / V_th; u[t - 1]' = decay h'. `u_grad` goes from u[t]' to u[t - 1]'. */
LOOP void mmsnn_integrate_whole_backward(const struct ilif *p, const float *restrict h,
                                         const float *grad, float *restrict u_grad,
                                         float *restrict grad_x, int n) {
    float decay = p->decay, v_threshold = p->v_threshold, most = (float)p->levels;
    int detach = p->detach;
    for (int i = 0; i < n; i++) {
        float by_spikes = detach ? grad[i] : grad[i] - u_grad[i];
        float h_grad = u_grad[i] + (h[i] >= 0.0f && h[i] <= most ? by_spikes : 0.0f);
        grad_x[i] = h_grad / v_threshold;
        u_grad[i] = decay * h_grad;
    }
}

static int ilif_share(const void *task, int thread, int threads) {
    const struct ilif *p = task;
    float x_buffer[LANES], out_buffer[LANES], h[LANES], u[LANES];
    int64_t start, end;
    share_of(p->n, thread, threads, &start, &end);
    for (; start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        memset(u, 0, sizeof u);
        if (p->u)
            memcpy(u, p->u + start, n * sizeof(float));
        for (int64_t t = 0; t < p->steps; t++) {
            const float *x = load(p->x, t * p->x_step + start, n, p->dtype, x_buffer);
            float *out = destination(p->out, t * p->n + start, p->spike_dtype, out_buffer);
            mmsnn_integrate_whole(p, x, u, h, out, n);
            store_exact(p->out, t * p->n + start, n, p->spike_dtype, out);
        }
        if (p->u)
            memcpy(p->u + start, u, n * sizeof(float));
    }
    return 1;
}

static int ilif_backward_share(const void *task, int thread, int threads) {
    const struct ilif *p = task;
    float x_buffer[LANES], out_buffer[LANES], spikes[LANES], u[LANES];
    float *h = malloc(p->steps * LANES * sizeof *h);
    int64_t start, end;
    share_of(p->n, thread, threads, &start, &end);
    for (; h && start < end; start += LANES) {
        int n = (int)at_most(LANES, end - start);
        memset(u, 0, sizeof u);
        for (int64_t t = 0; t < p->steps; t++)
            mmsnn_integrate_whole(p, load(p->x, t * p->x_step + start, n, p->dtype, x_buffer), u,
                                  h + t * LANES, spikes, n);
        memset(u, 0, sizeof u);
        for (int64_t t = p->steps; t-- > 0;) {
            const float *grad = load(p->grad, t * p->grad_step + start, n, p->dtype, x_buffer);
            float *to = destination(p->grad_x, t * p->n + start, p->dtype, out_buffer);
            mmsnn_integrate_whole_backward(p, h + t * LANES, grad, u, to, n);
            store(p->grad_x, t * p->n + start, n, p->dtype, to);
        }
    }
    free(h);
    return h != NULL;
}

EXPORT int mmsnn_ilif(const struct ilif *p) { return in_parallel(ilif_share, p, p->threads); }

EXPORT int mmsnn_ilif_backward(const struct ilif *p) {
    return in_parallel(ilif_backward_share, p, p->threads);
}
