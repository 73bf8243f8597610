#include "bench/decoder/forward.h"

#include <stdio.h>

#include "bench/nvtx.h"
#include "kernels/communicator.h"

int forward_width(const struct model *model) {
    return model->weights.head.n * model->share.ranks;
}

size_t forward_position_bytes(const struct model *model) {
    return (size_t)model->config->kv_heads * (size_t)model->config->head_dim * kv_bytes(model->options.kv);
}

size_t forward_page_bytes(const struct model *model) {
    return OPS_PAGE * forward_position_bytes(model);
}

int32_t *forward_prompt_pages(const struct model *model) {
    return model->buffers.pages + (size_t)model->options.sequences * (size_t)pages_pitch(model->pages);
}

/* --- ops --- */

struct problem forward_dense_problem(const struct linear *linear, int m) {
    return (struct problem){.op = OP_FP16_GEMM, .m = m, .n = linear->n, .k = linear->k, .epilogue = linear->epilogue};
}

/* A GEMM whose weights the kernel ahead of it writes. */
static int run_behind(struct model *model, const struct problem *problem, struct operands operands,
                      struct error *error) {
    const enum device_overlap overlap = device_limit_overlap(model->device, OVERLAP_START);
    int status = plans_run(model->plans, problem, operands, error);
    device_overlap(model->device, overlap);
    return status;
}

/* Whether the linear's GEMM normalises the residual itself. */
static bool takes_residual(struct model *model, const struct linear *linear, int m) {
    const struct problem problem = linear_problem(linear, m);
    return plans_norms(model->plans, &problem);
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
                                .y = y,
                                .gain = linear->gain,
                                .epsilon = (float)model->config->rms_eps};
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
    problem = forward_dense_problem(linear, m);
    return run_behind(model, &problem, gemm, error);
}

/* The pass as the last layer goes on with it, once it has keys and values of all rows. */
static struct pass kept_rows(const struct pass *pass) {
    struct pass kept = *pass;
    kept.rows = pass->kept;
    kept.first += pass->rows - pass->kept;
    kept.position += pass->rows - pass->kept;
    return kept;
}

static uint16_t *residual_of(const struct model *model, const struct pass *pass) {
    return model->buffers.residual + (size_t)pass->first * (size_t)model->config->hidden;
}

/* Its residual, to x. */
static int norm(struct model *model, const float *weight, const struct pass *pass, struct error *error) {
    const struct model_config *c = model->config;
    struct ops_rms_norm norm = {residual_of(model, pass), weight, model->buffers.x, pass->rows, c->hidden,
                                (float)c->rms_eps};
    return model->ops.functions->rms_norm(&model->ops, &norm, error);
}

/* What the linear reads, unless it normalises that itself. */
static int norm_for(struct model *model, const struct linear *linear, const struct pass *pass, struct error *error) {
    return takes_residual(model, linear, pass->rows) ? 0 : norm(model, linear->gain, pass, error);
}

/* y = the linear behind norm_for. */
static int run_normed(struct model *model, const struct linear *linear, const struct pass *pass, uint16_t *y,
                      struct error *error) {
    const uint16_t *x = takes_residual(model, linear, pass->rows) ? residual_of(model, pass) : model->buffers.x;
    return run_linear(model, linear, x, pass->rows, y, error);
}

static int embed(struct model *model, const struct pass *pass, struct error *error) {
    const struct ops_sequence *sequences = steps_sequences(model->steps, model->share.rank);
    const struct ops_embed embed = {
        .table = model->weights.embedding,
        .ids = pass->step ? &sequences->token : model->buffers.ids + pass->id,
        .y = model->buffers.residual,
        .rows = pass->rows,
        .width = model->config->hidden,
        .stride = pass->step ? sizeof *sequences / sizeof sequences->token : 1,
    };
    return model->ops.functions->embed(&model->ops, &embed, error);
}

