#include "bench/decoder/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/formats/formats.h"
#include "kernels/half.h"
#include "kernels/reference.h"

enum { STAGING = 1 << 22, FLOATS = 1 << DTYPE_F32 | 1 << DTYPE_F16 | 1 << DTYPE_BF16, MAX_PARTS = 3 };

/* The checkpoint's linears that make up one fused matrix: side by side along N, or by eights of columns in turn. All
 * numbers are of this rank's share. */
struct fusion {
    const char *layer;
    int k, n, parts;
    bool interleaved; /* two parts of the same size */
    bool by_k;        /* ranks share out the rows of W, else its columns */
    struct {
        const char *name;
        int n;
    } part[MAX_PARTS];
};

struct loader {
    struct weights *weights;
    const struct model_config *config; /* of the share */
    const struct share *share;
    const struct checkpoint *checkpoint; /* NULL: synthetic */
    enum method method;
    struct tensor part; /* what get found last */
    void *part_room;
    uint16_t *staging; /* host, STAGING halves */
    void *raw;         /* device: one tensor as it lies in the checkpoint; freed after loading */
    uint64_t seed;
    struct error *error;
};

static struct fusion fusion_of(const struct model_config *c, int which) {
    int q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    switch (which) {
    case LINEAR_QKV:
        return (struct fusion){.layer = "qkv",
                               .k = c->hidden,
                               .n = q + 2 * kv,
                               .parts = 3,
                               .part = {{"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}}};
    case LINEAR_O:
        return (struct fusion){
            .layer = "o", .k = q, .n = c->hidden, .parts = 1, .by_k = true, .part = {{"self_attn.o_proj", c->hidden}}};
    case LINEAR_GATE_UP:
        return (struct fusion){.layer = "gate_up",
                               .k = c->hidden,
                               .n = 2 * c->intermediate,
                               .parts = 2,
                               .interleaved = true,
                               .part = {{"mlp.gate_proj", c->intermediate}, {"mlp.up_proj", c->intermediate}}};
    default:
        return (struct fusion){.layer = "down",
                               .k = c->intermediate,
                               .n = c->hidden,
                               .parts = 1,
                               .by_k = true,
                               .part = {{"mlp.down_proj", c->hidden}}};
    }
}

enum epilogue linear_epilogue(int which) {
    static const enum epilogue epilogues[LAYER_LINEARS] = {[LINEAR_QKV] = EPILOGUE_BIAS,
                                                           [LINEAR_O] = EPILOGUE_RESIDUAL,
                                                           [LINEAR_GATE_UP] = EPILOGUE_SILU_MUL,
                                                           [LINEAR_DOWN] = EPILOGUE_RESIDUAL};
    return epilogues[which];
}

/* Of the summands that ranks have of a residual, the first one's takes what was there. */
static enum epilogue epilogue_of(int which, int rank) {
    enum epilogue epilogue = linear_epilogue(which);
    return epilogue == EPILOGUE_RESIDUAL && rank ? EPILOGUE_NONE : epilogue;
}

static struct linear linear_of(const struct model_config *config, enum method method, int rank, int which,
                               const struct fusion *fusion) {
    struct linear linear = {.op = OP_FP16_GEMM, .k = fusion->k, .n = fusion->n, .epilogue = epilogue_of(which, rank)};
    if (method == METHOD_NONE) return linear;
    bool marlin = method == METHOD_AWQ_MARLIN || method == METHOD_GPTQ_MARLIN;
    linear.op = marlin ? OP_MARLIN_GEMM : OP_AWQ_DEQUANT;
    linear.group = config->group_all ? fusion->k : config->group;
    linear.zeros = !marlin || config->quant == QUANT_AWQ || !config->symmetric;
    return linear;
}

static struct linear head_of(const struct model_config *config, int ranks) {
    return (struct linear){.op = OP_FP16_GEMM, .k = config->hidden, .n = share_head(config->vocab, ranks)};
}

struct problem linear_problem(const struct linear *linear, int m) {
    struct problem problem = {
        .op = linear->op, .m = 1, .n = linear->n, .k = linear->k, .group = linear->group, .zeros = linear->zeros};
    if (linear->op == OP_AWQ_DEQUANT) return problem;
    problem.m = m;
    problem.epilogue = linear->epilogue;
    problem.norm = linear->gain && !linear->columns;
    return problem;
}

size_t linear_bytes(const struct linear *linear) {
    struct problem problem = linear_problem(linear, 1);
    struct operand_bytes bytes = problem_operand_bytes(&problem);
    return bytes.weights + bytes.scales + bytes.zeros;
}

static int check_linear(const struct model_config *part, enum method method, int which, struct error *error) {
    struct fusion fusion = fusion_of(part, which);
    struct linear linear = linear_of(part, method, 0, which, &fusion);
    struct problem problem = linear_problem(&linear, 1);
    if (problem_check(&problem, error))
        return error_prefix(error, "--quantization %s: no kernel takes this model's %s matrix", method_name(method),
                            fusion.layer);
    for (int p = 0; p < fusion.parts; p++)
        if (fusion.part[p].n % 64)
            return error_set(error, "%s has %d outputs; %s fuses it, and that takes multiples of 64",
                             fusion.part[p].name, fusion.part[p].n, fusion.layer);
    return 0;
}

static int check_shapes(const struct model_config *config, enum method method, int ranks, struct error *error) {
    struct model_config part;
    if (share_config(config, ranks, &part, error)) return -1;
    for (int i = 0; i < LAYER_LINEARS; i++)
        if (check_linear(&part, method, i, error)) return -1;
    struct linear head = head_of(config, ranks);
    struct problem problem = linear_problem(&head, 1);
    return problem_check(&problem, error) ? error_prefix(error, "no kernel takes this model's lm_head matrix") : 0;
}

int weights_check(const struct model_config *config, enum method method, int ranks, struct error *error) {
    struct error why;
    char accepted[128] = "";
    if (!check_shapes(config, method, ranks, &why)) return 0;
    for (int i = 1; ranks > 1 && i <= config->kv_heads; i++) {
        size_t used = strlen(accepted);
        if (!check_shapes(config, method, i, NULL))
            snprintf(accepted + used, sizeof accepted - used, "%s%d", used ? ", " : "", i);
    }
    if (!*accepted) return error_set(error, "%s", why.text);
    return error_set(error, "--tp %d: %s; accepted for this model: %s", ranks, why.text, accepted);
}

static void *take(struct loader *loader, size_t bytes) {
    struct weights *w = loader->weights;
    void **blocks = realloc(w->blocks, (w->block_count + 1) * sizeof *blocks);
    if (!blocks) {
        error_set(loader->error, "out of memory");
        return NULL;
    }
    w->blocks = blocks;
    void *memory = device_alloc(w->device, bytes, loader->error);
    if (!memory) {
        error_prefix(loader->error, "weights");
        return NULL;
    }
    w->blocks[w->block_count++] = memory;
    w->bytes += bytes;
    return memory;
}

static int take_linear(struct loader *loader, struct linear *linear) {
    struct problem problem = linear_problem(linear, 1);
    struct operand_bytes bytes = problem_operand_bytes(&problem);
    if (!(linear->weights = take(loader, bytes.weights))) return -1;
    if (bytes.scales && !(linear->scales = take(loader, bytes.scales))) return -1;
    if (bytes.zeros && !(linear->zero_points = take(loader, bytes.zeros))) return -1;
    return 0;
}

/* --- tensors of a checkpoint --- */

static float element(const struct tensor *tensor, size_t index) {
    uint16_t word;
    float value;
    if (tensor->dtype == DTYPE_F32) {
        memcpy(&value, (const char *)tensor->data + 4 * index, 4);
        return value;
    }
    memcpy(&word, (const char *)tensor->data + 2 * index, 2);
    return tensor->dtype == DTYPE_BF16 ? bf16_to_float(word) : half_to_float(word);
}

/* Elements `first`.. of a float tensor as fp16. */
static int convert_half(struct loader *loader, const struct tensor *tensor, size_t first, size_t count, uint16_t *to) {
    for (size_t i = 0; i < count; i++) {
        to[i] = half_from_float(element(tensor, first + i));
        if ((to[i] & 0x7fff) >= 0x7c00)
            return error_set(loader->error,
                             "%s: %s has the value %g at element %zu, beyond fp16's 65504; weights "
                             "are kept as fp16 here",
                             tensor->file, tensor->name, element(tensor, first + i), first + i);
    }
    return 0;
}

/* A float tensor as fp16 to device memory. */
static int write_half(struct loader *loader, const struct tensor *tensor, size_t count, uint16_t *to) {
    struct device *device = loader->weights->device;
    if (tensor->dtype == DTYPE_F16) return device_write(device, to, tensor->data, 2 * count, loader->error);
    for (size_t done = 0; done < count;) {
        size_t slice = count - done < STAGING ? count - done : STAGING;
        if (convert_half(loader, tensor, done, slice, loader->staging)) return -1;
        if (device_write(device, to + done, loader->staging, 2 * slice, loader->error)) return -1;
        done += slice;
    }
    return 0;
}

/* This rank's part, (rows, columns), until the next call. */
static const struct tensor *get(struct loader *loader, int layer, const char *linear, const char *tensor,
                                unsigned dtypes, int64_t rows, int64_t columns, enum share_side side) {
    const struct share *share = loader->share;
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.%s.%s", layer, linear, tensor);
    int64_t all_rows = side == SHARE_ROWS ? rows * share->ranks : rows;
    int64_t all_columns = side == SHARE_COLUMNS ? columns * share->ranks : columns;
    const struct tensor *whole = checkpoint_get(loader->checkpoint, name, dtypes, all_rows, all_columns, loader->error);
    if (!whole || share_tensor(share, whole, side, rows, &loader->part, &loader->part_room, loader->error)) return NULL;
    return &loader->part;
}

static float *load_norm(struct loader *loader, const char *name) {
    int hidden = loader->config->hidden;
    const struct tensor *tensor = checkpoint_get(loader->checkpoint, name, FLOATS, hidden, 0, loader->error);
    size_t bytes = (size_t)hidden * sizeof(float);
    float *values = tensor ? malloc(bytes) : NULL, *norm = NULL;
    if (tensor && !values) error_set(loader->error, "out of memory");
    for (int i = 0; values && i < hidden; i++) values[i] = element(tensor, (size_t)i);
    if (values && (norm = take(loader, bytes)) &&
        device_write(loader->weights->device, norm, values, bytes, loader->error))
        norm = NULL;
    free(values);
    return norm;
}

/* Of the parts, one behind the other. Synthetic ones are zero. */
static int load_bias(struct loader *loader, int layer, const struct fusion *fusion, struct linear *linear) {
    size_t bytes = (size_t)fusion->n * sizeof *linear->bias;
    uint16_t *to = linear->bias = take(loader, bytes);
    if (!to) return -1;
    if (!loader->checkpoint) return device_fill(loader->weights->device, to, 0, bytes, loader->error);
    for (int p = 0; p < fusion->parts; to += fusion->part[p++].n) {
        int n = fusion->part[p].n;
        const struct tensor *tensor = get(loader, layer, fusion->part[p].name, "bias", FLOATS, n, 0, SHARE_ROWS);
        if (!tensor || write_half(loader, tensor, (size_t)n, to)) return -1;
    }
    return 0;
}

/* Some quantisers write biases for linears that have none: all n of all ranks must be zero. */
static int check_no_bias(struct loader *loader, int layer, const char *linear, int n) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.%d.%s.bias", layer, linear);
    if (!checkpoint_find(loader->checkpoint, name)) return 0;
    const struct tensor *tensor = checkpoint_get(loader->checkpoint, name, FLOATS, n, 0, loader->error);
    if (!tensor) return -1;
    for (int i = 0; i < n; i++)
        if (element(tensor, (size_t)i) != 0)
            return error_set(loader->error, "%s: %s is not zero; Qwen2 has biases on q, k and v only", tensor->file,
                             name);
    return 0;
}

/* Which columns of the fused matrix the part has. */
static void place_part(const struct fusion *fusion, int part, struct repack *repack) {
    repack->n = fusion->part[part].n;
    repack->n_total = fusion->n;
    if (fusion->interleaved)
        repack->columns = part ? COLUMNS_SECOND_EIGHTS : COLUMNS_FIRST_EIGHTS;
    else
        for (int p = 0; p < part; p++) repack->n_offset += fusion->part[p].n;
}

/* --- fp16 matrices: (N, K), so parts that lie side by side follow one another --- */

static int load_fp16(struct loader *loader, int layer, const struct fusion *fusion, struct linear *linear) {
    for (int p = 0; p < fusion->parts; p++) {
        struct repack repack = {.from = FORMAT_HALF, .to = FORMAT_HALF, .k = fusion->k, .groups = 1};
        place_part(fusion, p, &repack);
        size_t row = (size_t)fusion->k;
        uint16_t *to = fusion->interleaved ? loader->raw : (uint16_t *)linear->weights + (size_t)repack.n_offset * row;
        const struct tensor *tensor = get(loader, layer, fusion->part[p].name, "weight", FLOATS, repack.n, fusion->k,
                                          fusion->by_k ? SHARE_COLUMNS : SHARE_ROWS);
        if (!tensor || write_half(loader, tensor, (size_t)repack.n * row, to)) return -1;
        if (fusion->interleaved &&
            repack_weights(loader->weights->device, &repack, loader->raw, linear->weights, loader->error))
            return -1;
    }
    return 0;
}

/* --- int4 matrices: each part goes to the device as it lies and is repacked there into its columns --- */

static int write_raw(struct loader *loader, const struct tensor *tensor) {
    return device_write(loader->weights->device, loader->raw, tensor->data, tensor->bytes, loader->error);
}

/* A symmetric checkpoint's zero points are dropped, so they must be 8 (v1 stores 7). */
static int check_symmetric(struct loader *loader, const struct tensor *zeros) {
    uint32_t expected = loader->config->gptq_v2 ? 0x88888888 : 0x77777777, word;
    for (size_t i = 0; i < zeros->bytes / 4; i++) {
        memcpy(&word, (const char *)zeros->data + 4 * i, 4);
        if (word != expected)
            return error_set(loader->error,
                             "%s: quantization_config says sym, but %s (%s) has the word 0x%08x where "
                             "symmetric weights have 0x%08x",
                             loader->config->quant_file, zeros->name, zeros->file, word, expected);
    }
    return 0;
}

/* Words of the part's weights, its scales, its zero points, each into its columns of the fused matrix. */
static int load_words(struct loader *loader, int layer, const char *name, const struct repack *repack,
                      enum share_side side, struct linear *linear) {
    bool awq = repack->from == FORMAT_AWQ;
    int rows = awq ? repack->k : repack->k / 8, columns = awq ? repack->n / 8 : repack->n;
    const struct tensor *words = get(loader, layer, name, "qweight", 1 << DTYPE_I32, rows, columns, side);
    if (!words || write_raw(loader, words)) return -1;
    return repack_weights(loader->weights->device, repack, loader->raw, linear->weights, loader->error);
}

static int load_scales(struct loader *loader, int layer, const char *name, const struct repack *repack,
                       enum share_side side, struct linear *linear) {
    size_t count = (size_t)repack->groups * (size_t)repack->n;
    const struct tensor *scales = get(loader, layer, name, "scales", FLOATS, repack->groups, repack->n, side);
    if (!scales || write_half(loader, scales, count, loader->raw)) return -1;
    return repack_scales(loader->weights->device, repack, loader->raw, linear->scales, loader->error);
}

static int load_zeros(struct loader *loader, int layer, const char *name, const struct repack *repack,
                      enum share_side side, struct linear *linear) {
    const struct tensor *zeros =
        get(loader, layer, name, "qzeros", 1 << DTYPE_I32, repack->groups, repack->n / 8, side);
    if (!zeros) return -1;
    if (!linear->zeros) return check_symmetric(loader, zeros);
    if (write_raw(loader, zeros)) return -1;
    return repack_zeros(loader->weights->device, repack, loader->raw, linear->zero_points, loader->error);
}

static bool groups_in_order(const int32_t *g_idx, int k, int group) {
    for (int i = 0; i < k; i++)
        if (g_idx[i] != i / group) return false;
    return true;
}

/* g_idx of a part, copied because a mapped tensor may lie anywhere. NULL with *absent if there is none. */
static int32_t *read_g_idx(struct loader *loader, int layer, const char *name, int k, bool *absent) {
    char full[96];
    snprintf(full, sizeof full, "model.layers.%d.%s.g_idx", layer, name);
    *absent = !loader->config->desc_act && !checkpoint_find(loader->checkpoint, full);
    if (*absent) return NULL;
    const struct tensor *tensor = checkpoint_get(loader->checkpoint, full, 1 << DTYPE_I32, k, 0, loader->error);
    if (!tensor) return NULL;
    int32_t *g_idx = malloc(tensor->bytes);
    if (g_idx)
        memcpy(g_idx, tensor->data, tensor->bytes);
    else
        error_set(loader->error, "out of memory");
    return g_idx;
}

static int same_groups(struct loader *loader, int layer, const struct fusion *fusion, const int32_t *first) {
    for (int p = 1; p < fusion->parts; p++) {
        bool absent;
        int32_t *g_idx = read_g_idx(loader, layer, fusion->part[p].name, fusion->k, &absent);
        if (!g_idx && !absent) return -1;
        bool same = g_idx && !memcmp(first, g_idx, (size_t)fusion->k * sizeof *g_idx);
        free(g_idx);
        if (!same)
            return error_set(loader->error,
                             "layer %d: g_idx of %s and %s differ; fused into %s, they must read x in "
                             "the same order",
                             layer, fusion->part[0].name, fusion->part[p].name, fusion->layer);
    }
    return 0;
}

/* Rows of W on all ranks together. */
static int whole_k(const struct loader *loader, const struct fusion *fusion) {
    return fusion->by_k ? fusion->k * loader->share->ranks : fusion->k;
}

static int set_columns(struct loader *loader, const int32_t *g_idx, struct linear *linear) {
    size_t bytes = (size_t)linear->k * sizeof(int32_t);
    int32_t *columns = malloc(bytes);
    int status = columns ? 0 : error_set(loader->error, "out of memory");
    if (!status) status = gptq_permutation(g_idx, linear->k, linear->group, columns, loader->error);
    if (!status && !(linear->columns = take(loader, bytes))) status = -1;
    if (!status) status = device_write(loader->weights->device, linear->columns, columns, bytes, loader->error);
    free(columns);
    return status;
}

/* Sets linear->columns when the rows' groups are not in order (desc_act). */
static int load_permutation(struct loader *loader, int layer, const struct fusion *fusion, struct linear *linear) {
    bool absent;
    int k = whole_k(loader, fusion), group = loader->config->group_all ? k : linear->group;
    int32_t *g_idx = read_g_idx(loader, layer, fusion->part[0].name, k, &absent);
    if (!g_idx) return absent ? 0 : -1;
    int status = same_groups(loader, layer, fusion, g_idx);
    if (!status && !groups_in_order(g_idx, k, group)) {
        if (k > fusion->k)
            status = error_set(loader->error,
                               "layer %d: the rows of %s are not in the order of their groups (desc_act), so that "
                               "several devices would share a group; --tp takes checkpoints without that",
                               layer, fusion->part[0].name);
        else
            status = set_columns(loader, g_idx, linear);
    }
    free(g_idx);
    return status;
}

static int load_int4(struct loader *loader, int layer, const struct fusion *fusion, struct linear *linear) {
    const struct model_config *config = loader->config;
    bool awq = config->quant == QUANT_AWQ;
    enum share_side side = fusion->by_k ? SHARE_ROWS : SHARE_COLUMNS;
    enum share_side groups = fusion->by_k && config->group_all ? SHARE_NOTHING : side;
    if (!awq && load_permutation(loader, layer, fusion, linear)) return -1;
    const struct repack all = {
        .from = awq               ? FORMAT_AWQ
                : config->gptq_v2 ? FORMAT_GPTQ_V2
                                  : FORMAT_GPTQ_V1,
        .to = linear->op == OP_MARLIN_GEMM ? FORMAT_MARLIN : FORMAT_AWQ,
        .k = fusion->k,
        .groups = fusion->k / linear->group,
        .perm = linear->columns,
    };
    for (int p = 0; p < fusion->parts; p++) {
        struct repack repack = all;
        const char *name = fusion->part[p].name;
        place_part(fusion, p, &repack);
        if (load_words(loader, layer, name, &repack, side, linear) ||
            load_scales(loader, layer, name, &repack, groups, linear) ||
            load_zeros(loader, layer, name, &repack, groups, linear))
            return -1;
    }
    return 0;
}

/* --- synthetic weights: uniform, scaled so that each product keeps the size of its input --- */

/* K of the whole matrix: its ranks' products are added up. */
static int fill_linear(struct loader *loader, struct linear *linear, int k) {
    struct device *device = loader->weights->device;
    struct problem problem = linear_problem(linear, 1);
    struct operand_bytes bytes = problem_operand_bytes(&problem);
    uint64_t seed = loader->seed;
    loader->seed += 3;
    float bound = sqrtf(3.0f / (float)k);
    if (linear->op == OP_FP16_GEMM)
        return reference_fill_half(device, linear->weights, bytes.weights / 2, -bound, bound, seed, loader->error);
    /* A code minus its zero point deviates by 6.5: the scales bring that to 1 / sqrt(K). */
    float scale = 1 / (6.5f * sqrtf((float)k));
    if (reference_fill_bits(device, linear->weights, bytes.weights, seed, loader->error) ||
        reference_fill_half(device, linear->scales, bytes.scales / 2, 0.5f * scale, 1.5f * scale, seed + 1,
                            loader->error))
        return -1;
    return linear->zeros ? reference_fill_bits(device, linear->zero_points, bytes.zeros, seed + 2, loader->error) : 0;
}

static float *constant(struct loader *loader, int count, float value) {
    size_t bytes = (size_t)count * sizeof(float);
    float *memory = take(loader, bytes), *host = memory ? malloc(bytes) : NULL;
    if (!memory) return NULL;
    for (int i = 0; host && i < count; i++) host[i] = value;
    if (host ? device_write(loader->weights->device, memory, host, bytes, loader->error)
             : error_set(loader->error, "out of memory"))
        memory = NULL;
    free(host);
    return memory;
}

/* --- the model --- */

static int load_gain(struct loader *loader, int index, const char *norm, struct linear *linear) {
    char name[64];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", index, norm);
    linear->gain = loader->checkpoint ? load_norm(loader, name) : constant(loader, loader->config->hidden, 1);
    return linear->gain ? 0 : -1;
}

static int load_linear(struct loader *loader, int layer, int which, struct linear *linear) {
    struct fusion fusion = fusion_of(loader->config, which);
    *linear = linear_of(loader->config, loader->method, loader->share->rank, which, &fusion);
    bool biased = linear->epilogue == EPILOGUE_BIAS;
    if (take_linear(loader, linear) || (biased && load_bias(loader, layer, &fusion, linear))) return -1;
    if (!loader->checkpoint) return fill_linear(loader, linear, whole_k(loader, &fusion));
    int ranks = fusion.by_k ? 1 : loader->share->ranks;
    for (int p = 0; !biased && p < fusion.parts; p++)
        if (check_no_bias(loader, layer, fusion.part[p].name, fusion.part[p].n * ranks)) return -1;
    return linear->op == OP_FP16_GEMM ? load_fp16(loader, layer, &fusion, linear)
                                      : load_int4(loader, layer, &fusion, linear);
}

/* The rows of the vocabulary that are this rank's; the last ranks may have fewer than others, or none. */
static int load_head(struct loader *loader, struct linear *head) {
    const struct model_config *config = loader->config;
    *head = head_of(config, loader->share->ranks);
    if (take_linear(loader, head)) return -1;
    if (!loader->checkpoint) return fill_linear(loader, head, head->k);
    const char *name = config->tied ? "model.embed_tokens.weight" : "lm_head.weight";
    const struct tensor *tensor =
        checkpoint_get(loader->checkpoint, name, FLOATS, config->vocab, config->hidden, loader->error);
    if (!tensor || device_fill(loader->weights->device, head->weights, 0, linear_bytes(head), loader->error)) return -1;
    int first = loader->share->rank * head->n, left = config->vocab - first, rows = left < head->n ? left : head->n;
    if (rows <= 0) return 0;
    struct tensor part = *tensor;
    part.data = (const char *)tensor->data + tensor->bytes / (size_t)config->vocab * (size_t)first;
    return write_half(loader, &part, (size_t)rows * (size_t)config->hidden, head->weights);
}

/* A step needs one row of it a token: it stays on the host, where the devices read it, unless the head is the same
 * matrix. */
static int load_embedding(struct loader *loader) {
    struct weights *w = loader->weights;
    const struct model_config *config = loader->config;
    size_t count = (size_t)config->vocab * (size_t)config->hidden;
    if (loader->share->rank) return 0;
    if (config->tied && loader->share->ranks == 1) {
        w->embedding = w->head.weights;
        return 0;
    }
    w->embedding = w->host_block = device_alloc_host(w->device, 2 * count, loader->error);
    if (!w->embedding) return error_prefix(loader->error, "embedding");
    w->embedding_bytes = 2 * count;
    if (!loader->checkpoint)
        return reference_fill_half(w->device, w->host_block, count, -1, 1, loader->seed++, loader->error);
    const struct tensor *tensor = checkpoint_get(loader->checkpoint, "model.embed_tokens.weight", FLOATS, config->vocab,
                                                 config->hidden, loader->error);
    return tensor ? convert_half(loader, tensor, 0, count, w->host_block) : -1;
}

static int load_outside(struct loader *loader) {
    struct weights *w = loader->weights;
    w->final_norm =
        loader->checkpoint ? load_norm(loader, "model.norm.weight") : constant(loader, loader->config->hidden, 1);
    if (!w->final_norm || load_head(loader, &w->head)) return -1;
    return load_embedding(loader);
}

static int load_all(struct loader *loader) {
    struct weights *w = loader->weights;
    w->layers = calloc((size_t)loader->config->layers, sizeof *w->layers);
    if (!w->layers) return error_set(loader->error, "out of memory");
    if (load_outside(loader)) return -1;
    for (int i = 0; i < loader->config->layers; i++) {
        for (int which = 0; which < LAYER_LINEARS; which++)
            if (load_linear(loader, i, which, &w->layers[i].linear[which])) return -1;
        if (load_gain(loader, i, "input_layernorm", &w->layers[i].linear[LINEAR_QKV]) ||
            load_gain(loader, i, "post_attention_layernorm", &w->layers[i].linear[LINEAR_GATE_UP]))
            return -1;
    }
    return device_synchronize(w->device, loader->error);
}

/* Room for the largest tensor that is repacked: of int4 all are, of fp16 the interleaved ones. */
static int take_raw(struct loader *loader) {
    size_t most = 0;
    for (int i = 0; i < LAYER_LINEARS; i++) {
        struct fusion fusion = fusion_of(loader->config, i);
        size_t weights = (size_t)fusion.k * (size_t)fusion.part[0].n;
        size_t bytes = loader->method != METHOD_NONE ? weights / 2 : fusion.interleaved ? weights * 2 : 0;
        most = bytes > most ? bytes : most;
    }
    loader->raw = device_alloc(loader->weights->device, most, loader->error);
    return loader->raw ? 0 : error_prefix(loader->error, "room to repack weights");
}

int weights_load(struct device *device, const struct model_config *config, const struct share *share,
                 const struct checkpoint *checkpoint, enum method method, unsigned long long seed,
                 struct weights *weights, struct error *error) {
    struct model_config part;
    struct loader loader = {.weights = weights,
                            .config = &part,
                            .share = share,
                            .checkpoint = checkpoint,
                            .method = method,
                            .seed = seed + ((uint64_t)share->rank << 32), /* each rank's weights are its own */
                            .error = error};
    *weights = (struct weights){.device = device};
    if (share_config(config, share->ranks, &part, error)) return -1;
    loader.staging = malloc(STAGING * sizeof *loader.staging);
    if (!loader.staging) return error_set(error, "out of memory");
    int status = checkpoint ? take_raw(&loader) : 0;
    if (!status) status = load_all(&loader);
    device_free(device, loader.raw);
    free(loader.part_room);
    free(loader.staging);
    return status;
}

void weights_free(struct weights *weights) {
    for (size_t i = 0; i < weights->block_count; i++) device_free(weights->device, weights->blocks[i]);
    device_free_host(weights->device, weights->host_block);
    free(weights->blocks);
    free(weights->layers);
    *weights = (struct weights){0};
}
