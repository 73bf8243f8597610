#include "bench/shapes.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/decoder/load.h"

enum { DEFAULT_GROUP = 128, MAX_LIST = 4096 };

/* --- numbers --- */

/* A positive decimal int at *cursor, which is left behind it. */
static int parse_positive(const char **cursor, int *value) {
    if (!isdigit((unsigned char)**cursor)) return -1;
    char *end;
    unsigned long parsed = strtoul(*cursor, &end, 10);
    if (parsed < 1 || parsed > INT_MAX) return -1;
    *value = (int)parsed;
    *cursor = end;
    return 0;
}

/* The list with room for one more element; NULL if that cannot be. */
static void *grow(void *list, int count, size_t element, struct error *error) {
    if (count >= MAX_LIST) {
        error_set(error, "the list has more than %d entries", MAX_LIST);
        return NULL;
    }
    if (count & (count - 1)) return list;
    void *larger = realloc(list, (count ? (size_t)count * 2 : 1) * element);
    if (!larger) error_set(error, "out of memory");
    return larger;
}

/* --- shapes --- */

static int add_shape(struct shapes *shapes, const char *layer, int k, int n, bool quantized, enum epilogue epilogue,
                     struct error *error) {
    for (int i = 0; i < shapes->count; i++)
        if (!strcmp(shapes->list[i].layer, layer)) return error_set(error, "shape %s is given twice", layer);
    struct shape *list = grow(shapes->list, shapes->count, sizeof *list, error);
    if (!list) return -1;
    shapes->list = list;
    struct shape *shape = &list[shapes->count++];
    *shape = (struct shape){.k = k, .n = n, .quantized = quantized, .epilogue = epilogue};
    snprintf(shape->layer, sizeof shape->layer, "%s", layer);
    return 0;
}

/* What the shapes of a decoder's layer follow from. */
struct layer_sizes {
    int hidden, intermediate, heads, kv_heads, head_dim, vocab;
    bool qkv_bias;
};

/* Models that the decoder does not run, but whose GEMMs can be measured: from their config.json. */
static const struct {
    const char *name;
    struct layer_sizes sizes;
} other_models[] = {
    {"llama-3-8b", {4096, 14336, 32, 8, 128, 128256, false}},
    {"llama-3-70b", {8192, 28672, 64, 8, 128, 128256, false}},
};

/* One device's part of `parts`: columns of qkv, gate_up and lm_head, rows of o and down are shared out. */
static int check_parts(const struct layer_sizes *s, int parts, struct error *error) {
    if (s->heads % parts || s->kv_heads % parts)
        return error_set(error, "tp%d does not divide %d heads and %d KV heads", parts, s->heads, s->kv_heads);
    if (s->intermediate % parts || s->vocab % parts)
        return error_set(error, "tp%d does not divide the intermediate size %d and the vocabulary %d", parts,
                         s->intermediate, s->vocab);
    return 0;
}

/* The linears of a layer as the decoder fuses them, then the head. */
static int add_layer(struct shapes *shapes, const struct layer_sizes *s, int parts, struct error *error) {
    if (check_parts(s, parts, error)) return -1;
    int attention = s->heads * s->head_dim, qkv = attention + 2 * s->kv_heads * s->head_dim;
    const struct {
        const char *layer;
        int k, n;
    } linears[LAYER_LINEARS] = {[LINEAR_QKV] = {"qkv", s->hidden, qkv / parts},
                                [LINEAR_O] = {"o", attention / parts, s->hidden},
                                [LINEAR_GATE_UP] = {"gate_up", s->hidden, 2 * s->intermediate / parts},
                                [LINEAR_DOWN] = {"down", s->intermediate / parts, s->hidden}};
    for (int i = 0; i < LAYER_LINEARS; i++) {
        enum epilogue epilogue = i == LINEAR_QKV && !s->qkv_bias ? EPILOGUE_NONE : linear_epilogue(i);
        if (add_shape(shapes, linears[i].layer, linears[i].k, linears[i].n, true, epilogue, error)) return -1;
    }
    return add_shape(shapes, "lm_head", s->hidden, s->vocab / parts, false, EPILOGUE_NONE, error);
}

static int add_model(struct shapes *shapes, const struct model_config *c, int parts, struct error *error) {
    const struct layer_sizes sizes = {c->hidden, c->intermediate, c->heads, c->kv_heads, c->head_dim, c->vocab, true};
    if (c->group_all || c->group) shapes->group = c->group;
    return add_layer(shapes, &sizes, parts, error);
}

static int add_directory(struct shapes *shapes, const char *directory, int parts, struct error *error) {
    struct model_config config;
    if (model_config_read(directory, &config, error)) return -1;
    size_t length = strlen(directory), start;
    while (length > 1 && directory[length - 1] == '/') length--;
    for (start = length; start > 0 && directory[start - 1] != '/';) start--;
    snprintf(shapes->model, sizeof shapes->model, "%.*s", (int)(length - start), directory + start);
    return add_model(shapes, &config, parts, error);
}

