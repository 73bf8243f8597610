#include "bench/shapes.h"

#include <ctype.h>
#include <errno.h>
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

/* Two of a name would have the same rows. */
static bool is_known(const struct shapes *shapes, const struct shape *shape) {
    for (int i = 0; i < shapes->count; i++) {
        const struct shape *other = &shapes->list[i];
        if (!strcmp(other->layer, shape->layer) && (!other->m || !shape->m || other->m == shape->m)) return true;
    }
    return false;
}

static int add_shape(struct shapes *shapes, const struct shape *shape, struct error *error) {
    if (is_known(shapes, shape)) return error_set(error, "shape %s is given twice", shape->layer);
    struct shape *list = grow(shapes->list, shapes->count, sizeof *list, error);
    if (!list) return -1;
    shapes->list = list;
    list[shapes->count++] = *shape;
    return 0;
}

/* Models that the decoder does not run, but whose GEMMs can be measured: from their config.json. Without biases. */
static const struct {
    const char *name;
    struct model_config config;
} other_models[] = {
    {"llama-3-8b",
     {.hidden = 4096, .intermediate = 14336, .heads = 32, .kv_heads = 8, .head_dim = 128, .vocab = 128256}},
    {"llama-3-70b",
     {.hidden = 8192, .intermediate = 28672, .heads = 64, .kv_heads = 8, .head_dim = 128, .vocab = 128256}},
};

/* The linears of a layer as the decoder fuses them, then the head; of one device's share of `parts`. */
static int add_layer(struct shapes *shapes, const struct model_config *config, bool qkv_bias, int parts,
                     struct error *error) {
    struct model_config c;
    if (share_config(config, parts, &c, error)) return error_prefix(error, "tp%d", parts);
    int attention = c.heads * c.head_dim, qkv = attention + 2 * c.kv_heads * c.head_dim;
    const struct shape head = {"lm_head", c.hidden, share_head(c.vocab, parts), false, EPILOGUE_NONE, 0};
    const struct {
        const char *layer;
        int k, n;
    } linears[LAYER_LINEARS] = {[LINEAR_QKV] = {"qkv", c.hidden, qkv},
                                [LINEAR_O] = {"o", attention, c.hidden},
                                [LINEAR_GATE_UP] = {"gate_up", c.hidden, 2 * c.intermediate},
                                [LINEAR_DOWN] = {"down", c.intermediate, c.hidden}};
    for (int i = 0; i < LAYER_LINEARS; i++) {
        enum epilogue epilogue = i == LINEAR_QKV && !qkv_bias ? EPILOGUE_NONE : linear_epilogue(i);
        struct shape shape = {"", linears[i].k, linears[i].n, true, epilogue, 0};
        snprintf(shape.layer, sizeof shape.layer, "%s", linears[i].layer);
        if (add_shape(shapes, &shape, error)) return -1;
    }
    return add_shape(shapes, &head, error);
}

static int add_model(struct shapes *shapes, const struct model_config *c, int parts, struct error *error) {
    if (c->group_all || c->group) shapes->group = c->group;
    return add_layer(shapes, c, true, parts, error);
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

/* "NAME=" at *cursor, which is left behind it; nothing without one. A name becomes a part of a row's. */
static int take_name(const char **cursor, char name[sizeof((struct shape *)0)->layer]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t length = strspn(*cursor, letters);
    *name = 0;
    if ((*cursor)[length] != '=') return 0;
    if (!length || length >= sizeof((struct shape *)0)->layer) return -1;
    memcpy(name, *cursor, length);
    name[length] = 0;
    *cursor += length + 1;
    return 0;
}

/* "[NAME=]KxN[@M]" */
static int add_plain_item(struct shapes *shapes, const char *text, struct error *error) {
    struct shape shape = {.quantized = true};
    const char *cursor = text;
    if (take_name(&cursor, shape.layer) || parse_positive(&cursor, &shape.k) || *cursor++ != 'x' ||
        parse_positive(&cursor, &shape.n) || (*cursor == '@' && (cursor++, parse_positive(&cursor, &shape.m))) ||
        *cursor)
        return error_set(
            error,
            "shapes: '%s' is not a model (qwen2.5-0.5b to -72b, llama-3-8b, llama-3-70b), a directory with "
            "config.json, a file of shapes, or [NAME=]KxN[@M] with positive numbers",
            text);
    if (!*shape.layer) snprintf(shape.layer, sizeof shape.layer, "%dx%d", shape.k, shape.n);
    return add_shape(shapes, &shape, error);
}

/* Items between `separators`; where blanks separate, nothing may lie between two of them. */
static int add_items(struct shapes *shapes, char *text, const char *separators, bool blanks, struct error *error) {
    for (char *item; (item = strsep(&text, separators));)
        if (!(blanks && !*item) && add_plain_item(shapes, item, error)) return -1;
    return 0;
}

static int add_plain(struct shapes *shapes, const char *text, struct error *error) {
    char *copy = strdup(text);
    if (!copy) return error_set(error, "out of memory");
    int result = add_items(shapes, copy, ",", false, error);
    free(copy);
    return result;
}

static int add_file(struct shapes *shapes, const char *path, struct error *error) {
    char *line = NULL;
    size_t room = 0;
    int result = 0;
    FILE *file = fopen(path, "r");
    if (!file) return error_set(error, "shapes: %s: %s", path, strerror(errno));
    for (int number = 1; !result && getline(&line, &room, file) > 0; number++) {
        line[strcspn(line, "#\r\n")] = 0;
        result = add_items(shapes, line, ", \t", true, error);
        if (result) error_prefix(error, "%s:%d", path, number);
    }
    if (!result && !shapes->count) result = error_set(error, "shapes: %s holds none", path);
    free(line);
    fclose(file);
    return result;
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
        if (!strcmp(name, other_models[i].name)) return add_layer(shapes, &other_models[i].config, false, parts, error);
    shapes->model[0] = 0;
    if (!stat(text, &status) && S_ISREG(status.st_mode)) return add_file(shapes, text, error);
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
