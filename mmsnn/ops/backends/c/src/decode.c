/* Decoders: spikes of all steps to one map. */

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