static int add_plain(struct shapes *shapes, const char *text, struct error *error) {
    const char *cursor = text;
    for (;;) {
        int k, n;
        char layer[24];
        if (parse_positive(&cursor, &k) || *cursor++ != 'x' || parse_positive(&cursor, &n) ||
            (*cursor && *cursor != ','))
            return error_set(error,
                             "shapes: '%s' is not a model (qwen2.5-0.5b to -72b, llama-3-8b, llama-3-70b), a directory "
                             "with config.json, or KxN,KxN,... with positive numbers",
                             text);
        snprintf(layer, sizeof layer, "%dx%d", k, n);
        if (add_shape(shapes, layer, k, n, true, EPILOGUE_NONE, error)) return -1;
        if (!*cursor++) return 0;
    }
}

/* Takes ":tpN" off the end of `name`; 1 without it. */
static int take_parts(char *name) {
    char *suffix = strrchr(name, ':');
    int parts;
    if (!suffix || strncmp(suffix, ":tp", 3)) return 1;
    const char *cursor = suffix + 3;
    if (parse_positive(&cursor, &parts) || *cursor) return 1;
    *suffix = 0;
    return parts;
}

static int add_any(struct shapes *shapes, const char *text, struct error *error) {
    struct stat status;
    struct model_config config;
    char name[4096];
    snprintf(name, sizeof name, "%s", text);
    int parts = take_parts(name);
    snprintf(shapes->model, sizeof shapes->model, "%s", name);
    if (!model_config_named(name, &config, NULL)) return add_model(shapes, &config, parts, error);
    for (size_t i = 0; i < sizeof other_models / sizeof *other_models; i++)
        if (!strcmp(name, other_models[i].name)) return add_layer(shapes, &other_models[i].sizes, parts, error);
    shapes->model[0] = 0;
    if (strchr(name, '/') || (!stat(name, &status) && S_ISDIR(status.st_mode)))
        return add_directory(shapes, name, parts, error);
    return add_plain(shapes, text, error);
}

int shapes_parse(const char *text, struct shapes *shapes, struct error *error) {
    *shapes = (struct shapes){.group = DEFAULT_GROUP};
    if (!add_any(shapes, text, error)) return 0;
    shapes_free(shapes);
    return -1;
}

void shapes_free(struct shapes *shapes) {
    free(shapes->list);
    *shapes = (struct shapes){.count = 0};
}

struct problem shape_problem(const struct shape *shape, enum op op, int m, int group, bool zeros,
                             enum epilogue epilogue) {
    struct problem problem = {.op = op, .m = op == OP_AWQ_DEQUANT ? 1 : m, .n = shape->n, .k = shape->k};
    if (op != OP_AWQ_DEQUANT) problem.epilogue = epilogue;
    if (op == OP_FP16_GEMM) return problem;
    problem.group = group ? group : shape->k;
    problem.zeros = zeros;
    return problem;
}

/* --- lists of m --- */

static int add_number(int **list, int *count, int value, struct error *error) {
    int *larger = grow(*list, *count, sizeof *larger, error);
    if (!larger) return -1;
    *list = larger;
    larger[(*count)++] = value;
    return 0;
}

/* "16", "1:8192:x2" or "1:64:+8" at *cursor, which is left behind it. */
static int add_item(const char **cursor, int **list, int *count, struct error *error) {
    int from, to, step;
    if (parse_positive(cursor, &from)) return -1;
    if (**cursor != ':') return add_number(list, count, from, error);
    ++*cursor;
    if (parse_positive(cursor, &to) || to < from || *(*cursor)++ != ':') return -1;
    char kind = *(*cursor)++;
    if ((kind != 'x' && kind != '+') || parse_positive(cursor, &step) || (kind == 'x' && step < 2)) return -1;
    for (long value = from; value <= to; value = kind == 'x' ? value * step : value + step)
        if (add_number(list, count, (int)value, error)) return -1;
    return 0;
}

static int compare_ints(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static void sort_unique(int *list, int *count) {
    int kept = 0;
    qsort(list, (size_t)*count, sizeof *list, compare_ints);
    for (int i = 0; i < *count; i++)
        if (!kept || list[i] != list[kept - 1]) list[kept++] = list[i];
    *count = kept;
}

int m_list_parse(const char *text, int **list, int *count, struct error *error) {
    *list = NULL;
    *count = 0;
    struct error why = {""};
    const char *cursor = text;
    do {
        if (!add_item(&cursor, list, count, &why) && (!*cursor || *cursor == ',')) continue;
        free(*list);
        *list = NULL;
        if (why.text[0]) return error_set(error, "m: '%s': %s", text, why.text);
        return error_set(error, "m: '%s' is not a list of positive numbers like 1,16,256 or 1:8192:x2 or 1:64:+8",
                         text);
    } while (*cursor++);
    sort_unique(*list, count);
    return 0;
}
