#include "bench/decoder/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PER_LAYER = 33, OUTSIDE_LAYERS = 3 };

struct list {
    const struct model_config *config;
    struct tensor_spec *specs;
    int count;
    enum dtype floats;
};

static void add(struct list *list, int layer, const char *name, enum tensor_role role, int64_t rows, int64_t columns) {
    struct tensor_spec *spec = &list->specs[list->count++];
    bool words = role == ROLE_CODES || role == ROLE_ZEROS || role == ROLE_GROUP_INDEX;
    *spec = (struct tensor_spec){.role = role, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    spec->dtype = words ? DTYPE_I32 : list->floats;
    spec->bytes =
        (size_t)(rows * (columns ? columns : 1)) * (spec->dtype == DTYPE_I32 || spec->dtype == DTYPE_F32 ? 4 : 2);
    if (layer < 0)
        snprintf(spec->name, sizeof spec->name, "%s", name);
    else
        snprintf(spec->name, sizeof spec->name, "model.layers.%d.%s", layer, name);
}

/* y = x W: W (k, n) and, unless it is quantised, stored as (n, k). */
static void add_linear(struct list *list, int layer, const char *name, int64_t k, int64_t n, bool bias) {
    const struct model_config *config = list->config;
    int64_t groups = config->quant == QUANT_NONE ? 0 : config->group_all ? 1 : k / config->group;
    char text[48];
#define PART(suffix) (snprintf(text, sizeof text, "%s." suffix, name), text)
    if (config->quant == QUANT_NONE) {
        add(list, layer, PART("weight"), ROLE_WEIGHT, n, k);
    } else {
        bool awq = config->quant == QUANT_AWQ;
        add(list, layer, PART("qweight"), ROLE_CODES, awq ? k : k / 8, awq ? n / 8 : n);
        add(list, layer, PART("qzeros"), ROLE_ZEROS, groups, n / 8);
        add(list, layer, PART("scales"), ROLE_SCALES, groups, n);
        if (!awq) add(list, layer, PART("g_idx"), ROLE_GROUP_INDEX, k, 0);
    }
    if (bias) add(list, layer, PART("bias"), ROLE_BIAS, n, 0);
#undef PART
}

static void add_layer(struct list *list, int layer) {
    const struct model_config *c = list->config;
    int64_t queries = (int64_t)c->heads * c->head_dim, keys = (int64_t)c->kv_heads * c->head_dim;
    add_linear(list, layer, "self_attn.q_proj", c->hidden, queries, true);
    add_linear(list, layer, "self_attn.k_proj", c->hidden, keys, true);
    add_linear(list, layer, "self_attn.v_proj", c->hidden, keys, true);
    add_linear(list, layer, "self_attn.o_proj", queries, c->hidden, false);
    add_linear(list, layer, "mlp.gate_proj", c->hidden, c->intermediate, false);
    add_linear(list, layer, "mlp.up_proj", c->hidden, c->intermediate, false);
    add_linear(list, layer, "mlp.down_proj", c->intermediate, c->hidden, false);
    add(list, layer, "input_layernorm.weight", ROLE_NORM, c->hidden, 0);
    add(list, layer, "post_attention_layernorm.weight", ROLE_NORM, c->hidden, 0);
}

static int check_words(const struct model_config *config, struct error *error) {
    const int step = config->group > 8 ? config->group : 8;
    const struct {
        const char *name;
        int features;
    } sides[] = {{"hidden_size", config->hidden},
                 {"intermediate_size", config->intermediate},
                 {"heads times head_dim", config->heads * config->head_dim},
                 {"key-value heads times head_dim", config->kv_heads * config->head_dim}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        int unit = i == 3 ? 8 : step; /* nothing reads the keys and values as input features */
        if (config->quant != QUANT_NONE && sides[i].features % unit)
            return error_set(error, "%s: found %d; accepted at 4 bits with this group: multiples of %d", sides[i].name,
                             sides[i].features, unit);
    }
    return 0;
}

int tensor_specs(const struct model_config *config, struct tensor_spec **list, int *count, struct error *error) {
    struct list all = {.config = config, .floats = DTYPE_F32};
    if (!strcmp(config->dtype, "float16")) all.floats = DTYPE_F16;
    if (!strcmp(config->dtype, "bfloat16")) all.floats = DTYPE_BF16;
    if (check_words(config, error)) return -1;
    all.specs = calloc((size_t)config->layers * MOST_PER_LAYER + OUTSIDE_LAYERS, sizeof *all.specs);
    if (!all.specs) return error_set(error, "out of memory");
    add(&all, -1, "model.embed_tokens.weight", ROLE_WEIGHT, config->vocab, config->hidden);
    for (int layer = 0; layer < config->layers; layer++) add_layer(&all, layer);
    add(&all, -1, "model.norm.weight", ROLE_NORM, config->hidden, 0);
    if (!config->tied) add(&all, -1, "lm_head.weight", ROLE_WEIGHT, config->vocab, config->hidden);
    *list = all.specs;
    *count = all.count;
    return 0;
}
