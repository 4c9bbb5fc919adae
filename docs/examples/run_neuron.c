/* Calls a kernel of mmsnn's C library: neurons of two channels over four time steps.
 *
 *     src=$(python -c 'from mmsnn.ops.backends.c.build import SOURCE; print(SOURCE.parent)')
 *     cc -std=gnu11 -O3 -ffp-contract=off -fno-trapping-math -Wno-unused-function -I "$src" \
 *         -o run_neuron run_neuron.c "$src/kernels.c" -lm
 *     ./run_neuron 0.5 0.6 0.7
 *
 * prints the spikes of each step for the input currents given, which come again at every step. The
 * library is plain C on raw pointers: `struct lif` in mmsnn.h says what each field is, in C's own
 * layout. A field that a call doesn't need is zero. The kernels are compiled from their sources
 * here; -fopenmp lets them use several threads.
 */

#include <stdio.h>

#include "mmsnn.h"

int mmsnn_lif_forward(const struct lif *call);

enum { STEPS = 4, MOST = 64 };

int main(int argc, char **argv) {
    float x[MOST], out[STEPS * MOST];
    int n = argc - 1;
    if (n < 1 || n > MOST) {
        fprintf(stderr, "usage: run_neuron CURRENT [CURRENT ...], at most %d\n", MOST);
        return 1;
    }
    for (int i = 0; i < n; i++)
        x[i] = strtof(argv[i + 1], NULL);
    const float scale[] = {1.0f, 2.0f}, shift[] = {0.0f, 0.0f}; /* of channels: i % 2 */
    struct lif call = {
        .steps = STEPS, .n = n, .channels = 2, .inner = 1,
        .x_step = 0, /* the same currents at every step */
        .out_step = n,
        .dtype = FLOAT32, .spike_dtype = FLOAT32, .reset = HARD, .gate = NO_GATE, .threads = 1,
        .decay = 0.5f, .input_scale = 1.0f, .v_threshold = 1.0f,
        .x = x, .scale = scale, .shift = shift, .out = out,
    };
    if (mmsnn_lif_forward(&call) != 1) {
        fputs("error: out of memory\n", stderr);
        return 1;
    }
    for (int t = 0; t < STEPS; t++)
        for (int i = 0; i < n; i++)
            printf("%d%c", (int)out[t * n + i], i < n - 1 ? ' ' : '\n');
    return 0;
}
