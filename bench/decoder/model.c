#include "bench/decoder/model.h"

#include <math.h>
#include <stdlib.h>

#include "bench/decoder/load.h"
#include "bench/decoder/ops.h"
#include "bench/decoder/plans.h"
#include "kernels/half.h"

/* Activations of one chunk: M rows each, fp16 unless said otherwise. */
struct buffers {
    uint16_t *residual;    /* (M, hidden): o and down add to it in place */
    uint16_t *x;           /* (M, hidden or heads * head_dim): what a GEMM reads */
    uint16_t *qkv;         /* (M, (heads + 2 kv_heads) * head_dim) */
    uint16_t *activation;  /* (M, intermediate): silu(gate) * up */
    uint16_t *gathered;    /* (M, largest K); of permuted linears */
    uint16_t *dequantized; /* the largest (N, K); of linears that are dequantised before their GEMM */
    uint16_t *logits;      /* (1, N of the head) */
    float *frequency;      /* (head_dim / 2), fp32 */
    uint16_t *kv;          /* (layers, 2, kv_heads, context, head_dim) */
};

struct model {
    struct device *device;
    const struct model_config *config;
    struct model_options options;
    struct weights weights;
    struct ops ops;
    struct plans *plans;
    struct buffers buffers;
    uint16_t *rows; /* host: embeddings of a chunk */
    uint16_t *host_logits;
    size_t kv_bytes, scratch_bytes;
};

/* --- making --- */

static void *take(struct model *model, size_t bytes, size_t *total, struct error *error) {
    void *memory = device_alloc(model->device, bytes, error);
    if (memory) *total += bytes;
    return memory;
}

/* Whether some linear has permuted columns; the elements of the largest that is dequantised. */
static bool survey(const struct model *model, size_t *dequantized) {
    bool permuted = false;
    for (int i = 0; i < model->config->layers; i++)
        for (int which = 0; which < LAYER_LINEARS; which++) {
            const struct linear *linear = &model->weights.layers[i].linear[which];
            size_t elements = (size_t)linear->n * (size_t)linear->k;
            if (linear->columns) permuted = true;
            if (linear->op == OP_AWQ_DEQUANT && elements > *dequantized) *dequantized = elements;
        }
    return permuted;
}

static int take_scratch(struct model *model, struct error *error) {
    const struct model_config *c = model->config;
    struct buffers *b = &model->buffers;
    size_t m = (size_t)model->options.chunk, hidden = (size_t)c->hidden, inner = (size_t)c->intermediate;
    size_t q = (size_t)c->heads * (size_t)c->head_dim, kv = (size_t)c->kv_heads * (size_t)c->head_dim;
    size_t widest = q > hidden ? q : hidden, *total = &model->scratch_bytes, dequantized = 0;
    bool permuted = survey(model, &dequantized);
    if (!(b->residual = take(model, 2 * m * hidden, total, error)) ||
        !(b->x = take(model, 2 * m * widest, total, error)) ||
        !(b->qkv = take(model, 2 * m * (q + 2 * kv), total, error)) ||
        !(b->activation = take(model, 2 * m * inner, total, error)) ||
        !(b->logits = take(model, 2 * (size_t)model->weights.head.n, total, error)) ||
        !(b->frequency = take(model, 2 * (size_t)c->head_dim, total, error)))
        return -1;
    if (permuted && !(b->gathered = take(model, 2 * m * (widest > inner ? widest : inner), total, error))) return -1;
    if (dequantized && !(b->dequantized = take(model, 2 * dequantized, total, error))) return -1;
    return 0;
}

static int write_frequency(struct model *model, struct error *error) {
    size_t pairs = (size_t)model->config->head_dim / 2;
    float *frequency = malloc(pairs * sizeof *frequency);
    if (!frequency) return error_set(error, "out of memory");
    for (size_t i = 0; i < pairs; i++) frequency[i] = (float)pow(model->config->rope_theta, -(double)i / (double)pairs);
    int status = device_write(model->device, model->buffers.frequency, frequency, pairs * sizeof *frequency, error);
    free(frequency);
    return status;
}

/* Elements of one layer's keys, or of its values. */
static size_t cache_elements(const struct model *model) {
    const struct model_config *c = model->config;
    return (size_t)c->kv_heads * (size_t)model->options.context * (size_t)c->head_dim;
}

