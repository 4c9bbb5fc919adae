/* 3x3 convs of real values by Winograd's F(4x4, 3x3): maps to tiles of 6x6 and, from their products
 * with the weights, tiles of 4x4 outputs (Lavin and Gray 2016, section 4.1). The products, 36 of
 * matrices, are left to a library. */

enum { TILE_IN = 6, TILE_OUT = 4, PLACES = TILE_IN * TILE_IN, TILE_LANES = 32 };

/* Maps with channels last, `channels` of the input or of the output; tiles by image, row, column. */
struct winograd {
    int64_t images, height, width, channels, pad_height, pad_width, rows, columns;
    int64_t first, tiles; /* the tiles at hand */
    int32_t threads;
    const float *bias; /* [channels] */
    float *maps;
    float *places; /* [PLACES][tiles][channels] */
};

/* B^T d of Lavin and Gray along one axis, whose elements are `step` lanes apart. */
INLINE void to_places(const float *d, float *out, int step, int n) {
    const float *d1 = d + step, *d2 = d + 2 * step, *d3 = d + 3 * step, *d4 = d + 4 * step,
                *d5 = d + 5 * step;
    for (int i = 0; i < n; i++) {
        float even = d4[i] - 4.0f * d2[i], odd = d3[i] - 4.0f * d1[i];
        float near = d4[i] - d2[i], far = 2.0f * (d3[i] - d1[i]);
        out[i] = 4.0f * d[i] - 5.0f * d2[i] + d4[i];
        out[i + step] = even + odd;
        out[i + 2 * step] = even - odd;
        out[i + 3 * step] = near + far;
        out[i + 4 * step] = near - far;
        out[i + 5 * step] = 4.0f * d1[i] - 5.0f * d3[i] + d5[i];
    }
}

/* A^T m, likewise: four outputs of six places. */
INLINE void from_places(const float *m, float *out, int step, int n) {
    const float *m1 = m + step, *m2 = m + 2 * step, *m3 = m + 3 * step, *m4 = m + 4 * step,
                *m5 = m + 5 * step;
    for (int i = 0; i < n; i++) {
        float sum = m1[i] + m2[i], far_sum = m3[i] + m4[i];
        float difference = m1[i] - m2[i], far_difference = m3[i] - m4[i];
        out[i] = m[i] + sum + far_sum;
        out[i + step] = difference + 2.0f * far_difference;
        out[i + 2 * step] = sum + 4.0f * far_sum;
        out[i + 3 * step] = difference + 8.0f * far_difference + m5[i];
    }
}

/* Both axes of a tile in [row][column][lane], in place; columns first, while they lie together. */
LOOP void mmsnn_tile_to_places(float (*tile)[TILE_IN][TILE_LANES]) {
    float other[TILE_IN][TILE_IN][TILE_LANES];
    to_places(tile[0][0], other[0][0], TILE_IN * TILE_LANES, TILE_IN * TILE_LANES);
    for (int row = 0; row < TILE_IN; row++)
        to_places(other[row][0], tile[row][0], TILE_LANES, TILE_LANES);
}

LOOP void mmsnn_places_to_tile(float (*places)[TILE_IN][TILE_LANES],
                               float (*tile)[TILE_OUT][TILE_LANES], const float *bias) {
    float other[TILE_OUT][TILE_IN][TILE_LANES];
    from_places(places[0][0], other[0][0], TILE_IN * TILE_LANES, TILE_IN * TILE_LANES);
    for (int row = 0; row < TILE_OUT; row++) {
        from_places(other[row][0], tile[row][0], TILE_LANES, TILE_LANES);
        for (int column = 0; column < TILE_OUT; column++)
            for (int i = 0; i < TILE_LANES; i++)
                tile[row][column][i] += bias[i];
    }
}

/* Where a tile begins: its image, and the first row and column of its outputs. */
INLINE void begin_of(const struct winograd *w, int64_t tile, int64_t *image, int64_t *row,
                     int64_t *column) {
    *column = tile % w->columns * TILE_OUT;
    *row = tile / w->columns % w->rows * TILE_OUT;
    *image = tile / w->columns / w->rows;
}

static int winograd_in_share(const void *task, int thread, int threads) {
    const struct winograd *w = task;
    float tile[TILE_IN][TILE_IN][TILE_LANES];
    int64_t image, first_row, first_column, size = w->tiles * w->channels;
    int64_t end = w->tiles * (thread + 1) / threads;
    for (int64_t t = w->tiles * thread / threads; t < end; t++) {
        begin_of(w, w->first + t, &image, &first_row, &first_column);
        first_row -= w->pad_height;
        first_column -= w->pad_width;
        for (int64_t channel = 0; channel < w->channels; channel += TILE_LANES) {
            int n = (int)at_most(TILE_LANES, w->channels - channel);
            memset(tile, 0, sizeof tile);
            for (int i = 0; i < TILE_IN; i++) {
                int64_t row = first_row + i;
                if (row < 0 || row >= w->height)
                    continue;
                for (int j = 0; j < TILE_IN; j++) {
                    int64_t column = first_column + j;
                    int64_t at = (image * w->height + row) * w->width + column;
                    if (column >= 0 && column < w->width)
                        memcpy(tile[i][j], w->maps + at * w->channels + channel, n * sizeof(float));
                }
            }
            mmsnn_tile_to_places(tile);
            for (int place = 0; place < PLACES; place++)
                memcpy(w->places + place * size + t * w->channels + channel,
                       tile[place / TILE_IN][place % TILE_IN], n * sizeof(float));
        }
    }
    return 1;
}

static int winograd_out_share(const void *task, int thread, int threads) {
    const struct winograd *w = task;
    float places[TILE_IN][TILE_IN][TILE_LANES] = {{{0}}}, tile[TILE_OUT][TILE_OUT][TILE_LANES];
    float bias[TILE_LANES] = {0};
    int64_t image, first_row, first_column, size = w->tiles * w->channels;
    int64_t end = w->tiles * (thread + 1) / threads;
    for (int64_t t = w->tiles * thread / threads; t < end; t++) {
        begin_of(w, w->first + t, &image, &first_row, &first_column);
        for (int64_t channel = 0; channel < w->channels; channel += TILE_LANES) {
            int n = (int)at_most(TILE_LANES, w->channels - channel);
            for (int place = 0; place < PLACES; place++)
                memcpy(places[place / TILE_IN][place % TILE_IN],
                       w->places + place * size + t * w->channels + channel, n * sizeof(float));
            memcpy(bias, w->bias + channel, n * sizeof(float));
            mmsnn_places_to_tile(places, tile, bias);
            for (int i = 0; i < at_most(TILE_OUT, w->height - first_row); i++)
                for (int j = 0; j < at_most(TILE_OUT, w->width - first_column); j++) {
                    int64_t row = image * w->height + first_row + i;
                    int64_t at = row * w->width + first_column + j;
                    memcpy(w->maps + at * w->channels + channel, tile[i][j], n * sizeof(float));
                }
        }
    }
    return 1;
}

/* Maps to places: B^T d B of each tile. */
EXPORT int mmsnn_winograd_in(const struct winograd *w) {
    return in_parallel(winograd_in_share, w, w->threads);
}

/* Places to maps: A^T m A + bias of each tile. */
EXPORT int mmsnn_winograd_out(const struct winograd *w) {
    return in_parallel(winograd_out_share, w, w->threads);
}
