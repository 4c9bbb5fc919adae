/* Runs the network in an integer file of mmsnn, in C99 with nothing but its library.
 *
 *     cc -std=c99 -O2 -ffp-contract=off -o run_integers run_integers.c -lm
 *     ./run_integers model.safetensors input 3 16 16 picture.f32 spikes.bin
 *
 * `input` names what picture.f32 holds: float32 (C, H, W), or (T, C, H, W) with a frame for every
 * time step. Where it is another node's name, such as stem.0.conv, the nodes before it aren't run.
 * Each node that gives spikes has a line; their bytes (T, C, H, W) follow each other in spikes.bin,
 * in the order of the lines. The machine is taken to be little-endian.
 *
 * -ffp-contract=off: a fused multiply-add rounds once where the reference rounds twice, and a
 * potential at the threshold could then fire in one of the two alone.
 */

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    exit(1);
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail("out of memory");
    return memory;
}

/* JSON, as far as the file needs it. */

enum kind { TEXT, NUMBER, LIST, OBJECT, OTHER };

struct json {
    enum kind kind;
    char *text;
    double number;
    char *key;                 /* in an object */
    struct json *first, *next; /* children, and the next of the same parent */
};

static const char *at, *end; /* what is being read */

static char peek(void) {
    while (at < end && strchr(" \t\r\n", *at))
        at++;
    if (at >= end)
        fail("the file's header ends too early");
    return *at;
}

static void expect(char c) {
    if (peek() != c)
        fail("the file's header is no JSON: '%c' in the place of '%c'", *at, c);
    at++;
}

static char *read_text(void) {
    expect('"');
    char *text = allocate((size_t)(end - at) + 1, 1);
    size_t n = 0;
    while (at < end && *at != '"') {
        if (*at == '\\' && ++at < end && *at != '"' && *at != '\\' && *at != '/')
            fail("the file's header has an escape \\%c, which this reader doesn't take", *at);
        text[n++] = *at++;
    }
    expect('"');
    return text;
}

static struct json *read_json(void) {
    struct json *value = allocate(1, sizeof *value);
    char c = peek();
    if (c == '"') {
        value->kind = TEXT;
        value->text = read_text();
    } else if (c == '{' || c == '[') {
        char closing = c == '{' ? '}' : ']';
        struct json **last = &value->first;
        value->kind = c == '{' ? OBJECT : LIST;
        at++;
        while (peek() != closing) {
            char *key = NULL;
            if (c == '{') {
                key = read_text();
                expect(':');
            }
            *last = read_json();
            (*last)->key = key;
            last = &(*last)->next;
            if (peek() != closing)
                expect(',');
        }
        at++;
    } else if (strchr("-0123456789", c)) {
        char *behind;
        value->kind = NUMBER;
        value->number = strtod(at, &behind);
        at = behind;
    } else { /* true, false, null */
        value->kind = OTHER;
        while (at < end && *at >= 'a' && *at <= 'z')
            at++;
    }
    return value;
}

