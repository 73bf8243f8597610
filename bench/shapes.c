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

/* The linears of a Qwen2 layer as the decoder fuses them, then the head. */
static int add_model(struct shapes *shapes, const struct model_config *c, struct error *error) {
    int attention = c->heads * c->head_dim;
    int qkv = attention + 2 * c->kv_heads * c->head_dim;
    if (c->group_all || c->group) shapes->group = c->group;
    const struct {
        const char *layer;
        int k, n;
    } linears[LAYER_LINEARS] = {[LINEAR_QKV] = {"qkv", c->hidden, qkv},
                                [LINEAR_O] = {"o", attention, c->hidden},
                                [LINEAR_GATE_UP] = {"gate_up", c->hidden, 2 * c->intermediate},
                                [LINEAR_DOWN] = {"down", c->intermediate, c->hidden}};
    for (int i = 0; i < LAYER_LINEARS; i++)
        if (add_shape(shapes, linears[i].layer, linears[i].k, linears[i].n, true, linear_epilogue(i), error)) return -1;
    return add_shape(shapes, "lm_head", c->hidden, c->vocab, false, EPILOGUE_NONE, error);
}

static int add_directory(struct shapes *shapes, const char *directory, struct error *error) {
    struct model_config config;
    if (model_config_read(directory, &config, error)) return -1;
    size_t length = strlen(directory), start;
    while (length > 1 && directory[length - 1] == '/') length--;
    for (start = length; start > 0 && directory[start - 1] != '/';) start--;
    snprintf(shapes->model, sizeof shapes->model, "%.*s", (int)(length - start), directory + start);
    return add_model(shapes, &config, error);
}

static int add_plain(struct shapes *shapes, const char *text, struct error *error) {
    const char *cursor = text;
    for (;;) {
        int k, n;
        char layer[24];
        if (parse_positive(&cursor, &k) || *cursor++ != 'x' || parse_positive(&cursor, &n) ||
            (*cursor && *cursor != ','))
            return error_set(error,
                             "shapes: '%s' is not a model (qwen2.5-14b), a directory with config.json, or "
                             "KxN,KxN,... with positive numbers",
                             text);
        snprintf(layer, sizeof layer, "%dx%d", k, n);
        if (add_shape(shapes, layer, k, n, true, EPILOGUE_NONE, error)) return -1;
        if (!*cursor++) return 0;
    }
}

static int add_any(struct shapes *shapes, const char *text, struct error *error) {
    struct stat status;
    struct model_config config;
    if (!model_config_named(text, &config, NULL)) {
        snprintf(shapes->model, sizeof shapes->model, "%s", text);
        return add_model(shapes, &config, error);
    }
    if (strchr(text, '/') || (!stat(text, &status) && S_ISDIR(status.st_mode)))
        return add_directory(shapes, text, error);
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
