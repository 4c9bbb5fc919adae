/* Makes calls of the kernels again that kernel_calls.py wrote to a file, and writes what is then in
 * memory: `replay CALLS RESULTS`. It is compiled with the kernels, for another processor. */
#include "kernels.c"

#include <stdio.h>

typedef int (*function)(const void *, const void *);

#define NAMED(NAME) {#NAME, (function)(void *)mmsnn_##NAME}
static const struct { const char *name; function call; } functions[] = {
    NAMED(lif_forward), NAMED(lif_backward), NAMED(input_grad_of), NAMED(channel_stats),
    NAMED(ilif), NAMED(ilif_backward), NAMED(max_pool), NAMED(max_pool_backward),
    NAMED(attention_decode), NAMED(rate_decode), NAMED(attention_statistics), NAMED(event_conv),
    NAMED(winograd_in), NAMED(winograd_out), NAMED(event_weight_grad), NAMED(pooled_lif_backward), NAMED(event_conv_lif),
};

static FILE *calls, *results;

static void stop(const char *why) {
    fprintf(stderr, "%s\n", why);
    exit(1);
}

static int64_t number(void) {
    int64_t n;
    if (fread(&n, sizeof n, 1, calls) != 1)
        stop("the calls end too early");
    return n;
}

static void bytes_into(void *to, int64_t n) {
    if (n && fread(to, (size_t)n, 1, calls) != 1)
        stop("the calls end too early");
}

static int run(const char *name, const int64_t *args, const double *reals) {
    const void *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = (const void *)(intptr_t)args[i];
    if (!strcmp(name, "pack"))
        return mmsnn_pack((void *)p[0], (void *)p[1], args[2], args[3], (int)args[4], 1);
    if (!strcmp(name, "unpack"))
        return mmsnn_unpack((void *)p[0], (void *)p[1], args[2], (int)args[3], 1);
    if (!strcmp(name, "to_bytes"))
        return mmsnn_to_bytes(p[0], (void *)p[1], args[2], (float)reals[3], (float)reals[4], 1);
    if (!strcmp(name, "event_weights"))
        return mmsnn_event_weights(p[0], p[1], p[2], (void *)p[3]);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
        if (!strcmp(functions[i].name, name))
            return functions[i].call(p[0], p[1]);
    stop(name);
    return 0;
}

int main(int argc, char **argv) {
    char name[64];
    char *memory[32];
    int64_t sizes[32];
    if (argc != 3 || !(calls = fopen(argv[1], "rb")) || !(results = fopen(argv[2], "wb")))
        stop("replay CALLS RESULTS");
    for (int64_t count = number(); count; count--) {
        int64_t args[8] = {0}, n = number();
        double reals[8] = {0};
        if (n >= (int64_t)sizeof name)
            stop("a long name");
        memset(name, 0, sizeof name);
        bytes_into(name, n);
        int64_t buffers = number();
        if (buffers > 32)
            stop("too many buffers");
        for (int64_t i = 0; i < buffers; i++) {
            sizes[i] = number();
            memory[i] = aligned_alloc(64, (size_t)(sizes[i] + 64) / 64 * 64);
            bytes_into(memory[i], sizes[i]);
        }
        for (int64_t pointers = number(); pointers; pointers--) { /* those in structs */
            int64_t in = number(), at = number(), to = number(), offset = number();
            char *address = memory[to] + offset;
            memcpy(memory[in] + at, &address, sizeof address);
        }
        n = number();
        for (int64_t i = 0; i < n; i++) {
            int64_t kind = number(), value = number();
            int64_t offset = number();
            args[i] = kind == 'p' ? (intptr_t)(memory[value] + offset) : value;
            memcpy(&reals[i], &value, sizeof value);
        }
        int64_t done = run(name, args, reals);
        fwrite(&done, sizeof done, 1, results);
        for (int64_t i = 0; i < buffers; i++) {
            fwrite(memory[i], 1, (size_t)sizes[i], results);
            free(memory[i]);
        }
    }
    return fclose(results) != 0;
}