static int set_up(struct model *model, const struct checkpoint *checkpoint, struct error *error) {
    const struct model_config *c = model->config;
    const struct model_options *options = &model->options;
    if (options->context < 1 || options->context > c->max_position)
        return error_set(error,
                         "a context of %d tokens was asked; this model takes 1 to %d (config.json: "
                         "max_position_embeddings)",
                         options->context, c->max_position);
    if (!options->synthetic && !checkpoint) return error_set(error, "neither a checkpoint nor synthetic weights");
    if (ops_open(model->device, c->head_dim, &model->ops, error)) return -1;
    model->plans = plans_create(model->device, options->table);
    model->rows = malloc((size_t)options->chunk * (size_t)c->hidden * sizeof *model->rows);
    if (!model->plans || !model->rows) return error_set(error, "out of memory");
    if (weights_load(model->device, c, options->synthetic ? NULL : checkpoint, options->method, options->seed,
                     &model->weights, error))
        return -1;
    model->host_logits = malloc((size_t)model->weights.head.n * sizeof *model->host_logits);
    if (!model->host_logits) return error_set(error, "out of memory");
    size_t kv = 4 * (size_t)c->layers * cache_elements(model);
    if (!(model->buffers.kv = take(model, kv, &model->kv_bytes, error)))
        return error_prefix(error, "KV cache of %d tokens (a smaller --ctx needs less)", options->context);
    return take_scratch(model, error) || write_frequency(model, error) ? -1 : 0;
}

int model_create(struct device *device, const struct model_config *config, const struct checkpoint *checkpoint,
                 const struct model_options *options, struct model **result, struct error *error) {
    *result = NULL;
    struct model *model = calloc(1, sizeof *model);
    if (!model) return error_set(error, "out of memory");
    *model = (struct model){.device = device, .config = config, .options = *options};
    if (model->options.chunk > options->context) model->options.chunk = options->context;
    if (model->options.chunk < 1) model->options.chunk = 1;
    if (set_up(model, checkpoint, error)) {
        model_destroy(model);
        return -1;
    }
    *result = model;
    return 0;
}

void model_destroy(struct model *model) {
    if (!model) return;
    struct buffers *b = &model->buffers;
    void *buffers[] = {b->residual,    b->x,      b->qkv,       b->activation, b->gathered,
                       b->dequantized, b->logits, b->frequency, b->kv};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) device_free(model->device, buffers[i]);
    plans_destroy(model->plans);
    weights_free(&model->weights);
    free(model->rows);
    free(model->host_logits);
    free(model);
}

/* --- running --- */

/* The fp16_gemm that follows a dequantisation. */
static struct problem dense_problem(const struct linear *linear, int m) {
    return (struct problem){.op = OP_FP16_GEMM, .m = m, .n = linear->n, .k = linear->k, .epilogue = linear->epilogue};
}

/* y = x W, then the linear's epilogue: (m, K) x (K, N). A residual is what y holds before. */
static int run_linear(struct model *model, const struct linear *linear, const uint16_t *x, int m, uint16_t *y,
                      struct error *error) {
    struct buffers *b = &model->buffers;
    struct problem problem = linear_problem(linear, m);
    struct operands operands = {.x = x,
                                .weights = linear->weights,
                                .scales = linear->scales,
                                .zeros = linear->zero_points,
                                .addend = linear->epilogue == EPILOGUE_RESIDUAL ? y : linear->bias,
                                .y = y};
    if (linear->columns) {
        struct ops_gather gather = {x, linear->columns, b->gathered, m, linear->k};
        if (model->ops.functions->gather(&model->ops, &gather, error)) return -1;
        operands.x = b->gathered;
    }
    if (linear->op != OP_AWQ_DEQUANT) return plans_run(model->plans, &problem, operands, error);
    struct operands dequant = operands,
                    gemm = {.x = operands.x, .weights = b->dequantized, .addend = operands.addend, .y = y};
    dequant.y = b->dequantized;
    if (plans_run(model->plans, &problem, dequant, error)) return -1;
    problem = dense_problem(linear, m);
    return plans_run(model->plans, &problem, gemm, error);
}

/* `rows` rows of the residual from row `first` on, to x. */
static int norm(struct model *model, const float *weight, int first, int rows, struct error *error) {
    const struct model_config *c = model->config;
    const uint16_t *residual = model->buffers.residual + (size_t)first * (size_t)c->hidden;
    struct ops_rms_norm norm = {residual, weight, model->buffers.x, rows, c->hidden, (float)c->rms_eps};
    return model->ops.functions->rms_norm(&model->ops, &norm, error);
}

static int attend(struct model *model, int index, int tokens, int position, struct error *error) {
    const struct model_config *c = model->config;
    struct buffers *b = &model->buffers;
    uint16_t *keys = b->kv + 2 * (size_t)index * cache_elements(model);
    struct ops_cache cache = {keys,    keys + cache_elements(model), c->kv_heads, model->options.context, c->head_dim,
                              position};
    struct ops_rope rope = {cache, b->qkv, b->frequency, tokens, c->heads};
    struct ops_attention attention = {cache, b->qkv, b->x, tokens, c->heads};
    if (model->ops.functions->rope(&model->ops, &rope, error)) return -1;
    return model->ops.functions->attention(&model->ops, &attention, error);
}