static struct json *find(const struct json *object, const char *key) {
    for (struct json *child = object ? object->first : NULL; child; child = child->next)
        if (child->key && strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

static struct json *get(const struct json *object, const char *key) {
    struct json *value = find(object, key);
    if (!value)
        fail("the file has no %s where this reader needs it", key);
    return value;
}

static double number(const struct json *object, const char *key) { return get(object, key)->number; }

static int item(const struct json *object, const char *key, int i) {
    struct json *child = get(object, key)->first;
    for (; child && i > 0; i--)
        child = child->next;
    if (!child)
        fail("the file's %s has too few numbers", key);
    return (int)child->number;
}

static int is(const struct json *object, const char *key, const char *text) {
    struct json *value = get(object, key);
    return value->kind == TEXT && strcmp(value->text, text) == 0;
}

/* The file: a length, that many bytes of JSON, and the tensors' bytes. */

struct file {
    struct json *header, *network;
    const char *body;
    size_t body_size;
};

static char *read_bytes(const char *path, size_t *size) {
    FILE *stream = fopen(path, "rb");
    if (!stream)
        fail("%s cannot be opened", path);
    fseek(stream, 0, SEEK_END);
    long length = ftell(stream);
    rewind(stream);
    char *data = allocate((size_t)length, 1);
    if (length < 0 || fread(data, 1, (size_t)length, stream) != (size_t)length)
        fail("%s cannot be read", path);
    fclose(stream);
    *size = (size_t)length;
    return data;
}

static struct file read_file(const char *path) {
    struct file file;
    size_t size;
    uint64_t length = 0;
    char *data = read_bytes(path, &size);
    if (size >= 8)
        memcpy(&length, data, 8);
    if (size < 8 || length > size - 8 || length == 0 || data[8] != '{')
        fail("%s is no integer file of mmsnn, or only the beginning of one", path);
    at = data + 8;
    end = at + length;
    file.header = read_json();
    struct json *metadata = find(file.header, "__metadata__");
    struct json *format = find(metadata, "format");
    if (!format || strcmp(format->text, "mmsnn-integers"))
        fail("%s is no integer file of mmsnn", path);
    if (!is(metadata, "version", "1"))
        fail("%s has version %s of the format, this reader takes 1", path,
             get(metadata, "version")->text);
    at = get(metadata, "network")->text;
    end = at + strlen(at);
    file.network = read_json();
    file.body = data + 8 + length;
    file.body_size = size - 8 - length;
    return file;
}

/* A tensor NODE.KEY, or NULL where there is none; `shape` has room for 4. */
static const void *tensor(const struct file *file, const char *node, const char *key, int *shape) {
    char name[512];
    snprintf(name, sizeof name, "%s.%s", node, key);
    struct json *entry = find(file->header, name);
    if (!entry)
        return NULL;
    int rank = 0;
    double count = is(entry, "dtype", "I8") ? 1 : 4;
    for (struct json *n = get(entry, "shape")->first; n && rank < 4; n = n->next) {
        shape[rank++] = (int)n->number;
        count *= n->number;
    }
    double first = get(entry, "data_offsets")->first->number;
    if (first + count > (double)file->body_size)
        fail("the file is cut off: %s ends behind it", name);
    return file->body + (size_t)first;
}

/* What a node gives: (steps, c, h, w), spikes in bytes or currents in float32. */

struct values {
    const char *name;
    int steps, c, h, w;
    uint8_t *spikes;
    float *currents;
};

static struct values make(const char *name, int steps, int c, int h, int w, int of_spikes) {
    struct values x = {name, steps, c, h, w, NULL, NULL};
    size_t count = (size_t)steps * c * h * w;
    if (of_spikes)
        x.spikes = allocate(count, 1);
    else
        x.currents = allocate(count, sizeof(float));
    return x;
}

static size_t size_of(const struct values *x) { return (size_t)x->steps * x->c * x->h * x->w; }

static float value(const struct values *x, size_t i) {
    return x->spikes ? (float)x->spikes[i] : x->currents[i];
}

static int windows(int n, int kernel, int stride, int padding, int dilation) {
    return (n + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

static struct values conv(const struct file *file, const struct json *node, const struct values *x) {
    const char *name = get(node, "name")->text;
    int shape[4], none[4], groups = (int)number(node, "groups");
    int stride[2], padding[2], dilation[2];
    for (int i = 0; i < 2; i++) {
        stride[i] = item(node, "stride", i);
        padding[i] = item(node, "padding", i);
        dilation[i] = item(node, "dilation", i);
    }
    const int8_t *q = tensor(file, name, "q", shape);
    const float *weight = q ? NULL : tensor(file, name, "weight", shape);
    const float *scale = tensor(file, name, "scale", none), *bias = tensor(file, name, "bias", none);
    if ((!q && !weight) || (q && !scale) || !bias || shape[1] * groups != x->c || (q && !x->spikes))
        fail("%s lacks weights, or has some of another shape", name);
    int outputs = shape[0], channels = shape[1], kh = shape[2], kw = shape[3];
    struct values y = make(name, x->steps, outputs,
                           windows(x->h, kh, stride[0], padding[0], dilation[0]),
                           windows(x->w, kw, stride[1], padding[1], dilation[1]), 0);
    size_t to = 0;
    for (int t = 0; t < y.steps; t++)
        for (int o = 0; o < outputs; o++)
            for (int i = 0; i < y.h; i++)
                for (int j = 0; j < y.w; j++, to++) {
                    int32_t sum = 0;
                    double real = 0;
                    int group = o / (outputs / groups);
                    for (int c = 0; c < channels; c++)
                        for (int a = 0; a < kh; a++)
                            for (int b = 0; b < kw; b++) {
                                int row = i * stride[0] - padding[0] + a * dilation[0];
                                int column = j * stride[1] - padding[1] + b * dilation[1];
                                if (row < 0 || row >= x->h || column < 0 || column >= x->w)
                                    continue;
                                size_t w = (((size_t)o * channels + c) * kh + a) * kw + b;
                                size_t from = (((size_t)t * x->c + group * channels + c) * x->h + row)
                                              * x->w + column;
                                if (q)
                                    sum += q[w] * x->spikes[from];
                                else
                                    real += (double)weight[w] * value(x, from);
                            }
                    y.currents[to] = q ? (float)sum * scale[o] + bias[o] : (float)(real + bias[o]);
                }
    return y;
}

/* Currents of one step stand for all of them. */
static struct values neuron(const struct json *node, const struct values *x, int steps) {
    struct values s = make(get(node, "name")->text, steps, x->c, x->h, x->w, 1);
    size_t count = (size_t)x->c * x->h * x->w;
    float decay = (float)number(node, "decay"), threshold = (float)number(node, "v_threshold");
    int counts = is(node, "op", "ilif");
    float levels = counts ? (float)number(node, "levels") : 1;
    float input_scale = counts ? 1 : (float)number(node, "input_scale");
    int hard = !counts && is(node, "reset", "hard");
    for (size_t i = 0; i < count; i++) {
        float v = 0;
        for (int t = 0; t < steps; t++) {
            float y = value(x, (x->steps > 1 ? (size_t)t * count : 0) + i), h, fired;
            if (counts) {
                h = decay * v + y / threshold;
                fired = floorf(h - 0.5f) + 1;
                fired = fired < 0 ? 0 : fired > levels ? levels : fired;
                v = h - fired;
            } else {
                h = decay * v + input_scale * y;
                fired = h - threshold >= 0 ? 1 : 0;
                v = hard ? h * (1 - fired) : h - threshold * fired;
            }
            s.spikes[(size_t)t * count + i] = (uint8_t)fired;
        }
    }
    return s;
}

static struct values pool(const struct json *node, const struct values *x) {
    int kernel = (int)number(node, "kernel_size"), stride = (int)number(node, "stride");
    int padding = (int)number(node, "padding");
    struct values y = make(get(node, "name")->text, x->steps, x->c,
                           windows(x->h, kernel, stride, padding, 1),
                           windows(x->w, kernel, stride, padding, 1), x->spikes != NULL);
    size_t to = 0;
    for (int map = 0; map < x->steps * x->c; map++)
        for (int i = 0; i < y.h; i++)
            for (int j = 0; j < y.w; j++, to++) {
                float most = -INFINITY;
                for (int a = 0; a < kernel; a++)
                    for (int b = 0; b < kernel; b++) {
                        int row = i * stride - padding + a, column = j * stride - padding + b;
                        if (row < 0 || row >= x->h || column < 0 || column >= x->w)
                            continue;
                        float other = value(x, ((size_t)map * x->h + row) * x->w + column);
                        most = other > most ? other : most;
                    }
                if (y.spikes)
                    y.spikes[to] = (uint8_t)most;
                else
                    y.currents[to] = most;
            }
    return y;
}

/* Of two spikes R and S; `add` is of currents too, of which one step may stand for all. */
static struct values gate(const struct json *node, const struct values *x,
                          const struct values *shortcut) {
    const char *op = get(node, "op")->text;
    int of_spikes = x->spikes && shortcut->spikes;
    int steps = x->steps > shortcut->steps ? x->steps : shortcut->steps;
    struct values y = make(get(node, "name")->text, steps, x->c, x->h, x->w, of_spikes);
    if (size_of(x) / x->steps != size_of(shortcut) / shortcut->steps)
        fail("%s joins values of different shapes", y.name);
    for (size_t i = 0; i < size_of(&y); i++) {
        float r = value(x, i % size_of(x)), s = value(shortcut, i % size_of(shortcut)), joined;
        if (strcmp(op, "or") == 0)
            joined = r > s ? r : s;
        else if (strcmp(op, "and") == 0)
            joined = r * s;
        else if (strcmp(op, "iand") == 0)
            joined = (1 - r) * s;
        else if (strcmp(op, "add") == 0)
            joined = r + s;
        else
            fail("%s has the operation %s, which this reader doesn't know", y.name, op);
        if (of_spikes)
            y.spikes[i] = (uint8_t)joined;
        else
            y.currents[i] = joined;
    }
    return y;
}

static struct values *find_values(struct values *all, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(all[i].name, name) == 0)
            return all + i;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 8)
        fail("usage: run_integers FILE.safetensors NODE C H W VALUES.f32 SPIKES.bin");
    struct file file = read_file(argv[1]);
    int steps = (int)number(file.network, "time_steps"), count = 1, nodes = 1;
    for (struct json *node = get(file.network, "nodes")->first; node; node = node->next)
        nodes++;
    struct values *all = allocate((size_t)nodes, sizeof *all);

    int c = atoi(argv[3]), h = atoi(argv[4]), w = atoi(argv[5]);
    size_t size, one = (size_t)c * h * w * sizeof(float);
    float *given = (float *)read_bytes(argv[6], &size);
    if (c < 1 || h < 1 || w < 1 || (size != one && size != steps * one))
        fail("%s has %lu bytes: %d x %d x %d values are %lu, or %d times as many", argv[6],
             (unsigned long)size, c, h, w, (unsigned long)one, steps);
    struct values start = {argv[2], (int)(size / one), c, h, w, NULL, given};
    all[0] = start;

    FILE *out = fopen(argv[7], "wb");
    if (!out)
        fail("%s cannot be written", argv[7]);
    for (struct json *node = get(file.network, "nodes")->first; node; node = node->next) {
        struct values *inputs[2] = {NULL, NULL};
        int there = 0, wanted = 0;
        for (struct json *name = get(node, "inputs")->first; name && wanted < 2; name = name->next)
            if ((inputs[wanted++] = find_values(all, count, name->text)))
                there++;
        if (there < wanted) /* it comes before what was given */
            continue;
        struct values *y = all + count++;
        if (is(node, "op", "conv"))
            *y = conv(&file, node, inputs[0]);
        else if (is(node, "op", "lif") || is(node, "op", "ilif"))
            *y = neuron(node, inputs[0], steps);
        else if (is(node, "op", "pool"))
            *y = pool(node, inputs[0]);
        else if (wanted > 1)
            *y = gate(node, inputs[0], inputs[1]);
        else
            fail("%s has an operation that this reader doesn't know", get(node, "name")->text);
        if (y->spikes) {
            size_t fired = 0;
            for (size_t i = 0; i < size_of(y); i++)
                fired += y->spikes[i] > 0;
            printf("%s %d %d %d %d %lu\n", y->name, y->steps, y->c, y->h, y->w, (unsigned long)fired);
            if (fwrite(y->spikes, 1, size_of(y), out) != size_of(y))
                fail("%s cannot be written", argv[7]);
        }
    }
    if (count == 1)
        fail("no node of %s reads %s", argv[1], argv[2]);
    return fclose(out) ? 1 : 0;
}