static int attend_chunk(struct model *model, const struct pass *pass, void *keys, void *values, struct error *error) {
    const struct model_config *c = model->config;
    struct buffers *b = &model->buffers;
    struct ops_cache all = {keys,        values,      forward_prompt_pages(model),
                            c->kv_heads, c->head_dim, pass->position - pass->first};
    struct ops_cache cache = all;
    cache.position = pass->position;
    const uint16_t *qkv = b->qkv + (size_t)pass->first * (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->head_dim;
    struct ops_rope rope = {all, b->qkv, b->frequency, pass->first + pass->rows, c->heads};
    struct ops_attention attention = {cache, qkv, b->x, pass->rows, c->heads};
    if (model->ops.functions->rope(&model->ops, &rope, error)) return -1;
    return pass->rows ? model->ops.functions->attention(&model->ops, &attention, error) : 0;
}

static int attend_step(struct model *model, const struct pass *pass, void *keys, void *values, struct error *error) {
    const struct model_config *c = model->config;
    struct buffers *b = &model->buffers;
    int splits = ops_attend_splits(model->device, pass->rows, c->kv_heads, model->options.context);
    struct ops_attend attend = {
        .keys = keys,
        .values = values,
        .pages = b->pages,
        .qkv = b->qkv,
        .frequency = b->frequency,
        .sequences = steps_sequences(model->steps, model->share.rank),
        .parts = b->parts,
        .arrivals = b->arrivals,
        .y = b->x,
        .count = pass->rows,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .pitch = pages_pitch(model->pages),
        .head_dim = c->head_dim,
        .splits = splits,
        .cluster = ops_attend_cluster(model->device, splits),
    };
    return model->ops.functions->attend(&model->ops, &attend, error);
}

static int attend(struct model *model, int index, const struct pass *pass, struct error *error) {
    size_t all = (size_t)pages_count(model->pages) * forward_page_bytes(model);
    char *keys = model->buffers.kv + 2 * (size_t)index * all;
    return pass->step ? attend_step(model, pass, keys, keys + all, error)
                      : attend_chunk(model, pass, keys, keys + all, error);
}

static int sample(struct model *model, int rows, struct error *error) {
    const struct buffers *b = &model->buffers;
    struct ops_sample sample = {.logits = b->logits,
                                .counts = b->counts,
                                .sampling = b->sampling,
                                .seen = b->seen,
                                .sequences = steps_sequences(model->steps, model->share.rank),
                                .ring = steps_ring(model->steps, model->share.rank),
                                .rows = rows,
                                .width = forward_width(model),
                                .limit = model->options.choices};
    return model->ops.functions->sample(&model->ops, &sample, error);
}

int forward_choose(struct model *model, int rows, struct error *error) {
    if (model->options.samples) return sample(model, rows, error);
    struct ops_argmax argmax = {.logits = model->buffers.logits,
                                .picks = model->buffers.picks,
                                .sequences = steps_sequences(model->steps, model->share.rank),
                                .ring = steps_ring(model->steps, model->share.rank),
                                .rows = rows,
                                .width = forward_width(model),
                                .limit = model->options.choices};
    return model->ops.functions->argmax(&model->ops, &argmax, error);
}

static int enqueue_op(struct model *model, int index, enum model_op op, const struct pass *pass, struct error *error) {
    const struct layer *layer = index < 0 ? NULL : &model->weights.layers[index];
    const struct buffers *b = &model->buffers;
    int m = pass->rows;
    switch (op) {
    case MODEL_EMBED:
        return embed(model, pass, error);
    case MODEL_INPUT_NORM:
        return norm_for(model, &layer->linear[LINEAR_QKV], pass, error);
    case MODEL_QKV:
        return run_normed(model, &layer->linear[LINEAR_QKV], pass, b->qkv, error);
    case MODEL_ATTEND:
        return attend(model, index, pass, error);
    case MODEL_O:
        return run_linear(model, &layer->linear[LINEAR_O], b->x, m, residual_of(model, pass), error);
    case MODEL_POST_NORM:
        return norm_for(model, &layer->linear[LINEAR_GATE_UP], pass, error);
    case MODEL_GATE_UP:
        return run_normed(model, &layer->linear[LINEAR_GATE_UP], pass, b->activation, error);
    case MODEL_DOWN:
        return run_linear(model, &layer->linear[LINEAR_DOWN], b->activation, m, residual_of(model, pass), error);
    case MODEL_FINAL_NORM:
        return norm(model, model->weights.final_norm, pass, error);
    case MODEL_HEAD:
        return run_linear(model, &model->weights.head, b->x, m, b->head ? b->head : b->logits, error);
    case MODEL_CHOOSE:
        return forward_choose(model, m, error);
    }
    return error_set(error, "op %d is none of the model's", (int)op);
}

/* From the parts that the ranks have to what all of them go on with: of o and down summands of the residual, of the
 * head some of the logits. */
static int join(struct model *model, enum model_op op, const struct pass *pass, struct error *error) {
    int ranks = model->share.ranks;
    bool sums = op == MODEL_O || op == MODEL_DOWN;
    uint16_t **to = model->places, **from = to + ranks;
    if (ranks == 1 || (!sums && op != MODEL_HEAD)) return 0;
    for (int i = 0; i < ranks; i++) {
        struct model *rank = model->ranks[i];
        to[i] = sums ? residual_of(rank, pass) : rank->buffers.logits;
        from[i] = rank->buffers.head;
    }
    struct communicator *communicator = model->options.communicator;
    if (sums) return all_reduce(communicator, to, (size_t)pass->rows * (size_t)model->config->hidden, error);
    return all_gather(communicator, from, to, pass->rows, model->weights.head.n, error);
}

int forward_op(struct model *model, int index, enum model_op op, const struct pass *pass, struct error *error) {
    nvtx_push(model_op_name(op));
    const struct model_call call = {index, op, pass->rows, pass->step ? -1 : pass->position};
    int status = model->enter ? model->enter(model->enter_context, &call, error) : 0;
    for (int i = 0; i < model->share.ranks && !status; i++)
        status = enqueue_op(model->ranks[i], index, op, pass, error);
    if (!status) status = join(model, op, pass, error);
    nvtx_pop();
    return status;
}

static int run_layer(struct model *model, int index, const struct pass *pass, struct error *error) {
    char name[32];
    int status = 0;
    struct pass here = *pass;
    enum model_op last = MODEL_DOWN;
    snprintf(name, sizeof name, "layer %d", index);
    nvtx_push(name);
    for (enum model_op op = MODEL_INPUT_NORM; op <= last && !status; op++) {
        if (op == MODEL_ATTEND && index == model->config->layers - 1) here = kept_rows(pass);
        if (!here.rows) last = MODEL_ATTEND;
        status = forward_op(model, index, op, &here, error);
    }
    nvtx_pop();
    return status ? error_prefix(error, "%s", name) : 0;
}

int forward_layers(struct model *model, const struct pass *pass, struct error *error) {
    if (forward_op(model, -1, MODEL_EMBED, pass, error)) return -1;
    for (int i = 0; i < model->config->layers; i++)
        if (run_layer(model, i, pass, error)) return -1;
    return 0;
}

int forward_head(struct model *model, int first, int rows, struct error *error) {
    const struct pass pass = {.rows = rows, .first = first};
    if (forward_op(model, -1, MODEL_FINAL_NORM, &pass, error) || forward_op(model, -1, MODEL_HEAD, &pass, error))
        return error_prefix(error, "lm_head");
    return 0;
}