static int run_layer(struct model *model, int index, int tokens, int position, struct error *error) {
    const struct layer *layer = &model->weights.layers[index];
    const struct linear *linear = layer->linear;
    struct buffers *b = &model->buffers;
    if (norm(model, layer->input_norm, 0, tokens, error) ||
        run_linear(model, &linear[LINEAR_QKV], b->x, tokens, b->qkv, error) ||
        attend(model, index, tokens, position, error) ||
        run_linear(model, &linear[LINEAR_O], b->x, tokens, b->residual, error) ||
        norm(model, layer->post_norm, 0, tokens, error) ||
        run_linear(model, &linear[LINEAR_GATE_UP], b->x, tokens, b->activation, error) ||
        run_linear(model, &linear[LINEAR_DOWN], b->activation, tokens, b->residual, error))
        return error_prefix(error, "layer %d", index);
    return 0;
}

static int run_chunk(struct model *model, const int *ids, int tokens, int position, struct error *error) {
    size_t bytes = (size_t)tokens * (size_t)model->config->hidden * sizeof *model->rows;
    weights_embed(&model->weights, ids, tokens, model->rows);
    if (device_write(model->device, model->buffers.residual, model->rows, bytes, error)) return -1;
    for (int i = 0; i < model->config->layers; i++)
        if (run_layer(model, i, tokens, position, error)) return -1;
    return 0;
}

/* Logits of row `last` of the chunk that ran. */
static int read_logits(struct model *model, int last, float *logits, struct error *error) {
    struct buffers *b = &model->buffers;
    size_t vocab = (size_t)model->config->vocab;
    if (norm(model, model->weights.final_norm, last, 1, error) ||
        run_linear(model, &model->weights.head, b->x, 1, b->logits, error) ||
        device_read(model->device, model->host_logits, b->logits, 2 * vocab, error))
        return error_prefix(error, "lm_head");
    for (size_t i = 0; i < vocab; i++) logits[i] = half_to_float(model->host_logits[i]);
    return 0;
}

static int check_input(const struct model *model, const int *ids, int count, int position, struct error *error) {
    if (count < 1 || position < 0 || count > model->options.context - position)
        return error_set(error, "%d tokens at position %d do not fit a context of %d", count, position,
                         model->options.context);
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= model->config->vocab)
            return error_set(error, "token id %d is outside the vocabulary of %d (config.json: vocab_size)", ids[i],
                             model->config->vocab);
    return 0;
}

int model_forward(struct model *model, const int *ids, int count, int position, float *logits, struct error *error) {
    if (check_input(model, ids, count, position, error)) return -1;
    for (int done = 0; done < count;) {
        int tokens = count - done < model->options.chunk ? count - done : model->options.chunk;
        if (run_chunk(model, ids + done, tokens, position + done, error)) return -1;
        done += tokens;
        if (done == count && logits) return read_logits(model, tokens - 1, logits, error);
    }
    return 0;
}

static int prepare_linear(struct model *model, const struct linear *linear, int m, struct error *error) {
    struct problem problem = linear_problem(linear, m), dense = dense_problem(linear, m);
    if (plans_prepare(model->plans, &problem, error)) return -1;
    return linear->op == OP_AWQ_DEQUANT ? plans_prepare(model->plans, &dense, error) : 0;
}

int model_prepare(struct model *model, int count, struct error *error) {
    int chunk = model->options.chunk, sizes[] = {count < chunk ? count : chunk, count % chunk};
    for (int i = 0; i < 2; i++)
        for (int which = 0; sizes[i] && which < LAYER_LINEARS; which++)
            if (prepare_linear(model, &model->weights.layers[0].linear[which], sizes[i], error)) return -1;
    return prepare_linear(model, &model->weights.head, 1, error);
}

/* --- telling --- */

struct model_memory model_memory(const struct model *model) {
    return (struct model_memory){
        .weights = model->weights.bytes,
        .kv = model->kv_bytes,
        .scratch = model->scratch_bytes + plans_workspace(model->plans),
        .embedding = model->weights.embedding_bytes,
    };
}

double model_bytes_per_token(const struct model *model) {
    double bytes = (double)linear_bytes(&model->weights.head);
    for (int i = 0; i < model->config->layers; i++)
        for (int which = 0; which < LAYER_LINEARS; which++)
            bytes += (double)linear_bytes(&model->weights.layers[i].linear[which]);
    return bytes;
}

void model_print_plans(const struct model *model, FILE *stream) {
    plans_print(model->plans, stream);
}

int model_misses(const struct model *model, struct misses *misses, struct error *error) {
    return plans_misses(model->plans, misses, error);
}
